"""How far the score of a detection tells its IoU with the ground truth."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO


class MatchedDetections(NamedTuple):
    """Detections with the IoU of their best ground-truth box.

    Attributes:
        score: Shape (n,), classification scores in [0, 1].
        iou: Shape (n,), IoU with the best box of the same class in the same image, in [0, 1]; 0 without one.
    """

    score: np.ndarray
    iou: np.ndarray


def match_detections(ground_truth: COCO, detections: COCO) -> MatchedDetections:
    """IoU of each detection with the best ground-truth box of its class; several may share a box.

    Args:
        ground_truth: Annotations; crowds are not matched.
        detections: Their detections, from ``ground_truth.loadRes``.

    Returns:
        Score and IoU of each detection.
    """
    boxes: dict[tuple[int, int], list] = {}
    for ann in ground_truth.dataset['annotations']:
        if not ann.get('iscrowd'):
            boxes.setdefault((ann['image_id'], ann['category_id']), []).append(ann['bbox'])
    scores, ious = [], []
    for det in detections.dataset['annotations']:
        candidates = boxes.get((det['image_id'], det['category_id']), [])
        iou = coco_mask.iou([det['bbox']], candidates, [0] * len(candidates)).max() if candidates else 0.0
        scores.append(det['score'])
        ious.append(iou)
    return MatchedDetections(np.array(scores, dtype=float), np.array(ious, dtype=float))


def score_iou_correlation(matched: MatchedDetections, *, min_iou: float = 0.5) -> float:
    """Pearson correlation of score and IoU over the detections that found an object.

    Args:
        matched: Scores and IoUs.
        min_iou: Detections below are left out: they found nothing, and would correlate for that reason alone.

    Returns:
        In [-1, 1]; NaN with fewer than two detections, or when either quantity is the same for all.
    """
    found = matched.iou >= min_iou
    score, iou = matched.score[found], matched.iou[found]
    if len(score) < 2 or not (score.std() and iou.std()):
        return float('nan')
    return float(np.corrcoef(score, iou)[0, 1])
