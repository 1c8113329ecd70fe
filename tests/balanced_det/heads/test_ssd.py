"""The SSD seam: stock losses as in the stock head, balance before the mining, and a head that can validate."""

from __future__ import annotations

import pytest
import torch
from head_cases import (
    BALANCED_L1,
    BOXES,
    LABELS,
    NEUTRAL_CE,
    SSD,
    SSD_STDS,
    C,
    assert_autocast_agrees,
    assert_same,
    build,
    dense_losses,
    features,
    instances,
    metas,
)
from mmdet.models.dense_heads import SSDHead
from mmengine.config import ConfigDict
from reference import boxes as reference_boxes
from reference import iou_balanced as reference

from balanced_det.evaluation import PositivesRecorder

BETA = SSD['train_cfg'].smoothl1_beta
STDS = SSD_STDS['target_stds']
BALANCED = dict(loss_cls=dict(NEUTRAL_CE, eta=1.5), loss_bbox=dict(BALANCED_L1, beta=BETA, **SSD_STDS))
NEUTRAL = dict(loss_cls=NEUTRAL_CE, loss_bbox=dict(BALANCED_L1, beta=BETA, lambda_=0.0, **SSD_STDS))


def build_ssd(**changes):
    return build(SSD, type='IoUBalancedSSDHead', **changes)


@pytest.mark.parametrize('changes', [{}, NEUTRAL, dict(NEUTRAL, loss_cls=dict(NEUTRAL_CE, scope='image'))])
@pytest.mark.parametrize('gts', [instances(), instances([[], BOXES[1]], [[], LABELS[1]])], ids=['boxes', 'one empty'])
def test_default_and_neutral_losses_equal_the_stock_head(changes, gts):
    head, stock = build_ssd(**changes), build(SSD)
    assert head.state_dict().keys() == stock.state_dict().keys()
    assert_same(dense_losses(head, gts), dense_losses(stock, gts))


def test_mining_takes_all_negatives_where_there_are_too_few():
    # 200 negatives wanted for each positive, more than there are.
    changes = dict(train_cfg=ConfigDict(SSD['train_cfg'], neg_pos_ratio=200))
    assert_same(dense_losses(build_ssd(**changes), instances()), dense_losses(build(SSD, **changes), instances()))


def stock_images(head, gts, monkeypatch):
    """What mmdet's own SSDHead hands its loss of each image, by the scores and deltas of a head."""
    images, stock = [], build(SSD)
    with monkeypatch.context() as patch:
        single = lambda self, *args, avg_factor: images.append((*args, avg_factor)) or (torch.zeros(1), torch.zeros(1))  # noqa: E731
        patch.setattr(SSDHead, 'loss_by_feat_single', single)
        torch.manual_seed(2)
        SSDHead.loss_by_feat(stock, *head(features()), gts, metas(gts))
    return images


def naive_losses(images, scope):
    """Eq. 3-6 for SSD: all positives, the 3 P largest negatives of each image by their cross-entropy."""
    loss_cls = loss_bbox = 0.0
    sets: list[list] = [[]]
    for scores, preds, _, labels, _, targets, _, avg_factor in images:
        scores, labels = scores.double().tolist(), labels.tolist()
        positives = [i for i, label in enumerate(labels) if label < C]
        losses = [reference.softmax_loss(row, label) for row, label in zip(scores, labels)]
        negatives = sorted((losses[i] for i in range(len(labels)) if labels[i] == C), reverse=True)
        loss_cls += sum(negatives[: 3 * len(positives)]) / avg_factor
        for i in positives:
            pred, target = preds[i].tolist(), targets[i].tolist()
            sets[-1].append((reference.delta_iou(pred, target, STDS), losses[i], avg_factor))
        loss_bbox += (
            reference.localisation(
                preds[positives].tolist(), targets[positives].tolist(), beta=BETA, lambda_=1.5, stds=STDS
            )
            / avg_factor
        )
        if scope == 'image':
            sets.append([])
    weights = []
    for positives in filter(None, sets):
        ious, losses, factors = zip(*positives)
        balance = reference.balanced_weights(ious, losses, 1.5)
        weights.extend(balance)
        loss_cls += sum(weight * loss / factor for weight, loss, factor in zip(balance, losses, factors))
    return loss_cls, loss_bbox, weights


