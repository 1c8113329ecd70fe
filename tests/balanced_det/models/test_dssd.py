"""DSSD: the shapes and counts of its configs, its head against naive forwards, its losses against naive loops."""

from __future__ import annotations

import math

import pytest
import torch
from dssd_cases import (
    CENTERS,
    DSSD,
    RATIOS,
    SIZES,
    build_on_meta,
    conv,
    conv_bn,
    images,
    maps,
    model_config,
    parameters,
    randomize,
    residual_block,
    resnet_parameters,
    shapes_on_meta,
    train_step,
    without_gradient,
)
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
from mmdet.registry import MODELS
from reference import dssd as reference_forward
from reference import harmonic as reference_harmonic
from reference import iou_balanced as reference_balanced
from reference import ssd as reference
from reference.boxes import delta_iou

import harmonic  # noqa: F401  registers the heads

CHANGE = {320: '', 512: 'model = dict(neck=_base_.dssd512_neck, bbox_head=_base_.dssd512_head)'}
SIDES = {320: [40, 20, 10, 5, 3, 1], 512: [64, 32, 16, 8, 4, 2, 1]}
ANCHORS = {320: 17080, 512: 43688}
MILLIONS = {320: 195.7, 512: 203.0}  # docs/dssd.md


def config(tmp_path, size):
    return model_config(tmp_path, 'dssd_r50.py', CHANGE[size])


# ------------------------------------------------------------------------------------------ as configured


@pytest.mark.parametrize('size', [320, 512])
def test_maps_and_anchors(tmp_path, size):
    sides, anchors = shapes_on_meta(build_on_meta(config(tmp_path, size)), size)
    assert sides == [(side, side) for side in SIDES[size]]
    assert anchors == ANCHORS[size] == 8 * sum(side**2 for side in SIDES[size])


def test_sources_of_the_maps(tmp_path):
    # res3 at stride 8, res5 at stride 16 (dilated), and the residual blocks behind it; res4 is none.
    model = build_on_meta(config(tmp_path, 320))
    with torch.device('meta'):
        feats = model.neck[0](model.backbone(torch.zeros(1, 3, 320, 320)))
    assert [tuple(feat.shape[1:]) for feat in feats] == [
        (channels, side, side) for channels, side in zip((512, 2048, 1024, 1024, 1024, 1024), SIDES[320])
    ]


def parts_by_hand(size):
    """Parameters of the extra layers, of the way up, and of the head with 80 classes and 8 anchors."""
    kernels = [2, 2, 3, 3] if size == 320 else [2] * 5
    extra = residual_block(2048, 256, kernels[0]) + sum(residual_block(1024, 256, kernel) for kernel in kernels[1:])
    laterals = [512, 2048, *[1024] * (len(kernels) - 1)]
    deeper = [*[512] * len(kernels), 1024]
    up = sum(
        conv(deep, 512, kernel, bias=True)  # transposed
        + conv_bn(512, 512, 3)
        + conv_bn(lateral, 512, 3)
        + conv_bn(512, 512, 3)
        for deep, lateral, kernel in zip(deeper, laterals, [2, *kernels])
    )
    head = sum(residual_block(channels, 256) for channels in [*[512] * len(laterals), 1024])
    for kernel in [5, 5, *[3] * (len(laterals) - 1)]:
        head += conv(1024, 8 * 81, kernel, bias=True) + conv(1024, 8 * 4, kernel, bias=True)
    return extra, up, head


@pytest.mark.parametrize('size', [320, 512])
def test_parameters_by_hand(tmp_path, size):
    model = build_on_meta(config(tmp_path, size))
    extra, up, head = parts_by_hand(size)
    assert [parameters(part) for part in model.neck] == [extra, up]
    assert parameters(model.bbox_head) == head
    total = parameters(model)
    assert total == resnet_parameters(50) + extra + up + head
    assert round(total / 1e6, 1) == MILLIONS[size]


