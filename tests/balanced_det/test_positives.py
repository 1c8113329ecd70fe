"""Score, IoU and harmonic factors of a training step's positives, against naive loops."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from head_cases import (
    FOVEA,
    FOVEA_FOCAL,
    RCNN,
    RCNN_STDS,
    RETINA,
    SSD,
    C,
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
from reference import iou_balanced as stock
from torch import nn

import harmonic  # noqa: F401  registers the heads
from balanced_det.blocks import positive_inds
from balanced_det.evaluation import NotMeasurable, Positives, PositivesRecorder, aic, summarize
from iou_balanced.losses import classification, localization

BALANCED_FOCAL = dict(type='IoUBalancedFocalLoss', use_sigmoid=True, eta=1.5)
BALANCED_L1 = dict(type='IoUBalancedSmoothL1Loss', beta=0.111, loss_weight=3.049)


def spread(cfg, **changes):
    """A head whose scores and boxes differ from sample to sample; the same for the same shapes."""
    head = build(cfg, **changes)
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    return head


def dense(head):
    return dense_losses(head, instances())


def recorded(head, step=dense):
    recorder = PositivesRecorder(head)
    recorder.start()
    step(head)
    return recorder.stop()


# ------------------------------------------------------------------------------------------ naive loops


def sigmoid(row, label):
    return 1 / (1 + math.exp(-row[label]))


def softmax(row, label):
    return math.exp(row[label]) / sum(math.exp(x) for x in row)


def of_groups(head):
    """Logits, label, regression and target of each positive, as this package's seam finds them."""
    rows = []
    for samples in collect_groups(head, instances()):
        positives = samples.select(positive_inds(samples.labels, C))
        tensors = (positives.cls_score, positives.labels, positives.bbox_pred, positives.bbox_targets)
        rows += zip(*(tensor.tolist() for tensor in tensors))
    return rows


def of_rois(head):
    """The same of the RoIs of `roi_losses`, of the class-specific regression the four of the label."""
    torch.manual_seed(3)
    scores, preds = head(torch.randn(7, 4, 2, 2))
    _, labels, _, targets, _ = roi_targets(head)
    rows = zip(scores.tolist(), labels.tolist(), preds.view(7, -1, 4).tolist(), targets.tolist())
    return [(row, label, pred[label if len(pred) > 1 else 0], target) for row, label, pred, target in rows if label < C]


def distance_iou(pred, target):
    boxes = [
        (-math.exp(left), -math.exp(top), math.exp(right), math.exp(bottom))
        for left, top, right, bottom in (pred, target)
    ]
    return reference_boxes.iou(*boxes)


def naive(rows, prob, ce, beta, iou, alpha=0.0):
    """Score, IoU and the two factors of each positive, Eq. 3 with Eq. 11."""
    result = []
    for logits, label, pred, target in rows:
        overlap = iou(pred, target)
        loc = sum(stock.smooth_l1(p - t, beta) for p, t in zip(pred, target)) + alpha * reference.hiou(overlap, 0.8)
        result.append((prob(logits, label), overlap, math.exp(-loc), math.exp(-ce(logits, label))))
    return result


def focal(logits, label):
    return stock.focal_entry(logits[label], True)


def fovea_focal(logits, label):
    return stock.focal_entry(logits[label], True, gamma=FOVEA_FOCAL['gamma'], alpha=FOVEA_FOCAL['alpha'])


def rcnn_iou(pred, target):
    return reference_boxes.delta_iou(pred, target, RCNN_STDS['target_stds'])


def retina_case(alpha=0.0, **changes):
    seam = spread(RETINA, type='IoUBalancedRetinaHead', loss_cls=BALANCED_FOCAL)
    rows = naive(of_groups(seam), sigmoid, focal, 0.111, reference_boxes.delta_iou, alpha)
    return spread(RETINA, **changes), dense, rows


