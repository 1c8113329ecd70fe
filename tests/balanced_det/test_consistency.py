"""Matching of detections with boxes, and the correlation of score and IoU, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from pycocotools.coco import COCO

from balanced_det.evaluation import MatchedDetections, match_detections, score_iou_correlation


def coco(annotations):
    dataset = COCO()
    dataset.dataset = dict(
        images=[dict(id=1), dict(id=2)],
        categories=[dict(id=1), dict(id=2)],
        annotations=[
            dict(id=n, image_id=image, category_id=category, bbox=box, area=box[2] * box[3], iscrowd=crowd)
            for n, (image, category, box, crowd) in enumerate(annotations, start=1)
        ],
    )
    dataset.createIndex()
    return dataset


def test_best_box_of_the_same_class_and_image():
    ground_truth = coco(
        [(1, 1, [0, 0, 10, 10], 0), (1, 1, [20, 0, 10, 10], 0), (1, 2, [40, 0, 10, 10], 0), (2, 1, [0, 0, 10, 10], 1)]
    )
    found = [
        (1, 1, [0, 0, 10, 5], 0.9),  # lower half of the first box: 1/2
        (1, 1, [15, 0, 10, 10], 0.8),  # shifted by half against the second: 50 / 150
        (1, 1, [40, 0, 10, 10], 0.7),  # fits a box of another class
        (2, 1, [0, 0, 10, 10], 0.6),
    ]  # fits a crowd
    detections = ground_truth.loadRes(
        [dict(image_id=image, category_id=category, bbox=box, score=score) for image, category, box, score in found]
    )
    matched = match_detections(ground_truth, detections)
    np.testing.assert_allclose(matched.iou, [0.5, 1 / 3, 0, 0])
    np.testing.assert_allclose(matched.score, [0.9, 0.8, 0.7, 0.6])


def test_correlation_of_those_that_found_something():
    # iou (.5, .7, .9), score (.2, .4, .3): centred (-.2, 0, .2) and (-.1, .1, 0): r = .02 / sqrt(.08 * .02) = 1/2.
    # The last detection found nothing and must not count.
    matched = MatchedDetections(np.array([0.2, 0.4, 0.3, 0.01]), np.array([0.5, 0.7, 0.9, 0.0]))
    assert score_iou_correlation(matched) == pytest.approx(0.5)


@pytest.mark.parametrize(('score', 'iou'), [([], []), ([0.5], [0.9]), ([0.5, 0.5], [0.6, 0.9])])
def test_no_correlation_without_variation(score, iou):
    assert math.isnan(score_iou_correlation(MatchedDetections(np.array(score), np.array(iou))))
