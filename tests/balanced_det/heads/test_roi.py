"""The RoI seam: neutral heads equal their parents, balanced heads equal the naive loops, cascades refine as before."""

from __future__ import annotations

import pytest
import torch
from head_cases import (
    BALANCED_L1,
    IMAGE,
    NEUTRAL_CE,
    OTHER_RCNN,
    RCNN,
    RCNN_STDS,
    C,
    assert_autocast_agrees,
    assert_same,
    build,
    instances,
    roi_losses,
    roi_targets,
)
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from reference import iou_balanced as reference


@pytest.mark.parametrize('agnostic', [False, True])
class TestShared2FCBBoxHead:
    @pytest.mark.parametrize('with_positives', [False, True])
    def test_neutral_head_equals_its_parent(self, agnostic, with_positives):
        head = build(
            RCNN,
            type='IoUBalancedShared2FCBBoxHead',
            reg_class_agnostic=agnostic,
            loss_cls=NEUTRAL_CE,
            loss_bbox=dict(type='IoUBalancedSmoothL1Loss', lambda_=0.0, **RCNN_STDS),
        )
        stock = build(RCNN, reg_class_agnostic=agnostic)
        assert head.state_dict().keys() == stock.state_dict().keys()
        assert_same(roi_losses(head, with_positives), roi_losses(stock, with_positives))

    def test_stock_losses_in_the_balanced_head(self, agnostic):
        changes = dict(reg_class_agnostic=agnostic, reg_decoded_bbox=True, loss_bbox=dict(type='GIoULoss'))
        head = build(RCNN, type='IoUBalancedShared2FCBBoxHead', **changes)
        assert_same(roi_losses(head), roi_losses(build(RCNN, **changes)))

    def test_localisation_loss_alone_in_the_stock_head(self, agnostic):
        balanced = dict(type='IoUBalancedSmoothL1Loss', **RCNN_STDS)
        changes = dict(loss_bbox=balanced, reg_class_agnostic=agnostic)
        in_stock = roi_losses(build(RCNN, **changes))
        assert_same(in_stock, roi_losses(build(RCNN, type='IoUBalancedShared2FCBBoxHead', **changes)))
        assert in_stock[0]['loss_bbox'] < roi_losses(build(RCNN, reg_class_agnostic=agnostic))[0]['loss_bbox']

    def test_losses_equal_naive_loops(self, agnostic):
        head = build(
            RCNN,
            type='IoUBalancedShared2FCBBoxHead',
            reg_class_agnostic=agnostic,
            loss_cls=dict(NEUTRAL_CE, eta=1.5),
            loss_bbox=dict(type='IoUBalancedSmoothL1Loss', **RCNN_STDS),
        )
        torch.manual_seed(3)
        cls_score, bbox_pred = head(torch.randn(7, 4, 2, 2))
        rois, labels, label_weights, targets, weights = roi_targets(head)
        positive = [i for i in range(7) if labels[i] < C]
        own = {i: bbox_pred[i].view(-1, 4)[0 if agnostic else labels[i]].tolist() for i in positive}
        iou = [0.0] * 7
        for i in positive:
            iou[i] = reference.delta_iou(own[i], targets[i].tolist(), RCNN_STDS['target_stds'], rois[i, 1:].tolist())
        losses = head.loss(cls_score, bbox_pred, rois, labels, label_weights, targets, weights)
        expected_cls = reference.softmax_classification(
            cls_score.tolist(), labels.tolist(), iou, eta=1.5, num_classes=C, weights=label_weights.tolist()
        )
        expected_bbox = reference.localisation(
            [own[i] for i in positive],
            targets[positive].tolist(),
            beta=1.0,
            lambda_=1.5,
            **{'stds': RCNN_STDS['target_stds']},
        )
        # BBoxHead divides the classification loss by the RoIs that count, the localisation loss by all.
        assert losses['loss_cls'].item() == pytest.approx(expected_cls / 6, rel=1e-5)
        assert losses['loss_bbox'].item() == pytest.approx(expected_bbox / 7, rel=1e-5)

    def test_logs_the_accuracy_of_the_stock_head(self, agnostic):
        changes = dict(reg_class_agnostic=agnostic)
        balanced = build(RCNN, type='IoUBalancedShared2FCBBoxHead', loss_cls=NEUTRAL_CE, **changes)
        stock = build(RCNN, **changes)
        feats = torch.randn(7, 4, 2, 2)
        acc = [head.loss(*head(feats), *roi_targets(head))['acc'] for head in (balanced, stock)]
        torch.testing.assert_close(*acc)


