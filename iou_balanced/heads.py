"""mmdet's heads with the IoU-balanced losses: what they add is the IoU that the classification loss asks for."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.dense_heads import FoveaHead, RetinaHead, RetinaSepBNHead, RPNHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead, ConvFCBBoxHead, Shared2FCBBoxHead, Shared4Conv1FCBBoxHead
from mmdet.registry import MODELS
from torch import Tensor

from balanced_det.heads import AnchorLossMixin, ConfigurableSSDHead, FoveaLossMixin, RoILossMixin, SSDLossMixin
from balanced_det.matched import SampleGroup
from balanced_det.models import DSSDHead, RefineDetHead
from iou_balanced.losses import IoUBalancedClassification, IoUBalancedSmoothL1Loss


class IoUBalancedLossMixin:
    r"""Hands the matched samples to ``loss_cls`` and ``loss_bbox``, with the IoU of the regressed boxes.

    Either loss may be a stock one, so that the losses can be tried one at a time. The samples over which Eq. 4 and
    Eq. 7 normalise are those of ``loss_cls.scope``. Boxes and IoU are computed at the positives alone.

    With ``loss_cls.sync`` both losses are normalised as one batch over all GPUs: rank r, with the sum :math:`S_r` and
    the host's divisor :math:`N_r`, has the loss

    .. math:: L_r = \frac{S_r}{\frac{1}{W} \sum_k N_k}, \quad
              \frac{1}{W} \sum_r L_r = \frac{\sum_r S_r}{\sum_k N_k}

    whose mean over the W ranks, which is what their averaged gradients descend, is that of all images in one batch.
    """

    # The seam's.
    loss_bbox: Any
    loss_cls: Any
    matched_iou: Any
    regressed: Any
    stock_cls_loss: Any
    sync: bool

    def loss_by_matched(self, groups: list[SampleGroup], reduction_override: str | None = None) -> dict[str, Tensor]:
        """Losses of a batch.

        Args:
            groups: Samples over which Eq. 4 and Eq. 7 normalise, a group each.
            reduction_override: 'none', 'mean' or 'sum' in place of the losses' own.

        Returns:
            'loss_cls' and 'loss_bbox', summed over the groups.
        """
        # An override of 'none' ranks hard examples, which not every GPU does: it must not wait for the others.
        sync = self.sync and reduction_override != 'none'
        if sync:
            groups = [group.with_mean_avg_factors() for group in groups]
        losses_cls, losses_bbox = zip(*(self._losses(group, reduction_override, sync) for group in groups))
        return dict(loss_cls=sum(losses_cls), loss_bbox=sum(losses_bbox))

    def _losses(self, group: SampleGroup, reduction_override: str | None, sync: bool) -> tuple[Tensor, Tensor]:
        positives = group.positives
        balances_cls = isinstance(self.loss_cls, IoUBalancedClassification)
        balances_bbox = isinstance(self.loss_bbox, IoUBalancedSmoothL1Loss)
        if balances_cls or balances_bbox:
            with torch.no_grad():
                iou = self.matched_iou(positives)
        if balances_cls:
            loss_cls = self.loss_cls(
                group.cls_scores,
                (group.labels, iou.new_zeros(len(group.labels)).index_put((group.pos_inds,), iou)),
                group.label_weights,
                avg_factor=group.cls_avg_factor,
                reduction_override=reduction_override,
                inds=group.pos_inds,
            )
        else:
            loss_cls = self.stock_cls_loss(group, group.cls_avg_factor, reduction_override)
        loss_bbox = self.loss_bbox(
            self.regressed(positives),
            positives.bbox_targets,
            positives.bbox_weights,
            avg_factor=group.bbox_avg_factor,
            reduction_override=reduction_override,
            **(dict(iou=iou, sync=sync) if balances_bbox else {}),
        )
        return loss_cls, loss_bbox


@MODELS.register_module()
class IoUBalancedRetinaHead(IoUBalancedLossMixin, AnchorLossMixin, RetinaHead):
    """``RetinaHead`` for :class:`~iou_balanced.losses.IoUBalancedFocalLoss`.

    Same arguments, parameters and inference as the stock head, as each of the heads below.
    """


@MODELS.register_module()
class IoUBalancedRetinaSepBNHead(IoUBalancedLossMixin, AnchorLossMixin, RetinaSepBNHead):
    """``RetinaSepBNHead`` (NAS-FPN, EfficientNet) for :class:`~iou_balanced.losses.IoUBalancedFocalLoss`."""


@MODELS.register_module()
class IoUBalancedRPNHead(IoUBalancedLossMixin, AnchorLossMixin, RPNHead):
    """``RPNHead`` for ``IoUBalancedCrossEntropyLoss(use_sigmoid=True)``, the form of the authors' RPN config."""


@MODELS.register_module()
class IoUBalancedSSDHead(IoUBalancedLossMixin, SSDLossMixin, ConfigurableSSDHead):
    """``SSDHead`` for :class:`~iou_balanced.losses.IoUBalancedCrossEntropyLoss`, before hard-negative mining.

    In addition to the stock arguments it takes the blocks ``loss_cls`` and ``loss_bbox``; without them it computes the
    stock losses. Unlike the stock head it can validate.
    """


@MODELS.register_module()
class IoUBalancedDSSDHead(IoUBalancedLossMixin, SSDLossMixin, DSSDHead):
    """``DSSDHead`` for :class:`~iou_balanced.losses.IoUBalancedCrossEntropyLoss`; also an ARM of RefineDet."""


@MODELS.register_module()
class IoUBalancedRefineDetHead(IoUBalancedLossMixin, SSDLossMixin, RefineDetHead):
    """``RefineDetHead`` (ODM) for :class:`~iou_balanced.losses.IoUBalancedCrossEntropyLoss`."""


@MODELS.register_module()
class IoUBalancedFoveaHead(IoUBalancedLossMixin, FoveaLossMixin, FoveaHead):
    """``FoveaHead`` for :class:`~iou_balanced.losses.IoUBalancedFocalLoss`.

    It regresses the logarithms of distances: the smooth L1 of Eq. 5 is taken of those, and the IoU from the distances.
    """


@MODELS.register_module()
class IoUBalancedBBoxHead(IoUBalancedLossMixin, RoILossMixin, BBoxHead):
    """``BBoxHead`` (C4 models) for :class:`~iou_balanced.losses.IoUBalancedCrossEntropyLoss`.

    With class-specific and class-agnostic regression, as each of the heads below.
    """


@MODELS.register_module()
class IoUBalancedConvFCBBoxHead(IoUBalancedLossMixin, RoILossMixin, ConvFCBBoxHead):
    """``ConvFCBBoxHead`` for :class:`~iou_balanced.losses.IoUBalancedCrossEntropyLoss`."""


@MODELS.register_module()
class IoUBalancedShared2FCBBoxHead(IoUBalancedLossMixin, RoILossMixin, Shared2FCBBoxHead):
    """``Shared2FCBBoxHead`` for :class:`~iou_balanced.losses.IoUBalancedCrossEntropyLoss`."""


@MODELS.register_module()
class IoUBalancedShared4Conv1FCBBoxHead(IoUBalancedLossMixin, RoILossMixin, Shared4Conv1FCBBoxHead):
    """``Shared4Conv1FCBBoxHead`` for :class:`~iou_balanced.losses.IoUBalancedCrossEntropyLoss`."""
