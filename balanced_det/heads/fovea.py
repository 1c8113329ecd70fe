"""The seam of FoveaBox: the points of all levels, with the logarithms of their distances to the box sides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from mmdet.models.dense_heads import FoveaHead
from mmengine.structures import InstanceData
from torch import Tensor

from balanced_det.boxes import distance_iou
from balanced_det.heads.base import MatchedLossMixin, visible_instances
from balanced_det.heads.checks import check_decoded_boxes, check_sigmoid_spelled_out
from balanced_det.matched import MatchedSamples, group_samples


class FoveaLossMixin(MatchedLossMixin):
    """Makes a head on ``FoveaHead`` hand its matched points to :meth:`loss_by_matched`.

    ``FoveaHead`` matches and computes its losses in one method, so the matching (``get_targets``) is the host's and the
    method is replaced. Where an image has no positive point the losses are zeros that hang on the graph; those of the
    stock head do not.
    """

    SEAM: ClassVar = dict(loss_by_feat=(FoveaHead,), get_targets=(FoveaHead,))

    # The host's.
    cls_out_channels: int
    get_targets: Any
    prior_generator: Any

    def check_losses(self) -> None:
        """A sigmoid loss must say so in its block. The IoU is that of the head, so ``target_stds`` does not matter."""
        check_sigmoid_spelled_out(self)
        check_decoded_boxes(self)

    def loss_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        batch_gt_instances: list[InstanceData],
        batch_img_metas: list[dict],
        batch_gt_instances_ignore: list[InstanceData] | None = None,
    ) -> dict:
        """Losses of a batch; arguments as ``FoveaHead.loss_by_feat``.

        'gt_left_out' is the number of boxes in the batch without an area inside their image: they match nothing.
        """
        seen, left_out = visible_instances(batch_gt_instances, batch_img_metas)
        levels, num_pos = self._levels(cls_scores, bbox_preds, seen)
        groups = group_samples(levels, self.scope, self.num_classes, num_pos=num_pos)
        return dict(self.loss_by_matched(groups), gt_left_out=left_out)

    def matched_iou(self, samples: MatchedSamples) -> Tensor:
        """IoU of the regressed boxes with their targets, of a flat set of positives; shape (n,).

        Predictions and targets are the logarithms of the four distances in units of one length for each level, which
        cancels. Boxes are not clipped to the image.
        """
        return distance_iou(samples.bbox_pred.float().exp(), samples.bbox_targets.float().exp())

    def regressed(self, samples: MatchedSamples) -> Tensor:
        """What ``loss_bbox`` compares with ``bbox_targets``: the logarithms of the distances."""
        return samples.bbox_pred

    def _levels(
        self, cls_scores: Sequence[Tensor], bbox_preds: Sequence[Tensor], gts: list[InstanceData]
    ) -> tuple[list[MatchedSamples], int]:
        """Samples of each level, leading shape (images, points), and how many are positive."""
        sizes = [score.shape[-2:] for score in cls_scores]
        # In half precision, as the host has them under autocast, coordinates above 2048 lose whole pixels.
        priors = self.prior_generator.grid_priors(sizes, dtype=torch.float32, device=cls_scores[0].device)
        labels, targets = self.get_targets(gts, sizes, priors)
        num_images, counts = len(gts), [len(gts) * len(points) for points in priors]
        num_pos = int(((labels >= 0) & (labels < self.num_classes)).sum())

        def rows(tensor: Tensor, columns: int) -> Tensor:
            return tensor.permute(0, 2, 3, 1).reshape(num_images, -1, columns)

        columns = zip(cls_scores, bbox_preds, priors, labels.split(counts), targets.split(counts))
        levels = [
            MatchedSamples(
                cls_score=rows(score, self.cls_out_channels),
                bbox_pred=rows(pred, 4),
                priors=points.expand(num_images, -1, -1),
                labels=label.view(num_images, -1),
                label_weights=label.new_ones(num_images, len(points), dtype=torch.float32),
                bbox_targets=target.view(num_images, -1, 4),
                bbox_weights=torch.ones_like(target).view(num_images, -1, 4),
                # The two divisors of FoveaHead.loss_by_feat.
                cls_avg_factor=num_pos + num_images,
                bbox_avg_factor=num_pos,
            )
            for score, pred, points, label, target in columns
        ]
        return levels, num_pos
