"""Harmonic heads: with all parts off they are their parents, with all on they equal the naive loops."""

from __future__ import annotations

import math

import pytest
import torch
from head_cases import (
    BALANCED_L1,
    BOXES,
    FOVEA,
    LABELS,
    NEUTRAL_FOCAL,
    OTHER_RCNN,
    RCNN,
    RCNN_STDS,
    RETINA,
    SEP_BN,
    SSD,
    SSD_STDS,
    C,
    assert_autocast_agrees,
    assert_same,
    build,
    collect_groups,
    dense_losses,
    features,
    instances,
    metas,
    roi_losses,
    roi_targets,
)
from reference import boxes as reference_boxes
from reference import harmonic as reference
from reference import iou_balanced as stock_reference

import harmonic  # noqa: F401  registers the heads
from balanced_det.blocks import positive_inds
from balanced_det.heads import check_heads

OFF = dict(type='HarmonicDetLoss', harmonic=False, hiou=False, tc=False)
ALL = dict(type='HarmonicDetLoss')


def retina(**joint):
    return build(RETINA, type='HarmonicRetinaHead', loss_joint=dict(ALL, **joint))


def ssd(**joint):
    return build(SSD, type='HarmonicSSDHead', loss_joint=dict(ALL, **joint))


def rcnn(agnostic=False, **joint):
    return build(RCNN, type='HarmonicShared2FCBBoxHead', reg_class_agnostic=agnostic, loss_joint=dict(ALL, **joint))


def dense(head):
    return dense_losses(head, instances())


OFF_PARTS = {key: value for key, value in OFF.items() if key != 'type'}


class TestAllPartsOff:
    @pytest.mark.parametrize('fused', [True, False])
    @pytest.mark.parametrize('gts', [instances(), instances([[], BOXES[1]], [[], LABELS[1]])], ids=['boxes', 'empty'])
    @pytest.mark.parametrize('stock', [RETINA, SEP_BN, SSD, FOVEA], ids=lambda stock: stock['type'])
    def test_dense_head_equals_its_parent(self, stock, gts, fused):
        head, stock = build(stock, type=f'Harmonic{stock["type"]}', loss_joint=dict(OFF, fused=fused)), build(stock)
        assert head.state_dict().keys() == stock.state_dict().keys()
        assert_same(dense_losses(head, gts), dense_losses(stock, gts))

    @pytest.mark.parametrize('with_positives', [True, False])
    @pytest.mark.parametrize('agnostic', [True, False])
    def test_roi_head_equals_its_parent(self, agnostic, with_positives):
        head, stock = rcnn(agnostic, **OFF_PARTS), build(RCNN, reg_class_agnostic=agnostic)
        assert head.state_dict().keys() == stock.state_dict().keys()
        assert_same(roi_losses(head, with_positives), roi_losses(stock, with_positives))

    @pytest.mark.parametrize('kind', OTHER_RCNN)
    def test_roi_head_of_another_shape_equals_its_parent(self, kind):
        stock, head = build(OTHER_RCNN[kind]), build(OTHER_RCNN[kind], type=f'Harmonic{kind}', loss_joint=OFF)
        assert head.state_dict().keys() == stock.state_dict().keys()
        assert_same(roi_losses(head), roi_losses(stock))


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def softmax(row):
    top = max(row)
    parts = [math.exp(x - top) for x in row]
    return [part / sum(parts) for part in parts]


@pytest.mark.parametrize('fused', [True, False])
@pytest.mark.parametrize('cls_factor', ['loss', 'score'])
def test_retina_head_equals_naive_loops(cls_factor, fused):
    head = retina(cls_factor=cls_factor, fused=fused)
    (samples,) = collect_groups(head, instances())
    logits, labels = samples.cls_score.double().tolist(), samples.labels.tolist()
    positives = positive_inds(samples.labels, C).tolist()
    preds, targets = (rows[positives].double().tolist() for rows in (samples.bbox_pred, samples.bbox_targets))
    ious = [reference_boxes.delta_iou(*row, (1.0,) * 4) for row in zip(preds, targets)]
    ce = [stock_reference.focal_entry(logits[i][labels[i]], True) for i in positives]
    bbox = [sum(stock_reference.smooth_l1(p - t, 0.111) for p, t in zip(*row)) for row in zip(preds, targets)]
    scores = [sigmoid(logits[i][labels[i]]) for i in positives]
    sigmoids = [[sigmoid(x) for x in logits[i]] for i in positives]
    probs = [[p / sum(row) for p in row] for row in sigmoids]
    added, loc, tc = reference.detector_terms(ce, bbox, ious, scores, probs, scores if cls_factor == 'score' else None)
    weights = samples.label_weights.tolist()
    stock = sum(
        weight * stock_reference.focal_entry(x, k == label)
        for row, label, weight in zip(logits, labels, weights)
        for k, x in enumerate(row)
    )
    losses, _ = dense(head)
    assert len(positives) >= 5
    assert losses['loss_cls'].item() == pytest.approx((stock + added) / samples.cls_avg_factor, rel=2e-5)
    assert losses['loss_bbox'].item() == pytest.approx(loc / samples.bbox_avg_factor, rel=2e-5)
    assert losses['loss_tc'].item() == pytest.approx(tc / samples.bbox_avg_factor, rel=2e-5)