@pytest.mark.parametrize('scope', ['batch', 'image'])
def test_losses_and_gradients_equal_naive_loops(scope, monkeypatch):
    head = build_ssd(**{**BALANCED, 'loss_cls': dict(NEUTRAL_CE, eta=1.5, scope=scope)})
    images = stock_images(head, instances(), monkeypatch)
    loss_cls, loss_bbox, weights = naive_losses(images, scope)
    torch.manual_seed(2)
    cls_scores, bbox_preds = head(features())
    losses = head.loss_by_feat(cls_scores, bbox_preds, instances(), metas(instances()))
    assert losses['loss_cls'].item() == pytest.approx(loss_cls, rel=2e-5)
    assert losses['loss_bbox'].item() == pytest.approx(loss_bbox, rel=2e-5)
    # d loss / d logit of the own class of a positive is w (p - 1) / N: the weights show there, not in the kept sum.
    grads = torch.autograd.grad(losses['loss_cls'], cls_scores)
    grads = torch.cat([grad.permute(0, 2, 3, 1).reshape(2, -1, C + 1) for grad in grads], dim=1)
    found = []
    for grad, (scores, _, _, labels, *_, avg_factor) in zip(grads, images):
        for i in (labels < C).nonzero().squeeze(1).tolist():
            p = scores[i].softmax(0)[labels[i]]
            found.append((grad[i, labels[i]] * avg_factor / (p - 1)).item())
    assert found == pytest.approx(weights, rel=1e-4)
    assert max(weights) - min(weights) > 0.2  # else the check above says little


def test_balance_does_not_change_which_negatives_are_mined():
    def touched(head):
        torch.manual_seed(2)
        cls_scores, bbox_preds = head(features())
        loss = head.loss_by_feat(cls_scores, bbox_preds, instances(), metas(instances()))['loss_cls']
        return [grad.ne(0) for grad in torch.autograd.grad(sum(loss) if isinstance(loss, list) else loss, cls_scores)]

    for balanced, stock in zip(touched(build_ssd(**BALANCED)), touched(build(SSD))):
        assert balanced.any()
        assert torch.equal(balanced, stock)


def test_batch_without_boxes_hangs_on_the_graph():
    head = build_ssd(**BALANCED)
    feats = features()
    losses = head.loss_by_feat(*head(feats), instances([[], []], [[], []]), metas([[], []]))
    assert (losses['loss_cls'], losses['loss_bbox']) == (0, 0)
    (losses['loss_cls'] + losses['loss_bbox']).backward()
    assert all(p.grad is not None and p.grad.eq(0).all() for p in head.parameters())


def test_zero_size_box_is_left_out():
    gts = instances([[*BOXES[0], [10.0, 10, 10, 30]], BOXES[1]], [[*LABELS[0], 1], LABELS[1]])
    assert_same(dense_losses(build_ssd(**BALANCED), gts), dense_losses(build_ssd(**BALANCED), instances()))


def test_validates_where_the_stock_head_crashes():
    test_cfg = ConfigDict(nms_pre=100, score_thr=0.02, nms=dict(type='nms', iou_threshold=0.45), max_per_img=20)
    stock, head = build(SSD, test_cfg=test_cfg), build_ssd(test_cfg=test_cfg)
    feats, two = features(), metas(instances())
    with pytest.raises(AttributeError, match='loss_cls'):
        stock.predict_by_feat(*stock(feats), batch_img_metas=two)
    found = head.predict_by_feat(*head(feats), batch_img_metas=two)
    # The stock detections, once the stock head is given what it lacks.
    stock.loss_cls = head.loss_cls
    expected = stock.predict_by_feat(*stock(feats), batch_img_metas=two)
    for got, want in zip(found, expected):
        assert len(want) > 0
        assert torch.equal(got.bboxes, want.bboxes)
        assert torch.equal(got.scores, want.scores)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast_agrees_with_float32(dtype):
    head = build_ssd(**BALANCED)
    assert_autocast_agrees(head, lambda head: dense_losses(head, instances()), dtype)


