"""The anchor seam: neutral heads equal their parents, balanced heads equal the naive loops."""

from __future__ import annotations

import pytest
import torch
from head_cases import (
    BALANCED_L1,
    BOXES,
    LABELS,
    NEUTRAL_CE,
    NEUTRAL_FOCAL,
    RETINA,
    RPN,
    SEP_BN,
    C,
    assert_autocast_agrees,
    assert_same,
    build,
    collect_groups,
    dense_losses,
    features,
    instances,
    metas,
)
from mmdet.models.dense_heads import RetinaHead
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.config import ConfigDict
from reference import iou_balanced as reference

from balanced_det.blocks import positive_inds
from balanced_det.heads import AnchorLossMixin
from balanced_det.matched import MatchedSamples, group_samples
from iou_balanced.heads import IoUBalancedLossMixin, IoUBalancedRetinaHead


class TestRetinaHead:
    @pytest.mark.parametrize('scope', ['batch', 'level', 'image'])
    def test_neutral_head_equals_its_parent(self, scope):
        head = build(
            RETINA,
            type='IoUBalancedRetinaHead',
            loss_cls=dict(NEUTRAL_FOCAL, scope=scope),
            loss_bbox=dict(type='IoUBalancedSmoothL1Loss', beta=0.111, lambda_=0.0),
        )
        stock = build(RETINA)
        assert head.state_dict().keys() == stock.state_dict().keys()
        assert_same(dense_losses(head, instances()), dense_losses(stock, instances()))

    @pytest.mark.parametrize('loss_bbox', [dict(type='L1Loss'), dict(type='GIoULoss')])
    def test_stock_losses_in_the_balanced_head(self, loss_bbox):
        changes = dict(loss_bbox=loss_bbox, reg_decoded_bbox=loss_bbox['type'] == 'GIoULoss')
        head = build(RETINA, type='IoUBalancedRetinaHead', **changes)
        assert_same(dense_losses(head, instances()), dense_losses(build(RETINA, **changes), instances()))

    def test_localisation_loss_alone_in_the_stock_head(self):
        balanced = dict(type='IoUBalancedSmoothL1Loss', beta=0.111)
        in_stock = dense_losses(build(RETINA, loss_bbox=balanced), instances())
        in_balanced = dense_losses(build(RETINA, type='IoUBalancedRetinaHead', loss_bbox=balanced), instances())
        stock = dense_losses(build(RETINA), instances())
        assert_same(in_stock, in_balanced)
        assert 0 < in_stock[0]['loss_bbox'] < stock[0]['loss_bbox']

    def test_stock_head_with_the_focal_loss_of_eta_0(self):
        # A drop-in for FocalLoss: no sample weighs more for its fit, so nobody has to know it.
        in_stock = dense_losses(build(RETINA, loss_cls=NEUTRAL_FOCAL), instances())
        assert_same(in_stock, dense_losses(build(RETINA), instances()))

    @pytest.mark.parametrize('scope', ['batch', 'level', 'image'])
    def test_plain_and_fused_loss_agree(self, scope):
        plain, fused = (
            build(RETINA, type='IoUBalancedRetinaHead', loss_cls=dict(NEUTRAL_FOCAL, eta=1.5, scope=scope, fused=on))
            for on in (False, True)
        )
        assert_same(dense_losses(fused, instances()), dense_losses(plain, instances()))

    def test_own_matching_of_a_head(self):
        # A subclass of the user's whose get_targets takes no more than the stock loss hands it.
        class Own(RetinaHead):
            def get_targets(self, anchors, flags, gts, img_metas, batch_gt_instances_ignore=None, unmap_outputs=True):
                return super().get_targets(anchors, flags, gts, img_metas, batch_gt_instances_ignore, unmap_outputs)

        class Balanced(IoUBalancedLossMixin, AnchorLossMixin, Own):
            pass

        blocks = dict(loss_cls=dict(NEUTRAL_FOCAL, eta=1.5))
        assert_same(
            dense_losses(build(RETINA, type=Balanced, **blocks), instances()),
            dense_losses(build(RETINA, type='IoUBalancedRetinaHead', **blocks), instances()),
        )

    def test_positives_of_a_head_that_changes_its_labels(self):
        # The samplers know of more positives than the labels have.
        class Fewer(IoUBalancedRetinaHead):
            def _get_targets_single(self, *args, **kwargs):
                labels, *others = super()._get_targets_single(*args, **kwargs)
                first = (labels < C).nonzero()[0]
                return (labels.index_fill(0, first, C), *others)

        def positives(kind):
            head, found = build(RETINA, type=kind, loss_cls=NEUTRAL_FOCAL), []
            original = head.loss_by_matched
            head.loss_by_matched = lambda groups: found.extend(groups) or original(groups)
            dense_losses(head, instances())
            return found[0].pos_inds

        assert len(positives(Fewer)) == len(positives(IoUBalancedRetinaHead)) - 2  # one of each image
        assert (positives(Fewer) >= 0).all()

    @pytest.mark.parametrize('scope', ['batch', 'level', 'image'])
    def test_classification_equals_naive_loop(self, scope):
        head = build(RETINA, type='IoUBalancedRetinaHead', loss_cls=dict(NEUTRAL_FOCAL, eta=1.5, scope=scope))
        expected = 0.0
        for samples in collect_groups(head, instances()):
            positive = positive_inds(samples.labels, C)
            iou = torch.zeros(len(samples.labels))
            # The reference decodes on the head's own anchors.
            for i in positive.tolist():
                iou[i] = reference.delta_iou(
                    samples.bbox_pred[i].tolist(),
                    samples.bbox_targets[i].tolist(),
                    (1.0,) * 4,
                    samples.priors[i].tolist(),
                )
            expected += loop_or_zero(samples, iou) / samples.cls_avg_factor
        losses, _ = dense_losses(head, instances())
        assert losses['loss_cls'].item() == pytest.approx(expected, rel=2e-5)

    def test_scopes_differ(self):
        values = {
            scope: dense_losses(
                build(RETINA, type='IoUBalancedRetinaHead', loss_cls=dict(NEUTRAL_FOCAL, eta=1.5, scope=scope)),
                instances(),
            )
            for scope in ('batch', 'level', 'image')
        }
        # Eq. 4 keeps the sum, so values agree; the gradients do not.
        totals = [losses['loss_cls'] for losses, _ in values.values()]
        torch.testing.assert_close(totals[1:], totals[:-1])
        of_batch, of_level, of_image = (grads[0] for _, grads in values.values())  # at the features of stride 8
        for grad in (of_level, of_image):
            assert (grad - of_batch).norm() > 1e-3 * of_batch.norm()

    def test_image_without_boxes(self):
        gts = instances([[], BOXES[0]], [[], LABELS[0]])
        losses, grads = dense_losses(build_balanced(), gts)
        assert all(value.isfinite() and value > 0 for value in losses.values())
        assert all(grad.isfinite().all() for grad in grads)

    def test_batch_without_boxes(self):
        losses, grads = dense_losses(build_balanced(), instances([[], []], [[], []]))
        assert losses['loss_bbox'] == 0
        stock, _ = dense_losses(build(RETINA), instances([[], []], [[], []]))
        torch.testing.assert_close(losses['loss_cls'], stock['loss_cls'])
        assert all(grad.isfinite().all() for grad in grads)

    @pytest.mark.parametrize(
        'extra',
        [[10.0, 10, 10, 30], [10, 10, 30, 10], [200, 200, 230, 240], [-30, 5, -2, 20]],
        ids=['no width', 'no height', 'right of the image', 'left of the image'],
    )
    def test_box_without_area_in_the_image_is_left_out_and_counted(self, extra):
        head = build_balanced()
        clean = dense_losses(head, instances())
        gts = instances([[*BOXES[0], extra], BOXES[1]], [[*LABELS[0], 1], LABELS[1]])
        assert_same(dense_losses(head, gts), clean)
        losses = head.loss_by_feat(*head(features()), gts, metas(gts))
        assert losses['gt_left_out'] == 1

    def test_box_partly_outside_trains(self):
        gts = instances([[[-10.0, -10, 20, 20]], BOXES[1]], [[0], LABELS[1]])
        losses, _ = dense_losses(build_balanced(), gts)
        assert all(value.isfinite() for value in losses.values())

    def test_zero_size_box_in_the_stock_head_with_the_balanced_localisation_loss(self):
        gts = instances([[[10.0, 10, 10, 30]], BOXES[1]], [[1], LABELS[1]])
        stock, _ = dense_losses(build(RETINA), gts)
        assert stock['loss_bbox'].isinf()  # what the loss is there to survive
        head = build(RETINA, loss_bbox=dict(type='IoUBalancedSmoothL1Loss', beta=0.111))
        losses, grads = dense_losses(head, gts)
        assert losses['loss_bbox'].isfinite()
        assert all(grad.isfinite().all() for grad in grads)
        assert head.loss_bbox.num_left_out > 0

    @pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
    def test_autocast_agrees_with_float32(self, dtype):
        head = build_balanced()
        assert_autocast_agrees(head, lambda head: dense_losses(head, instances()), dtype)