@pytest.mark.parametrize('size', [320, 512])
def test_parameters_on_resnet_101(tmp_path, size):
    cfg = config(tmp_path, size)
    cfg.backbone.depth = 101
    # 17 blocks 1024-256-256-1024 more in the third stage.
    block = conv_bn(1024, 256, 1) + conv_bn(256, 256, 3) + conv_bn(256, 1024, 1)
    assert resnet_parameters(50) == 25_557_032 - 1000 * 2049  # torchvision's, without its classifier
    assert resnet_parameters(101) == resnet_parameters(50) + 17 * block
    assert parameters(build_on_meta(cfg)) == resnet_parameters(101) + sum(parts_by_hand(size))


def tiny(tmp_path, extra=None, up=None, **head):
    """DSSD320 of the config with few channels."""
    cfg = config(tmp_path, 320)
    cfg.backbone.update(base_channels=2, stem_channels=2, init_cfg=None)
    layers, way_up = cfg.neck
    layers.update(in_channels=(16, 64), planes=2, **extra or {})
    way_up.update(in_channels=(16, 64, 8, 8, 8, 8), channels=4, **up or {})
    cfg.bbox_head.update(in_channels=(4, 4, 4, 4, 4, 8), prediction_planes=2, num_classes=C, **head)
    model = MODELS.build(cfg)
    model.init_weights()
    return model


def test_a_step_teaches_all_that_learns(tmp_path):
    # An image with boxes and one without.
    model = tiny(tmp_path)
    logged = train_step(model, 320)
    assert logged['loss_cls'] > 0
    assert logged['loss_bbox'] > 0
    assert without_gradient(model) == []


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_a_step_in_half_precision(tmp_path, dtype):
    model = tiny(tmp_path)
    with torch.autocast('cpu', dtype=dtype):
        logged = train_step(model, 320)
    assert logged['loss'].isfinite()
    assert without_gradient(model) == []


def test_a_batch_without_boxes_gives_zeros_on_the_graph(tmp_path):
    model = tiny(tmp_path)
    logged = train_step(model, 320, boxes=())
    assert (logged['loss_cls'], logged['loss_bbox']) == (0, 0)
    assert without_gradient(model) == []


def test_detects(tmp_path):
    model = tiny(tmp_path).eval()
    inputs, samples = images(320, count=1)
    with torch.no_grad():
        (found,) = model.predict(inputs, samples)
    boxes, scores = found.pred_instances.bboxes, found.pred_instances.scores
    assert 0 < len(boxes) <= 200
    assert (scores > 0.01).all()
    assert ((boxes >= 0) & (boxes <= 320)).all()


KEPT = dict(norm_eval=True)
GN = dict(type='GN', num_groups=1)


def test_one_image_in_training(tmp_path):
    # 1 x 1 maps: one in the neck, and again in the head.
    for model in (tiny(tmp_path), tiny(tmp_path, extra=KEPT, up=KEPT)):
        with pytest.raises(
            ValueError, match=r'batch norm cannot train on one value.*batch_size.*norm_eval.*block_norm_cfg'
        ):
            train_step(model, 320, count=1)
    for model in (
        tiny(tmp_path, extra=KEPT, up=KEPT, **KEPT),
        tiny(tmp_path, extra=dict(norm_cfg=GN), up=dict(norm_cfg=GN), block_norm_cfg=GN),
    ):
        train_step(model, 320, count=1)
        assert without_gradient(model) == []


def test_first_stage_of_the_release(tmp_path):
    # The encoder frozen, the way up and the head learn.
    model = tiny(tmp_path, extra=dict(frozen=True))
    before = {key: value.clone() for key, value in model.neck[0].state_dict().items()}
    train_step(model, 320)
    assert all(torch.equal(before[key], value) for key, value in model.neck[0].state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.neck[0].parameters())
    assert without_gradient(model.neck[1]) == []
    assert without_gradient(model.bbox_head) == []


@pytest.mark.parametrize(('size', 'sides', 'message'), [(320, 321, 'multiples of 64'), (512, 576, 'multiples of 512')])
def test_inputs_whose_maps_do_not_meet(tmp_path, size, sides, message):
    model = build_on_meta(config(tmp_path, size))
    with torch.device('meta'), pytest.raises(ValueError, match=message):
        model.extract_feat(torch.zeros(1, 3, sides, sides))


# ---------------------------------------------------------------------------------------------- the head


