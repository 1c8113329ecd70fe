"""Logs how far score and IoU of the positives agree while a detector trains."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from balanced_det.evaluation.training import NotMeasurable, PositivesRecorder, summarize

PROPOSAL_HEADS = {'rpn_head', 'arm_head'}  # they tell objects from background, for another head to go on with


@HOOKS.register_module()
class ConsistencyHook(Hook):
    r"""Measures the positives of a batch every ``interval`` iterations, in stock heads too.

    * ``consistency/aic``: mean :math:`|p - IoU|` (paper B, Eq. 14).
    * ``consistency/beta_r_*``, ``consistency/beta_c_*``: the factors :math:`e^{-L_{loc}}` and :math:`e^{-CE}` of Eq. 3,
      as ``mean``, ``p10``, ``p50`` and ``p90``. Fig. 4a of the paper shows 1 more.
    * ``consistency/positives``: over how many.

    With several heads, as in Cascade R-CNN, their names stand between: ``consistency/roi_head.bbox_head.0/aic``. The
    values go where the losses go: to the text log and, through ``LoggerHook``, to TensorBoard and the other backends. A
    batch without positives gives none; mmengine then repeats the last ones.

    The values are read off the calls of the loss modules (:class:`~balanced_det.evaluation.PositivesRecorder`), so the
    training stays what it is, bit by bit. On several GPUs they are those of the batch of the first one.

    A head that cannot be measured is named in the log once, and the training goes on.

    Args:
        interval: Iterations between two measurements; with that of ``LoggerHook`` each is logged once.
        rpn: Measure the RPN of a two-stage detector and the ARM of a RefineDet too, whose scores are those of an object
            of any class.
    """

    priority = 'NORMAL'  # before LoggerHook

    def __init__(self, interval: int = 50, rpn: bool = False) -> None:
        if interval < 1:
            raise ValueError(f'ConsistencyHook.interval={interval!r} must be at least 1')
        self.interval = interval
        self.rpn = rpn
        self.recorders: dict[str, PositivesRecorder] = {}
        self.listening = False
        self._several = False
        self._silent: set[str] = set()

    def before_train(self, runner: Runner) -> None:
        """Find the heads."""
        self.recorders = {}
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        for name, head in detection_heads(model):
            if self.rpn or PROPOSAL_HEADS.isdisjoint(name.split('.')):
                try:
                    self.recorders[name] = PositivesRecorder(head)
                except NotMeasurable as error:
                    self._give_up(runner, name, head, error)
        self._several = len(self.recorders) > 1
        if not self.recorders:
            runner.logger.warning('ConsistencyHook: no head of this model can be measured')

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Listen to the loss modules, if the iteration is to be measured."""
        # Not all GPUs: nothing is exchanged, and only the first one logs.
        self.listening = self._is_due(runner, batch_idx) and is_main_process()
        if self.listening:
            for recorder in self.recorders.values():
                recorder.start()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Log what was heard."""
        if not self.listening:
            return
        self.listening = False
        for name, recorder in list(self.recorders.items()):
            try:
                positives = recorder.stop()
            except NotMeasurable as error:
                self._give_up(runner, name, recorder.head, error)
                continue
            if positives is not None:
                prefix = f'train/consistency/{name}/' if self._several else 'train/consistency/'
                for key, value in summarize(positives).items():
                    runner.message_hub.update_scalar(prefix + key, value)
            elif not (recorder.num_calls or recorder.is_joint or name in self._silent):
                self._silent.add(name)
                runner.logger.warning(f'ConsistencyHook: {name} did not call its losses in this iteration')

    def _is_due(self, runner: Runner, batch_idx: int) -> bool:
        # The iterations that LoggerHook logs: of an epoch that is shorter than the interval, the last.
        if self.every_n_inner_iters(batch_idx, self.interval):
            return True
        loader = runner.train_dataloader
        return len(loader) <= self.interval and self.end_of_epoch(loader, batch_idx)

    def _give_up(self, runner: Runner, name: str, head: nn.Module, reason: Exception) -> None:
        self.recorders.pop(name, None)
        runner.logger.warning(f'ConsistencyHook: {name} ({type(head).__name__}) cannot be measured: {reason}')


def detection_heads(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The heads of a detector that classify and regress boxes, with their module names."""
    for name, module in model.named_modules():
        has_losses = hasattr(module, 'loss_cls') and hasattr(module, 'loss_bbox')
        if has_losses or isinstance(module, (BaseDenseHead, BBoxHead)):
            yield name, module
