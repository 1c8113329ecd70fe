"""Agreement of score and IoU as a metric of the validation, beside AP."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from balanced_det.evaluation.consistency import MatchedDetections, consistency, match_image


@METRICS.register_module()
class ConsistencyMetric(BaseMetric):
    """How far score and IoU of the detections agree: to be listed beside the AP metric, which it does not change.

    Keys, with the prefix ``consistency``: ``mean_gap``, ``pearson``, ``spearman``, ``both_high``, and the numbers of
    ``detections`` and ``found`` behind them. What they are, and over which detections:
    :class:`~balanced_det.evaluation.Consistency`. NaN where there is nothing to measure.

    The ground truth comes with the data samples, as the stock pipelines of COCO and VOC pack it: in absolute pixels of
    the original image, where the predictions are too, so ``LoadAnnotations`` stands after ``Resize``. (With
    ``instances`` among the ``meta_keys`` of ``PackDetInputs`` the data set's own boxes are taken, wherever it stands.)
    Crowds and ``difficult`` objects are not matched.

    Args:
        min_iou: A detection with less has found nothing, and does not count for the gap and the correlations.
        min_score: A detection with less is not counted at all.
        max_per_image: Detections of an image that are counted, those of the highest scores; None: all.
        high_score: What ``both_high`` takes for a high score.
        high_iou: What ``both_high`` takes for a high IoU.
        **kwargs: As ``BaseMetric``: ``collect_device``, ``prefix``, ``collect_dir``.

    Raises:
        ValueError: If the data samples carry no ground truth.
    """

    default_prefix = 'consistency'

    def __init__(
        self,
        min_iou: float = 0.5,
        min_score: float = 0.0,
        max_per_image: int | None = 100,
        high_score: float = 0.5,
        high_iou: float = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.max_per_image = max_per_image
        self.thresholds = dict(min_iou=min_iou, min_score=min_score, high_score=high_score, high_iou=high_iou)

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Match the detections of each image; one result for each, which is what mmengine gathers from all GPUs."""
        for sample in data_samples:
            pred = sample['pred_instances']
            boxes, scores, labels = (_array(pred[key]) for key in ('bboxes', 'scores', 'labels'))
            gt_boxes, gt_labels = _ground_truth(sample)
            matched = match_image(boxes, scores, labels, gt_boxes, gt_labels, max_per_image=self.max_per_image)
            self.results.append((matched, _beyond_image(gt_boxes, sample), len(gt_boxes)))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Measures over the detections of all images."""
        images, beyond, boxes = zip(*results) if results else ((), (), ())
        # mmdet's test pipelines read the boxes after Resize; read before, they are in pixels of another image.
        if 10 * sum(beyond) > sum(boxes):
            print_log(
                f'ConsistencyMetric: {sum(beyond)} of {sum(boxes)} ground-truth boxes reach beyond their image: in the '
                'test pipeline, put LoadAnnotations after Resize',
                logger='current',
                level=logging.WARNING,
            )
        score, iou = (np.concatenate([[], *(image[part] for image in images)]) for part in range(2))
        return consistency(MatchedDetections(score, iou), **self.thresholds)._asdict()


def _ground_truth(sample: dict) -> tuple[np.ndarray, np.ndarray]:
    """Boxes, xyxy, and labels of the objects of an image that are to be found; (m, 4), (m,)."""
    if 'instances' in sample:
        kept = [instance for instance in sample['instances'] if not instance.get('ignore_flag')]
        boxes = np.array([instance['bbox'] for instance in kept], dtype=float).reshape(-1, 4)
        return boxes, np.array([instance['bbox_label'] for instance in kept], dtype=int)
    if 'bboxes' not in sample.get('gt_instances', {}):
        raise ValueError(
            f'ConsistencyMetric: no ground truth came with image {sample["img_id"]!r}. In the pipeline of '
            "val_dataloader.dataset and test_dataloader.dataset, put dict(type='LoadAnnotations', with_bbox=True) "
            'after Resize'
        )
    return _array(sample['gt_instances']['bboxes']), _array(sample['gt_instances']['labels'])


def _array(values: Any) -> np.ndarray:
    values = getattr(values, 'tensor', values)  # boxes of a type of their own
    return values.detach().cpu().double().numpy()


def _beyond_image(boxes: np.ndarray, sample: dict) -> int:
    """How many boxes end outside of their image; VOC counts pixels from 1, so one pixel is let through."""
    height, width = sample['ori_shape'][:2]
    return int((boxes[:, 2:] > [width + 1, height + 1]).any(axis=1).sum())