@pytest.mark.parametrize('training', [True, False])
def test_head_equals_its_reference(training):
    cfg = dict(DSSD, in_channels=(3, 5), kernel_sizes=(5, 3))
    head = randomize(MODELS.build(cfg)).train(training)
    feats = [feat.double() for feat in maps((3, 5), (8, 4))]
    scores, deltas = head(tuple(feats))
    expected = reference_forward.head(feats, reference_forward.part(head.state_dict(), ''), training)
    assert [conv.kernel_size for conv in (*head.cls_convs, *head.reg_convs)] == [(5, 5), (3, 3)] * 2
    assert [tuple(level.shape) for level in scores] == [(2, 8 * (C + 1), side, side) for side in (8, 4)]
    assert [tuple(level.shape) for level in deltas] == [(2, 8 * 4, side, side) for side in (8, 4)]
    for found, want in zip([*scores, *deltas], [*expected[0], *expected[1]]):
        torch.testing.assert_close(found, want)


def test_without_prediction_modules_it_is_the_stock_head():
    stock = build(SSD)
    head = build(SSD, type='DSSDHead', prediction_planes=None, kernel_sizes=3)
    for own, other in zip(head.parameters(), stock.parameters()):
        assert own.shape == other.shape
        own.data.copy_(other.data)
    assert_same(dense_losses(head, instances()), dense_losses(stock, instances()))


@pytest.mark.parametrize('kwargs', [{}, dict(norm_eval=True), dict(frozen=True)])
def test_norms_of_the_head(kwargs):
    head = build(DSSD, **kwargs).train()
    before = {key: value.clone() for key, value in head.state_dict().items() if 'running' in key}
    head(features())
    after = head.state_dict()
    assert {torch.equal(value, after[key]) for key, value in before.items()} == {bool(kwargs)}
    assert {parameter.requires_grad for parameter in head.parameters()} == {'frozen' not in kwargs}
    modes = [head.train(mode).prediction_modules[0].norm1.training for mode in (False, True)]
    assert modes == [False, not kwargs]


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(kernel_sizes=(5, 3, 3)), 'DSSDHead: 2 in_channels and 3 kernel_sizes'),
        (dict(in_channels=(8, 8, 8), kernel_sizes=3), 'in_channels has 3 levels, anchor_generator.strides 2'),
        (dict(stacked_convs=1), 'prediction modules in place of towers'),
        (dict(use_depthwise=True), 'prediction modules in place of towers'),
        (dict(loss_cls=dict(type='FocalLoss', use_sigmoid=True)), 'scores the background as one more class'),
        (
            dict(loss_cls=dict(NEUTRAL_CE, eta=1.5)),
            'needs the IoU of the regressed boxes, which DSSDHead does not hand over',
        ),
        (dict(loss_bbox=BALANCED_L1), 'set loss_bbox.target_stds='),
        (dict(loss_bbox=dict(type='HIoULoss')), 'set reg_decoded_bbox=True'),
    ],
)
def test_blocks_that_do_not_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        build(DSSD, **changes)


@pytest.mark.parametrize('count', [1, 3])
def test_wrong_number_of_maps(count):
    with pytest.raises(ValueError, match=f'DSSDHead takes 2 feature maps, .* got {count}: out_indices'):
        build(DSSD)(tuple(maps((8,) * count, (8,) * count)))


# ---------------------------------------------------------------------------------------------- its losses

# Of the first image the last box lies between anchors, several of which overlap with it by 0.5. Of the second the last
# two want the same anchor, which overlaps with neither by 0.5.
GTS = instances(
    [[*BOXES[0], [31.3, 36.4, 47.3, 52.4]], [*BOXES[1], [38.0, 38, 44, 41], [37.5, 37, 43, 41]]],
    [[*LABELS[0], 1], [*LABELS[1], 2, 0]],
)
BALANCED = dict(loss_cls=dict(NEUTRAL_CE, eta=1.5), loss_bbox=dict(BALANCED_L1, beta=1.0, lambda_=1.5, **SSD_STDS))
NEUTRAL = dict(loss_cls=NEUTRAL_CE, loss_bbox=dict(BALANCED_L1, beta=1.0, lambda_=0.0, **SSD_STDS))
OFF = dict(type='HarmonicDetLoss', harmonic=False, hiou=False, tc=False)
KINDS = [
    dict(type='DSSDHead'),
    dict(type='IoUBalancedDSSDHead', **BALANCED),
    dict(type='HarmonicDSSDHead', loss_joint=dict(type='HarmonicDetLoss')),
]


