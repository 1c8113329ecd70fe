"""mmdet's heads with HarmonicDet: what they add is the block ``loss_joint``, which couples the other two."""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.dense_heads import FoveaHead, RetinaHead, RetinaSepBNHead
from mmdet.models.losses import CrossEntropyLoss, FocalLoss
from mmdet.models.losses.utils import weight_reduce_loss
from mmdet.models.roi_heads.bbox_heads import BBoxHead, ConvFCBBoxHead, Shared2FCBBoxHead, Shared4Conv1FCBBoxHead
from mmdet.registry import MODELS
from torch import Tensor

from balanced_det.boxes import finite_rows
from balanced_det.heads import (
    AnchorLossMixin,
    ConfigurableSSDHead,
    FoveaLossMixin,
    LossMismatchError,
    RoILossMixin,
    SSDLossMixin,
)
from balanced_det.heads.checks import check_softmax
from balanced_det.matched import MatchedSamples
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
    num_classes: int
    regressed: Any

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

    def loss_by_matched(self, groups: list[MatchedSamples], reduction_override: str | None = None) -> dict[str, Tensor]:
        """Losses of a batch, Eq. 13.

        Args:
            groups: One flat set of samples.
            reduction_override: 'none', 'mean' or 'sum' in place of the losses' own.

        Returns:
            'loss_cls', 'loss_bbox' and, unless it is switched off, 'loss_tc'.
        """
        (samples,) = groups  # a stock loss_cls has the scope 'batch'
        return self._losses(samples, reduction_override)

    def _losses(self, samples: MatchedSamples, reduction_override: str | None) -> dict[str, Tensor]:
        avg_factors = samples.cls_avg_factor, samples.bbox_avg_factor
        if self.loss_joint.avg == 'positives':
            avg_factors = (max(len(samples.positives(self.num_classes)), 1),) * 2
        inds, cls_loss, terms = self._terms(samples)
        stock = self.loss_cls(
            samples.cls_score,
            samples.labels,
            samples.label_weights,
            avg_factor=avg_factors[0],
            reduction_override=reduction_override,
        )
        weights = samples.label_weights[inds]
        added = (terms.cls - cls_loss) * weights  # exactly 0 without the Harmonic loss
        if reduction_override == 'none':
            entry = (inds, samples.labels[inds]) if stock.ndim == 2 else (inds,)
            loss_cls = stock.index_put(entry, added.to(stock.dtype), accumulate=True)
        else:
            loss_cls = stock + _reduced(added, self.loss_cls, avg_factors[0], reduction_override)
        losses = dict(
            loss_cls=loss_cls, loss_bbox=_reduced(terms.loc, self.loss_bbox, avg_factors[1], reduction_override)
        )
        if self.loss_joint.tc:
            losses['loss_tc'] = _reduced(terms.tc * weights, self.loss_bbox, avg_factors[1], reduction_override)
        return losses

    def _terms(self, samples: MatchedSamples) -> tuple[Tensor, Tensor, HarmonicTerms]:
        """Indices of the positives that are finite, their classification loss, and the coupled terms."""
        inds = samples.positives(self.num_classes)
        counts = (samples.bbox_weights[inds] > 0).any(dim=1)
        finite = finite_rows(samples.bbox_pred[inds].detach(), samples.bbox_targets[inds])
        finite &= finite_rows(samples.cls_score[inds].detach())
        self.loss_joint.num_left_out = self.loss_joint.num_left_out + (counts & ~finite).sum()
        inds = inds[counts & finite]
        positives = samples.select(inds).float()
        if not len(inds):  # mmcv's focal loss cannot take an empty set on a GPU
            empty = positives.cls_score.sum(dim=1)
            return inds, empty, HarmonicTerms(empty, positives.bbox_pred.sum(dim=1), empty)
        with torch.autocast(device_type=inds.device.type, enabled=False):
            cls_loss = self.loss_cls(positives.cls_score, positives.labels, reduction_override='none')
            if cls_loss.ndim == 2:  # sigmoid: one value for each class
                cls_loss = cls_loss.gather(1, positives.labels[:, None]).squeeze(1)
            iou = self.matched_iou(positives)
            # A balanced loss_bbox cannot know it from what a FoveaBox regresses.
            of_bbox = dict(iou=iou.detach()) if hasattr(self.loss_bbox, 'target_stds') else {}
            bbox_loss = self.loss_bbox(
                self.regressed(positives),
                positives.bbox_targets,
                positives.bbox_weights,
                reduction_override='none',
                **of_bbox,
            )
            if bbox_loss.ndim == 2:  # IoU losses have one value for each box, the others for each coordinate
                bbox_loss = bbox_loss.sum(dim=1)
            score, prob = class_probabilities(
                positives.cls_score, positives.labels, use_sigmoid=self.loss_cls.use_sigmoid
            )
            terms = self.loss_joint(cls_loss, bbox_loss, iou, score, prob)
        return inds, cls_loss, terms


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