def build_balanced():
    return build(
        RETINA,
        type='IoUBalancedRetinaHead',
        loss_cls=dict(NEUTRAL_FOCAL, eta=1.5),
        loss_bbox=dict(type='IoUBalancedSmoothL1Loss', beta=0.111),
    )


def loop_or_zero(samples, iou):
    labels = samples.labels.tolist()
    logits = samples.cls_score.double().tolist()
    weights = samples.label_weights.tolist()
    if all(label == C for label in labels):
        return sum(weight * reference.focal_entry(x, False) for weight, row in zip(weights, logits) for x in row)
    return reference.classification(
        logits, labels, iou.tolist(), entry=reference.focal_entry, eta=1.5, num_classes=C, weights=weights
    )


def rpn_instances():
    return instances(labels=[[0, 0], [0]])


def build_rpn(**changes):
    return build(
        dict(RPN, train_cfg=ConfigDict(RPN['train_cfg'])),
        **{'loss_cls': dict(NEUTRAL_CE, use_sigmoid=True, eta=1.5), **changes},
    )


class TestRPNHead:
    def test_neutral_head_equals_its_parent_under_its_names(self):
        stock = dense_losses(build_rpn(loss_cls=RPN['loss_cls']), rpn_instances())
        assert set(stock[0]) == {'loss_rpn_cls', 'loss_rpn_bbox'}
        neutral = dict(
            loss_cls=dict(NEUTRAL_CE, use_sigmoid=True), loss_bbox=dict(BALANCED_L1, beta=1.0 / 9.0, lambda_=0.0)
        )
        assert_same(dense_losses(build_rpn(type='IoUBalancedRPNHead', **neutral), rpn_instances()), stock)

    def test_classification_equals_naive_loop(self):
        # The authors' RPN: Eq. 4 on the binary cross-entropy of the sampled anchors.
        head = build_rpn(type='IoUBalancedRPNHead')
        (samples,) = collect_groups(head, rpn_instances())
        kept = (samples.label_weights > 0).nonzero().squeeze(1).tolist()
        labels = samples.labels[kept].tolist()
        iou = [
            reference.delta_iou(
                samples.bbox_pred[i].tolist(), samples.bbox_targets[i].tolist(), (1.0,) * 4, samples.priors[i].tolist()
            )
            for i in kept
        ]
        assert 0 < labels.count(0) < len(labels) <= samples.cls_avg_factor
        expected = reference.classification(
            samples.cls_score[kept].tolist(), labels, iou, entry=reference.binary_entry, eta=1.5, num_classes=1
        )
        losses, _ = dense_losses(head, rpn_instances())
        assert losses['loss_rpn_cls'].item() == pytest.approx(expected / samples.cls_avg_factor, rel=2e-5)

    def test_batch_without_boxes(self):
        losses, grads = dense_losses(build_rpn(type='IoUBalancedRPNHead'), instances([[], []], [[], []]))
        assert losses['loss_rpn_bbox'] == 0
        assert all(grad.isfinite().all() for grad in grads)


