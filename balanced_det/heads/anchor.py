"""The seam of mmdet's anchor heads: all matched samples of a batch, once, in place of one loss for each level."""

from __future__ import annotations

from typing import Any, ClassVar

from mmdet.models.dense_heads import AnchorHead, RPNHead
from mmengine.structures import InstanceData
from torch import Tensor

from balanced_det.heads.base import MatchedLossMixin, visible_instances
from balanced_det.heads.checks import check_sigmoid_spelled_out
from balanced_det.matched import MatchedSamples, SampleGroup, group_samples


class AnchorLossMixin(MatchedLossMixin):
    """Makes a head on ``AnchorHead`` hand its matched samples to :meth:`loss_by_matched`.

    The host goes on matching and encoding as it does. Its method for one level collects the samples of the level, and
    the loss is computed when all levels are there. Mix in before the host:
    ``class MyHead(AnchorLossMixin, RetinaHead)``.
    """

    SEAM: ClassVar = dict(loss_by_feat=(AnchorHead, RPNHead), loss_by_feat_single=(AnchorHead,))

    # The host's.
    cls_out_channels: int
    _raw_positive_infos: dict

    def check_losses(self) -> None:
        """The loss blocks must fit the head, and a sigmoid loss must say so in its block."""
        check_sigmoid_spelled_out(self)
        super().check_losses()

    def loss_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        batch_gt_instances: list[InstanceData],
        batch_img_metas: list[dict],
        batch_gt_instances_ignore: list[InstanceData] | None = None,
    ) -> dict:
        """Losses of a batch, under the host's names; arguments as ``AnchorHead.loss_by_feat``.

        'gt_left_out' is the number of boxes in the batch without an area inside their image: they match nothing.
        """
        seen, left_out = visible_instances(batch_gt_instances, batch_img_metas)
        collected = super().loss_by_feat(  # type: ignore[misc]
            cls_scores, bbox_preds, seen, batch_img_metas, batch_gt_instances_ignore
        )
        name_cls, name_bbox = collected  # RPNHead calls them loss_rpn_cls, loss_rpn_bbox
        losses = self.loss_by_matched(self.group(collected[name_cls]))
        named = {name_cls: losses.pop('loss_cls'), name_bbox: losses.pop('loss_bbox')}
        return {**named, **losses, 'gt_left_out': left_out}

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

    def group(self, collected: list[Any]) -> list[SampleGroup]:
        """Samples over which ``loss_cls`` normalises, from what :meth:`loss_by_feat_single` returned."""
        return group_samples(collected, self.scope, self.num_classes, num_pos_of_images=self._num_pos_of_images())

    def _num_pos_of_images(self) -> list[int] | None:
        """How many positives each image has: mmdet's samplers know it, and a GPU would have to count.

        None where a subclass matches in another way, and the labels may not be those of the samplers.
        """
        matching = type(self).get_targets, type(self)._get_targets_single  # type: ignore[attr-defined]
        if matching != (AnchorHead.get_targets, AnchorHead._get_targets_single):
            return None
        return [len(result.pos_inds) for result in self._raw_positive_infos['sampling_results']]
