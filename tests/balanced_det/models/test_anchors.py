"""DSSD's anchors: eight boxes of a place, the sizes of the scripts, and where the first ones lie."""

from __future__ import annotations

import math

import pytest
import torch
from dssd_cases import model_config
from mmdet.registry import TASK_UTILS
from reference import ssd as reference

RATIOS = (1.6, 2, 3)
# The scripts' rule, in percent of the input: an extra first level, then equal steps.
PERCENT = {320: [10, *range(20, 93, 18)], 512: [4, *range(10, 96, 17)]}
MAPS = {320: [40, 20, 10, 5, 3, 1], 512: [64, 32, 16, 8, 4, 2, 1]}
CHANGE = {320: '', 512: 'model = dict(neck=_base_.dssd512_neck, bbox_head=_base_.dssd512_head)'}


def model(tmp_path, size):
    return model_config(tmp_path, 'dssd_r50.py', CHANGE[size])


def generator(tmp_path, size):
    return TASK_UTILS.build(model(tmp_path, size).bbox_head.anchor_generator)


def sizes(size):
    """Min and max size of each level, in pixels; a max is the min of the next level, the last one a step more."""
    percent = PERCENT[size]
    last = 2 * percent[-1] - percent[-2]
    return [(size * low / 100, size * high / 100) for low, high in zip(percent, [*percent[1:], last])]


@pytest.mark.parametrize('size', [320, 512])
def test_sizes_follow_the_rule_of_the_scripts(tmp_path, size):
    block = model(tmp_path, size).bbox_head.anchor_generator
    low, high = zip(*sizes(size))
    assert list(block.min_sizes) == pytest.approx(list(low))
    assert list(block.max_sizes) == pytest.approx(list(high))


@pytest.mark.parametrize('size', [320, 512])
def test_eight_boxes_of_a_place(tmp_path, size):
    anchors = generator(tmp_path, size)
    for level, (low, high) in enumerate(sizes(size)):
        x1, y1, x2, y2 = anchors.base_anchors[level].double().unbind(dim=1)
        widths, heights = (x2 - x1).tolist(), (y2 - y1).tolist()
        shapes = reference.box_shapes(low, high, RATIOS)
        assert len(shapes) == 8
        assert [*zip(widths, heights)] == [pytest.approx(shape, rel=1e-5) for shape in shapes]
        areas = sorted(w * h for w, h in zip(widths, heights))
        assert areas == pytest.approx([low**2] * 7 + [low * high], rel=1e-5)
        assert sorted(w / h for w, h in zip(widths, heights)) == pytest.approx(
            [1 / 3, 1 / 2, 1 / 1.6, 1, 1, 1.6, 2, 3], rel=1e-5
        )


def centers_of_first_cells(cfg):
    """Centre of what the first cell of each map sees, and the stride of the map, in pixels.

    A padded layer keeps cell 0 half a stride from the border. A kernel k without padding covers the cells 0 to k - 1 of
    the map before it, whose middle is (k - 1) / 2 strides behind the first.
    """
    extra = cfg.neck[0]
    found = [(4.0, 8), (8.0, 16)]  # res3, res5: half a stride
    for kernel, stride in zip(extra.kernel_sizes, extra.strides):
        center, step = found[-1]
        found.append((center + (kernel - 1) / 2 * step, step * stride))
    return found


@pytest.mark.parametrize('size', [320, 512])
def test_first_anchors_lie_at_the_centres_of_what_the_cells_see(tmp_path, size):
    cfg = model(tmp_path, size)
    centers, steps = zip(*centers_of_first_cells(cfg))
    if size == 320:  # 32 + 64 and 96 + 64: res8 and res9 have k3 s1 without padding on a stride of 64
        assert centers == (4, 8, 16, 32, 96, 160)
    else:
        assert centers == tuple(step / 2 for step in steps)
    anchors = generator(tmp_path, size)
    for base, center in zip(anchors.base_anchors, centers):
        middle = (base[:, :2] + base[:, 2:]) / 2
        torch.testing.assert_close(middle, torch.full((8, 2), center))
    # A stride matters where the map has more than one cell.
    strides = [stride for stride, _ in anchors.strides]
    assert strides[:-1] == list(steps[:-1])