def test_one_positive_has_the_stock_classification_loss():
    # Smaller than any anchor: one forced match, for which Eq. 4 gives weight 1.
    gts = instances([[[26.0, 26, 30, 30]], []], [[1], []])
    (losses, grads), (stock, stock_grads) = dense_losses(build_ssd(**BALANCED), gts), dense_losses(build(SSD), gts)
    torch.testing.assert_close(losses['loss_cls'], stock['loss_cls'])
    assert 0 < losses['loss_bbox'] < stock['loss_bbox']
    assert all(grad.isfinite().all() for grad in grads)
    assert len(grads) == len(stock_grads)


# ------------------------------------------------------------------------ the head alone, with stock losses


def build_configurable(**changes):
    return build(SSD, type='ConfigurableSSDHead', **changes)


@pytest.mark.parametrize('gts', [instances(), instances([[], BOXES[1]], [[], LABELS[1]])], ids=['boxes', 'one empty'])
def test_configurable_head_without_blocks_is_the_stock_head(gts):
    head, stock = build_configurable(), build(SSD)
    assert head.state_dict().keys() == stock.state_dict().keys()
    assert_same(dense_losses(head, gts), dense_losses(stock, gts))


def test_configurable_head_computes_the_losses_of_its_blocks():
    # Another beta than that of train_cfg, and weights.
    blocks = dict(
        loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=3.0),
        loss_bbox=dict(type='SmoothL1Loss', beta=0.2, loss_weight=2.0),
    )
    losses, _ = dense_losses(build_configurable(**blocks), instances())
    stock, _ = dense_losses(build(SSD, train_cfg=ConfigDict(SSD['train_cfg'], smoothl1_beta=0.2)), instances())
    torch.testing.assert_close(losses['loss_cls'], 3 * stock['loss_cls'])
    torch.testing.assert_close(losses['loss_bbox'], 2 * stock['loss_bbox'])


def test_configurable_head_on_decoded_boxes(monkeypatch):
    decoded = dict(reg_decoded_bbox=True, loss_bbox=dict(type='IoULoss', mode='linear'))
    gts, expected = instances(), 0.0
    for _, preds, anchors, labels, _, targets, _, avg_factor in stock_images(build_configurable(), gts, monkeypatch):
        for i in (labels < C).nonzero().squeeze(1).tolist():
            pred, target = (
                reference_boxes.decode(anchors[i].tolist(), row[i].tolist(), STDS) for row in (preds, targets)
            )
            expected += (1 - reference_boxes.iou(pred, target)) / avg_factor
    losses, _ = dense_losses(build_configurable(**decoded), gts)
    assert losses['loss_bbox'].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(in_channels=(8, 8, 8)), 'in_channels has 3 levels, anchor_generator.strides 2'),
        (dict(loss_cls=dict(type='FocalLoss', use_sigmoid=True)), 'scores the background as one more class'),
        (
            dict(loss_cls=dict(NEUTRAL_CE, eta=1.5)),
            'needs the IoU of the regressed boxes, which ConfigurableSSDHead does not hand over',
        ),
        (dict(loss_bbox=BALANCED_L1), 'set loss_bbox.target_stds='),
    ],
)
def test_configurable_head_refuses_blocks_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        build_configurable(**changes)


@pytest.mark.parametrize('kind', ['ConfigurableSSDHead', 'IoUBalancedSSDHead'])
def test_number_of_maps(kind):
    for feats in (features()[:1], [*features(), features()[1]]):
        with pytest.raises(ValueError, match=f'{kind} takes 2 feature maps, .* and got {len(feats)}: out_indices'):
            build(SSD, type=kind)(feats)


def test_positives_of_the_configurable_head_can_be_measured():
    def measured(head):
        recorder = PositivesRecorder(head)
        recorder.start()
        dense_losses(head, instances())
        return recorder.stop()

    found, expected = measured(build_configurable()), measured(build_ssd())
    assert len(found.iou) >= 5
    for got, want in zip(found, expected):
        torch.testing.assert_close(got, want)
