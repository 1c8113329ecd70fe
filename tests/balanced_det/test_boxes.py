"""IoU from boxes, deltas and distances against hand-derived values and a plain-Python reference."""

from __future__ import annotations

import math

import pytest
import torch
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder
from reference import boxes as reference

from balanced_det.boxes import aligned_iou, decoded_iou, delta_iou, distance_iou, visible_boxes

STDS = [(1.0, 1.0, 1.0, 1.0), (0.1, 0.1, 0.2, 0.2)]


def random_deltas(n, stds):
    return (torch.randn(2, n, 4, dtype=torch.float64) * 0.3 / torch.tensor(stds, dtype=torch.float64)).unbind()


def test_aligned_iou_by_hand():
    # Squares of side 2: shifted by 1 they share 2 of 4 + 4 - 2; apart they share nothing; equal ones everything.
    boxes = torch.tensor([[0.0, 0, 2, 2]] * 3)
    targets = torch.tensor([[1.0, 0, 3, 2], [5, 5, 7, 7], [0, 0, 2, 2]])
    torch.testing.assert_close(aligned_iou(boxes, targets), torch.tensor([1 / 3, 0.0, 1.0]))


def test_delta_iou_by_hand():
    # Same centre, width times e: intersection 1, union e. Shift by half a width: 1/2 of 3/2.
    pred = torch.tensor([[0, 0, 1.0, 0], [0.5, 0, 0, 0]], dtype=torch.float64)
    expected = torch.tensor([1 / math.e, 1 / 3], dtype=torch.float64)
    torch.testing.assert_close(delta_iou(pred, torch.zeros_like(pred)), expected)


def test_distance_iou_by_hand():
    # 2 x 2 around the point against 4 x 2: intersection 4, union 8.
    iou = distance_iou(torch.tensor([[1.0, 1, 1, 1]]), torch.tensor([[1.0, 1, 3, 1]]))
    torch.testing.assert_close(iou, torch.tensor([0.5]))


@pytest.mark.parametrize('stds', STDS)
def test_delta_iou_equals_reference_for_any_anchor(stds):
    pred, target = random_deltas(50, stds)
    anchors = [(0.0, 0.0, 1.0, 1.0), (100.0, -20.0, 131.5, 300.0)]
    for anchor in anchors:
        expected = [reference.delta_iou(p, t, stds, anchor) for p, t in zip(pred.tolist(), target.tolist())]
        actual = delta_iou(pred, target, stds=stds)
        torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('stds', STDS)
def test_delta_iou_equals_iou_of_decoded_boxes(stds):
    coder = DeltaXYWHBBoxCoder(target_stds=stds)
    pred, target = (deltas.float() * 5 for deltas in random_deltas(200, stds))  # far enough to reach the ratio clip
    corner = torch.rand(200, 2) * 800
    anchors = torch.cat([corner, corner + 8 + torch.rand(200, 2) * 300], dim=1)
    expected = decoded_iou(coder, anchors, pred, target, decoded=False)
    torch.testing.assert_close(delta_iou(pred, target, stds=stds), expected, rtol=1e-4, atol=2e-5)


def test_decoded_iou_takes_absolute_targets():
    coder = DeltaXYWHBBoxCoder()
    anchors = torch.tensor([[10.0, 10, 20, 30]])
    target = torch.tensor([[10.0, 10, 20, 20]])  # upper half of the anchor
    iou = decoded_iou(coder, anchors, torch.zeros(1, 4), target, decoded=True)
    torch.testing.assert_close(iou, torch.tensor([0.5]))


@pytest.mark.parametrize('function', [delta_iou, distance_iou, aligned_iou])
def test_gradcheck(function):
    pred = torch.tensor([[0.3, 0.4, 1.2, 1.1], [0.2, 0.1, 0.9, 1.6]], dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[0.1, 0.2, 1.0, 1.3], [0.3, 0.2, 1.1, 1.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, (pred, target))


@pytest.mark.parametrize('bad', [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize('function', [delta_iou, distance_iou, aligned_iou])
def test_no_iou_without_finite_coordinates(function, bad):
    good = torch.tensor([[0.0, 0, 1, 1], [0.0, 0, 1, 1]])
    broken = good.clone()
    broken[0, 2] = bad
    for iou in (function(good, broken), function(broken, good)):
        assert iou[0].isnan()
        assert not iou[1].isnan()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    # 300 x 300: the area 9e4 is beyond float16.
    boxes = torch.tensor([[0.0, 0, 300, 300]], dtype=dtype)
    iou = aligned_iou(boxes, torch.tensor([[0.0, 0, 300, 150]], dtype=dtype))
    torch.testing.assert_close(iou, torch.tensor([0.5]), rtol=5e-3, atol=0)  # 300 itself is rounded to 8 bits
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert delta_iou(torch.zeros(1, 4, dtype=dtype), torch.zeros(1, 4)).dtype == torch.float32


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_decodes_in_float32(dtype):
    anchors = torch.tensor([[0.0, 0, 300, 300]], dtype=dtype)
    iou = decoded_iou(
        DeltaXYWHBBoxCoder(), anchors, torch.zeros(1, 4, dtype=dtype), torch.zeros(1, 4, dtype=dtype), decoded=False
    )
    assert torch.equal(iou, torch.ones(1))


def test_empty():
    assert delta_iou(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0,)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r'\(3, 4\) and \(2, 4\)'):
        delta_iou(torch.zeros(3, 4), torch.zeros(2, 4))


def test_visible_boxes():
    boxes = torch.tensor(
        [
            [0.0, 0, 10, 10],  # inside
            [-5, -5, 1, 1],  # partly outside
            [3, 3, 3, 9],  # zero width
            [100, 0, 120, 10],  # right of the image
            [5, 50, 9, 60],  # touches the lower border from outside
            [0, 0, math.nan, 5],
        ]
    )
    assert visible_boxes(boxes, (50, 100)).tolist() == [True, True, False, False, False, False]
