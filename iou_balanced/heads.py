"""mmdet's heads with the IoU-balanced losses: what they add is the IoU that the classification loss asks for."""

from __future__ import annotations

from typing import Any

from mmdet.models.dense_heads import RetinaHead
from mmdet.models.roi_heads import Shared2FCBBoxHead
from mmdet.registry import MODELS
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor

from balanced_det.heads import AnchorLossMixin, RoILossMixin
from balanced_det.matched import MatchedSamples, group_samples
from iou_balanced.losses import IoUBalancedClassification


class IoUBalancedLossMixin:
    """Hands the matched samples to ``loss_cls`` and ``loss_bbox``, with the IoU of the regressed boxes.

    Either loss may be a stock one, so that the losses can be tried one at a time. The samples over which Eq. 4 and
    Eq. 7 normalise are those of ``loss_cls.scope``. Boxes and IoU are computed at the positives alone.
    """

    # The host's.
    bbox_coder: Any
    loss_bbox: Any
    loss_cls: Any
    num_classes: int
    reg_decoded_bbox: bool

    def loss_by_matched(self, levels: list[MatchedSamples], reduction_override: str | None = None) -> dict[str, Tensor]:
        """Losses of a batch.

        Args:
            levels: One set of samples for each level, leading shape (images, n).
            reduction_override: 'none', 'mean' or 'sum' in place of the losses' own.

        Returns:
            'loss_cls' and 'loss_bbox', summed over the sets of the scope.
        """
        groups = group_samples(levels, getattr(self.loss_cls, 'scope', 'batch'))
        losses = [self._losses(samples, reduction_override) for samples in groups]
        losses_cls, losses_bbox = zip(*losses)
        return dict(loss_cls=sum(losses_cls), loss_bbox=sum(losses_bbox))

    def _losses(self, samples: MatchedSamples, reduction_override: str | None) -> tuple[Tensor, Tensor]:
        inds = samples.positives(self.num_classes)
        positives = samples.select(inds)
        target: Tensor | tuple[Tensor, Tensor] = samples.labels
        if isinstance(self.loss_cls, IoUBalancedClassification):
            iou = positives.iou(self.bbox_coder, decoded=self.reg_decoded_bbox)
            target = (samples.labels, iou.new_zeros(len(samples.labels)).index_put((inds,), iou))
        loss_cls = self.loss_cls(
            samples.cls_score,
            target,
            samples.label_weights,
            avg_factor=samples.cls_avg_factor,
            reduction_override=reduction_override,
        )
        bbox_pred = positives.bbox_pred
        if self.reg_decoded_bbox:
            bbox_pred = get_box_tensor(self.bbox_coder.decode(positives.priors, bbox_pred))
        loss_bbox = self.loss_bbox(
            bbox_pred,
            positives.bbox_targets,
            positives.bbox_weights,
            avg_factor=samples.bbox_avg_factor,
            reduction_override=reduction_override,
        )
        return loss_cls, loss_bbox


@MODELS.register_module()
class IoUBalancedRetinaHead(IoUBalancedLossMixin, AnchorLossMixin, RetinaHead):
    """``RetinaHead`` for :class:`~iou_balanced.losses.IoUBalancedFocalLoss`.

    Same arguments, parameters and inference as the stock head.
    """


@MODELS.register_module()
class IoUBalancedShared2FCBBoxHead(IoUBalancedLossMixin, RoILossMixin, Shared2FCBBoxHead):
    """``Shared2FCBBoxHead`` for :class:`~iou_balanced.losses.IoUBalancedCrossEntropyLoss`.

    Same arguments, parameters and inference as the stock head, with class-specific and class-agnostic regression.
    """