def test_neutral_retina_sep_bn_head_equals_its_parent():
    neutral = dict(loss_cls=NEUTRAL_FOCAL, loss_bbox=dict(BALANCED_L1, beta=0.111, lambda_=0.0))
    stock, head = build(SEP_BN), build(SEP_BN, type='IoUBalancedRetinaSepBNHead', **neutral)
    assert head.state_dict().keys() == stock.state_dict().keys()
    assert_same(dense_losses(head, instances()), dense_losses(stock, instances()))


def test_box_structures_of_the_data_pipeline():
    # mmdet's pipelines wrap boxes in HorizontalBoxes.
    head, gts = build_balanced(), instances()
    expected = dense_losses(head, gts)
    for gt in gts:
        gt.bboxes = HorizontalBoxes(gt.bboxes)
    assert_same(dense_losses(head, gts), expected)


def test_groups_hold_the_samples_of_their_scope():
    # Two levels (2 and 1 anchors) of two images; each sample carries its image and level as label and weight.
    def level(number, anchors):
        image = torch.tensor([0, 1])[:, None].expand(2, anchors)
        boxes = torch.zeros(2, anchors, 4)
        return MatchedSamples(
            cls_score=boxes,
            bbox_pred=boxes,
            priors=boxes,
            labels=image,
            bbox_targets=boxes,
            bbox_weights=boxes,
            label_weights=torch.full((2, anchors), number),
            cls_avg_factor=1,
            bbox_avg_factor=1,
        )

    levels = [level(0, 2), level(1, 1)]
    content = {
        scope: [list(zip(g.labels.tolist(), g.label_weights.tolist())) for g in group_samples(levels, scope, C)]
        for scope in ('batch', 'level', 'image')
    }
    of_level_0, of_level_1 = [(0, 0), (0, 0), (1, 0), (1, 0)], [(0, 1), (1, 1)]
    assert content['level'] == [of_level_0, of_level_1]
    assert content['image'] == [[(0, 0), (0, 0), (0, 1)], [(1, 0), (1, 0), (1, 1)]]
    assert content['batch'] == [of_level_0 + of_level_1]
