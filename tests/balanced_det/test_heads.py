"""The two loss seams: neutral heads equal their parents, balanced heads equal the naive loops, bad configs say so."""

from __future__ import annotations

import copy

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes, bbox2roi
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from reference import iou_balanced as reference

import iou_balanced  # noqa: F401  registers the heads
from balanced_det.matched import MatchedSamples, group_samples

C = 3
IMAGE = (64, 64)
NEUTRAL_FOCAL = dict(type='IoUBalancedFocalLoss', use_sigmoid=True, eta=0.0)
FOCAL = dict(type='FocalLoss', use_sigmoid=True)
NEUTRAL_CE = dict(type='IoUBalancedCrossEntropyLoss', eta=0.0)


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
BOXES = [[[6.0, 8, 30, 27], [33, 20, 60, 62]], [[2.0, 2, 20, 40]]]
LABELS = [[0, 2], [1]]


def instances(boxes=BOXES, labels=LABELS):
    return [
        InstanceData(bboxes=torch.tensor(b).reshape(-1, 4), labels=torch.tensor(v, dtype=torch.long))
        for b, v in zip(boxes, labels)
    ]


def retina_losses(head, gts):
    """Losses of two images and the gradient of their sum at the features and the parameters."""
    torch.manual_seed(2)
    feats = [torch.randn(2, 8, 64 // stride, 64 // stride, requires_grad=True) for stride in (8, 16)]
    metas = [dict(img_shape=IMAGE, pad_shape=IMAGE)] * len(gts)
    return with_gradient(head, head.loss_by_feat(*head(feats), gts, metas), feats)


def with_gradient(head, losses, inputs):
    sums = {key: sum(v) if isinstance(v, list) else v for key, v in losses.items() if 'loss' in key}
    parameters = [p for p in head.parameters() if p.requires_grad]
    grads = torch.autograd.grad(sum(sums.values()), [*inputs, *parameters])
    return {key: value.detach() for key, value in sums.items()}, grads


def assert_same(actual, expected):
    assert actual[0].keys() == expected[0].keys()
    for key, value in expected[0].items():
        torch.testing.assert_close(actual[0][key], value)
    for got, want in zip(actual[1], expected[1]):
        torch.testing.assert_close(got, want)


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
        assert_same(retina_losses(head, instances()), retina_losses(stock, instances()))

    @pytest.mark.parametrize('loss_bbox', [dict(type='L1Loss'), dict(type='GIoULoss')])
    def test_stock_losses_in_the_balanced_head(self, loss_bbox):
        changes = dict(loss_bbox=loss_bbox, reg_decoded_bbox=loss_bbox['type'] == 'GIoULoss')
        head = build(RETINA, type='IoUBalancedRetinaHead', **changes)
        assert_same(retina_losses(head, instances()), retina_losses(build(RETINA, **changes), instances()))

    def test_localisation_loss_alone_in_the_stock_head(self):
        balanced = dict(type='IoUBalancedSmoothL1Loss', beta=0.111)
        in_stock = retina_losses(build(RETINA, loss_bbox=balanced), instances())
        in_balanced = retina_losses(build(RETINA, type='IoUBalancedRetinaHead', loss_bbox=balanced), instances())
        stock = retina_losses(build(RETINA), instances())
        assert_same(in_stock, in_balanced)
        assert 0 < in_stock[0]['loss_bbox'] < stock[0]['loss_bbox']

    @pytest.mark.parametrize('scope', ['batch', 'level', 'image'])
    def test_classification_equals_naive_loop(self, scope):
        head = build(RETINA, type='IoUBalancedRetinaHead', loss_cls=dict(NEUTRAL_FOCAL, eta=1.5, scope=scope))
        levels = collect_levels(head, instances())
        expected = 0.0
        for samples in group_samples(levels, scope):
            positive = samples.positives(C)
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
        losses, _ = retina_losses(head, instances())
        assert losses['loss_cls'].item() == pytest.approx(expected, rel=2e-5)

    def test_scopes_differ(self):
        values = {
            scope: retina_losses(
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
        losses, grads = retina_losses(build_balanced(), gts)
        assert all(value.isfinite() and value > 0 for value in losses.values())
        assert all(grad.isfinite().all() for grad in grads)

    def test_batch_without_boxes(self):
        losses, grads = retina_losses(build_balanced(), instances([[], []], [[], []]))
        assert losses['loss_bbox'] == 0
        stock, _ = retina_losses(build(RETINA), instances([[], []], [[], []]))
        torch.testing.assert_close(losses['loss_cls'], stock['loss_cls'])
        assert all(grad.isfinite().all() for grad in grads)

    @pytest.mark.parametrize(
        'extra',
        [[10.0, 10, 10, 30], [10, 10, 30, 10], [200, 200, 230, 240], [-30, 5, -2, 20]],
        ids=['no width', 'no height', 'right of the image', 'left of the image'],
    )
    def test_box_without_area_in_the_image_is_left_out_and_counted(self, extra):
        head = build_balanced()
        clean = retina_losses(head, instances())
        gts = instances([[*BOXES[0], extra], BOXES[1]], [[*LABELS[0], 1], LABELS[1]])
        assert_same(retina_losses(head, gts), clean)
        feats = [torch.zeros(2, 8, 64 // stride, 64 // stride) for stride in (8, 16)]
        losses = head.loss_by_feat(*head(feats), gts, [dict(img_shape=IMAGE, pad_shape=IMAGE)] * 2)
        assert losses['gt_left_out'] == 1

    def test_box_partly_outside_trains(self):
        gts = instances([[[-10.0, -10, 20, 20]], BOXES[1]], [[0], LABELS[1]])
        losses, _ = retina_losses(build_balanced(), gts)
        assert all(value.isfinite() for value in losses.values())

    def test_zero_size_box_in_the_stock_head_with_the_balanced_localisation_loss(self):
        gts = instances([[[10.0, 10, 10, 30]], BOXES[1]], [[1], LABELS[1]])
        stock, _ = retina_losses(build(RETINA), gts)
        assert stock['loss_bbox'].isinf()  # what the loss is there to survive
        head = build(RETINA, loss_bbox=dict(type='IoUBalancedSmoothL1Loss', beta=0.111))
        losses, grads = retina_losses(head, gts)
        assert losses['loss_bbox'].isfinite()
        assert all(grad.isfinite().all() for grad in grads)
        assert head.loss_bbox.num_left_out > 0

    @pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
    def test_autocast_agrees_with_float32(self, dtype):
        head = build_balanced()
        expected, _ = retina_losses(head, instances())
        with torch.autocast('cpu', dtype=dtype):
            actual, grads = retina_losses(head, instances())
        for key, value in expected.items():
            assert actual[key].dtype == torch.float32
            torch.testing.assert_close(actual[key], value, rtol=2e-2, atol=0)  # the network's own rounding
        assert all(grad.isfinite().all() for grad in grads)


def build_balanced():
    return build(
        RETINA,
        type='IoUBalancedRetinaHead',
        loss_cls=dict(NEUTRAL_FOCAL, eta=1.5),
        loss_bbox=dict(type='IoUBalancedSmoothL1Loss', beta=0.111),
    )


def collect_levels(head, gts) -> list[MatchedSamples]:
    """What the head hands its losses, caught on the way."""
    caught = []
    head.loss_by_matched, original = lambda levels: caught.extend(levels) or original(levels), head.loss_by_matched
    retina_losses(head, gts)
    del head.loss_by_matched
    return caught


def loop_or_zero(samples, iou):
    labels = samples.labels.tolist()
    logits = samples.cls_score.double().tolist()
    weights = samples.label_weights.tolist()
    if all(label == C for label in labels):
        return sum(weight * reference.focal_entry(x, False) for weight, row in zip(weights, logits) for x in row)
    return reference.classification(
        logits, labels, iou.tolist(), entry=reference.focal_entry, eta=1.5, num_classes=C, weights=weights
    )


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


BALANCED_L1 = dict(type='IoUBalancedSmoothL1Loss')


@pytest.mark.parametrize(
    ('cfg', 'changes', 'message'),
    [
        (
            RETINA,
            dict(type='IoUBalancedRetinaHead', loss_bbox=dict(BALANCED_L1, **RCNN_STDS)),
            r'set loss_bbox.target_stds=\(1.0, 1.0, 1.0, 1.0\)',
        ),
        (
            RCNN,
            dict(type='IoUBalancedShared2FCBBoxHead', loss_bbox=BALANCED_L1),
            r'set loss_bbox.target_stds=\(0.1, 0.1, 0.2, 0.2\)',
        ),
        (
            RETINA,
            dict(type='IoUBalancedRetinaHead', loss_bbox=BALANCED_L1, reg_decoded_bbox=True),
            'set reg_decoded_bbox=False',
        ),
        (
            RETINA,
            dict(type='IoUBalancedRetinaHead', loss_bbox=BALANCED_L1, bbox_coder=dict(type='TBLRBBoxCoder')),
            'bbox_coder is TBLRBBoxCoder',
        ),
        (
            RETINA,
            dict(type='IoUBalancedRetinaHead', loss_cls=dict(type='IoUBalancedFocalLoss')),
            r"loss_cls=dict\(type='IoUBalancedFocalLoss', use_sigmoid=True, ...\)",
        ),
        (
            RCNN,
            dict(type='IoUBalancedShared2FCBBoxHead', loss_cls=dict(NEUTRAL_CE, scope='image')),
            'set loss_cls.scope="batch"',
        ),
        (
            RCNN,
            dict(type='IoUBalancedShared2FCBBoxHead', loss_cls=dict(NEUTRAL_CE, use_sigmoid=True)),
            'scores the background as one more class',
        ),
        (RCNN, dict(type='IoUBalancedShared2FCBBoxHead', loss_cls=NEUTRAL_FOCAL), 'use_sigmoid=False'),
        (
            RCNN,
            dict(type='IoUBalancedShared2FCBBoxHead', loss_cls=dict(type='SeesawLoss', num_classes=C)),
            'cannot serve SeesawLoss',
        ),
    ],
)
def test_blocks_that_do_not_fit(cfg, changes, message):
    with pytest.raises(ValueError, match=message):
        build(cfg, **changes)


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
    expected, _ = roi_losses(head)
    with torch.autocast('cpu', dtype=dtype):
        actual, grads = roi_losses(head)
    for key, value in expected.items():
        assert actual[key].dtype == torch.float32
        torch.testing.assert_close(actual[key], value, rtol=2e-2, atol=0)
    assert all(grad.isfinite().all() for grad in grads)


def test_box_structures_of_the_data_pipeline():
    # mmdet's pipelines wrap boxes in HorizontalBoxes.
    head, gts = build_balanced(), instances()
    expected = retina_losses(head, gts)
    for gt in gts:
        gt.bboxes = HorizontalBoxes(gt.bboxes)
    assert_same(retina_losses(head, gts), expected)


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
        scope: [sorted(zip(g.labels.tolist(), g.label_weights.tolist())) for g in group_samples(levels, scope)]
        for scope in ('batch', 'level', 'image')
    }
    of_level_0, of_level_1 = [(0, 0), (0, 0), (1, 0), (1, 0)], [(0, 1), (1, 1)]
    assert content['level'] == [of_level_0, of_level_1]
    assert content['image'] == [[(0, 0), (0, 0), (0, 1)], [(1, 0), (1, 0), (1, 1)]]
    assert content['batch'] == [sorted(of_level_0 + of_level_1)]


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