def priors():
    return [
        prior
        for side, stride, center, (low, high) in zip((8, 4), (8, 16), CENTERS, SIZES)
        for prior in reference.grid(side, stride, center, reference.box_shapes(low, high, RATIOS))
    ]


def rows(levels, image, width):
    """What the maps (N, 8 * width, H, W) say of each anchor: levels, rows, columns, anchors of a place."""
    return [
        level[image, anchor * width : (anchor + 1) * width, y, x].double().tolist()
        for level in levels
        for y in range(level.shape[2])
        for x in range(level.shape[3])
        for anchor in range(8)
    ]


def naive_samples(scores, deltas, gts):
    """Positives and hardest negatives of each image, and the divisor: an image counts as one positive at least."""
    found = [
        reference.samples(priors(), rows(scores, n, C + 1), rows(deltas, n, 4), gt.bboxes.tolist(), gt.labels.tolist())
        for n, gt in enumerate(gts)
    ]
    return found, sum(max(len(positives), 1) for positives, _ in found)


def outputs(head):
    torch.manual_seed(2)  # as dense_losses
    return head(features())


def test_the_boxes_test_the_matching():
    tables = [[[reference.iou(prior, box) for prior in priors()] for box in gt.bboxes.tolist()] for gt in GTS]
    for row in (row for table in tables for row in table):
        best, second = sorted(row, reverse=True)[:2]
        assert best - second > 1e-4  # the choice does not hang on rounding
        assert min(abs(overlap - 0.5) for overlap in row) > 1e-4
    assert sum(overlap >= 0.5 for overlap in tables[0][2]) > 1
    assert all(max(row) < 0.5 for row in tables[1][1:])
    assert tables[1][1].index(max(tables[1][1])) == tables[1][2].index(max(tables[1][2]))
    owners = reference.match(priors(), GTS[1].bboxes.tolist())
    assert (owners.count(1), owners.count(2)) == (0, 1)


def test_losses_equal_naive_loops():
    head = build(DSSD)
    found, divisor = naive_samples(*outputs(head), GTS)
    positives = [sample for image, _ in found for sample in image]
    loss_cls = sum(sample.cross_entropy for sample in positives) + sum(sum(negatives) for _, negatives in found)
    loss_bbox = sum(
        reference_balanced.smooth_l1(p - t, 1.0) for sample in positives for p, t in zip(sample.pred, sample.target)
    )
    losses, _ = dense_losses(head, GTS)
    assert losses['loss_cls'].item() == pytest.approx(loss_cls / divisor, rel=2e-5)
    assert losses['loss_bbox'].item() == pytest.approx(loss_bbox / divisor, rel=2e-5)


def test_balanced_losses_equal_naive_loops():
    head = build(DSSD, **KINDS[1])
    scores, deltas = outputs(head)
    found, divisor = naive_samples(scores, deltas, GTS)
    positives = [sample for image, _ in found for sample in image]
    ious = [delta_iou(sample.pred, sample.target, reference.STDS) for sample in positives]
    losses = [sample.cross_entropy for sample in positives]
    weights = reference_balanced.balanced_weights(ious, losses, 1.5)
    loss_cls = sum(w * loss for w, loss in zip(weights, losses)) + sum(sum(negatives) for _, negatives in found)
    loss_bbox = reference_balanced.localisation(
        [sample.pred for sample in positives], [sample.target for sample in positives], 1.0, 1.5, reference.STDS
    )
    actual = head.loss_by_feat(scores, deltas, GTS, metas(GTS))
    assert actual['loss_cls'].item() == pytest.approx(loss_cls / divisor, rel=2e-5)
    assert actual['loss_bbox'].item() == pytest.approx(loss_bbox / divisor, rel=2e-5)
    # The weights keep the sum; they show in the gradient at the own logit of a positive, w (p - 1) / N.
    grads = torch.autograd.grad(actual['loss_cls'], scores)
    own = []
    for n, (image, _) in enumerate(found):
        owners = reference.match(priors(), GTS[n].bboxes.tolist())
        at = [i for i, number in enumerate(owners) if number is not None]
        of_image = rows(grads, n, C + 1)
        own += [
            of_image[i][sample.label] * divisor / (math.exp(-sample.cross_entropy) - 1) for i, sample in zip(at, image)
        ]
    assert own == pytest.approx(weights, rel=1e-3)
    assert max(weights) - min(weights) > 0.2


