"""mmdet's heads with HarmonicDet: what they add is the block ``loss_joint``, which couples the other two."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.dense_heads import FoveaHead, RetinaHead, RetinaSepBNHead
from mmdet.models.losses import CrossEntropyLoss, FocalLoss, L1Loss, SmoothL1Loss
from mmdet.models.losses.utils import weight_reduce_loss
from mmdet.models.roi_heads.bbox_heads import BBoxHead, ConvFCBBoxHead, Shared2FCBBoxHead, Shared4Conv1FCBBoxHead
from mmdet.registry import MODELS
from torch import Tensor

from balanced_det.boxes import finite_rows
from balanced_det.fused_focal import focal_negatives, positive_focal_loss, runs_on, sum_factor
from balanced_det.heads import (
    AnchorLossMixin,
    ConfigurableSSDHead,
    FoveaLossMixin,
    LossMismatchError,
    RoILossMixin,
    SSDLossMixin,
)
from balanced_det.heads.checks import check_softmax
from balanced_det.matched import MatchedSamples, SampleGroup
from balanced_det.models import DSSDHead, RefineDetHead
from harmonic.losses import HarmonicDetLoss, HarmonicTerms, class_probabilities


class HarmonicLossMixin:
    """Adds the coupling of :class:`~harmonic.losses.HarmonicDetLoss` to the losses of a head.

    ``loss_cls`` and ``loss_bbox`` stay the detector's own; their values of a positive are the CE and the smooth L1 of
    Eq. 12. The classification loss of a sigmoid head's positive is the entry of its ground-truth class; the others are
    negatives, which nothing couples. 'loss_tc' is the task-contrastive loss.

    Args:
        *args: The host's.
        loss_joint: Block of the coupling; None: ``HarmonicDetLoss`` with the paper's values.
        **kwargs: The host's.
    """

    # The seam's.
    loss_bbox: Any
    loss_cls: Any
    matched_iou: Any
    regressed: Any
    stock_cls_loss: Any

    def __init__(self, *args: Any, loss_joint: dict | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.loss_joint: HarmonicDetLoss = MODELS.build(loss_joint or dict(type='HarmonicDetLoss'))

    def check_losses(self) -> None:
        """``loss_cls`` must be a stock loss on softmax scores or, in a dense head, on sigmoid scores."""
        super().check_losses()  # type: ignore[misc]
        name, loss = type(self).__name__, self.loss_cls
        if not isinstance(loss, (CrossEntropyLoss, FocalLoss)):
            raise LossMismatchError(
                f'{name} needs a loss_cls with softmax or sigmoid scores and a value for each sample, '
                f'CrossEntropyLoss or FocalLoss; got {type(loss).__name__}'
            )
        if hasattr(loss, 'scope'):
            raise LossMismatchError(
                f'{name} couples the loss_cls and loss_bbox that the detector has: set loss_cls to its stock loss '
                f'(FocalLoss, CrossEntropyLoss) in place of {type(loss).__name__}'
            )
        if isinstance(self, RoILossMixin):
            check_softmax(self, 'CrossEntropyLoss')

    def loss_by_matched(self, groups: list[SampleGroup], reduction_override: str | None = None) -> dict[str, Tensor]:
        """Losses of a batch, Eq. 13.

        Args:
            groups: One group of samples.
            reduction_override: 'none', 'mean' or 'sum' in place of the losses' own.

        Returns:
            'loss_cls', 'loss_bbox' and, unless it is switched off, 'loss_tc'.
        """
        (group,) = groups  # a stock loss_cls has the scope 'batch'
        return self._losses(group, reduction_override)

    def _losses(self, group: SampleGroup, reduction_override: str | None) -> dict[str, Tensor]:
        cls_avg, bbox_avg = group.cls_avg_factor, group.bbox_avg_factor
        if self.loss_joint.avg == 'positives':
            cls_avg = bbox_avg = max(len(group.pos_inds), 1)
        positives, keep = self._finite(group.positives)
        if self._is_fused(group.cls_scores[0], reduction_override):
            stock, cls_loss, score = self._fused_focal_loss(group, keep, cls_avg, reduction_override)
        else:
            stock = self.stock_cls_loss(group, cls_avg, reduction_override)
            cls_loss, score = self._sample_loss(positives), None
        terms = self._terms(positives, keep, cls_loss, score)
        weights = positives.label_weights
        added = (terms.cls - cls_loss).where(keep, 0) * weights  # exactly 0 without the Harmonic loss
        if (reduction_override or self.loss_cls.reduction) == 'none':
            entry = (group.pos_inds, positives.labels) if stock.ndim == 2 else (group.pos_inds,)
            loss_cls = stock.index_put(entry, added.to(stock.dtype), accumulate=True)
        else:
            loss_cls = stock + _reduced(added, self.loss_cls, cls_avg, reduction_override)
        losses = dict(loss_cls=loss_cls, loss_bbox=_reduced(terms.loc, self.loss_bbox, bbox_avg, reduction_override))
        if self.loss_joint.tc:
            losses['loss_tc'] = _reduced(terms.tc * weights, self.loss_bbox, bbox_avg, reduction_override)
        return losses

    def _finite(self, positives: MatchedSamples) -> tuple[MatchedSamples, Tensor]:
        """Positives in float32 at least, and which of them count, (P,); the numbers of the others are zeros.

        They are not cut out: for that the host would wait until a GPU has counted them.
        """
        counts = (positives.bbox_weights > 0).any(dim=1)
        finite = finite_rows(positives.bbox_pred.detach(), positives.bbox_targets)
        finite &= finite_rows(positives.cls_score.detach())
        self.loss_joint.num_left_out = self.loss_joint.num_left_out + (counts & ~finite).sum()
        return positives.float().zero_unless(counts & finite), counts & finite

    def _is_fused(self, cls_score: Tensor, reduction_override: str | None) -> bool:
        """Whether the stock loss is one that the fused pass computes."""
        plain = type(self.loss_cls) is FocalLoss and not getattr(self.loss_cls, 'activated', False)
        reduces = (reduction_override or self.loss_cls.reduction) != 'none'
        return self.loss_joint.fused and plain and reduces and runs_on(cls_score.device, cls_score.dtype)

    def _fused_focal_loss(
        self, group: SampleGroup, keep: Tensor, avg_factor: float, reduction_override: str | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The stock focal loss of all samples; loss and score of each positive, (P,).

        Their gradients go through the P logits, not through a gradient of the size of all of them.
        """
        loss, entries = self.loss_cls, sum(scores.numel() for scores in group.cls_scores)
        focal = dict(gamma=loss.gamma, alpha=loss.alpha)
        scale = loss.loss_weight * sum_factor(reduction_override or loss.reduction, avg_factor, entries)
        negatives, logits = focal_negatives(
            group.cls_scores, group.labels, group.pos_inds, group.label_weights, **focal, scale=scale
        )
        stock = negatives + scale * (positive_focal_loss(logits, **focal) * group.positives.label_weights).sum()
        logits = logits.where(keep, 0)  # the stock loss keeps what is not finite, the coupling does not
        return stock, loss.loss_weight * positive_focal_loss(logits, **focal), logits.sigmoid()

    def _sample_loss(self, positives: MatchedSamples) -> Tensor:
        """Stock classification loss of the ground-truth class of each positive, (P,)."""
        if not len(positives.labels):  # mmcv's focal loss cannot take an empty set on a GPU
            return positives.cls_score.sum(dim=1)
        with torch.autocast(device_type=positives.labels.device.type, enabled=False):
            loss = self.loss_cls(positives.cls_score, positives.labels, reduction_override='none')
        # A sigmoid loss has one value for each class.
        return loss.gather(1, positives.labels[:, None]).squeeze(1) if loss.ndim == 2 else loss

    def _terms(self, positives: MatchedSamples, keep: Tensor, cls_loss: Tensor, score: Tensor | None) -> HarmonicTerms:
        """The coupled terms of the positives; those that do not count have zeros."""
        if not len(keep):  # the stock loss of nothing is a scalar
            return HarmonicTerms(cls_loss, positives.bbox_pred.sum(dim=1), cls_loss)
        with torch.autocast(device_type=keep.device.type, enabled=False):
            iou = self.matched_iou(positives)
            # A balanced loss_bbox cannot know it from what a FoveaBox regresses.
            of_bbox = dict(iou=iou.detach()) if hasattr(self.loss_bbox, 'target_stds') else {}
            # Given weights, mmdet's L1 losses wait for a GPU to tell whether any is above 0.
            multiplies = isinstance(self.loss_bbox, (L1Loss, SmoothL1Loss))
            weights = positives.bbox_weights
            bbox_loss = self.loss_bbox(
                self.regressed(positives),
                positives.bbox_targets,
                None if multiplies else weights,
                reduction_override='none',
                **of_bbox,
            )
            if multiplies:
                bbox_loss = bbox_loss * weights
            if bbox_loss.ndim == 2:  # IoU losses have one value for each box, the others for each coordinate
                bbox_loss = bbox_loss.sum(dim=1)
            own, prob = class_probabilities(
                positives.cls_score, positives.labels, use_sigmoid=self.loss_cls.use_sigmoid
            )
            return self.loss_joint(cls_loss, bbox_loss, iou, own if score is None else score, prob, keep)