@pytest.mark.parametrize('kind', OTHER_RCNN)
def test_neutral_heads_of_other_shapes_equal_their_parents(kind):
    neutral = dict(loss_cls=NEUTRAL_CE, loss_bbox=dict(BALANCED_L1, lambda_=0.0, **RCNN_STDS))
    stock, head = build(OTHER_RCNN[kind]), build(OTHER_RCNN[kind], type=f'IoUBalanced{kind}', **neutral)
    assert head.state_dict().keys() == stock.state_dict().keys()
    assert_same(roi_losses(head), roi_losses(stock))


def test_without_boxes_the_ranking_of_hard_examples_is_the_stock_one():
    # What OHEMSampler asks for: the classification loss of each RoI, without predictions or targets of boxes.
    head = build(RCNN, type='IoUBalancedShared2FCBBoxHead', loss_cls=dict(NEUTRAL_CE, eta=1.5))
    stock = build(RCNN)
    feats = torch.randn(7, 4, 2, 2)
    rois, labels = roi_targets(head)[:2]
    losses = [
        h.loss(h(feats)[0], None, rois, labels, torch.ones(7), None, None, reduction_override='none')['loss_cls']
        for h in (head, stock)
    ]
    torch.testing.assert_close(*losses)


def test_no_roi_at_all():
    head = build(
        RCNN,
        type='IoUBalancedShared2FCBBoxHead',
        loss_cls=dict(NEUTRAL_CE, eta=1.5),
        loss_bbox=dict(BALANCED_L1, **RCNN_STDS),
    )
    feats = torch.zeros(0, 4, 2, 2, requires_grad=True)
    none = torch.zeros(0, 4)
    losses = head.loss(*head(feats), torch.zeros(0, 5), torch.zeros(0, dtype=torch.long), torch.zeros(0), none, none)
    (losses['loss_cls'] + losses['loss_bbox']).backward()
    assert (losses['loss_cls'], losses['loss_bbox']) == (0, 0)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_rois_in_half_precision_agree_with_float32(dtype):
    head = build(
        RCNN,
        type='IoUBalancedShared2FCBBoxHead',
        loss_cls=dict(NEUTRAL_CE, eta=1.5),
        loss_bbox=dict(BALANCED_L1, **RCNN_STDS),
    )
    assert_autocast_agrees(head, roi_losses, dtype)


CASCADE = dict(
    type='CascadeRoIHead',
    num_stages=2,
    stage_loss_weights=[1, 0.5],
    bbox_roi_extractor=dict(
        type='SingleRoIExtractor',
        roi_layer=dict(type='RoIAlign', output_size=2, sampling_ratio=0),
        out_channels=4,
        featmap_strides=[8],
    ),
    bbox_head=[RCNN, RCNN],
    train_cfg=[
        dict(
            assigner=dict(type='MaxIoUAssigner', pos_iou_thr=thr, neg_iou_thr=thr, min_pos_iou=thr),
            sampler=dict(type='RandomSampler', num=8, pos_fraction=0.5),
            pos_weight=-1,
            debug=False,
        )
        for thr in (0.3, 0.4)
    ],
)


def test_stages_of_a_cascade_refine_as_in_the_stock_head():
    def losses(head_type):
        neutral = dict(type=head_type, loss_cls=NEUTRAL_CE, loss_bbox=dict(BALANCED_L1, lambda_=0.0, **RCNN_STDS))
        heads = [dict(RCNN, **(neutral if head_type.startswith('IoU') else {}))] * 2
        roi_head = build(ConfigDict(CASCADE), bbox_head=heads)
        sample = DetDataSample(gt_instances=instances()[0], metainfo=dict(img_shape=IMAGE))
        noisy = sample.gt_instances.bboxes.repeat(4, 1) + torch.linspace(-6, 6, 8)[:, None]
        proposals = InstanceData(bboxes=noisy, scores=torch.ones(8))
        torch.manual_seed(5)
        return roi_head.loss((torch.randn(1, 4, 8, 8),), [proposals], [sample])

    actual, expected = losses('IoUBalancedShared2FCBBoxHead'), losses('Shared2FCBBoxHead')
    assert expected['s1.loss_bbox'] > 0
    assert actual.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(actual[key], value)