def rcnn_case(alpha=0.0, agnostic=False, **changes):
    head = spread(RCNN, reg_class_agnostic=agnostic, **changes)
    return head, roi_losses, naive(of_rois(head), softmax, stock.softmax_loss, 1.0, rcnn_iou, alpha)


def fovea_case(**changes):
    cls = dict(BALANCED_FOCAL, gamma=FOVEA_FOCAL['gamma'], alpha=FOVEA_FOCAL['alpha'])
    balanced = dict(type='IoUBalancedFoveaHead', loss_cls=cls, loss_bbox=dict(BALANCED_L1, beta=0.11))
    rows = naive(of_groups(spread(FOVEA, **balanced)), sigmoid, fovea_focal, 0.11, distance_iou)
    return spread(FOVEA, **(balanced if changes else {})), dense, rows


CASES = {
    'RetinaHead': lambda: retina_case(),
    'IoUBalancedRetinaHead': lambda: retina_case(
        type='IoUBalancedRetinaHead', loss_cls=BALANCED_FOCAL, loss_bbox=BALANCED_L1
    ),
    'of each image': lambda: retina_case(
        type='IoUBalancedRetinaHead', loss_cls=dict(BALANCED_FOCAL, scope='image'), loss_bbox=BALANCED_L1
    ),
    'HarmonicRetinaHead': lambda: retina_case(alpha=1.5, type='HarmonicRetinaHead'),
    'Shared2FCBBoxHead': lambda: rcnn_case(),
    'class-agnostic': lambda: rcnn_case(agnostic=True),
    'IoUBalancedShared2FCBBoxHead': lambda: rcnn_case(
        type='IoUBalancedShared2FCBBoxHead',
        loss_cls=dict(type='IoUBalancedCrossEntropyLoss'),
        loss_bbox=dict(type='IoUBalancedSmoothL1Loss', loss_weight=2.4, **RCNN_STDS),
    ),
    'HarmonicShared2FCBBoxHead': lambda: rcnn_case(alpha=1.5, type='HarmonicShared2FCBBoxHead'),
    'FoveaHead': lambda: fovea_case(),
    'IoUBalancedFoveaHead': lambda: fovea_case(balanced=True),
}


@pytest.mark.parametrize('case', CASES)
def test_positives_equal_naive_loops(case):
    head, step, expected = CASES[case]()
    positives = recorded(head, step)
    assert len(expected) >= 4
    # As sets: the order of the levels and images differs.
    actual = sorted(zip(*(values.tolist() for values in positives)))
    np.testing.assert_allclose(actual, sorted(expected), rtol=2e-4, atol=1e-6)
    score, iou, beta_r, beta_c = (np.array(values) for values in zip(*expected))
    assert min(values.std() for values in (score, iou, beta_r, beta_c)) > 1e-3  # the samples differ
    summary = {'aic': np.abs(score - iou).mean(), 'positives': len(expected)}
    for name, beta in (('beta_r', beta_r), ('beta_c', beta_c)):
        summary[f'{name}_mean'] = beta.mean()
        summary.update({f'{name}_p{percent}': np.percentile(beta, percent) for percent in (10, 50, 90)})
    assert summarize(positives) == pytest.approx(summary, rel=1e-4)


def test_decoded_boxes():
    """The IoU loss of decoded boxes: L_loc is 1 - IoU."""
    rows = retina_case()[2]
    positives = recorded(spread(RETINA, reg_decoded_bbox=True, loss_bbox=dict(type='IoULoss', mode='linear')))
    ious = sorted(row[1] for row in rows)
    np.testing.assert_allclose(sorted(positives.iou.tolist()), ious, rtol=1e-4)
    np.testing.assert_allclose(sorted(positives.beta_r.tolist()), [math.exp(iou - 1) for iou in ious], rtol=1e-4)


