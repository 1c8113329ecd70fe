r"""How far the score of a detection tells its IoU with the ground truth.

Three sets of detections, in this order, and each function says which it measures:

* *counted*: of each image the ``max_per_image`` of the highest scores, without those below ``min_score``;
* *found*: those of them with an IoU of at least ``min_iou`` with a ground-truth box of their class;
* of *both high*: those with a score of at least ``high_score`` and an IoU of at least ``high_iou``.

Several detections may share a box, and crowds are not matched: a detection of a crowd has the IoU of the best box
beside it, most often 0. Paper A is *IoU-balanced loss functions for single-stage object detection*, paper B
*Reconcile Prediction Consistency for Balanced Object Detection* (HarmonicDet).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

#: Lower edges of the IoU bins of width 0.05, from 0.5 to 0.95; the last bin includes 1.
IOU_EDGES = tuple(k / 20 for k in range(10, 20))


class MatchedDetections(NamedTuple):
    """Detections with the IoU of their best ground-truth box.

    Attributes:
        score: Shape (n,), classification scores in [0, 1].
        iou: Shape (n,), IoU with the best box of the same class in the same image, in [0, 1]; 0 without one.
    """

    score: np.ndarray
    iou: np.ndarray


class Consistency(NamedTuple):
    r"""Agreement of score s and IoU of a set of detections.

    Attributes:
        detections: Number of counted detections.
        found: Number of those that found an object.
        mean_gap: Mean of :math:`|s - IoU|` over the found ones: what Eq. 14 of paper B is in training.
        pearson: Correlation of s and IoU over the found ones.
        spearman: Pearson correlation of their ranks; ties share their mean rank.
        both_high: Share of the *counted* detections with a high score and a high IoU (paper B, Fig. 5).
    """

    detections: int
    found: int
    mean_gap: float
    pearson: float
    spearman: float
    both_high: float


class ConsistencyCurves(NamedTuple):
    """Paper A's Fig. 3, a value for each of :data:`IOU_EDGES`.

    Attributes:
        iou: Lower edge of the bin, and threshold.
        detections: Number of counted detections in the bin.
        mean_score: Fig. 3a, their mean score; NaN in an empty bin.
        share_above: Fig. 3b, share of all counted detections with at least this IoU; NaN without detections.
    """

    iou: np.ndarray
    detections: np.ndarray
    mean_score: np.ndarray
    share_above: np.ndarray


def match_detections(ground_truth: COCO, detections: COCO, *, max_per_image: int | None = None) -> MatchedDetections:
    """IoU of each detection with the best ground-truth box of its class; several may share a box.

    Args:
        ground_truth: Annotations; crowds are not matched.
        detections: Their detections, from ``ground_truth.loadRes``.
        max_per_image: Keep this many of each image, those of the highest scores; None: all.

    Returns:
        Score and IoU of each detection kept, in the order of ``detections``.
    """
    images: dict[int, list[int]] = {}
    found = detections.dataset['annotations']
    for index, det in enumerate(found):
        images.setdefault(det['image_id'], []).append(index)
    score = np.array([det['score'] for det in found], dtype=float)
    iou = np.full(len(found), -1.0)  # of those left out
    for image_id, indices in images.items():
        kept = [indices[i] for i in _best(score[indices], max_per_image)]
        boxes = [ann for ann in ground_truth.imgToAnns[image_id] if not ann.get('iscrowd')]
        iou[kept] = _best_iou(*_coco_rows([found[i] for i in kept]), *_coco_rows(boxes))
    return MatchedDetections(score[iou >= 0], iou[iou >= 0])


def match_image(
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    gt_boxes: np.ndarray,
    gt_labels: np.ndarray,
    *,
    max_per_image: int | None = None,
) -> MatchedDetections:
    """The same of one image, from arrays.

    Args:
        boxes: Shape (n, 4), detections, xyxy, absolute pixels.
        scores: Shape (n,).
        labels: Shape (n,), class index.
        gt_boxes: Shape (m, 4), ground truth in the frame of ``boxes``.
        gt_labels: Shape (m,).
        max_per_image: As :func:`match_detections`.

    Returns:
        Score and IoU of each detection kept, the highest score first.
    """
    kept = _best(scores, max_per_image)
    iou = _best_iou(_xywh(boxes[kept]), labels[kept], _xywh(gt_boxes), gt_labels)
    return MatchedDetections(scores[kept].astype(float), iou)


def consistency(
    matched: MatchedDetections,
    *,
    min_iou: float = 0.5,
    min_score: float = 0.0,
    high_score: float = 0.5,
    high_iou: float = 0.5,
) -> Consistency:
    """All measures of a set of detections.

    The red curve of paper B's Fig. 5, inside of which score and IoU are both high, has no equation in the paper. Here
    it is the corner of two thresholds.

    Args:
        matched: Scores and IoUs.
        min_iou: What counts as found. Detections below would agree in their low score and low IoU for that reason
            alone, and there are many of them: how many, the detector's score threshold decides.
        min_score: Detections below are not counted.
        high_score: Corner of :attr:`Consistency.both_high`.
        high_iou: Corner of :attr:`Consistency.both_high`.

    Returns:
        The measures; NaN where there is nothing to measure.
    """
    score, iou = counted(matched, min_score)
    found = iou >= min_iou
    gap = np.abs(score - iou)[found]
    both_high = (score >= high_score) & (iou >= high_iou)
    return Consistency(
        detections=len(score),
        found=int(found.sum()),
        mean_gap=_mean(gap),
        pearson=_pearson(score[found], iou[found]),
        spearman=_pearson(average_ranks(score[found]), average_ranks(iou[found])),
        both_high=_mean(both_high),
    )


def consistency_curves(matched: MatchedDetections, *, min_score: float = 0.0) -> ConsistencyCurves:
    """Mean score of each IoU bin, and share of detections above each IoU.

    Args:
        matched: Scores and IoUs.
        min_score: Detections below are not counted.

    Returns:
        The two curves of paper A's Fig. 3. The paper does not say which detections its percentages refer to; here it
        is all that are counted, those that found nothing too.
    """
    score, iou = counted(matched, min_score)
    edges = np.array(IOU_EDGES)
    bins = np.searchsorted(edges, iou, side='right')  # 0: below the first edge
    count, total = (np.bincount(bins, weights, len(edges) + 1)[1:] for weights in (None, score))
    mean_score = np.divide(total, count, out=np.full(len(edges), np.nan), where=count > 0)
    share = np.array([_mean(iou >= edge) for edge in edges])
    return ConsistencyCurves(edges, count, mean_score, share)


def score_iou_correlation(matched: MatchedDetections, *, min_iou: float = 0.5) -> float:
    """Pearson correlation of score and IoU over the detections that found an object.

    Args:
        matched: Scores and IoUs.
        min_iou: Detections below are left out: they found nothing, and would correlate for that reason alone.

    Returns:
        In [-1, 1]; NaN with fewer than two detections, or when either quantity is the same for all.
    """
    return consistency(matched, min_iou=min_iou).pearson


def average_ranks(values: np.ndarray) -> np.ndarray:
    """Rank of each value from 1, the smallest first; equal ones get the mean of their ranks.

    Args:
        values: Shape (n,).

    Returns:
        Shape (n,).

    Example:
        >>> average_ranks(np.array([0.3, 0.1, 0.3]))
        array([2.5, 1. , 2.5])
    """
    _, inverse, count = np.unique(values, return_inverse=True, return_counts=True)
    return (count.cumsum() - (count - 1) / 2)[inverse]


def counted(matched: MatchedDetections, min_score: float) -> MatchedDetections:
    """The detections with at least this score."""
    keep = matched.score >= min_score
    return MatchedDetections(matched.score[keep], matched.iou[keep])


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float('nan')


def _pearson(first: np.ndarray, second: np.ndarray) -> float:
    # Not std(): of equal numbers it may be 1e-17, and the quotient of two such is no correlation.
    if len(first) < 2 or not (np.ptp(first) and np.ptp(second)):
        return float('nan')
    return float(np.corrcoef(first, second)[0, 1])


def _best(scores: np.ndarray, limit: int | None) -> np.ndarray:
    """Indices of the highest scores, the highest first; equal scores keep their order."""
    return np.argsort(-scores, kind='stable')[:limit]


def _best_iou(boxes: np.ndarray, labels: np.ndarray, gt_boxes: np.ndarray, gt_labels: np.ndarray) -> np.ndarray:
    """IoU of each detection of an image with the best box of its class; boxes xywh, (n, 4) and (m, 4) -> (n,)."""
    if not (len(boxes) and len(gt_boxes)):  # pycocotools returns an empty list
        return np.zeros(len(boxes))
    iou = coco_mask.iou(boxes, gt_boxes, [0] * len(gt_boxes))
    return np.where(labels[:, None] == gt_labels, iou, 0.0).max(axis=1)


def _coco_rows(annotations: list[dict]) -> tuple[np.ndarray, np.ndarray]:
    """Boxes, xywh, and categories; (n, 4), (n,)."""
    boxes = np.array([ann['bbox'] for ann in annotations], dtype=float).reshape(-1, 4)
    return boxes, np.array([ann['category_id'] for ann in annotations], dtype=int)


def _xywh(boxes: np.ndarray) -> np.ndarray:
    boxes = boxes.astype(float)
    return np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])
