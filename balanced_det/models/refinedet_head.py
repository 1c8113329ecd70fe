"""RefineDet's detection head: it starts from anchors of each image, those that the refinement has moved."""

from __future__ import annotations

from typing import Any, NamedTuple

from mmdet.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor

from balanced_det.models.dssd_head import DSSDHead


class RefinedAnchors(NamedTuple):
    """What the anchor refinement module (ARM) hands the detection module (ODM) for one image; constants.

    Attributes:
        priors: (n, 4), the anchors of all levels as the ARM has decoded them, xyxy, absolute pixels.
        objectness: (n,), the ARM's probability of an object, in [0, 1].
    """

    priors: Tensor
    objectness: Tensor


@MODELS.register_module()
class RefineDetHead(DSSDHead):
    """The object detection module (ODM) of RefineDet: ``DSSDHead`` on refined anchors (Zhang et al. 2018).

    It matches, encodes and decodes with the priors of :class:`RefinedAnchors`, which :class:`RefineDet` puts into the
    meta information of each image under 'refined'. Anchors whose objectness is below ``objectness_thr`` are no
    negatives in training and no detections in testing. Positives stay whatever their objectness, as in the release.

    Args:
        objectness_thr: 0.01, theta of the paper being 0.99 of the background.
        **kwargs: As ``DSSDHead``.
    """

    def __init__(self, *, objectness_thr: float = 0.01, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.objectness_thr = objectness_thr

    def get_anchors(
        self, featmap_sizes: list[tuple[int, int]], batch_img_metas: list[dict], device: Any = 'cuda'
    ) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
        """As ``AnchorHead.get_anchors``; the anchors are each image's own."""
        valid_flags = [
            self.prior_generator.valid_flags(featmap_sizes, meta['pad_shape'], device) for meta in batch_img_metas
        ]
        counts = self._anchors_of_levels(featmap_sizes)
        return [list(refined_of(meta).priors.split(counts)) for meta in batch_img_metas], valid_flags

    def _get_targets_single(
        self,
        flat_anchors: Tensor,
        valid_flags: Tensor,
        gt_instances: InstanceData,
        img_meta: dict,
        *args: Any,
        **kw: Any,
    ) -> tuple:
        """As ``AnchorHead._get_targets_single``; the weight of easy negatives is 0, so that none is mined."""
        labels, label_weights, *others = super()._get_targets_single(
            flat_anchors, valid_flags, gt_instances, img_meta, *args, **kw
        )
        easy = (refined_of(img_meta).objectness < self.objectness_thr) & (labels == self.num_classes)
        return (labels, label_weights.masked_fill(easy, 0.0), *others)

    def _predict_by_feat_single(
        self,
        cls_score_list: list[Tensor],
        bbox_pred_list: list[Tensor],
        score_factor_list: list[Tensor],
        mlvl_priors: list[Tensor],
        img_meta: dict,
        *args: Any,
        **kwargs: Any,
    ) -> InstanceData:
        """As ``BaseDenseHead._predict_by_feat_single``; with the image's own anchors, without the easy negatives."""
        counts = [len(priors) for priors in mlvl_priors]
        refined = refined_of(img_meta)
        easy = (refined.objectness < self.objectness_thr).split(counts)
        scores = [self._background_where(score, mask) for score, mask in zip(cls_score_list, easy)]
        return super()._predict_by_feat_single(
            scores, bbox_pred_list, score_factor_list, list(refined.priors.split(counts)), img_meta, *args, **kwargs
        )

    def _background_where(self, cls_score: Tensor, mask: Tensor) -> Tensor:
        """Logits (anchors * (C + 1), H, W) of a level, with no class left where the mask (H * W * anchors,) says so."""
        height, width = cls_score.shape[-2:]
        rows = cls_score.permute(1, 2, 0).reshape(-1, self.cls_out_channels).clone()
        rows[:, :-1].masked_fill_(mask[:, None], float('-inf'))
        return rows.reshape(height, width, -1).permute(2, 0, 1)

    def _anchors_of_levels(self, featmap_sizes: list[tuple[int, int]]) -> list[int]:
        return [height * width * priors for (height, width), priors in zip(featmap_sizes, self.num_base_priors)]


def refined_of(img_meta: dict) -> RefinedAnchors:
    """The refined anchors of an image.

    Raises:
        KeyError: There are none: the head is in another detector.
    """
    if 'refined' not in img_meta:
        raise KeyError(
            'RefineDetHead found no refined anchors of its image: it is the bbox_head of a RefineDet, with an '
            'arm_head; another detector takes DSSDHead'
        )
    return img_meta['refined']