def _reduced(loss: Tensor, module: Any, avg_factor: float, reduction_override: str | None) -> Tensor:
    """Reduce as a loss module does that divides by ``avg_factor``."""
    return weight_reduce_loss(loss, None, reduction_override or module.reduction, avg_factor)


@MODELS.register_module()
class HarmonicRetinaHead(HarmonicLossMixin, AnchorLossMixin, RetinaHead):
    """``RetinaHead`` with HarmonicDet: the stock arguments and the block ``loss_joint``.

    Same parameters and inference as the stock head, as each of the heads below.
    """


@MODELS.register_module()
class HarmonicRetinaSepBNHead(HarmonicLossMixin, AnchorLossMixin, RetinaSepBNHead):
    """``RetinaSepBNHead`` (NAS-FPN, EfficientNet) with HarmonicDet."""


@MODELS.register_module()
class HarmonicSSDHead(HarmonicLossMixin, SSDLossMixin, ConfigurableSSDHead):
    """``SSDHead`` with HarmonicDet; its negatives are mined by the stock ranking.

    It takes the blocks ``loss_cls`` and ``loss_bbox`` too, which the stock head does not, and can validate.
    """


@MODELS.register_module()
class HarmonicDSSDHead(HarmonicLossMixin, SSDLossMixin, DSSDHead):
    """``DSSDHead`` with HarmonicDet; also an ARM of RefineDet."""