def softmax(logits):
    parts = [math.exp(x - max(logits)) for x in logits]
    return [part / sum(parts) for part in parts]


def test_harmonic_losses_equal_naive_loops():
    head = build(DSSD, **KINDS[2])
    found, divisor = naive_samples(*outputs(head), GTS)
    loss_cls, loss_bbox, loss_tc = sum(sum(negatives) for _, negatives in found), 0.0, 0.0
    for sample in (sample for image, _ in found for sample in image):
        iou = delta_iou(sample.pred, sample.target, reference.STDS)
        loc = sum(reference_balanced.smooth_l1(p - t, 1.0) for p, t in zip(sample.pred, sample.target))
        ((cls_term, loc_term),) = reference_harmonic.harmonic(
            [sample.cross_entropy], [loc + 1.5 * reference_harmonic.hiou(iou, 0.8)]
        )
        probs = softmax(sample.logits)
        loss_cls, loss_bbox = loss_cls + cls_term, loss_bbox + loc_term
        loss_tc += reference_harmonic.task_contrastive(probs[sample.label], iou, probs, margin=0.2)
    losses, _ = dense_losses(head, GTS)
    assert losses['loss_cls'].item() == pytest.approx(loss_cls / divisor, rel=2e-5)
    assert losses['loss_bbox'].item() == pytest.approx(loss_bbox / divisor, rel=2e-5)
    assert losses['loss_tc'].item() == pytest.approx(loss_tc / divisor, rel=2e-5)


ONE_EMPTY = instances([[], BOXES[1]], [[], LABELS[1]])


@pytest.mark.parametrize('gts', [GTS, ONE_EMPTY], ids=['boxes', 'one empty'])
@pytest.mark.parametrize(
    'changes',
    [
        dict(type='IoUBalancedDSSDHead'),
        dict(type='IoUBalancedDSSDHead', **NEUTRAL),
        dict(type='HarmonicDSSDHead', loss_joint=OFF),
    ],
    ids=['no blocks', 'eta 0', 'all parts off'],
)
def test_neutral_losses_equal_the_stock_ones(changes, gts):
    head, stock = build(DSSD, **changes), build(DSSD)
    assert head.state_dict().keys() == stock.state_dict().keys()
    assert_same(dense_losses(head, gts), dense_losses(stock, gts))


@pytest.mark.parametrize('kind', KINDS, ids=lambda kind: kind['type'])
def test_batch_without_boxes_hangs_on_the_graph(kind):
    head, empty = build(DSSD, **kind), instances([[], []], [[], []])
    losses, grads = dense_losses(head, empty)
    assert all(value == 0 for value in losses.values())
    assert all(grad.eq(0).all() for grad in grads)


@pytest.mark.parametrize('kind', KINDS, ids=lambda kind: kind['type'])
def test_image_without_boxes_beside_one_with_boxes(kind):
    head = build(DSSD, **kind)
    losses, grads = dense_losses(head, ONE_EMPTY)
    assert min(losses['loss_cls'], losses['loss_bbox']) > 0
    assert all(value.isfinite() for value in [*losses.values(), *(grad.sum() for grad in grads)])
    # Without a positive no negative is mined: the empty image teaches nothing.
    scores, deltas = outputs(head)
    losses = head.loss_by_feat(scores, deltas, ONE_EMPTY, metas(ONE_EMPTY))
    total = sum(sum(value) if isinstance(value, list) else value for key, value in losses.items() if 'loss' in key)
    for grad in torch.autograd.grad(total, scores):
        assert grad[0].eq(0).all()
        assert grad[1].ne(0).any()


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('kind', KINDS, ids=lambda kind: kind['type'])
def test_autocast_agrees_with_float32(kind, dtype):
    assert_autocast_agrees(build(DSSD, **kind), lambda head: dense_losses(head, GTS), dtype)
