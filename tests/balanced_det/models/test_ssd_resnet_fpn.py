"""SSD on ResNet-FPN, as its config puts it together: shapes, counts, training and detections."""

from __future__ import annotations

import pytest
import torch
from dssd_cases import (
    build_on_meta,
    conv,
    images,
    model_config,
    parameters,
    resnet_parameters,
    shapes_on_meta,
    train_step,
    without_gradient,
)
from head_cases import C
from mmdet.registry import MODELS, TASK_UTILS
from reference import ssd as reference

CHANGE = {300: '', 512: 'model = dict(neck=_base_.ssd512_neck, bbox_head=_base_.ssd512_head)'}
SIDES = {300: [38, 19, 10, 5, 3, 1], 512: [64, 32, 16, 8, 4, 2, 1]}
PLACE = {300: [4, 6, 6, 6, 4, 4], 512: [4, 6, 6, 6, 6, 4, 4]}  # anchors
ANCHORS = {300: 8732, 512: 24564}
VOC = 'model = dict(bbox_head=dict(anchor_generator=dict(basesize_ratio_range=(0.2, 0.9))))'
MILLIONS = {300: 40.1, 512: 42.8}  # docs/ssd_resnet_fpn.md


def config(tmp_path, size):
    return model_config(tmp_path, 'ssd_r50_fpn.py', CHANGE[size])


def tiny(tmp_path, **backbone):
    """SSD300 of the config on a ResNet-18 of few channels."""
    cfg = config(tmp_path, 300)
    cfg.backbone.update(depth=18, base_channels=4, stem_channels=4, init_cfg=None, **backbone)
    fpn, extra = cfg.neck
    fpn.update(in_channels=[8, 16, 32], out_channels=8)
    extra.update(in_channels=(8,) * 3, out_channels=(8,) * 6)
    cfg.bbox_head.update(in_channels=(8,) * 6, feat_channels=8, num_classes=C)
    model = MODELS.build(cfg)
    model.init_weights()
    return model


@pytest.mark.parametrize('size', [300, 512])
def test_maps_and_anchors(tmp_path, size):
    cfg = config(tmp_path, size)
    sides, anchors = shapes_on_meta(build_on_meta(cfg), size)
    assert sides == [(side, side) for side in SIDES[size]]
    assert anchors == ANCHORS[size] == sum(count * side**2 for count, side in zip(PLACE[size], SIDES[size]))
    priors = TASK_UTILS.build(cfg.bbox_head.anchor_generator).grid_priors(sides, device='cpu')
    assert sum(len(level) for level in priors) == anchors


def test_other_inputs_run(tmp_path):
    # Whatever the size: rows and columns apart, and no step up behind FPN that would have to meet.
    model = build_on_meta(config(tmp_path, 300))
    with torch.device('meta'):
        feats = model.extract_feat(torch.zeros(1, 3, 321, 400))
    assert [tuple(feat.shape[-2:]) for feat in feats] == [(41, 50), (21, 25), (11, 13), (6, 7), (4, 5), (2, 3)]


def parts_by_hand(size):
    """Parameters of FPN, of the extra layers and of the head with 80 classes; all convolutions have biases."""
    fpn = sum(conv(channels, 256, 1, bias=True) for channels in (512, 1024, 2048)) + 3 * conv(256, 256, 3, bias=True)
    extra = (len(SIDES[size]) - 3) * (conv(256, 128, 1, bias=True) + conv(128, 256, 3, bias=True))
    towers = len(SIDES[size]) * 2 * conv(256, 256, 3, bias=True)
    predictors = sum(conv(256, count * (81 + 4), 3, bias=True) for count in PLACE[size])
    return fpn, extra, towers + predictors


@pytest.mark.parametrize('size', [300, 512])
def test_parameters_by_hand(tmp_path, size):
    model = build_on_meta(config(tmp_path, size))
    fpn, extra, head = parts_by_hand(size)
    assert [parameters(part) for part in model.neck] == [fpn, extra]
    assert parameters(model.bbox_head) == head
    total = parameters(model)
    assert total == resnet_parameters(50) + fpn + extra + head
    assert round(total / 1e6, 1) == MILLIONS[size]


def test_parameters_on_resnet_101(tmp_path):
    cfg = config(tmp_path, 300)
    cfg.backbone.depth = 101
    # 17 blocks 1024-256-256-1024 more in the third stage.
    block = conv(1024, 256, 1) + conv(256, 256, 3) + conv(256, 1024, 1) + 2 * (256 + 256 + 1024)
    assert parameters(build_on_meta(cfg)) == resnet_parameters(50) + 17 * block + sum(parts_by_hand(300))


@pytest.mark.parametrize(
    ('size', 'change', 'sizes'),
    [
        # Liu et al., COCO: 7 (4) percent, then equal steps from 15 (10) to 90.
        (300, '', [21, 45, 99, 153, 207, 261, 315]),
        (512, CHANGE[512], [20, 51, 133, 215, 296, 378, 460, 542]),
        # VOC, by the one key that the docs name.
        (300, VOC, [30, 60, 111, 162, 213, 264, 315]),
    ],
)
def test_anchors_by_the_rule_of_ssd(tmp_path, size, change, sizes):
    cfg = model_config(tmp_path, 'ssd_r50_fpn.py', change)
    anchors = TASK_UTILS.build(cfg.bbox_head.anchor_generator)
    for level, base in enumerate(anchors.base_anchors):
        ratios = (2,) if PLACE[size][level] == 4 else (2, 3)
        stride = anchors.strides[level][0]
        expected = reference.grid(1, stride, stride / 2, reference.box_shapes(sizes[level], sizes[level + 1], ratios))
        torch.testing.assert_close(base, torch.tensor(expected), rtol=1e-4, atol=1e-3)


def test_a_step_teaches_all_that_learns(tmp_path):
    # An image with boxes and one without.
    model = tiny(tmp_path)
    logged = train_step(model, 300)
    assert logged['loss_cls'] > 0
    assert logged['loss_bbox'] > 0
    assert without_gradient(model) == []
    assert not any(parameter.requires_grad for parameter in model.backbone.layer1.parameters())


def test_a_batch_without_boxes_gives_zeros_on_the_graph(tmp_path):
    model = tiny(tmp_path)
    logged = train_step(model, 300, boxes=())
    assert (logged['loss_cls'], logged['loss_bbox']) == (0, 0)
    assert without_gradient(model) == []


def test_detects(tmp_path):
    model = tiny(tmp_path).eval()
    inputs, samples = images(300, count=1)
    with torch.no_grad():
        (found,) = model.predict(inputs, samples)
    boxes, scores = found.pred_instances.bboxes, found.pred_instances.scores
    assert 0 < len(boxes) <= 200
    assert (scores > 0.02).all()
    assert ((boxes >= 0) & (boxes <= 300)).all()
