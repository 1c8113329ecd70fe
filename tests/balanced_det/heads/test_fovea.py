"""The FoveaBox seam: IoU from log-distances, and losses that hang on the graph without a positive point."""

from __future__ import annotations

import math

import pytest
import torch
from head_cases import (
    BALANCED_L1,
    BOXES,
    FOVEA,
    FOVEA_FOCAL,
    LABELS,
    C,
    assert_autocast_agrees,
    assert_same,
    build,
    dense_losses,
    features,
    instances,
    metas,
)
from mmdet.models.dense_heads import FoveaHead
from reference import iou_balanced as reference

NEUTRAL = dict(
    loss_cls=dict(type='IoUBalancedFocalLoss', eta=0.0, **FOVEA_FOCAL),
    loss_bbox=dict(BALANCED_L1, beta=0.11, lambda_=0.0),
)
BALANCED = dict(
    loss_cls=dict(type='IoUBalancedFocalLoss', eta=1.5, **FOVEA_FOCAL), loss_bbox=dict(BALANCED_L1, beta=0.11)
)


def build_fovea(**changes):
    return build(FOVEA, type='IoUBalancedFoveaHead', **changes)


@pytest.mark.parametrize('scope', ['batch', 'level', 'image'])
@pytest.mark.parametrize('gts', [instances(), instances([[], BOXES[1]], [[], LABELS[1]])], ids=['boxes', 'one empty'])
def test_neutral_head_equals_its_parent(scope, gts):
    head, stock = build_fovea(**{**NEUTRAL, 'loss_cls': dict(NEUTRAL['loss_cls'], scope=scope)}), build(FOVEA)
    assert head.state_dict().keys() == stock.state_dict().keys()
    assert_same(dense_losses(head, gts), dense_losses(stock, gts))


@pytest.mark.parametrize('loss_bbox', [dict(type='L1Loss'), dict(type='SmoothL1Loss', beta=0.11)])
def test_stock_losses_in_the_balanced_head(loss_bbox):
    expected = dense_losses(build(FOVEA, loss_bbox=loss_bbox), instances())
    assert_same(dense_losses(build_fovea(loss_bbox=loss_bbox), instances()), expected)


def naive_iou(pred, target):
    """Of two boxes given by the logarithms of left, top, right and bottom."""
    (l1, t1, r1, b1), (l2, t2, r2, b2) = ([math.exp(x) for x in row] for row in (pred, target))
    inter = (min(l1, l2) + min(r1, r2)) * (min(t1, t2) + min(b1, b2))
    return inter / ((l1 + r1) * (t1 + b1) + (l2 + r2) * (t2 + b2) - inter)


def test_losses_equal_naive_loops():
    head, gts = build_fovea(**BALANCED), instances()
    torch.manual_seed(2)
    cls_scores, bbox_preds = head(features())
    sizes = [score.shape[-2:] for score in cls_scores]
    priors = head.prior_generator.grid_priors(sizes, device='cpu')
    labels, targets = FoveaHead.get_targets(head, gts, sizes, priors)
    scores = torch.cat([score.permute(0, 2, 3, 1).reshape(-1, C) for score in cls_scores]).double().tolist()
    preds = torch.cat([pred.permute(0, 2, 3, 1).reshape(-1, 4) for pred in bbox_preds]).double().tolist()
    labels, targets = labels.tolist(), targets.double().tolist()
    positives = [i for i, label in enumerate(labels) if label < C]
    ious = [naive_iou(pred, target) for pred, target in zip(preds, targets)]
    assert len(positives) >= 5

    def entry(logit, is_target):
        return reference.focal_entry(logit, is_target, gamma=1.5, alpha=0.4)

    expected_cls = reference.classification(scores, labels, ious, entry=entry, eta=1.5, num_classes=C)
    expected_bbox = sum(
        ious[i] ** 1.5 * sum(reference.smooth_l1(p - t, 0.11) for p, t in zip(preds[i], targets[i])) for i in positives
    )
    losses = head.loss_by_feat(cls_scores, bbox_preds, gts, metas(gts))
    # FoveaHead divides the classification loss by positives and images, the localisation loss by positives.
    assert losses['loss_cls'].item() == pytest.approx(expected_cls / (len(positives) + 2), rel=2e-5)
    assert losses['loss_bbox'].item() == pytest.approx(expected_bbox / len(positives), rel=2e-5)


def test_without_a_positive_point_the_loss_hangs_on_the_graph():
    empty = instances([[], []], [[], []])
    stock = build(FOVEA)
    assert not stock.loss_by_feat(*stock(features()), empty, metas(empty))['loss_bbox'].requires_grad
    head = build_fovea(**BALANCED)
    losses = head.loss_by_feat(*head(features()), empty, metas(empty))
    assert losses['loss_bbox'] == 0
    (losses['loss_cls'] + losses['loss_bbox']).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
    torch.testing.assert_close(losses['loss_cls'], losses_of_stock(stock, head))


def losses_of_stock(stock, head):
    torch.manual_seed(2)
    feats, empty = features(), instances([[], []], [[], []])
    torch.testing.assert_close(head(feats), stock(feats))
    return stock.loss_by_feat(*stock(feats), empty, metas(empty))['loss_cls']


@pytest.mark.parametrize('extra', [[10.0, 10, 10, 30], [200, 200, 230, 240]], ids=['no width', 'outside'])
def test_box_without_area_in_the_image_is_left_out_and_counted(extra):
    gts = instances([[*BOXES[0], extra], BOXES[1]], [[*LABELS[0], 1], LABELS[1]])
    head = build_fovea(**BALANCED)
    assert_same(dense_losses(head, gts), dense_losses(head, instances()))
    assert head.loss_by_feat(*head(features()), gts, metas(gts))['gt_left_out'] == 1


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast_agrees_with_float32(dtype):
    head = build_fovea(**BALANCED)
    assert_autocast_agrees(head, lambda head: dense_losses(head, instances()), dtype)


def test_one_positive_has_the_stock_classification_loss():
    # One cell of the finest level, for which Eq. 4 gives weight 1.
    gts = instances([[[24.0, 24, 32, 32]], []], [[1], []])
    (losses, grads), (stock, _) = dense_losses(build_fovea(**BALANCED), gts), dense_losses(build(FOVEA), gts)
    torch.testing.assert_close(losses['loss_cls'], stock['loss_cls'])
    assert 0 < losses['loss_bbox'] < stock['loss_bbox']
    assert all(grad.isfinite().all() for grad in grads)
