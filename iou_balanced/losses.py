"""The losses of :mod:`iou_balanced.functional` as registered mmdet modules: weights, averaging and reduction."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmdet.models.losses import CrossEntropyLoss, FocalLoss, SmoothL1Loss
from mmdet.models.losses.smooth_l1_loss import smooth_l1_loss
from mmdet.models.losses.utils import weight_reduce_loss
from mmdet.registry import MODELS
from mmdet.utils import reduce_mean
from torch import Tensor

from balanced_det.blocks import concatenated, positive_inds
from balanced_det.boxes import UNIT_STDS, delta_iou, finite_rows
from balanced_det.fused_focal import focal_negatives, positive_focal_loss, sum_factor
from iou_balanced.functional import Reduce, iou_balanced_weight, iou_normalized_weight, iou_power_weight

SCOPES = ('batch', 'level', 'image')


class IoUBalancedClassification:
    r"""What the IoU-balanced classification losses share; mixed into a stock mmdet loss (Eq. 3-4).

    .. math:: L_{cls} = \text{stock loss} + \sum_{i \in Pos} (w_i - 1) \, CE_i

    that is, the stock loss of all samples plus what the weights change at the positives, of which there are few. In a
    sigmoid loss :math:`CE_i` is the entry of the ground-truth class alone: the other entries of a positive are
    negatives of weight 1. With ``eta=0`` the added sum is exactly 0.
    """

    eta: float
    scope: str
    sync: bool
    use_sigmoid: bool
    reduction: str
    loss_weight: float

    def _set_balance(self, eta: float, scope: str, sync: bool) -> None:
        self.eta = _exponent('eta', eta, 'loss_cls.eta')
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
                with its ground truth, read at the positives only, a constant.
            weight: Shape (n,), weight of each sample; a positive of weight 0 is left out of Eq. 4 too.
            avg_factor: Divisor of the sum under ``reduction='mean'``; None is the number of entries.
            reduction_override: 'none', 'mean' or 'sum' in place of the module's own.
            inds: Shape (P,), indices of the positives in ascending order, from a head that knows them.

        Returns:
            A scalar, or the shape of the stock loss for reduction 'none'.
        """
        blocks = [cls_score] if isinstance(cls_score, Tensor) else list(cls_score)
        labels, iou = self._split(blocks, target)
        if inds is None:
            inds = positive_inds(labels, blocks[0].size(1) - (0 if self.use_sigmoid else 1))
        reduction = reduction_override or self.reduction
        # An override of 'none' ranks hard examples, which not every GPU does: it must not wait for the others.
        reduce = reduce_mean if self.sync and reduction_override != 'none' else None
        with torch.autocast(device_type=labels.device.type, enabled=False):
            return self._loss(blocks, labels, iou, inds, weight, avg_factor, reduction, reduce)

    def _loss(
        self,
        blocks: Sequence[Tensor],
        labels: Tensor,
        iou: Tensor,
        inds: Tensor,
        weight: Tensor | None,
        avg_factor: float | None,
        reduction: str,
        reduce: Reduce,
    ) -> Tensor:
        """The stock loss and what the balance adds."""
        cls_score = _in_float32(concatenated(blocks))
        stock = super().forward(  # type: ignore[misc]
            cls_score, labels, weight, avg_factor=avg_factor, reduction_override=reduction
        )
        loss = self.positive_loss(cls_score[inds], labels[inds])
        loss, balance = self._balanced(loss, iou[inds], None if weight is None else weight[inds], reduce)
        # mmdet's binary cross-entropy of float64 logits is float32
        added = (self.loss_weight * (balance - 1) * loss).to(stock.dtype)
        if reduction == 'none':
            return stock.index_put((inds, labels[inds]), added, accumulate=True)
        if reduction == 'mean' and avg_factor is None:  # the stock mean runs over all entries, not the positives
            return stock + added.sum() / cls_score.numel()
        return stock + weight_reduce_loss(added, reduction=reduction, avg_factor=avg_factor)

    def _balanced(self, loss: Tensor, iou: Tensor, weight: Tensor | None, reduce: Reduce) -> tuple[Tensor, Tensor]:
        """Loss of the positives by the weight of their samples, and the weights of Eq. 4; both (P,)."""
        if weight is not None:
            loss = loss * weight
        return loss, iou_balanced_weight(iou.to(loss.dtype), loss, eta=self.eta, reduce=reduce)

    def _split(self, blocks: Sequence[Tensor], target: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
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
        eta: Focus on well-fitting samples, at least 0; 0 is the stock ``FocalLoss``.
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

    def _loss(
        self,
        blocks: Sequence[Tensor],
        labels: Tensor,
        iou: Tensor,
        inds: Tensor,
        weight: Tensor | None,
        avg_factor: float | None,
        reduction: str,
        reduce: Reduce,
    ) -> Tensor:
        """The loss of the negatives in one pass, and that of the positives."""
        if not self.fused or reduction == 'none':
            return super()._loss(blocks, labels, iou, inds, weight, avg_factor, reduction, reduce)
        scale = self.loss_weight * sum_factor(reduction, avg_factor, sum(block.numel() for block in blocks))
        negatives, logits = focal_negatives(
            blocks, labels, inds, weight, gamma=self.gamma, alpha=self.alpha, scale=scale
        )
        loss = positive_focal_loss(logits, gamma=self.gamma, alpha=self.alpha)
        loss, balance = self._balanced(loss, iou[inds], None if weight is None else weight[inds], reduce)
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

    def _loss(
        self,
        blocks: Sequence[Tensor],
        labels: Tensor,
        iou: Tensor,
        inds: Tensor,
        weight: Tensor | None,
        avg_factor: float | None,
        reduction: str,
        reduce: Reduce,
    ) -> Tensor:
        """A softmax loss has one value for each sample, so the balance is a weight of the sample."""
        if self.use_sigmoid:
            return super()._loss(blocks, labels, iou, inds, weight, avg_factor, reduction, reduce)
        cls_score = _in_float32(concatenated(blocks))
        weight = cls_score.new_ones(len(cls_score)) if weight is None else weight.to(cls_score.dtype)
        with torch.no_grad():
            loss = self.positive_loss(cls_score[inds], labels[inds])
            _, balance = self._balanced(loss, iou[inds], weight[inds], reduce)
        weight = weight.index_put((inds,), weight[inds] * balance)
        return CrossEntropyLoss.forward(
            self, cls_score, labels, weight, avg_factor=avg_factor, reduction_override=reduction
        )

    def positive_loss(self, cls_score: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy -log p of the ground-truth class; (P, C), (P,) -> (P,)."""
        if self.use_sigmoid:
            return -F.logsigmoid(cls_score.gather(1, labels[:, None]).squeeze(1))
        return F.cross_entropy(cls_score, labels, reduction='none')


@MODELS.register_module()
class IoUBalancedSmoothL1Loss(SmoothL1Loss):
    r"""IoU-balanced localisation loss, Eq. 5-6 and, with ``normalize=True``, Eq. 5 and 7.

    .. math:: L_{loc} = w_{loc} \sum_{i \in Pos} iou_i^\lambda \sum_{m \in cx, cy, w, h}
              \text{smooth}_{L1}(l_i^m - \hat g_i^m)

    A drop-in for stock heads that hand it encoded ``DeltaXYWHBBoxCoder`` deltas (``RetinaHead``, ``RPNHead``,
    ``BBoxHead`` and their kin; not those that hand over decoded boxes, such as ``DDODHead``): the IoU follows from the
    deltas (:func:`balanced_det.boxes.delta_iou`). The weights are constants.

    A sample whose deltas are not finite, as those of a ground-truth box of zero width, is left out and counted in
    ``num_left_out``.

    Args:
        beta: Where smooth L1 turns from quadratic to linear (the paper's delta; 0.111 for its RetinaNet).
        lambda_: Focus on well-fitting samples, at least 0; 0 is the stock ``SmoothL1Loss``.
        normalize: Keep the sum of the loss in every iteration (Eq. 7) in place of a constant factor (Eq. 6).
        target_stds: ``target_stds`` of the head's box coder: (1, 1, 1, 1) in RetinaNet, (0.1, 0.1, 0.2, 0.2) in SSD
            and R-CNN heads.
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: The paper's w_loc.
    """

    def __init__(
        self,
        beta: float = 1.0,
        lambda_: float = 1.5,
        normalize: bool = False,
        target_stds: Sequence[float] = UNIT_STDS,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__(beta=_positive('beta', beta), reduction=reduction, loss_weight=loss_weight)
        self.lambda_ = _exponent('lambda_', lambda_, 'loss_bbox.lambda_')
        self.normalize = bool(normalize)
        self.target_stds = tuple(float(_positive('target_stds', std)) for std in target_stds)
        if len(self.target_stds) != 4:
            raise ValueError(f'target_stds={target_stds!r} (config key loss_bbox.target_stds) needs four numbers')
        self.num_left_out: Tensor | int = 0

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | None = None,
        reduction_override: str | None = None,
        *,
        iou: Tensor | None = None,
        sync: bool = False,
        **kwargs: object,
    ) -> Tensor:
        """Loss of a set of samples.

        Args:
            pred: Shape (n, 4), encoded deltas. Half precision is computed in float32.
            target: Shape (n, 4), encoded deltas of the matched boxes.
            weight: Shape (n, 4), 0 for samples without a target; None: all samples count.
            avg_factor: Divisor of the sum under ``reduction='mean'``; None is the number of entries.
            reduction_override: 'none', 'mean' or 'sum' in place of the module's own.
            iou: Shape (n,), IoU of the regressed boxes with their targets, from a head that knows it. None: the IoU
                of the deltas.
            sync: Sum Eq. 7 over all GPUs, which all have to call this; a head with a ``loss_cls.sync`` asks for it.
            **kwargs: Taken and ignored, as the stock loss does.

        Returns:
            A scalar, or shape (n, 4) for reduction 'none'.
        """
        rows, kept, left_out = self._samples(pred, target, weight, iou)
        self.num_left_out = self.num_left_out + left_out
        loss = self._sample_loss(*kept, reduce_mean if sync else None)
        if rows is not None:
            loss = loss.new_zeros(pred.shape).index_put((rows,), loss)
        reduction = reduction_override or self.reduction
        if not loss.numel() and reduction != 'none':
            return pred.sum() * 0  # the mean of nothing would be NaN
        return self.loss_weight * weight_reduce_loss(loss, weight, reduction, avg_factor)

    @torch.no_grad()
    def weighted_sums(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        *args: object,
        iou: Tensor | None = None,
        lambdas: Sequence[float],
        **kwargs: object,
    ) -> Tensor:
        r"""Sums that decide :math:`w_{loc}`, without ``loss_weight``; arguments as ``forward``.

        .. math:: S_\lambda = \sum_{i \in Pos} iou_i^\lambda \sum_m \text{smooth}_{L1}(l_i^m - \hat g_i^m)

        :math:`S_0` is the unweighted loss, and :math:`w_{loc} = S_0 / S_\lambda` keeps its sum.

        Args:
            pred: As ``forward``.
            target: As ``forward``.
            weight: As ``forward``.
            *args: Taken and ignored: what else ``forward`` takes.
            iou: As ``forward``.
            lambdas: The exponents.
            **kwargs: As ``args``.

        Returns:
            Shape (len(lambdas),).
        """
        rows, kept, _ = self._samples(pred, target, weight, iou)
        loss, iou = self._plain_loss(*kept)
        if weight is not None:
            loss = loss * (weight if rows is None else weight[rows])
        sums = [(iou_power_weight(iou, lambda_=lambda_) * loss.sum(dim=1)).sum() for lambda_ in lambdas]
        return torch.stack(sums)

    def _samples(
        self, pred: Tensor, target: Tensor, weight: Tensor | None, iou: Tensor | None
    ) -> tuple[Tensor | None, tuple[Tensor, Tensor, Tensor | None], Tensor]:
        """Samples that count, in float32 at least.

        Returns:
            Their rows, or None for all; predictions, targets and IoU of them; how many are left out as not finite.
        """
        if pred.shape != target.shape or pred.ndim != 2 or pred.size(1) != 4:
            raise ValueError(
                'IoUBalancedSmoothL1Loss takes encoded deltas: pred and target of one shape (n, 4), got '
                f'{tuple(pred.shape)} and {tuple(target.shape)}; this head regresses something else'
            )
        counts = torch.ones_like(pred[:, 0], dtype=torch.bool) if weight is None else (weight > 0).any(dim=1)
        finite = finite_rows(pred.detach(), target)
        pred = pred.to(torch.promote_types(pred.dtype, torch.float32))
        if iou is None:  # a stock head hands over all of its samples, and most are background
            rows = (counts & finite).nonzero().squeeze(1)
            return rows, (pred[rows], target[rows].to(pred), None), (counts & ~finite).sum()
        # A balanced head hands over positives alone. Those that do not count become zeros with no loss, since to take
        # the others the host would wait until a GPU has counted them.
        finite = finite & iou.isfinite()
        keep = (counts & finite)[:, None]
        zero = pred.new_zeros(())
        kept = torch.where(keep, pred, zero), torch.where(keep, target.to(pred), zero), torch.where(keep[:, 0], iou, 0)
        return None, kept, (counts & ~finite).sum()

    def _sample_loss(self, pred: Tensor, target: Tensor, iou: Tensor | None, reduce: Reduce) -> Tensor:
        """Eq. 5 without w_loc for each entry; (P, 4), (P, 4), (P,) -> (P, 4)."""
        loss, iou = self._plain_loss(pred, target, iou)
        if self.normalize:
            balance = iou_normalized_weight(iou, loss.sum(dim=1), lambda_=self.lambda_, reduce=reduce)
        else:
            balance = iou_power_weight(iou, lambda_=self.lambda_)
        return balance[:, None] * loss

    def _plain_loss(self, pred: Tensor, target: Tensor, iou: Tensor | None) -> tuple[Tensor, Tensor]:
        """Smooth L1 of each entry, (P, 4), and the IoU, (P,)."""
        with torch.autocast(device_type=pred.device.type, enabled=False):
            # The stock loss of nothing is a scalar.
            loss = smooth_l1_loss(pred, target, beta=self.beta, reduction='none') if len(pred) else pred * 0
            if iou is None:
                iou = delta_iou(pred.detach(), target, stds=self.target_stds)
            return loss, iou.detach().to(loss.dtype)


def _in_float32(cls_score: Tensor) -> Tensor:
    """At least: half precision loses the small weights in the difference to the stock loss, and overflows."""
    return cls_score.to(torch.promote_types(cls_score.dtype, torch.float32))


def _exponent(name: str, value: float, key: str) -> float:
    if not (isinstance(value, (int, float)) and math.isfinite(value) and value >= 0):
        raise ValueError(f'{name}={value!r} (config key {key}) must be a finite number of at least 0')
    return float(value)


def _positive(name: str, value: float) -> float:
    if not (isinstance(value, (int, float)) and math.isfinite(value) and value > 0):
        raise ValueError(f'{name}={value!r} (config key loss_bbox.{name}) must be a finite number above 0')
    return float(value)