@MODELS.register_module()
class HarmonicRefineDetHead(HarmonicLossMixin, SSDLossMixin, RefineDetHead):
    """``RefineDetHead`` (ODM) with HarmonicDet."""


@MODELS.register_module()
class HarmonicFoveaHead(HarmonicLossMixin, FoveaLossMixin, FoveaHead):
    """``FoveaHead`` with HarmonicDet: smooth L1 of the logarithms of its distances, IoU from the distances."""


@MODELS.register_module()
class HarmonicBBoxHead(HarmonicLossMixin, RoILossMixin, BBoxHead):
    """``BBoxHead`` (C4 models) with HarmonicDet.

    With class-specific and class-agnostic regression, as each of the heads below.
    """


@MODELS.register_module()
class HarmonicConvFCBBoxHead(HarmonicLossMixin, RoILossMixin, ConvFCBBoxHead):
    """``ConvFCBBoxHead`` with HarmonicDet."""


@MODELS.register_module()
class HarmonicShared2FCBBoxHead(HarmonicLossMixin, RoILossMixin, Shared2FCBBoxHead):
    """``Shared2FCBBoxHead`` (Faster, Mask and Cascade R-CNN) with HarmonicDet."""


@MODELS.register_module()
class HarmonicShared4Conv1FCBBoxHead(HarmonicLossMixin, RoILossMixin, Shared4Conv1FCBBoxHead):
    """``Shared4Conv1FCBBoxHead`` with HarmonicDet."""
