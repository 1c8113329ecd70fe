"""Matching of detections with boxes, and the measures and curves of score and IoU, by hand and by naive loops."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from pycocotools.coco import COCO
from reference import boxes as reference_boxes

from balanced_det.analysis.figures import consistency_figure
from balanced_det.evaluation import (
    Consistency,
    MatchedDetections,
    consistency,
    consistency_curves,
    match_detections,
    match_image,
    score_iou_correlation,
)
from balanced_det.evaluation.consistency import average_ranks


def coco(annotations):
    dataset = COCO()
    dataset.dataset = dict(
        images=[dict(id=image) for image in range(1, 5)],
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


# Six times 0.1 has a standard deviation of 1e-17 in floating point, which is no variation either.
@pytest.mark.parametrize(('score', 'iou'), [([], []), ([0.5], [0.9]), ([0.5, 0.5], [0.6, 0.9]), ([0.1] * 6, [0.7] * 6)])
def test_no_correlation_without_variation(score, iou):
    assert math.isnan(score_iou_correlation(MatchedDetections(np.array(score), np.array(iou))))


# ------------------------------------------------------------------------------------------------ matching


def random_scene(seed=0, num_images=4):
    """Ground truth of two classes, with crowds, and jittered detections of it: (image, class, xywh, crowd or score)."""
    rng = np.random.default_rng(seed)
    truth, found = [], []
    for image in range(1, num_images + 1):
        for _ in range(5):
            box, category = [*rng.integers(0, 60, 2), *rng.integers(8, 40, 2)], int(rng.integers(1, 3))
            truth.append((image, category, [float(x) for x in box], int(rng.random() < 0.2)))
            for _ in range(3):
                jittered = [float(x) for x in np.array(box) + rng.integers(-4, 5, 4)]
                found.append((image, category if rng.random() < 0.8 else 3 - category, jittered, float(rng.random())))
    truth = [(1 if row[0] == 2 else row[0], *row[1:]) for row in truth]  # image 2 has no ground truth
    return truth, found


def load(truth, found):
    ground_truth = coco(truth)
    rows = [dict(image_id=row[0], category_id=row[1], bbox=row[2], score=row[3]) for row in found]
    return ground_truth, ground_truth.loadRes(rows)


def corners(box):
    return [box[0], box[1], box[0] + box[2], box[1] + box[3]]


def naive_iou(row, truth):
    """The best box of the image and class, no crowd."""
    fits = [gt[2] for gt in truth if gt[:2] == row[:2] and not gt[3]]
    return max((reference_boxes.iou(corners(row[2]), corners(box)) for box in fits), default=0.0)


def test_matching_equals_naive_loops():
    truth, found = random_scene()
    matched = match_detections(*load(truth, found))
    expected = [naive_iou(row, truth) for row in found]
    assert 0 < sum(iou == 0 for iou in expected) < len(expected) / 2
    np.testing.assert_allclose(matched.iou, expected)
    np.testing.assert_allclose(matched.score, [row[3] for row in found])


@pytest.mark.parametrize('limit', [1, 4, 100])
def test_best_of_each_image(limit):
    truth, found = random_scene(1)
    matched = match_detections(*load(truth, found), max_per_image=limit)
    kept = []
    for row in found:
        better = sum(other[0] == row[0] and other[3] > row[3] for other in found)
        if better < limit:
            kept.append(row)
    assert len(kept) == min(limit, 15) * 4
    np.testing.assert_allclose(matched.score, [row[3] for row in kept])
    np.testing.assert_allclose(matched.iou, [naive_iou(row, truth) for row in kept])


@pytest.mark.parametrize('limit', [None, 3])
def test_arrays_of_an_image_are_matched_alike(limit):
    truth, found = random_scene(2, num_images=1)
    plain = [row for row in truth if not row[3]]
    boxes, gt_boxes = (np.array([corners(row[2]) for row in rows]) for rows in (found, plain))
    labels, gt_labels = (np.array([row[1] for row in rows]) for rows in (found, plain))
    scores = np.array([row[3] for row in found])
    matched = match_image(boxes, scores, labels, gt_boxes, gt_labels, max_per_image=limit)
    expected = match_detections(*load(truth, found), max_per_image=limit)
    order = np.argsort(-expected.score)
    np.testing.assert_allclose(matched.score, expected.score[order])
    np.testing.assert_allclose(matched.iou, expected.iou[order])


# ------------------------------------------------------------------------------------------------ measures

# Four found, one not counted for its score, two that found nothing.
MATCHED = MatchedDetections(
    score=np.array([0.9, 0.5, 0.3, 0.5, 0.04, 0.8, 0.2]), iou=np.array([0.8, 0.5, 0.7, 0.6, 0.9, 0.49, 0.0])
)


def test_measures_by_hand():
    measured = consistency(MATCHED, min_score=0.05)
    # gaps .1, 0, .4, .1; both high: the first, second and fourth of six counted ones (the thresholds belong to it).
    # Scores .9 .5 .3 .5 have ranks 4 2.5 1 2.5 and mean .55; IoUs .8 .5 .7 .6 have ranks 4 1 3 2 and mean .65.
    # Products of the deviations: .0525 + .0075 - .0125 + .0025 = .05; squares .19 and .05.
    # Of the ranks: 1.5 * 1.5 + 0 - 1.5 * .5 + 0 = 1.5; squares 4.5 and 5.
    assert measured == pytest.approx(
        Consistency(
            detections=6,
            found=4,
            mean_gap=0.15,
            pearson=0.05 / math.sqrt(0.19 * 0.05),
            spearman=1.5 / math.sqrt(4.5 * 5),
            both_high=0.5,
        )
    )


def test_thresholds():
    assert consistency(MATCHED).detections == 7
    assert consistency(MATCHED, min_iou=0.75).found == 2
    assert consistency(MATCHED, min_iou=0.0).mean_gap == pytest.approx((0.1 + 0 + 0.4 + 0.1 + 0.86 + 0.31 + 0.2) / 7)
    assert consistency(MATCHED, high_score=0.6).both_high == pytest.approx(1 / 7)
    assert consistency(MATCHED, high_score=0.1, high_iou=0.7).both_high == pytest.approx(2 / 7)


def random_matched(seed=0, n=300):
    rng = np.random.default_rng(seed)
    iou = rng.random(n).round(2)  # with ties
    return MatchedDetections((0.6 * iou + 0.4 * rng.random(n)).round(2), iou)


def naive_pearson(x, y):
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    products = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y))
    return products / math.sqrt(sum((a - mean_x) ** 2 for a in x) * sum((b - mean_y) ** 2 for b in y))


def naive_ranks(values):
    return [sum(other < v for other in values) + (1 + sum(other == v for other in values)) / 2 for v in values]


def test_measures_equal_naive_loops():
    matched = random_matched()
    found = [(s, i) for s, i in zip(*map(np.ndarray.tolist, matched)) if i >= 0.5]
    score, iou = zip(*found)
    measured = consistency(matched)
    assert measured.found == len(found) > 100
    assert measured.mean_gap == pytest.approx(sum(abs(s - i) for s, i in found) / len(found))
    assert measured.pearson == pytest.approx(naive_pearson(score, iou))
    assert measured.spearman == pytest.approx(naive_pearson(naive_ranks(score), naive_ranks(iou)))
    assert measured.pearson == score_iou_correlation(matched)


def test_spearman_is_that_of_scipy():
    stats = pytest.importorskip('scipy.stats')
    score, iou = random_matched(1)
    np.testing.assert_array_equal(average_ranks(score), stats.rankdata(score))
    assert consistency(MatchedDetections(score, iou), min_iou=0.0).spearman == pytest.approx(
        stats.spearmanr(score, iou)[0]
    )


def test_spearman_sees_the_order_alone():
    matched = random_matched(2)
    bent = MatchedDetections(matched.score**5, matched.iou)
    assert consistency(bent).spearman == pytest.approx(consistency(matched).spearman)
    assert consistency(bent).pearson != pytest.approx(consistency(matched).pearson, rel=1e-2)


@pytest.mark.parametrize('matched', [MatchedDetections(np.zeros(0), np.zeros(0)), MatchedDetections(*np.zeros((2, 3)))])
def test_nothing_to_measure(matched):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        measured, curves = consistency(matched), consistency_curves(matched)
        none_counted = consistency_curves(matched, min_score=0.5)
    assert (measured.detections, measured.found) == (len(matched.score), 0)
    assert np.isnan(measured[2:5]).all()
    assert math.isnan(measured.both_high) if not len(matched.score) else measured.both_high == 0
    assert np.isnan(curves.mean_score).all()
    assert np.isnan(none_counted.share_above).all()


# -------------------------------------------------------------------------------------------------- curves


def test_curves_by_hand():
    # IoU: two in [.5, .55), one on each side of .6, one in the last bin; one below all bins, one without score.
    iou = np.array([0.5, 0.54, 0.59, 0.6, 1.0, 0.3, 0.7])
    score = np.array([0.2, 0.4, 0.5, 0.7, 0.9, 0.8, 0.01])
    curves = consistency_curves(MatchedDetections(score, iou), min_score=0.05)
    np.testing.assert_array_equal(curves.iou, [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95])
    np.testing.assert_array_equal(curves.detections, [2, 1, 1, 0, 0, 0, 0, 0, 0, 1])
    np.testing.assert_allclose(curves.mean_score, [0.3, 0.5, 0.7, *[np.nan] * 6, 0.9])
    np.testing.assert_allclose(curves.share_above, np.array([5, 3, 2, 1, 1, 1, 1, 1, 1, 1]) / 6)


def test_an_iou_on_an_edge_belongs_to_the_bin_above():
    edges = np.array([0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95])  # as a user writes them
    curves = consistency_curves(MatchedDetections(np.ones(10), edges))
    np.testing.assert_array_equal(curves.detections, np.ones(10))
    np.testing.assert_allclose(curves.share_above, np.arange(10, 0, -1) / 10)


def test_curves_equal_naive_loops():
    matched = random_matched(3)
    pairs = list(zip(*map(np.ndarray.tolist, matched)))
    curves = consistency_curves(matched)
    for k, (edge, mean, share) in enumerate(zip(curves.iou, curves.mean_score, curves.share_above)):
        inside = [s for s, i in pairs if edge <= i and (i < edge + 0.05 - 1e-9 or k == 9)]
        assert mean == pytest.approx(sum(inside) / len(inside))
        assert share == pytest.approx(sum(i >= edge for _, i in pairs) / len(pairs))


def test_figure_shows_the_curves_and_every_detection():
    methods = {'baseline': random_matched(4), 'mine': random_matched(5, n=200)}
    figure = consistency_figure(methods, 'test', high_iou=0.6)
    mean, share, first, second = figure.axes[:4]
    for index, matched in enumerate(methods.values()):
        curves = consistency_curves(matched)
        np.testing.assert_allclose(mean.lines[index].get_xydata(), np.c_[curves.iou + 0.025, curves.mean_score])
        np.testing.assert_allclose(share.lines[index].get_xydata(), np.c_[curves.iou, 100 * curves.share_above])
    for ax, matched, name in zip((first, second), methods.values(), methods):
        assert ax.collections[0].get_array().sum() == len(matched.score)
        np.testing.assert_allclose(ax.lines[0].get_xydata(), [[0.6, 1], [0.6, 0.5], [1, 0.5]])
        assert ax.get_title().startswith(f'{name}\n{consistency(matched, high_iou=0.6).both_high:.1%} of')