def test_ssd_head_equals_naive_loops():
    head = ssd()
    (samples,) = collect_groups(head, instances())
    logits, labels = samples.cls_score.double().tolist(), samples.labels.tolist()
    positives = positive_inds(samples.labels, C).tolist()
    assert len(labels) == 4 * len(positives)  # mined 3 : 1
    preds, targets = (rows[positives].double().tolist() for rows in (samples.bbox_pred, samples.bbox_targets))
    ious = [reference_boxes.delta_iou(*row, SSD_STDS['target_stds']) for row in zip(preds, targets)]
    losses = [stock_reference.softmax_loss(row, label) for row, label in zip(logits, labels)]
    bbox = [sum(stock_reference.smooth_l1(p - t, 0.5) for p, t in zip(*row)) for row in zip(preds, targets)]
    probs = [softmax(logits[i]) for i in positives]
    scores = [row[labels[i]] for row, i in zip(probs, positives)]
    added, loc, tc = reference.detector_terms([losses[i] for i in positives], bbox, ious, scores, probs)
    actual, _ = dense(head)
    factor = samples.cls_avg_factor
    assert actual['loss_cls'].item() == pytest.approx((sum(losses) + added) / factor, rel=2e-5)
    assert actual['loss_bbox'].item() == pytest.approx(loc / factor, rel=2e-5)
    assert actual['loss_tc'].item() == pytest.approx(tc / factor, rel=2e-5)


@pytest.mark.parametrize('avg', ['head', 'positives'])
@pytest.mark.parametrize('agnostic', [True, False])
def test_roi_head_equals_naive_loops(agnostic, avg):
    head = rcnn(agnostic, avg=avg)
    torch.manual_seed(3)
    cls_score, bbox_pred = head(torch.randn(7, 4, 2, 2))
    rois, labels, label_weights, targets, weights = roi_targets(head)
    logits, positives = cls_score.double().tolist(), [i for i in range(7) if labels[i] < C]
    preds = [bbox_pred[i].view(-1, 4)[0 if agnostic else labels[i]].double().tolist() for i in positives]
    own = targets[positives].double().tolist()
    ious = [reference_boxes.delta_iou(*row, RCNN_STDS['target_stds']) for row in zip(preds, own)]
    losses = [stock_reference.softmax_loss(row, label) for row, label in zip(logits, labels.tolist())]
    bbox = [sum(stock_reference.smooth_l1(p - t, 1.0) for p, t in zip(*row)) for row in zip(preds, own)]
    probs = [softmax(logits[i]) for i in positives]
    scores = [row[labels[i]] for row, i in zip(probs, positives)]
    added, loc, tc = reference.detector_terms([losses[i] for i in positives], bbox, ious, scores, probs)
    stock = sum(loss * weight for loss, weight in zip(losses, label_weights.tolist()))
    # BBoxHead: the RoIs that count (6 of 7), and all RoIs; Eq. 13: the positives.
    of_cls, of_bbox = (6, 7) if avg == 'head' else (4, 4)
    actual = head.loss(cls_score, bbox_pred, rois, labels, label_weights, targets, weights)
    assert actual['loss_cls'].item() == pytest.approx((stock + added) / of_cls, rel=1e-5)
    assert actual['loss_bbox'].item() == pytest.approx(loc / of_bbox, rel=1e-5)
    assert actual['loss_tc'].item() == pytest.approx(tc / of_bbox, rel=1e-5)


