"""Sets w_loc of the IoU-balanced localisation losses in the first iteration of a training."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmdet.registry import HOOKS
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from balanced_det.calibration import calibratable_losses, collected_sums, w_loc

INFO = 'loc_weight_calibration'  # the name of the state in the checkpoint's message hub
MAX_WAITS = 100  # batches in a row; a loss that is never called, as that of a teacher, would wait for ever


@HOOKS.register_module()
class LocWeightCalibrationHook(Hook):
    r"""Chooses ``loss_weight`` of the IoU-balanced localisation losses by the rule of their paper.

    .. math:: \text{loss\_weight} = \text{base\_weight} \cdot \frac{\sum L}{\sum iou^\lambda L}

    summed over the positives of the first iteration on all GPUs, so that the summed loss of this iteration is what it
    would be without the IoU weights. Each loss module gets a value of its own, as the three stages of Cascade R-CNN.

    Before the first iteration's step a copy of the model computes its losses on a copy of the batch, without gradient
    and with the random state restored: the step itself sees the same batch and the same random numbers. A batch without
    positives of a loss does not count for it; the next one does.

    The value is in the checkpoint and comes back on resume. A training that starts from ``load_from`` is calibrated
    anew.

    Args:
        num_iters: Iterations to sum over, with a positive. The value is set after each and final after the last.
        dry_run: Log the value and set nothing.
        base_weight: The ``loss_weight`` that the loss would have without IoU weights; a dict gives one to some of the
            losses, by module name such as 'roi_head.bbox_head.0.loss_bbox', or the end of one.
    """

    priority = 'LOW'

    def __init__(self, num_iters: int = 1, dry_run: bool = False, base_weight: float | dict[str, float] = 1.0) -> None:
        if not isinstance(num_iters, int) or num_iters < 1:
            raise ValueError(f'LocWeightCalibrationHook.num_iters={num_iters!r} must be a whole number of at least 1')
        for value in base_weight.values() if isinstance(base_weight, dict) else [base_weight]:
            if not 0 < value < float('inf'):
                raise ValueError(f'LocWeightCalibrationHook.base_weight={base_weight!r} must be finite and above 0')
        self.num_iters = num_iters
        self.dry_run = dry_run
        self.base_weight = base_weight
        self.losses: dict[str, Any] = {}
        self.states: dict[str, dict] = {}

    def before_train(self, runner: Runner) -> None:
        """Find the losses; on resume set what the checkpoint holds.

        Args:
            runner: The runner of the training.

        Raises:
            ValueError: No loss of the model can be calibrated, or ``base_weight`` names another one.
        """
        self.losses = calibratable_losses(_unwrapped(runner.model))
        named = self.base_weight if isinstance(self.base_weight, dict) else {}
        unknown = {name for name in named if not any(_ends_with(loss, name) for loss in self.losses)}
        if unknown:
            raise ValueError(
                f'LocWeightCalibrationHook.base_weight names {sorted(unknown)}; the losses that can be calibrated are '
                f'{list(self.losses)}'
            )
        # Only a resumed training begins beyond iteration 0.
        self.states = self._resumed(runner) if runner.iter else {n: self._new(loss) for n, loss in self.losses.items()}
        self._store(runner)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Add the batch to the sums of the losses that are not final, and set their weights."""
        pending = [name for name, state in self.states.items() if state['to_come']]
        if not pending:
            return
        for name, (positives, *sums) in zip(pending, self._batch_sums(runner, pending, data_batch)):
            if w_loc(*sums) is None:
                self._wait(runner, name)
            else:
                self._count(runner, name, int(positives), sums)
        self._store(runner)

    def _new(self, loss: Any) -> dict:
        # Plain numbers: torch.load(weights_only=True) reads them.
        return dict(lambda_=float(loss.lambda_), sums=[0.0, 0.0], to_come=self.num_iters, waits=0)

    def _resumed(self, runner: Runner) -> dict[str, dict]:
        """State of the losses that the checkpoint knows, with their weights set."""
        if self.dry_run:
            return {}
        states = {}
        for name, state in runner.message_hub.get_info(INFO, {}).items():
            if name in self.losses and state['lambda_'] == self.losses[name].lambda_:
                states[name] = state
                self._set(runner, name, state, 'from the checkpoint')
        for name in self.losses.keys() - states.keys():
            runner.logger.warning(
                f'{name}: the checkpoint holds no w_loc for lambda {self.losses[name].lambda_:g}, and the rule is for '
                f'the first iteration of a training: loss_weight stays {self.losses[name].loss_weight}'
            )
        return states

    def _batch_sums(self, runner: Runner, names: list[str], data_batch: Any) -> list[list[float]]:
        """Positives, sum L and sum iou^lambda L of each loss on a batch, over all GPUs."""
        model = _unwrapped(runner.model)
        # On a copy, so that counters and histories of the model that trains stay as they are too.
        trial = _copied(model)
        losses = {name: trial.get_submodule(name) for name in names}
        context = runner.optim_wrapper.optim_context(trial)  # autocast, if the training uses it
        with _unchanged(model), torch.no_grad(), context, collected_sums(losses) as sums:
            trial(**trial.data_preprocessor(copy.deepcopy(data_batch), True), mode='loss')
        all_reduce(sums)  # also without positives on this GPU: the others wait for it
        return sums.tolist()

    def _count(self, runner: Runner, name: str, positives: int, sums: list[float]) -> None:
        """Add a batch to the sums of a loss, and set its weight."""
        state = self.states[name]
        state['sums'] = [old + new for old, new in zip(state['sums'], sums)]
        state['to_come'] -= 1
        state['waits'] = 0
        left = f'{state["to_come"]} batches to come' if state['to_come'] else 'final'
        self._set(runner, name, state, f'{positives} positives, {left}')

    def _wait(self, runner: Runner, name: str) -> None:
        """A batch gave nothing for a loss: try the next one, but not for ever."""
        state = self.states[name]
        state['waits'] += 1
        if state['waits'] < MAX_WAITS:
            runner.logger.info(f'{name}: no positive overlaps its box, w_loc waits for the next batch')
            return
        state['to_come'] = 0
        runner.logger.warning(
            f'{name}: no positive in {MAX_WAITS} batches, w_loc is given up: loss_weight stays '
            f'{self.losses[name].loss_weight}'
        )

    def _set(self, runner: Runner, name: str, state: dict, remark: str) -> None:
        loss, (plain, weighted) = self.losses[name], state['sums']
        value = w_loc(plain, weighted)
        if value is None:  # resumed while it waited
            return
        old, new = loss.loss_weight, self._base_weight(name) * value
        runner.logger.info(
            f'{name}: w_loc {value:.4f} = sum L {plain:.5g} / sum iou^{loss.lambda_:g} L {weighted:.5g} ({remark}); '
            + (f'dry run, loss_weight stays {old:.4f}' if self.dry_run else f'loss_weight {old:.4f} -> {new:.4f}')
        )
        if not self.dry_run:
            loss.loss_weight = new

    def _base_weight(self, name: str) -> float:
        """What a loss's weight would be without IoU weights."""
        if not isinstance(self.base_weight, dict):
            return self.base_weight
        return next((weight for end, weight in self.base_weight.items() if _ends_with(name, end)), 1.0)

    def _store(self, runner: Runner) -> None:
        runner.message_hub.update_info(INFO, {} if self.dry_run else self.states)


def _ends_with(name: str, end: str) -> bool:
    """Whether a dotted name ends with another."""
    return f'.{name}'.endswith(f'.{end}')


def _unwrapped(model: Any) -> Any:
    return model.module if is_model_wrapper(model) else model


def _copied(model: Any) -> Any:
    """A copy that shares what cannot be copied: the process groups of synchronised normalisation layers."""
    kind = getattr(torch.distributed, 'ProcessGroup', ())
    groups = [value for module in model.modules() for value in vars(module).values() if isinstance(value, kind)]
    return copy.deepcopy(model, {id(group): group for group in groups})


@contextmanager
def _unchanged(model: Any) -> Iterator[None]:
    """Restore the random states and the model's buffers after the block."""
    states = random.getstate(), np.random.get_state()
    # mmengine's activation checkpointing leaves a copy with the forward of the model itself.
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        with torch.random.fork_rng(devices=[torch.cuda.current_device()] if torch.cuda.is_available() else []):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        for buffer, value in buffers:
            buffer.copy_(value)