def test_what_the_first_cell_sees_is_centred_at_its_anchors():
    # By the gradient of ones: the shortcuts of res6 to res9 on res5, 20 cells of 16 pixels.
    x = torch.zeros(1, 1, 20, 20, requires_grad=True)
    found, out = [], x
    for kernel, stride in ((2, 2), (2, 2), (3, 1), (3, 1)):
        out = torch.nn.functional.conv2d(out, torch.ones(1, 1, kernel, kernel), stride=stride)
        (seen,) = torch.autograd.grad(out[0, 0, 0, 0], x, retain_graph=True)
        columns = seen[0, 0].any(dim=0).nonzero().squeeze(1)
        found.append(16 * (columns.min() + columns.max() + 1).item() / 2)
    assert found == [16, 32, 96, 160]


@pytest.mark.parametrize('size', [320, 512])
def test_grid_of_a_level(tmp_path, size):
    anchors = generator(tmp_path, size)
    level = 4
    (low, high), (center, step) = sizes(size)[level], centers_of_first_cells(model(tmp_path, size))[level]
    expected = reference.grid(MAPS[size][level], step, center, reference.box_shapes(low, high, RATIOS))
    found = anchors.single_level_grid_priors((MAPS[size][level],) * 2, level_idx=level, device='cpu')
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-5, atol=1e-3)
    if size == 320:  # the middle cell of res8 lies in the middle of the image
        torch.testing.assert_close(found[4 * 8], torch.tensor([-1.0, -1, 1, 1]) * low / 2 + 160, atol=1e-3, rtol=0)


@pytest.mark.parametrize(('size', 'caffe', 'total'), [(320, 321, 17080), (512, 513, 43688)])
def test_counts_at_the_sizes_of_the_release(tmp_path, size, caffe, total):
    """Caffe's maps at 321 and 513 have the sizes of mmdet's at 320 and 512; its steps and offsets fit the generator."""
    block = dict(model(tmp_path, size).bbox_head.anchor_generator)
    block['strides'] = [*block['strides'][:-1], caffe]
    block['centers'] = [(step / 2,) * 2 for step in block['strides']]
    scale = caffe / size
    block['min_sizes'], block['max_sizes'] = (
        [side * scale for side in block[key]] for key in ('min_sizes', 'max_sizes')
    )
    anchors = TASK_UTILS.build(block)
    priors = anchors.grid_priors([(side, side) for side in MAPS[size]], device='cpu')
    assert [len(level) for level in priors] == [8 * side * side for side in MAPS[size]]
    assert sum(len(level) for level in priors) == total
    widths = [(level[0, 2] - level[0, 0]).item() for level in priors]
    release = {
        321: [32.1, 64.2, 121.98, 179.76, 237.54, 295.32],
        513: [20.52, 51.3, 138.51, 225.72, 312.93, 400.14, 487.35],
    }
    assert widths == pytest.approx(release[caffe], rel=1e-4)


def test_as_many_centers_as_strides(tmp_path):
    block = dict(model(tmp_path, 320).bbox_head.anchor_generator, centers=[(4, 4), (8, 8)])
    with pytest.raises(ValueError, match=r'anchor_generator\.centers has 2 entries and strides 6'):
        TASK_UTILS.build(block)


def test_without_centers_of_its_own_it_is_the_stock_generator(tmp_path):
    block = dict(model(tmp_path, 320).bbox_head.anchor_generator)
    stock = TASK_UTILS.build({key: block[key] for key in block if key != 'centers'} | dict(type='SSDAnchorGenerator'))
    block['centers'] = [(stride / 2, stride / 2) for stride in block['strides']]
    sides = [(side, side) for side in MAPS[320]]
    for found, expected in zip(
        TASK_UTILS.build(block).grid_priors(sides, device='cpu'), stock.grid_priors(sides, device='cpu')
    ):
        assert torch.equal(found, expected)
    assert math.isclose(stock.base_anchors[0][0, 2].item(), 20)  # 4 + 32 / 2