def test_aic_by_hand():
    assert aic(torch.tensor([0.9, 0.2]), torch.tensor([0.5, 0.8])).item() == pytest.approx(0.5)
    assert math.isnan(aic(torch.zeros(0), torch.zeros(0)))


def test_loss_weight_of_a_stock_loss_counts():
    """As in HarmonicDet, which couples what the blocks compute."""
    plain = recorded(spread(RETINA))
    weighted = recorded(spread(RETINA, loss_bbox=dict(RETINA['loss_bbox'], loss_weight=2.0)))
    torch.testing.assert_close(weighted.beta_r, plain.beta_r**2)
    torch.testing.assert_close(weighted.beta_c, plain.beta_c)


# ------------------------------------------------------------------------------------------ which samples


def test_no_positives():
    nothing = instances([[], []], [[], []])
    for head in (spread(RETINA), spread(FOVEA), spread(RETINA, type='HarmonicRetinaHead')):
        assert recorded(head, lambda head: head.loss_by_feat(*head(features()), nothing, metas(nothing))) is None
    assert recorded(spread(RCNN), lambda head: roi_losses(head, with_positives=False)) is None


def test_one_image_without_objects():
    gts = instances([[[6.0, 8, 30, 27]], []], [[0], []])
    positives = recorded(spread(RETINA), lambda head: dense_losses(head, gts))
    assert len(positives.score) > 0


def test_samples_of_weight_0_do_not_count():
    head = spread(RCNN)

    def step(head, dropped):
        torch.manual_seed(3)
        rois, labels, label_weights, targets, weights = roi_targets(head)
        if dropped:
            label_weights[0], weights[3] = 0, 0  # two of the four positives
        head.loss(*head(torch.randn(7, 4, 2, 2)), rois, labels, label_weights, targets, weights)

    every, some = (recorded(head, lambda head, dropped=dropped: step(head, dropped)) for dropped in (False, True))
    torch.testing.assert_close(some.iou, every.iou[[1, 3]])
    torch.testing.assert_close(some.score, every.score[[1, 3]])


@pytest.mark.parametrize('value', [math.inf, math.nan])
@pytest.mark.parametrize('kind', ['RCNN', 'harmonic'])
def test_samples_that_are_not_finite_are_left_out(value, kind):
    head = spread(RCNN, **(dict(type='HarmonicShared2FCBBoxHead') if kind == 'harmonic' else {}))

    def step(head):
        torch.manual_seed(3)
        rois, labels, label_weights, targets, weights = roi_targets(head)
        targets[1, 2] = value  # a ground-truth box of zero width
        head.loss(*head(torch.randn(7, 4, 2, 2)), rois, labels, label_weights, targets, weights)

    every, finite = recorded(head, roi_losses), recorded(head, step)
    for got, want in zip(finite, every):
        torch.testing.assert_close(got, want[[0, 2, 3]])


def test_half_precision_is_computed_in_float32():
    head = spread(RCNN)

    def step(head, dtype):
        torch.manual_seed(3)
        rois, labels, label_weights, targets, weights = roi_targets(head)
        values = [*head(torch.randn(7, 4, 2, 2)), targets]
        scores, preds, targets = (rows.bfloat16().to(dtype) for rows in values)
        head.loss(scores, preds, rois, labels, label_weights, targets, weights)

    half, full = (recorded(head, lambda head, t=dtype: step(head, t)) for dtype in (torch.bfloat16, torch.float32))
    for got, want in zip(half, full):
        torch.testing.assert_close(got, want, rtol=0, atol=0)


def test_looking_ahead_is_not_counted():
    """Hard-example mining asks for the losses of all RoIs first, without reduction."""
    head = spread(RCNN)

    def step(head):
        torch.manual_seed(3)
        scores, _ = head(torch.randn(7, 4, 2, 2))
        rois, labels, label_weights, _, _ = roi_targets(head)
        head.loss(scores, None, rois, labels, label_weights, None, None, reduction_override='none')
        roi_losses(head)

    torch.testing.assert_close(recorded(head, step), recorded(head, roi_losses))


