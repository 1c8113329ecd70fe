"""What the refinement does to the anchors, by hand."""

from __future__ import annotations

import pytest
import torch
from refinedet_cases import build, outputs, samples

from balanced_det.evaluation.anchors import anchor_iou

# The anchor of 32 x 32 pixels in the fourth row and column of the first level, around (28, 28).
BOX = [12.0, 12, 44, 44]
BEST = 3 * (3 * 8 + 3)


@pytest.fixture
def model(monkeypatch):
    """A RefineDet that moves its best anchor a quarter of its width to the right, and no other."""
    model = build()

    def right(rows):
        rows['arm_bbox'][:] = 0.0
        rows['arm_bbox'][:, BEST, 0] = 2.5  # times a standard deviation of 0.1

    monkeypatch.setattr(model.arm_head, 'forward', lambda _: outputs(edit=right)[0])
    return model


def batch(*boxes):
    data = samples(boxes, [[0] * len(one) for one in boxes])
    return dict(inputs=[torch.zeros(3, 64, 64)] * len(boxes), data_samples=data)


def overlap(width, height, other):
    """IoU of the box with another one of the given area."""
    return width * height / (32 * 32 + other - width * height)


def test_by_hand(model):
    long, short = 32 * 2**0.5, 16 * 2**0.5
    # Of the squares: the best, and its four neighbours 8 pixels away. Of the long anchors, which have the same area:
    # those of the same place, and of the two places along their length, where 22.6 + 16 - 8 pixels are common.
    neighbour = overlap(24, 32, 1024)
    aside = overlap(short, long / 2 + 16 - 8, 1024)
    rest = [*[neighbour] * 4, *[overlap(short, 32, 1024)] * 2, *[aside] * 4]
    assert all(value >= 0.5 for value in rest)
    # The second image has no box; the refined anchor lies where the right neighbour was.
    found = anchor_iou(model, [batch([BOX], [])])
    assert found == pytest.approx((sum([1, *rest]) / 11, sum([neighbour, *rest]) / 11, 1.0, neighbour), rel=1e-5)
    assert neighbour == pytest.approx(0.6)


def test_means_run_over_all_images(model):
    """A box without an anchor of IoU 0.5 counts among the best ones alone."""
    alone = anchor_iou(model, [batch([BOX], [])])
    both = anchor_iou(model, [batch([BOX], []), batch([[24.0, 24, 32, 32]], [])])
    assert both[:2] == pytest.approx(alone[:2])
    # 8 x 8 pixels inside the best anchor, which lies around it even when moved.
    assert both[2:] == pytest.approx([(value + 64 / 1024) / 2 for value in alone[2:]])


def test_min_iou(model):
    found = anchor_iou(model, [batch([BOX], [])], min_iou=0.9)
    assert found == pytest.approx((1.0, 0.6, 1.0, 0.6), rel=1e-5)


@pytest.mark.parametrize('boxes', [([], []), ([[1.0, 1, 3, 3]], [])], ids=['no boxes', 'boxes without an anchor'])
def test_no_matched_anchor(model, boxes):
    with pytest.raises(ValueError, match='are there boxes in these images'):
        anchor_iou(model, [batch(*boxes)])
