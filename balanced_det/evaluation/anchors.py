"""What RefineDet's anchor refinement does to the anchors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from mmdet.structures.bbox import bbox_overlaps, get_box_tensor

from balanced_det.boxes import aligned_iou


class AnchorIoU(NamedTuple):
    """Mean IoU of anchors with the ground truth, in [0, 1].

    Attributes:
        anchors: Of the anchors matched to a box (IoU >= 0.5), with that box.
        refined: Of the same anchors with the same boxes, after the refinement.
        best_anchors: Of each box with its best anchor.
        best_refined: Of each box with its best refined anchor.
    """

    anchors: float
    refined: float
    best_anchors: float
    best_refined: float


@torch.no_grad()
def anchor_iou(model: Any, batches: Iterable[dict], min_iou: float = 0.5) -> AnchorIoU:
    """Compare the anchors of a RefineDet with the refined ones.

    Args:
        model: A ``RefineDet``; it is left in evaluation mode.
        batches: As a data loader for training gives them: the boxes are those of the resized images.
        min_iou: From which IoU on an anchor is matched to a box.

    Returns:
        Means over all matched anchors and over all boxes.

    Raises:
        ValueError: No anchor is matched to a box.
    """
    model.eval()
    matched, best = [], []
    for batch in batches:
        data = model.data_preprocessor(batch, False)
        sources = model.extract_feat(data['inputs'])
        arm_outs = model.arm_head(sources)
        metas = model.with_refined([sample.metainfo for sample in data['data_samples']], arm_outs)
        sizes = [level.shape[-2:] for level in arm_outs[0]]
        anchors = torch.cat(model.arm_head.prior_generator.grid_priors(sizes, device=data['inputs'].device))
        for sample, meta in zip(data['data_samples'], metas):
            boxes, refined = get_box_tensor(sample.gt_instances.bboxes), meta['refined'].priors
            if not len(boxes):
                continue
            iou = bbox_overlaps(anchors, boxes)
            value, index = iou.max(dim=1)
            hit = value >= min_iou
            matched.append(torch.stack([value[hit], aligned_iou(refined[hit], boxes[index[hit]])]))
            best.append(torch.stack([iou.max(dim=0).values, bbox_overlaps(refined, boxes).max(dim=0).values]))
    if not sum(pairs.numel() for pairs in matched):
        raise ValueError(f'no anchor has an IoU of {min_iou} or more with a box: are there boxes in these images?')
    return AnchorIoU(*(value for pairs in (matched, best) for value in torch.cat(pairs, dim=1).mean(dim=1).tolist()))
