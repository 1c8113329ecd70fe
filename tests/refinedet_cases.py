"""A small RefineDet, two images for it, and outputs of its heads that a test chooses."""

from __future__ import annotations

import copy

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from reference import refinedet as reference

import harmonic  # noqa: F401  registers the heads, as the next
import iou_balanced  # noqa: F401

C = 3
SIZE = (64, 64)
SIZES = [(8, 8), (4, 4), (2, 2), (1, 1)]
COUNTS = [192, 48, 12, 3]  # three anchors at each place
CHANNELS = (8, 16, 32, 8)
ANCHORS = dict(type='AnchorGenerator', scales=[4], ratios=[1.0, 2.0, 0.5], strides=[8, 16, 32, 64], center_offset=0.5)
CODER = dict(type='DeltaXYWHBBoxCoder', target_means=[0.0] * 4, target_stds=list(reference.STDS))
MODEL = dict(
    type='RefineDet',
    data_preprocessor=dict(type='mmdet.DetDataPreprocessor', pad_size_divisor=64),
    backbone=dict(type='ResNet', depth=18, base_channels=4, stem_channels=4, out_indices=(1, 2, 3)),
    neck=dict(type='ResNetExtraLayers', in_channels=CHANNELS[:3], planes=2, kernel_sizes=(1,), strides=(2,)),
    transfer=dict(type='TransferConnectionNeck', in_channels=CHANNELS, channels=8, norm_cfg=dict(type='BN')),
    arm_head=dict(
        type='DSSDHead',
        num_classes=1,
        in_channels=CHANNELS,
        prediction_planes=2,
        anchor_generator=ANCHORS,
        bbox_coder=CODER,
    ),
    bbox_head=dict(
        type='RefineDetHead',
        num_classes=C,
        in_channels=(8,) * 4,
        prediction_planes=2,
        anchor_generator=ANCHORS,
        bbox_coder=CODER,
    ),
    train_cfg=dict(
        assigner=dict(
            type='MaxIoUAssigner',
            pos_iou_thr=0.5,
            neg_iou_thr=0.5,
            min_pos_iou=0.0,
            ignore_iof_thr=-1,
            gt_max_assign_all=False,
        ),
        sampler=dict(type='PseudoSampler'),
        smoothl1_beta=1.0,
        allowed_border=-1,
        pos_weight=-1,
        neg_pos_ratio=3,
        debug=False,
    ),
    test_cfg=dict(
        nms=dict(type='nms', iou_threshold=0.45), min_bbox_size=0, score_thr=0.01, nms_pre=1000, max_per_img=500
    ),
)
BETA = MODEL['train_cfg']['smoothl1_beta']
LOSSES = dict(
    loss_cls=dict(type='IoUBalancedCrossEntropyLoss', eta=1.5),
    loss_bbox=dict(type='IoUBalancedSmoothL1Loss', beta=BETA, lambda_=1.5, target_stds=reference.STDS),
)
NEUTRAL = dict(loss_cls=dict(LOSSES['loss_cls'], eta=0.0), loss_bbox=dict(LOSSES['loss_bbox'], lambda_=0.0))
BALANCED_ODM = dict(bbox_head=dict(type='IoUBalancedRefineDetHead', **LOSSES))
BALANCED_ARM = dict(arm_head=dict(type='IoUBalancedDSSDHead', **LOSSES))
HARMONIC_ODM = dict(bbox_head=dict(type='HarmonicRefineDetHead'))
HARMONIC_ARM = dict(arm_head=dict(type='HarmonicDSSDHead'))
METHODS = {
    'stock': {},
    'iou-balanced': BALANCED_ODM,
    'iou-balanced with arm': {**BALANCED_ODM, **BALANCED_ARM},
    'harmonic': HARMONIC_ODM,
    'harmonic with arm': {**HARMONIC_ODM, **HARMONIC_ARM},
}

# The second box of the first image has no anchor of IoU 0.5, and one that is the best by far: where several are equal
# in theory, rounding decides which is the positive.
BOXES = [[[4.0, 6, 38, 37], [24.0, 14, 64, 26]], [[3.0, 2, 61, 57]]]
LABELS = [[0, 2], [1]]


def config(**changes):
    """The small detector with other keys in its blocks."""
    cfg = ConfigDict(copy.deepcopy(MODEL))
    for name, block in changes.items():
        cfg[name].update(copy.deepcopy(block))
    return cfg


def build(**changes):
    """The same weights for the same shapes, whatever the losses; weights that spread scores and boxes."""
    torch.manual_seed(1)
    model = MODELS.build(config(**changes))
    model.init_weights()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def samples(boxes=BOXES, labels=LABELS, size=SIZE):
    """Images with ground truth."""
    found = []
    for rows, classes in zip(boxes, labels):
        meta = dict(img_shape=size, pad_shape=size, batch_input_shape=size, ori_shape=size, scale_factor=(1.0, 1.0))
        sample = DetDataSample(metainfo=meta)
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor(rows).reshape(-1, 4), labels=torch.tensor(classes, dtype=torch.long)
        )
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
        found.append(sample)
    return found


