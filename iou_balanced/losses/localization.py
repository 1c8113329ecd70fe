"""The IoU-balanced localisation loss: weights, averaging and reduction of Eq. 5-7."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.models.losses import SmoothL1Loss
from mmdet.models.losses.smooth_l1_loss import smooth_l1_loss
from mmdet.models.losses.utils import weight_reduce_loss
from mmdet.registry import MODELS
from mmdet.utils import reduce_mean
from torch import Tensor

from balanced_det.boxes import UNIT_STDS, at_least_float32, delta_iou, finite_rows
from iou_balanced.functional import Reduce, iou_normalized_weight, iou_power_weight
from iou_balanced.losses.arguments import exponent, positive


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
        super().__init__(beta=positive('beta', beta), reduction=reduction, loss_weight=loss_weight)
        self.lambda_ = exponent('lambda_', lambda_, 'loss_bbox.lambda_')
        self.normalize = bool(normalize)
        self.target_stds = tuple(float(positive('target_stds', std)) for std in target_stds)
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
        pred = at_least_float32(pred)
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
