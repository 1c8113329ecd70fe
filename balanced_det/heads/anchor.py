"""The seam of mmdet's anchor heads: all matched samples of a batch, once, in place of one loss for each level."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.structures import InstanceData
from torch import Tensor

from balanced_det.boxes import visible_boxes
from balanced_det.heads.checks import check_regression_targets, check_sigmoid_spelled_out
from balanced_det.matched import MatchedSamples


class AnchorLossMixin:
    """Makes a head on ``AnchorHead`` hand its matched samples to :meth:`loss_by_matched`.

    The host goes on matching and encoding as it does. Its method for one level collects the samples of the level, and
    the loss is computed when all levels are there. Mix in before the host:
    ``class MyHead(AnchorLossMixin, RetinaHead)``.
    """

    # The host's.
    bbox_coder: Any
    cls_out_channels: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_sigmoid_spelled_out(self)
        check_regression_targets(self)

    def loss_by_matched(self, levels: list[MatchedSamples]) -> dict[str, Tensor]:
        """Losses of a batch.

        Args:
            levels: One set of samples for each level, leading shape (images, anchors of the level).

        Returns:
            'loss_cls' and 'loss_bbox', scalars.
        """
        raise NotImplementedError

    def loss_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        batch_gt_instances: list[InstanceData],
        batch_img_metas: list[dict],
        batch_gt_instances_ignore: list[InstanceData] | None = None,
    ) -> dict:
        """Losses of a batch; arguments as ``AnchorHead.loss_by_feat``.

        Ground-truth boxes without an area inside their image are left out before the matching, which would otherwise
        make every anchor that overlaps nothing a positive of such a box; 'gt_left_out' is their number in the batch.
        """
        seen, left_out = _visible_instances(batch_gt_instances, batch_img_metas)
        host_losses = super().loss_by_feat(  # type: ignore[misc]
            cls_scores, bbox_preds, seen, batch_img_metas, batch_gt_instances_ignore
        )
        levels = next(iter(host_losses.values()))
        return dict(self.loss_by_matched(levels), gt_left_out=left_out)

    def loss_by_feat_single(
        self,
        cls_score: Tensor,
        bbox_pred: Tensor,
        anchors: Tensor,
        labels: Tensor,
        label_weights: Tensor,
        bbox_targets: Tensor,
        bbox_weights: Tensor,
        avg_factor: float,
    ) -> tuple[MatchedSamples, None]:
        """Samples of one level; arguments as ``AnchorHead.loss_by_feat_single``.

        The host gathers what this returns of all levels into two lists, of which the first is read.
        """
        num_images = len(labels)
        samples = MatchedSamples(
            cls_score=cls_score.permute(0, 2, 3, 1).reshape(num_images, -1, self.cls_out_channels),
            bbox_pred=bbox_pred.permute(0, 2, 3, 1).reshape(num_images, -1, self.bbox_coder.encode_size),
            priors=anchors,
            labels=labels,
            label_weights=label_weights,
            bbox_targets=bbox_targets,
            bbox_weights=bbox_weights,
            cls_avg_factor=avg_factor,
            bbox_avg_factor=avg_factor,
        )
        return samples, None


def _visible_instances(
    batch_gt_instances: list[InstanceData], batch_img_metas: list[dict]
) -> tuple[list[InstanceData], Tensor]:
    """Instances whose boxes have an area inside the image, and how many have not."""
    visible = [
        visible_boxes(getattr(gt.bboxes, 'tensor', gt.bboxes), meta['img_shape'])
        for gt, meta in zip(batch_gt_instances, batch_img_metas)
    ]
    left_out = (~torch.cat(visible)).sum().float()
    if left_out > 0:
        batch_gt_instances = [gt[keep] for gt, keep in zip(batch_gt_instances, visible)]
    return batch_gt_instances, left_out
