"""Small heads of each seam, two images for them, and their losses with gradients."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox2roi
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

import iou_balanced  # noqa: F401  registers the heads
from balanced_det.matched import TENSORS, MatchedSamples

C = 3
IMAGE = (64, 64)
NEUTRAL_FOCAL = dict(type='IoUBalancedFocalLoss', use_sigmoid=True, eta=0.0)
FOCAL = dict(type='FocalLoss', use_sigmoid=True)
NEUTRAL_CE = dict(type='IoUBalancedCrossEntropyLoss', eta=0.0)
BALANCED_L1 = dict(type='IoUBalancedSmoothL1Loss')


def build(cfg, **changes):
    """A head with the same weights for the same shapes, whatever its losses."""
    cfg = copy.deepcopy(cfg)
    cfg.update(copy.deepcopy(changes))
    torch.manual_seed(1)
    head = MODELS.build(cfg)
    head.init_weights()
    return head


RETINA = dict(
    type='RetinaHead',
    num_classes=C,
    in_channels=8,
    feat_channels=8,
    stacked_convs=1,
    anchor_generator=dict(
        type='AnchorGenerator', octave_base_scale=2, scales_per_octave=2, ratios=[0.5, 1.0, 2.0], strides=[8, 16]
    ),
    bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_means=[0.0] * 4, target_stds=[1.0] * 4),
    loss_cls=FOCAL,
    loss_bbox=dict(type='SmoothL1Loss', beta=0.111),
    train_cfg=dict(
        assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0, ignore_iof_thr=-1),
        sampler=dict(type='PseudoSampler'),
        allowed_border=-1,
        pos_weight=-1,
        debug=False,
    ),
)
RPN = dict(
    type='RPNHead',
    **{key: RETINA[key] for key in ('in_channels', 'feat_channels', 'bbox_coder')},
    anchor_generator=dict(type='AnchorGenerator', scales=[2], ratios=[0.5, 1.0, 2.0], strides=[8, 16]),
    loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=True),
    loss_bbox=dict(type='SmoothL1Loss', beta=1.0 / 9.0),
    train_cfg=dict(
        RETINA['train_cfg'],
        assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3, ignore_iof_thr=-1),
        sampler=dict(type='RandomSampler', num=64, pos_fraction=0.5, neg_pos_ub=-1, add_gt_as_proposals=False),
    ),
)
SSD_STDS = dict(target_stds=(0.1, 0.1, 0.2, 0.2))
SSD = dict(
    type='SSDHead',
    num_classes=C,
    in_channels=(8, 8),
    anchor_generator=dict(
        type='SSDAnchorGenerator',
        scale_major=False,
        min_sizes=[10, 24],
        max_sizes=[24, 48],
        strides=[8, 16],
        ratios=[[2], [2, 3]],
    ),
    bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_means=[0.0] * 4, target_stds=[0.1, 0.1, 0.2, 0.2]),
    train_cfg=ConfigDict(
        assigner=dict(
            type='MaxIoUAssigner',
            pos_iou_thr=0.5,
            neg_iou_thr=0.5,
            min_pos_iou=0.0,
            ignore_iof_thr=-1,
            gt_max_assign_all=False,
        ),
        sampler=dict(type='PseudoSampler'),
        smoothl1_beta=0.5,
        allowed_border=-1,
        pos_weight=-1,
        neg_pos_ratio=3,
        debug=False,
    ),
)
FOVEA_FOCAL = dict(use_sigmoid=True, gamma=1.5, alpha=0.4)
FOVEA = dict(
    type='FoveaHead',
    num_classes=C,
    in_channels=8,
    feat_channels=8,
    stacked_convs=1,
    strides=[8, 16],
    base_edge_list=[16, 32],
    scale_ranges=((1, 30), (20, 64)),
    sigma=0.6,
    loss_cls=dict(type='FocalLoss', **FOVEA_FOCAL),
    loss_bbox=dict(type='SmoothL1Loss', beta=0.11),
)
# Towers of each level apart, as in NAS-FPN: another network, the same losses.
SEP_BN = dict(RETINA, type='RetinaSepBNHead', num_ins=2, norm_cfg=dict(type='BN'))
BOXES = [[[6.0, 8, 30, 27], [33, 20, 60, 62]], [[2.0, 2, 20, 40]]]
LABELS = [[0, 2], [1]]


def instances(boxes=BOXES, labels=LABELS):
    return [
        InstanceData(bboxes=torch.tensor(b).reshape(-1, 4), labels=torch.tensor(v, dtype=torch.long))
        for b, v in zip(boxes, labels)
    ]


def dense_losses(head, gts):
    """Losses of two images and the gradient of their sum at the features and the parameters."""
    torch.manual_seed(2)
    feats = features()
    return with_gradient(head, head.loss_by_feat(*head(feats), gts, metas(gts)), feats)


def features():
    """Feature maps of two images of 64 x 64 pixels at strides 8 and 16."""
    return [torch.randn(2, 8, 64 // stride, 64 // stride, requires_grad=True) for stride in (8, 16)]


def metas(gts):
    return [dict(img_shape=IMAGE, pad_shape=IMAGE, scale_factor=(1.0, 1.0))] * len(gts)


def with_gradient(head, losses, inputs):
    # As mmengine adds up what a head returns: a tensor, or a list of one for each level or image.
    sums = {key: sum(v).sum() if isinstance(v, list) else v for key, v in losses.items() if 'loss' in key}
    parameters = [p for p in head.parameters() if p.requires_grad]
    grads = torch.autograd.grad(sum(sums.values()), [*inputs, *parameters])
    return {key: value.detach() for key, value in sums.items()}, grads


def assert_same(actual, expected):
    assert actual[0].keys() == expected[0].keys()
    for key, value in expected[0].items():
        torch.testing.assert_close(actual[0][key], value)
    for got, want in zip(actual[1], expected[1]):
        torch.testing.assert_close(got, want)


def collect_groups(head, gts) -> list[MatchedSamples]:
    """What the head hands its losses, caught on the way; the blocks of each group in one set."""
    caught = []
    head.loss_by_matched, original = lambda groups: caught.extend(groups) or original(groups), head.loss_by_matched
    dense_losses(head, gts)
    del head.loss_by_matched
    return [in_one_set(group) for group in caught]


def in_one_set(group) -> MatchedSamples:
    columns = {name: torch.cat([getattr(block, name) for block in group.blocks]) for name in TENSORS}
    return replace(group.blocks[0], **columns)


RCNN = dict(
    type='Shared2FCBBoxHead',
    in_channels=4,
    fc_out_channels=8,
    roi_feat_size=2,
    num_classes=C,
    bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_means=[0.0] * 4, target_stds=[0.1, 0.1, 0.2, 0.2]),
    reg_class_agnostic=False,
    loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False),
    loss_bbox=dict(type='SmoothL1Loss', beta=1.0),
)
_ANY_RCNN = {key: value for key, value in RCNN.items() if key not in ('type', 'fc_out_channels')}
OTHER_RCNN = {
    'BBoxHead': dict(_ANY_RCNN, type='BBoxHead', with_avg_pool=True),
    'ConvFCBBoxHead': dict(
        _ANY_RCNN, type='ConvFCBBoxHead', fc_out_channels=8, num_shared_fcs=1, num_cls_fcs=1, num_reg_fcs=1
    ),
    'Shared4Conv1FCBBoxHead': dict(_ANY_RCNN, type='Shared4Conv1FCBBoxHead', fc_out_channels=8, conv_out_channels=8),
}
RCNN_STDS = dict(target_stds=(0.1, 0.1, 0.2, 0.2))


def roi_losses(head, with_positives=True):
    torch.manual_seed(3)
    feats = torch.randn(7, 4, 2, 2, requires_grad=True)
    return with_gradient(head, head.loss(*head(feats), *roi_targets(head, with_positives)), [feats])


def roi_targets(head, with_positives=True):
    """Seven RoIs of two images: four positives, three of the background."""
    corner = torch.rand(7, 2, generator=torch.Generator().manual_seed(4)) * 30
    boxes = torch.cat([corner, corner + 20], dim=1)
    labels = torch.tensor([0, 2, C, 1, C, 2, C]) if with_positives else torch.full((7,), C)
    positive = labels < C
    gts = boxes + torch.linspace(-4, 5, 7)[:, None] * torch.tensor([1.0, -0.5, 0.7, 1.0])
    targets, weights = torch.zeros(7, 4), torch.zeros(7, 4)
    targets[positive] = (
        gts[positive] if head.reg_decoded_bbox else head.bbox_coder.encode(boxes[positive], gts[positive])
    )
    weights[positive] = 1.0
    label_weights = torch.ones(7)
    label_weights[6] = 0.0  # a sample that does not count: the two divisors differ
    return bbox2roi([boxes[:4], boxes[4:]]), labels, label_weights, targets, weights


def assert_autocast_agrees(head, losses_of, dtype):
    """Losses and finite gradients in half precision, up to the rounding of the network itself."""
    expected, _ = losses_of(head)
    with torch.autocast('cpu', dtype=dtype):
        actual, grads = losses_of(head)
    for key, value in expected.items():
        assert actual[key].dtype == torch.float32
        torch.testing.assert_close(actual[key], value, rtol=2e-2, atol=0)
    assert all(grad.isfinite().all() for grad in grads)