def test_iou_terms_teach_the_boxes():
    # With smooth L1 weighed down, what moves the boxes are HIoU and TC; by an independent finite difference.
    head = retina(harmonic=False)
    head.loss_bbox.loss_weight = 0.0
    torch.manual_seed(2)
    with torch.no_grad():
        cls_scores, bbox_preds = (list(maps) for maps in head(features()))

    def loss(preds):
        losses = head.loss_by_feat(cls_scores, preds, instances(), metas(instances()))
        return losses['loss_bbox'] + losses['loss_tc']

    leaves = [pred.double().contiguous().requires_grad_() for pred in bbox_preds]
    grads = torch.autograd.grad(loss(leaves), leaves)
    level, at = max(
        ((i, int(grad.abs().argmax())) for i, grad in enumerate(grads)), key=lambda place: grads[place[0]].abs().max()
    )
    step = torch.zeros_like(leaves[level]).view(-1)
    step[at] = 1e-4
    moved = [
        [*leaves[:level], leaves[level].detach() + sign * step.view_as(leaves[level]), *leaves[level + 1 :]]
        for sign in (1, -1)
    ]
    difference = (loss(moved[0]) - loss(moved[1])) / 2e-4
    assert grads[level].flatten()[at].abs() > 1e-3
    assert grads[level].flatten()[at].item() == pytest.approx(difference.item(), rel=1e-2)


@pytest.mark.parametrize('detach_factors', [True, False])
def test_plain_and_fused_loss_agree(detach_factors):
    plain, fused = (retina(detach_factors=detach_factors, fused=on) for on in (False, True))
    assert_same(dense(fused), dense(plain))


@pytest.mark.parametrize('value', [math.inf, math.nan])
@pytest.mark.parametrize('fused', [True, False])
def test_dense_samples_that_are_not_finite_are_left_out(fused, value):
    """The coupling of the others is the same, and no gradient is infinite; the stock loss keeps the sample."""

    def losses(spoilt):
        head = retina(fused=fused)
        original = head.loss_by_matched

        def spoil(groups):
            (group,) = groups
            block = next(block for block in group.blocks if len(positive_inds(block.labels, C)))
            row = positive_inds(block.labels, C)[0]
            if spoilt:
                block.bbox_targets[row, 2] = value
            else:  # as a positive without a box: it is in no coupling
                block.bbox_weights[row] = 0
            return original(groups)

        head.loss_by_matched = spoil
        return head, dense(head)

    (head, actual), (_, expected) = losses(spoilt=True), losses(spoilt=False)
    assert head.loss_joint.num_left_out == 1
    assert_same(actual, expected)


def test_detached_factors_change_gradients_and_no_value():
    attached, detached = dense(retina()), dense(retina(detach_factors=True))
    for key, value in attached[0].items():
        torch.testing.assert_close(detached[0][key], value)
    assert (attached[1][0] - detached[1][0]).norm() > 1e-3 * attached[1][0].norm()


@pytest.mark.parametrize('head', [retina, ssd])
def test_batch_without_boxes_hangs_on_the_graph(head):
    head, empty = head(), instances([[], []], [[], []])
    losses = head.loss_by_feat(*head(features()), empty, metas(empty))
    assert (losses['loss_bbox'], losses['loss_tc']) == (0, 0)
    (losses['loss_cls'] + losses['loss_bbox'] + losses['loss_tc']).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


def test_samples_that_are_not_finite_are_left_out_and_counted():
    def losses(num_rois):
        head = rcnn()
        torch.manual_seed(3)
        cls_score, bbox_pred = (rows[:num_rois] for rows in head(torch.randn(7, 4, 2, 2)))
        rois, labels, label_weights, targets, weights = (rows[:num_rois] for rows in roi_targets(head))
        if num_rois == 7:
            targets[5] = float('inf')  # a positive of a ground truth without width
            label_weights[5] = 0.0
        return head, head.loss(cls_score, bbox_pred, rois, labels, label_weights, targets, weights)

    (head, with_it), (_, without) = losses(7), losses(5)
    assert head.loss_joint.num_left_out == 1
    for key, factors in (('loss_cls', (5, 5)), ('loss_bbox', (7, 5)), ('loss_tc', (7, 5))):
        assert with_it[key].item() * factors[0] == pytest.approx(without[key].item() * factors[1], rel=1e-5)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(('head', 'losses'), [(retina, dense), (ssd, dense), (rcnn, roi_losses)])
def test_autocast_agrees_with_float32(head, losses, dtype):
    assert_autocast_agrees(head(), losses, dtype)