def pixels(num=2, size=SIZE, seed=3):
    return torch.randn(num, 3, *size, generator=torch.Generator().manual_seed(seed))


def outputs(seed=0, edit=None):
    """Scores and deltas of both heads, leaves of the graph; about one in seven anchors has an objectness below 0.01.

    ``edit`` may change them before: a dict of (2, anchors, columns).
    """
    generator = torch.Generator().manual_seed(seed)
    kinds = dict(arm_cls=(2, 3.0), arm_bbox=(4, 1.0), odm_cls=(C + 1, 1.5), odm_bbox=(4, 1.0))
    rows = {
        key: torch.randn(2, sum(COUNTS), width, generator=generator) * scale for key, (width, scale) in kinds.items()
    }
    if edit is not None:
        edit(rows)
    arm_cls, arm_bbox, odm_cls, odm_bbox = map(levels_of, rows.values())
    return (arm_cls, arm_bbox), (odm_cls, odm_bbox)


def levels_of(rows):
    """(N, anchors, columns) as the maps of the levels."""
    return [
        level.reshape(len(rows), *size, -1).permute(0, 3, 1, 2).contiguous().requires_grad_()
        for level, size in zip(rows.split(COUNTS, dim=1), SIZES)
    ]


def fitting_outputs(seed=0):
    """Outputs whose positives lie near their boxes, some nearer than others."""
    noise = torch.randn(2, sum(COUNTS), 4, generator=torch.Generator().manual_seed(seed))

    def moved(key, mine, priors, edit=None):
        """An edit after another one: the deltas of the positives are their targets and some noise."""
        images = images_of(outputs(seed, edit))
        targets = [mine(image).targets(getattr(image, priors), image.boxes) for image in images]
        positives = [sorted(mine(image).owner) for image in images]

        def both(rows):
            if edit is not None:
                edit(rows)
            for number, inds in enumerate(positives):
                rows[key][number, inds] = torch.tensor(targets[number]) + 0.4 * noise[number, inds]

        return both

    arm = moved('arm_bbox', reference.mine_arm, 'anchors')
    return outputs(seed, moved('odm_bbox', reference.mine_odm, 'refined', arm))


def giving(model, outs):
    """The model with these outputs in place of its forward."""
    model._forward = lambda *_: outs
    return model


def images_of(outs, boxes=BOXES, labels=LABELS):
    """The outputs as the reference takes them."""
    (arm_cls, arm_bbox), (odm_cls, odm_bbox) = outs
    maps = ((arm_cls, 2), (arm_bbox, 4), (odm_cls, C + 1), (odm_bbox, 4))
    anchors = reference.anchors([level.shape[-2:] for level in arm_cls])
    return [
        reference.Image(anchors, *(reference.rows(levels, n, width) for levels, width in maps), boxes[n], labels[n])
        for n in range(len(boxes))
    ]


def summed(losses):
    """As mmengine adds up what a detector returns: a tensor, or a list of one for each image."""
    return {
        key: sum(value).sum() if isinstance(value, list) else value for key, value in losses.items() if 'loss' in key
    }


def losses_of(model, outs=None, data=None, size=SIZE):
    """Losses by name; of the given outputs, or of the images."""
    if outs is not None:
        model = giving(model, outs)
    return summed(model.loss(pixels(size=size), data or samples()))


def multiply_adds(model, images):
    """Of the convolutions of the whole network: each weight once for each place of the coarser map."""
    total = []

    def add(layer, inputs, output):
        total.append(min(inputs[0][0, 0].numel(), output[0, 0].numel()) * layer.weight.numel())

    handles = [
        layer.register_forward_hook(add)
        for layer in model.modules()
        if hasattr(layer, 'stride') and hasattr(layer, 'weight')
    ]
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    return sum(total)


# A config on digit scenes, for tests that run a tool; takes the folder of the `_base_` parts and the number of classes.
CONFIG_TEXT = """
_base_ = [
    '{base}/models/refinedet_r50.py',
    '{base}/datasets/digit_scenes.py',
    '{base}/schedules/adamw_1500-iter.py',
    '{base}/runtime.py',
]
channels = (8, 16, 32, 8)
model = dict(
    backbone=dict(
        depth=18, base_channels=4, stem_channels=4, frozen_stages=-1, norm_eval=False, init_cfg=None),
    neck=dict(in_channels=channels[:3], planes=2),
    transfer=dict(in_channels=channels, channels=8),
    arm_head=dict(in_channels=channels, prediction_planes=2),
    bbox_head=dict(num_classes={num_classes}, in_channels=(8,) * 4, prediction_planes=2),
    test_cfg=dict(max_per_img=30))
log_processor = dict(by_epoch=False)
"""
