"""The demo's table: paired differences and their standard error by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from balanced_det.analysis.comparison import CORRELATION, comparison_table, format_table, measure
from balanced_det.analysis.figures import mean_score_by_iou, score_iou_figure
from balanced_det.evaluation import MatchedDetections


def test_paired_differences():
    # Differences 1 and 3: mean 2, standard deviation sqrt(2), standard error 1. The methods' own spread cancels.
    table = comparison_table({'baseline': [{'AP': 10.0}, {'AP': 40.0}], 'x': [{'AP': 11.0}, {'AP': 43.0}]})
    assert table['AP'].to_dict() == pytest.approx(
        {'baseline': 25.0, 'x': 27.0, 'x - baseline': 2.0, 'standard error of x - baseline': 1.0}
    )


def test_one_seed_has_no_standard_error_and_signs_are_shown():
    table = comparison_table({'baseline': [{'AP': 40.0, CORRELATION: 0.5}], 'x': [{'AP': 39.5, CORRELATION: 0.55}]})
    assert list(table.index) == ['baseline', 'x', 'x - baseline']
    assert format_table(table).loc['x - baseline'].to_dict() == {'AP': '-0.5', CORRELATION: '+0.050'}


def test_measure_by_hand(tmp_path):
    # One box, one detection of IoU 0.72: found at 0.50 ... 0.70, five of ten thresholds.
    (tmp_path / 'gt.json').write_text(
        json.dumps(
            dict(
                images=[dict(id=1, width=100, height=100)],
                categories=[dict(id=1, name='digit')],
                annotations=[dict(id=1, image_id=1, category_id=1, bbox=[0, 0, 100, 50], area=5000, iscrowd=0)],
            )
        )
    )
    (tmp_path / 'det.json').write_text(json.dumps([dict(image_id=1, category_id=1, bbox=[0, 0, 72, 50], score=0.8)]))
    values, matched = measure(tmp_path / 'gt.json', tmp_path / 'det.json')
    del values[CORRELATION]
    assert values == pytest.approx({'AP': 50.0, 'AP50': 100.0, 'AP75': 0.0, 'AP85': 0.0, 'AP90': 0.0})
    np.testing.assert_allclose(matched.iou, [0.72])


def test_mean_score_of_each_iou_bin():
    detections = MatchedDetections(np.array([0.9, 0.2, 0.4, 0.8]), np.array([0.1, 0.52, 0.54, 1.0]))
    centres, means = mean_score_by_iou(detections)
    np.testing.assert_allclose(centres, [0.525, 0.975])
    np.testing.assert_allclose(means, [0.3, 0.8])


def test_score_iou_panels_share_their_axes():
    rng = np.random.default_rng(0)
    matched = {m: MatchedDetections(rng.random(20), rng.random(20)) for m in ('baseline', 'iou-balanced')}
    left, right = score_iou_figure(matched, 'test').axes
    assert (left.get_xlim(), left.get_ylim()) == (right.get_xlim(), right.get_ylim()) == ((0, 1), (0, 1))