def test_hiou_loss_in_a_stock_head():
    with pytest.raises(ValueError, match='HIoULoss takes decoded boxes'):
        check_heads(build(RETINA, loss_bbox=dict(type='HIoULoss')))
    check_heads(build(RETINA, loss_bbox=dict(type='HIoULoss'), reg_decoded_bbox=True))


def test_hard_examples_are_ranked_as_in_the_stock_head():
    # OHEMSampler asks for the classification loss of each RoI, without predictions or targets of boxes.
    feats = torch.randn(7, 4, 2, 2)
    losses = []
    for head in (rcnn(), build(RCNN)):
        rois, labels = roi_targets(head)[:2]
        losses.append(
            head.loss(head(feats)[0], None, rois, labels, torch.ones(7), None, None, reduction_override='none')
        )
    torch.testing.assert_close(losses[0]['loss_cls'], losses[1]['loss_cls'])


@pytest.mark.parametrize(
    ('cfg', 'changes', 'message'),
    [
        (RETINA, dict(type='HarmonicRetinaHead', loss_cls=NEUTRAL_FOCAL), 'in place of IoUBalancedFocalLoss'),
        (
            RETINA,
            dict(type='HarmonicRetinaHead', loss_cls=dict(type='GHMC', use_sigmoid=True)),
            'a value for each sample, CrossEntropyLoss or FocalLoss; got GHMC',
        ),
        (
            RCNN,
            dict(type='HarmonicShared2FCBBoxHead', loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=True)),
            'scores the background as one more class',
        ),
        (RETINA, dict(type='HarmonicRetinaHead', loss_bbox=dict(type='HIoULoss')), 'set reg_decoded_bbox=True'),
        (FOVEA, dict(type='HarmonicFoveaHead', loss_bbox=dict(type='HIoULoss')), 'HIoULoss takes decoded boxes'),
    ],
)
def test_blocks_that_do_not_fit(cfg, changes, message):
    with pytest.raises(ValueError, match=message):
        build(cfg, **changes)


@pytest.mark.parametrize(('stock', 'beta'), [(RETINA, 0.111), (FOVEA, 0.11)], ids=['deltas', 'log-distances'])
def test_balanced_localisation_loss_under_the_coupling(stock, beta):
    # With all parts off it is the loss of the IoU-balanced head, which takes the IoU from the head.
    block = dict(BALANCED_L1, beta=beta)
    coupled = build(stock, type=f'Harmonic{stock["type"]}', loss_joint=OFF, loss_bbox=block)
    check_heads(coupled)
    assert_same(dense(coupled), dense(build(stock, type=f'IoUBalanced{stock["type"]}', loss_bbox=block)))


def test_scores_that_are_not_finite_are_left_out_of_the_coupling():
    head = rcnn()
    torch.manual_seed(3)
    cls_score, bbox_pred = head(torch.randn(7, 4, 2, 2))
    cls_score = cls_score.detach().clone()
    cls_score[1] = float('nan')  # a positive
    losses = head.loss(cls_score, bbox_pred, *roi_targets(head))
    assert head.loss_joint.num_left_out == 1
    assert losses['loss_bbox'].isfinite()
    assert losses['loss_tc'].isfinite()
    assert losses['loss_cls'].isnan()  # as in the stock head: mixed precision skips such a step


@pytest.mark.parametrize('gts', [instances([[[26.0, 26, 30, 30]], []], [[1], []])])
@pytest.mark.parametrize('head', [retina, ssd])
def test_one_positive(head, gts):
    # Smaller than any anchor: forced matches alone, of SSD exactly one.
    head = head()
    (samples,) = collect_groups(head, gts)
    if head.train_cfg.get('neg_pos_ratio'):
        assert len(positive_inds(samples.labels, C)) == 1
    losses, grads = dense_losses(head, gts)
    assert all(value.isfinite() and value >= 0 for value in losses.values())
    assert losses['loss_bbox'] > 0
    assert all(grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize('scale', [100.0, -100.0])
def test_extreme_logits_stay_finite(scale):
    head = rcnn()
    torch.manual_seed(3)
    cls_score, bbox_pred = head(torch.randn(7, 4, 2, 2))
    cls_score = (cls_score.detach().sign() * scale).requires_grad_()
    losses = head.loss(cls_score, bbox_pred, *roi_targets(head))
    total = losses['loss_cls'] + losses['loss_bbox'] + losses['loss_tc']
    (grad,) = torch.autograd.grad(total, cls_score)
    assert total.isfinite()
    assert grad.isfinite().all()
