r"""What a training step tells of its positives: score, IoU, and the two factors of the Harmonic loss.

Paper B (*Reconcile Prediction Consistency for Balanced Object Detection*, HarmonicDet), Eq. 3 and Eq. 14 (AIC); its
Fig. 4 shows :math:`1 + \beta`, here it is :math:`\beta`. They are read off the calls of a head's loss modules in the
ordinary step: nothing is matched or decoded again, and the step is not changed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from mmdet.models.dense_heads import FoveaHead
from mmdet.models.losses import IoULoss
from torch import Tensor, nn

from balanced_det.blocks import positive_inds, take
from balanced_det.boxes import aligned_iou, delta_iou, distance_iou
from balanced_det.heads.checks import is_plain_delta_coder

QUANTILES = (0.1, 0.5, 0.9)


class NotMeasurable(ValueError):
    """A head whose loss modules do not tell score and IoU of its positives; the message says why."""


class Positives(NamedTuple):
    r"""Positive samples of a step, each of shape (P,), float32, without gradient.

    Attributes:
        score: Predicted probability of the ground-truth class.
        iou: IoU of the regressed box with its ground truth.
        beta_r: :math:`e^{-L_{loc}}`, Eq. 3, the factor of the classification loss.
        beta_c: :math:`e^{-CE}`, Eq. 3, the factor of the localisation loss.
    """

    score: Tensor
    iou: Tensor
    beta_r: Tensor
    beta_c: Tensor


def aic(score: Tensor, iou: Tensor) -> Tensor:
    r"""Average inconsistency coefficient, Eq. 14 of paper B.

    .. math:: AIC = \frac{1}{N} \sum_{i \in Pos} |p_i - IoU_i|

    The printed equation is the sum; by its name, and to compare batches, it is the mean here.

    Args:
        score: Shape (P,), predicted probability of the ground-truth class.
        iou: Shape (P,), IoU of the regressed box with its ground truth.

    Returns:
        A scalar in [0, 1]; NaN without positives.

    Example:
        >>> aic(torch.tensor([0.9, 0.5]), torch.tensor([0.5, 0.5]))
        tensor(0.2000)
    """
    return (score - iou).abs().mean()


def summarize(positives: Positives) -> dict[str, float]:
    """Numbers for the log: the AIC, the number of positives, and mean and quantiles of both factors.

    Args:
        positives: At least one.

    Returns:
        'aic', 'positives', and 'beta_r_mean', 'beta_r_p10', 'beta_r_p50', 'beta_r_p90', the same of 'beta_c'.
    """
    betas = torch.stack([positives.beta_r, positives.beta_c])
    quantiles = betas.quantile(betas.new_tensor(QUANTILES), dim=1).T  # (2, 3)
    rows = torch.cat([betas.mean(dim=1, keepdim=True), quantiles], dim=1)
    names = [f'beta_{which}_{what}' for which in 'rc' for what in ('mean', 'p10', 'p50', 'p90')]
    values = torch.cat([aic(positives.score, positives.iou)[None], rows.flatten()]).tolist()
    return {**dict(zip(['aic', *names], values)), 'positives': float(len(positives.score))}


class _Classified(NamedTuple):
    """Positives of the calls of ``loss_cls`` that wait for one of ``loss_bbox``."""

    num: int  # samples of the call
    inds: Tensor  # of the positives among them
    logits: Tensor  # (P, columns)
    labels: Tensor  # (P,)
    iou: Tensor | None  # (P,), where the head hands it over
    counts: Tensor  # (P,), bool: weight above 0

    def followed_by(self, other: _Classified) -> _Classified:
        """The samples of both, one after another."""
        return _Classified(
            num=self.num + other.num,
            inds=torch.cat([self.inds, other.inds + self.num]),
            logits=torch.cat([self.logits, other.logits]),
            labels=torch.cat([self.labels, other.labels]),
            iou=None if self.iou is None or other.iou is None else torch.cat([self.iou, other.iou]),
            counts=torch.cat([self.counts, other.counts]),
        )


class PositivesRecorder:
    r"""Reads the positives of a head off the calls of its loss modules, between :meth:`start` and :meth:`stop`.

    * A head with a ``loss_joint`` that has ``factors`` (HarmonicDet) hands it all that is asked for.
    * Any other head calls ``loss_cls`` on samples, in one call or block by block, and then ``loss_bbox`` on the same
      samples or on their positives in the same order; once or (a level or an image at a time) several times. Calls
      with ``reduction_override='none'`` look ahead, as hard-example mining does, and are not counted.

    CE and :math:`L_{loc}` of a positive are what the head's own loss modules give it, ``loss_weight`` included: of a
    sigmoid loss the entry of the ground-truth class; the localisation loss summed over the coordinates. The weights
    that an IoU-balanced loss gives its samples, and the w_loc that makes up for them, are left out: they turn the loss
    of a box far off into 0, which would look like a perfect box. Samples of weight 0 and those that are not finite are
    left out.

    Args:
        head: A head of a detector.

    Raises:
        NotMeasurable: Its losses are no modules, or its scores are no plain logits.
    """

    def __init__(self, head: Any) -> None:
        for name in ('loss_cls', 'loss_bbox'):
            if not isinstance(getattr(head, name, None), nn.Module):
                raise NotMeasurable(f'it has no module {name}')
        if getattr(head, 'custom_activation', False) or getattr(head.loss_cls, 'activated', False):
            raise NotMeasurable(f'the scores of {type(head.loss_cls).__name__} are no plain logits')
        self.head = head
        self.problem = ''
        self.num_calls = 0
        self._handles: list[Any] = []
        self._parts: list[Positives] = []
        self._waiting: _Classified | None = None

    @property
    def is_joint(self) -> bool:
        """Whether the head couples its losses itself."""
        return callable(getattr(getattr(self.head, 'loss_joint', None), 'factors', None))

    def start(self) -> None:
        """Listen to the loss modules."""
        # Bound methods, so that a copy of the model records in a copy of this, not here.
        listeners: dict[str, Callable] = dict(loss_cls=self._on_cls, loss_bbox=self._on_bbox)
        if self.is_joint:
            listeners = dict(loss_joint=self._on_joint)
        self._parts, self._waiting, self.num_calls = [], None, 0
        self._handles = [
            getattr(self.head, name).register_forward_pre_hook(listener, with_kwargs=True)
            for name, listener in listeners.items()
        ]

    def stop(self) -> Positives | None:
        """Listen no more.

        Returns:
            The positives of the step; None without one.

        Raises:
            NotMeasurable: The loss modules were called in a way that is not known.
        """
        for handle in self._handles:
            handle.remove()
        if not self.problem and self._waiting is not None and len(self._waiting.inds):
            self.problem = 'loss_bbox was not called for positives of loss_cls'
        if self.problem:
            raise NotMeasurable(self.problem)
        parts = [torch.cat(values) for values in zip(*self._parts)]
        if not parts:
            return None
        finite = torch.stack(parts).isfinite().all(dim=0)
        return Positives(*(values[finite] for values in parts)) if finite.any() else None

    def _on_cls(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        self._record(self._take_cls, args, kwargs)

    def _on_bbox(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        self._record(self._take_bbox, args, kwargs)

    def _on_joint(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        self._record(self._take_joint, args, kwargs)

    def _record(self, take: Callable[..., None], args: tuple, kwargs: dict) -> None:
        if self.problem or kwargs.get('reduction_override') == 'none':
            return
        self.num_calls += 1
        try:
            with torch.no_grad():
                take(*args, **kwargs)
        except NotMeasurable as error:
            self.problem = str(error)
        except Exception as error:  # a measure must not end a training
            self.problem = f'{type(error).__name__}: {error}'

    def _take_cls(
        self, cls_score: Tensor | list[Tensor], target: Any, weight: Tensor | None = None, *_: Any, **__: Any
    ) -> None:
        blocks = [cls_score] if isinstance(cls_score, Tensor) else cls_score
        labels, iou = target if isinstance(target, tuple) else (target, None)
        num_classes = self.head.num_classes
        fits = (num_classes, num_classes + 1)
        if labels.ndim != 1 or any(block.ndim != 2 or block.size(1) not in fits for block in blocks):
            shapes = ', '.join(str(tuple(block.shape)) for block in blocks)
            raise NotMeasurable(f'loss_cls gets scores of shape {shapes} and labels of shape {tuple(labels.shape)}')
        inds = positive_inds(labels, num_classes)
        classified = _Classified(
            num=len(labels),
            inds=inds,
            logits=take(blocks, inds).float(),
            labels=labels[inds],
            iou=None if iou is None else iou[inds].float(),
            counts=_above_0(weight, inds),
        )
        waiting = self._waiting
        self._waiting = waiting.followed_by(classified) if waiting is not None and len(waiting.inds) else classified

    def _take_bbox(self, pred: Tensor, target: Tensor, weight: Tensor | None = None, *_: Any, **__: Any) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            raise NotMeasurable('loss_bbox was called without loss_cls before it')
        num_pos = len(waiting.inds)
        if not num_pos:
            return
        if len(pred) not in (waiting.num, num_pos) or pred.shape[1:] != (4,) or pred.shape != target.shape:
            raise NotMeasurable(
                f'loss_bbox gets shape {tuple(pred.shape)} for {waiting.num} samples with {num_pos} positives'
            )
        rows = waiting.inds if len(pred) == waiting.num else torch.arange(num_pos, device=pred.device)
        keep = (waiting.counts & _above_0(weight, rows)).nonzero().squeeze(1)
        if len(keep):
            iou = None if waiting.iou is None else waiting.iou[keep]
            pred, target = pred[rows][keep].float(), target[rows][keep].float()
            self._measure(waiting.logits[keep], waiting.labels[keep], iou, pred, target)

    def _measure(self, logits: Tensor, labels: Tensor, iou: Tensor | None, pred: Tensor, target: Tensor) -> None:
        """Add positives, (P, columns), (P,), (P,), (P, 4), (P, 4)."""
        head, own = self.head, labels[:, None]
        cls_target = labels if iou is None else (labels, iou)
        # Not a call of the modules, which would be listened to.
        cls_loss = _plain(head.loss_cls).forward(logits, cls_target, reduction_override='none')
        if cls_loss.ndim == 2:
            cls_loss = cls_loss.gather(1, own).squeeze(1)
        loc_loss = _plain(head.loss_bbox).forward(pred, target, reduction_override='none')
        if loc_loss.ndim == 2:
            loc_loss = loc_loss.sum(dim=1)
        prob = logits.sigmoid() if getattr(head.loss_cls, 'use_sigmoid', False) else logits.softmax(dim=1)
        if iou is None:
            iou = _box_iou(head, pred, target)
        self._parts.append(Positives(prob.gather(1, own).squeeze(1), iou, torch.exp(-loc_loss), torch.exp(-cls_loss)))

    def _take_joint(
        self,
        cls_loss: Tensor,
        bbox_loss: Tensor,
        iou: Tensor,
        score: Tensor,
        prob: Tensor,
        keep: Tensor | None = None,
    ) -> None:
        factors = self.head.loss_joint.factors(cls_loss, bbox_loss, iou, score)
        rows = slice(None) if keep is None else keep
        self._parts.append(Positives(*(values[rows].detach().float() for values in (score, iou, *factors))))


def _plain(loss: Any) -> Any:
    """The loss without the weights that an IoU-balanced one gives its samples; a copy, which shares no counter."""
    plain = copy.copy(loss)
    if hasattr(loss, 'eta'):
        plain.eta, plain.sync = 0.0, False  # sync waits for the other GPUs, which do not measure
    if getattr(loss, 'lambda_', 0):
        plain.lambda_, plain.normalize, plain.loss_weight = 0.0, False, 1.0
    return plain


def _above_0(weight: Tensor | None, rows: Tensor) -> Tensor:
    """Which of these samples have a weight above 0, of one or several for each sample; (P,), bool."""
    if weight is None or not len(rows):
        return torch.ones_like(rows, dtype=torch.bool)
    return (weight[rows].reshape(len(rows), -1) > 0).any(dim=1)


def _box_iou(head: Any, pred: Tensor, target: Tensor) -> Tensor:
    """IoU of what ``loss_bbox`` compares, by what the head regresses; (P, 4), (P, 4) -> (P,)."""
    if isinstance(head, FoveaHead):  # logarithms of distances
        return distance_iou(pred.exp(), target.exp())
    if getattr(head, 'reg_decoded_bbox', False) or type(head.loss_bbox).__module__ == IoULoss.__module__:
        return aligned_iou(pred, target)
    coder: Any = getattr(head, 'bbox_coder', None)
    if is_plain_delta_coder(coder):
        return delta_iou(pred, target, stds=coder.stds)
    raise NotMeasurable(
        f'the IoU does not follow from what loss_bbox gets: bbox_coder is {type(coder).__name__}, not a plain '
        'DeltaXYWHBBoxCoder with target_means 0'
    )
