"""The IoU-balanced classification losses: weights, averaging and reduction of Eq. 3-4."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmdet.models.losses import CrossEntropyLoss, FocalLoss
from mmdet.models.losses.utils import weight_reduce_loss
from mmdet.registry import MODELS
from mmdet.utils import reduce_mean
from torch import Tensor

from balanced_det.blocks import concatenated, positive_inds
from balanced_det.boxes import at_least_float32
from balanced_det.fused_focal import focal_negatives, positive_focal_loss, runs_on, sum_factor
from iou_balanced.functional import Reduce, iou_balanced_weight
from iou_balanced.losses.arguments import exponent

SCOPES = ('batch', 'level', 'image')


class _Samples(NamedTuple):
    """Samples over which Eq. 4 normalises: arguments of ``forward``, ``cls_score`` as a list of blocks."""

    blocks: list[Tensor]
    labels: Tensor
    iou: Tensor
    weight: Tensor | None
    inds: Tensor

    def cls_score(self) -> Tensor:
        """All logits, (n, C), float32 at least: half precision loses the small weights of Eq. 4, and overflows."""
        return at_least_float32(concatenated(self.blocks))


class IoUBalancedClassification:
    r"""What the IoU-balanced classification losses share; mixed into a stock mmdet loss (Eq. 3-4).

    .. math:: L_{cls} = \text{stock loss} + \sum_{i \in Pos} (w_i - 1) \, CE_i

    that is, the stock loss of all samples plus what the weights change at the positives, of which there are few. In a
    sigmoid loss :math:`CE_i` is the entry of the ground-truth class alone: the other entries of a positive are
    negatives of weight 1. With ``eta=0`` each weight is exactly 1.
    """

    eta: float
    scope: str
    sync: bool
    use_sigmoid: bool
    reduction: str
    loss_weight: float

    def _set_balance(self, eta: float, scope: str, sync: bool) -> None:
        self.eta = exponent('eta', eta, 'loss_cls.eta')
        if scope not in SCOPES:
            raise ValueError(f'scope={scope!r} (config key loss_cls.scope) is not one of {", ".join(SCOPES)}')
        if sync and scope != 'batch':
            raise ValueError(
                f'loss_cls.sync=True sums over all GPUs and goes with loss_cls.scope="batch" alone, got {scope!r}: '
                'GPUs may hold different numbers of images'
            )
        self.scope = scope
        self.sync = bool(sync)

    def positive_loss(self, cls_score: Tensor, labels: Tensor) -> Tensor:
        """Loss of the ground-truth class of each positive, without weights; (P, C), (P,) -> (P,)."""
        raise NotImplementedError

    def forward(
        self,
        cls_score: Tensor | Sequence[Tensor],
        target: tuple[Tensor, Tensor],
        weight: Tensor | None = None,
        avg_factor: float | None = None,
        reduction_override: str | None = None,
        *,
        inds: Tensor | None = None,
    ) -> Tensor:
        """Loss of a set of samples over which Eq. 4 normalises.

        Args:
            cls_score: Shape (n, C), logits, or blocks of rows that follow one another, n in all (the levels of a
                pyramid). Half precision is computed in float32.
            target: ``(labels, iou)``, mmdet's convention for a classification target with a quality. ``labels``, shape
                (n,): class index, background is the number of classes. ``iou``, shape (n,): IoU of the regressed box
                with its ground truth, read at the positives only, a constant. With ``eta=0`` the labels alone will do,
                which is what stock heads hand over.
            weight: Shape (n,), weight of each sample; a positive of weight 0 is left out of Eq. 4 too.
            avg_factor: Divisor of the sum under ``reduction='mean'``; None is the number of entries.
            reduction_override: 'none', 'mean' or 'sum' in place of the module's own.
            inds: Shape (P,), indices of the positives in ascending order, from a head that knows them.

        Returns:
            A scalar, or the shape of the stock loss for reduction 'none'.
        """
        blocks = [cls_score] if isinstance(cls_score, Tensor) else list(cls_score)
        labels, iou = self._split(blocks, target, weight)
        if inds is None:
            inds = positive_inds(labels, blocks[0].size(1) - (0 if self.use_sigmoid else 1))
        reduction = reduction_override or self.reduction
        # An override of 'none' ranks hard examples, which not every GPU does: it must not wait for the others.
        reduce = reduce_mean if self.sync and reduction_override != 'none' else None
        with torch.autocast(device_type=labels.device.type, enabled=False):
            return self._loss(_Samples(blocks, labels, iou, weight, inds), avg_factor, reduction, reduce)

    def _loss(self, samples: _Samples, avg_factor: float | None, reduction: str, reduce: Reduce) -> Tensor:
        """The stock loss and what the balance adds."""
        cls_score, labels, inds = samples.cls_score(), samples.labels, samples.inds
        stock = super().forward(  # type: ignore[misc]
            cls_score, labels, samples.weight, avg_factor=avg_factor, reduction_override=reduction
        )
        loss, balance = self._balanced(self.positive_loss(cls_score[inds], labels[inds]), samples, reduce)
        # mmdet's binary cross-entropy of float64 logits is float32
        added = (self.loss_weight * (balance - 1) * loss).to(stock.dtype)
        if reduction == 'none':
            return stock.index_put((inds, labels[inds]), added, accumulate=True)
        if reduction == 'mean' and avg_factor is None:  # the stock mean runs over all entries, not the positives
            return stock + added.sum() / cls_score.numel()
        return stock + weight_reduce_loss(added, reduction=reduction, avg_factor=avg_factor)

    def _balanced(self, loss: Tensor, samples: _Samples, reduce: Reduce) -> tuple[Tensor, Tensor]:
        """Loss of the positives by the weight of their samples, and the weights of Eq. 4; both (P,)."""
        if samples.weight is not None:
            loss = loss * samples.weight[samples.inds]
        iou = samples.iou[samples.inds].to(loss.dtype)
        return loss, iou_balanced_weight(iou, loss, eta=self.eta, reduce=reduce)

    def _split(
        self, blocks: Sequence[Tensor], target: tuple[Tensor, Tensor], weight: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if self.eta == 0 and isinstance(target, Tensor):  # no sample weighs more for its fit, which need not be known
            target = target, target.new_zeros(target.shape, dtype=torch.float32)
        if not isinstance(target, tuple):
            raise TypeError(
                f'{type(self).__name__} needs the target (labels, iou), got a {type(target).__name__}: this head does '
                'not hand over the IoU. Set its type to the IoU-balanced head (for example IoUBalancedRetinaHead), '
                'or keep the stock loss_cls and balance loss_bbox alone.'
            )
        labels, iou = target
        if not (sum(map(len, blocks)),) == labels.shape == iou.shape:
            shapes = ', '.join(str(tuple(block.shape)) for block in blocks)
            raise ValueError(
                'cls_score (n, C), labels (n,) and iou (n,) must agree in n, got '
                f'{shapes}, {tuple(labels.shape)} and {tuple(iou.shape)}'
            )
        if weight is not None and weight.shape != labels.shape:
            raise ValueError(f'weight must be (n,), one for each of {len(labels)} samples, got {tuple(weight.shape)}')
        return labels, iou.detach()


@MODELS.register_module()
class IoUBalancedFocalLoss(IoUBalancedClassification, FocalLoss):
    """IoU-balanced classification loss on the sigmoid focal loss (RetinaNet, FoveaBox).

    Equations and arguments of ``forward``: :class:`IoUBalancedClassification`. The CE of Eq. 3-4 is the focal loss of
    the ground-truth class.

    Args:
        use_sigmoid: Must be True. Spell it out in a config: mmdet's heads read it there.
        gamma: Focusing exponent of the focal loss.
        alpha: Weight of the positives in the focal loss, in [0, 1].
        eta: Focus on well-fitting samples, at least 0; 0 is the stock ``FocalLoss``, to rounding where it is fused, for
            stock heads too.
        scope: Over which positives a head normalises Eq. 4: 'batch' (all levels and images of one GPU), 'level' or
            'image'.
        sync: Normalise as one batch over all GPUs: the sums of Eq. 4 and, in a balanced head, the divisors of both
            losses. False: mmdet's convention, each GPU by itself.
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: Factor of the loss.
        fused: Compute the loss in one pass over the logits (:func:`balanced_det.fused_focal.focal_negatives`), which
            takes a fraction of the time and memory of the stock ``FocalLoss`` and cannot be differentiated twice.
            False: the stock loss and what the balance adds. A loss without reduction is computed so anyway.
    """

    def __init__(
        self,
        use_sigmoid: bool = True,
        gamma: float = 2.0,
        alpha: float = 0.25,
        eta: float = 1.5,
        scope: str = 'batch',
        sync: bool = False,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
        fused: bool = True,
    ) -> None:
        if not use_sigmoid:
            raise ValueError('IoUBalancedFocalLoss is a sigmoid loss: set loss_cls.use_sigmoid=True')
        super().__init__(
            use_sigmoid=use_sigmoid, gamma=gamma, alpha=alpha, reduction=reduction, loss_weight=loss_weight
        )
        self._set_balance(eta, scope, sync)
        self.fused = bool(fused)

    def positive_loss(self, cls_score: Tensor, labels: Tensor) -> Tensor:
        """Focal loss of the ground-truth class: alpha (1 - p)^gamma (-log p); (P, C), (P,) -> (P,)."""
        logits = cls_score.gather(1, labels[:, None]).squeeze(1)
        return positive_focal_loss(logits, gamma=self.gamma, alpha=self.alpha)

    def _loss(self, samples: _Samples, avg_factor: float | None, reduction: str, reduce: Reduce) -> Tensor:
        """The loss of the negatives in one pass, and that of the positives."""
        blocks, labels, _, weight, inds = samples
        if not self.fused or reduction == 'none' or not runs_on(labels.device, blocks[0].dtype):
            return super()._loss(samples, avg_factor, reduction, reduce)
        focal = dict(gamma=self.gamma, alpha=self.alpha)
        scale = self.loss_weight * sum_factor(reduction, avg_factor, sum(block.numel() for block in blocks))
        negatives, logits = focal_negatives(blocks, labels, inds, weight, **focal, scale=scale)
        loss, balance = self._balanced(positive_focal_loss(logits, **focal), samples, reduce)
        return negatives + scale * (balance * loss).sum()


@MODELS.register_module()
class IoUBalancedCrossEntropyLoss(IoUBalancedClassification, CrossEntropyLoss):
    """IoU-balanced classification loss on the softmax or, with ``use_sigmoid=True``, the binary cross-entropy.

    Equations and arguments of ``forward``: :class:`IoUBalancedClassification`. Softmax scores have the background as
    their last column.

    Args:
        use_sigmoid: Binary cross-entropy of each class (the form of a one-class RPN) in place of softmax.
        eta: Focus on well-fitting samples, at least 0; 0 is the stock ``CrossEntropyLoss``.
        scope: Over which positives a head normalises Eq. 4: 'batch' (all levels and images of one GPU), 'level' or
            'image'.
        sync: Normalise as one batch over all GPUs: the sums of Eq. 4 and, in a balanced head, the divisors of both
            losses. False: mmdet's convention, each GPU by itself.
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: Factor of the loss.
    """

    def __init__(
        self,
        use_sigmoid: bool = False,
        eta: float = 1.5,
        scope: str = 'batch',
        sync: bool = False,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(use_sigmoid=use_sigmoid, reduction=reduction, loss_weight=loss_weight)
        self._set_balance(eta, scope, sync)

    def _loss(self, samples: _Samples, avg_factor: float | None, reduction: str, reduce: Reduce) -> Tensor:
        """A softmax loss has one value for each sample, so the balance is a weight of the sample."""
        if self.use_sigmoid:
            return super()._loss(samples, avg_factor, reduction, reduce)
        cls_score, labels, inds = samples.cls_score(), samples.labels, samples.inds
        weight = cls_score.new_ones(len(labels)) if samples.weight is None else samples.weight.to(cls_score.dtype)
        with torch.no_grad():
            _, balance = self._balanced(self.positive_loss(cls_score[inds], labels[inds]), samples, reduce)
        weight = weight.index_put((inds,), weight[inds] * balance)
        return CrossEntropyLoss.forward(
            self, cls_score, labels, weight, avg_factor=avg_factor, reduction_override=reduction
        )

    def positive_loss(self, cls_score: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy -log p of the ground-truth class; (P, C), (P,) -> (P,)."""
        if self.use_sigmoid:
            return -F.logsigmoid(cls_score.gather(1, labels[:, None]).squeeze(1))
        return F.cross_entropy(cls_score, labels, reduction='none')