def test_a_copy_of_the_model_records_nothing_here():
    """As LocWeightCalibrationHook makes one for a trial step."""
    head = spread(RETINA)
    recorder = PositivesRecorder(head)
    recorder.start()
    dense(copy.deepcopy(head))
    assert recorder.stop() is None


@pytest.mark.parametrize('eta', [1.5, 0.0])
def test_no_gpu_waits_for_the_others(monkeypatch, eta):
    head = spread(RETINA, type='IoUBalancedRetinaHead', loss_cls=dict(BALANCED_FOCAL, eta=eta, sync=True))
    calls = []
    for module in (classification, localization):
        monkeypatch.setattr(module, 'reduce_mean', lambda tensor: calls.append(1) or tensor)
    dense(head)
    of_the_step, calls[:] = len(calls), []
    recorded(head)
    assert len(calls) == of_the_step > 0


# ------------------------------------------------------------------------------- heads that cannot be measured


def test_heads_without_blocks_or_with_scores_of_their_own():
    with pytest.raises(NotMeasurable, match='it has no module loss_cls'):
        PositivesRecorder(build(SSD))
    with pytest.raises(NotMeasurable, match='the scores of SeesawLoss are no plain logits'):
        PositivesRecorder(build(RCNN, loss_cls=dict(type='SeesawLoss', num_classes=C)))


class Odd(nn.Module):
    """Calls its losses as the test says."""

    def __init__(self, calls, **cfg):
        super().__init__()
        self.num_classes, self.calls = C, calls
        self.loss_cls, self.loss_bbox = (
            spread(dict(RETINA, **cfg)).get_submodule(f'loss_{x}') for x in ('cls', 'bbox')
        )

    def forward(self):
        scores, labels = torch.randn(5, C), torch.tensor([0, C, 1, C, 2])
        arguments = {
            'cls': (self.loss_cls, scores, labels),
            'cls of one hot': (self.loss_cls, scores, F.one_hot(labels, C + 1)[:, :C]),
            'bbox': (self.loss_bbox, torch.randn(5, 4), torch.randn(5, 4)),
            'bbox of four': (self.loss_bbox, torch.randn(4, 4), torch.randn(4, 4)),
        }
        return sum(loss(*args) for loss, *args in (arguments[call] for call in self.calls))


@pytest.mark.parametrize(
    ('calls', 'reason'),
    [
        (['bbox', 'cls'], 'loss_bbox was called without loss_cls before it'),
        (['cls', 'cls', 'bbox'], r'loss_bbox gets shape \(5, 4\) for 10 samples with 6 positives'),
        (['cls'], 'loss_bbox was not called for positives of loss_cls'),
        (['cls of one hot', 'bbox'], r'loss_cls gets scores of shape \(5, 3\) and labels of shape \(5, 3\)'),
        (['cls', 'bbox of four'], r'loss_bbox gets shape \(4, 4\) for 5 samples with 3 positives'),
        (['cls', 'bbox'], 'the IoU does not follow from what loss_bbox gets: bbox_coder is NoneType'),
    ],
)
def test_unknown_calls(calls, reason):
    head = Odd(calls)
    torch.manual_seed(0)
    expected = head()
    recorder = PositivesRecorder(head)
    recorder.start()
    torch.manual_seed(0)
    torch.testing.assert_close(head(), expected, rtol=0, atol=0)  # the step goes on
    with pytest.raises(NotMeasurable, match=reason):
        recorder.stop()


def test_positives_are_float32_without_gradient():
    for head, step, _ in (CASES['RetinaHead'](), CASES['HarmonicRetinaHead']()):
        positives = recorded(head, step)
        assert {values.dtype for values in positives} == {torch.float32}
        assert not any(values.requires_grad for values in positives)
        assert positives._fields == Positives._fields
