"""The eight tests of each loss: values, limit, reference, properties, gradients, empty sets, precision, module."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from mmdet.models.losses import CrossEntropyLoss, FocalLoss, SmoothL1Loss
from mmdet.registry import MODELS
from reference import iou_balanced as reference

from balanced_det.boxes import delta_iou
from iou_balanced import IoUBalancedCrossEntropyLoss, IoUBalancedFocalLoss, IoUBalancedSmoothL1Loss
from iou_balanced.functional import iou_balanced_weight

f64 = torch.float64
C = 4

# name -> (balanced loss, its stock loss, number of score columns, naive sum over samples)
CLASSIFICATION = {
    'focal': (IoUBalancedFocalLoss, FocalLoss, C, partial(reference.classification, entry=reference.focal_entry)),
    'plain focal': (
        partial(IoUBalancedFocalLoss, fused=False),
        FocalLoss,
        C,
        partial(reference.classification, entry=reference.focal_entry),
    ),
    'softmax': (IoUBalancedCrossEntropyLoss, CrossEntropyLoss, C + 1, reference.softmax_classification),
    'sigmoid': (
        partial(IoUBalancedCrossEntropyLoss, use_sigmoid=True),
        partial(CrossEntropyLoss, use_sigmoid=True),
        C,
        partial(reference.classification, entry=reference.binary_entry),
    ),
}


@pytest.fixture(params=CLASSIFICATION)
def kind(request):
    return request.param


def batch(kind, n=30, dtype=f64):
    """Logits, labels (about half of them background), IoU."""
    columns = CLASSIFICATION[kind][2]
    labels = torch.where(torch.rand(n) < 0.5, C, torch.randint(0, C, (n,)))
    labels[:2] = torch.tensor([0, C])
    return torch.randn(n, columns, dtype=dtype) * 2, labels, torch.rand(n, dtype=dtype)


def plain_sum(kind, scores, labels):
    """The stock loss in float64 throughout: mmdet's binary cross-entropy turns float64 logits into a float32 loss."""
    if kind == 'sigmoid':
        target = F.one_hot(labels, C + 1)[:, :C].to(scores)
        return F.binary_cross_entropy_with_logits(scores, target, reduction='sum')
    return CLASSIFICATION[kind][1](reduction='sum')(scores, labels)


def tolerance(kind):
    """float32's for the one stock loss that computes in it, float64's for the others."""
    return dict(rtol=1.3e-6, atol=1e-5) if kind == 'sigmoid' else dict(rtol=1e-7, atol=1e-7)


def value_and_gradient(loss, scores, *args, **kwargs):
    scores = scores.clone().requires_grad_()
    value = loss(scores, *args, **kwargs)
    value.sum().backward()
    return value.detach(), scores.grad


class TestClassification:
    def test_values_by_hand(self):
        # Two positives of class 0 (of one) with p = 1/2, so CE = ln 2 each; IoU 1/4 and 1, eta 1.
        # Eq. 4: factor 2 ln2 / ((1/4 + 1) ln2) = 8/5, weights 2/5 and 8/5. One negative with p = 1/2: ln 2.
        scores, labels = torch.zeros(3, 1), torch.tensor([0, 0, 1])
        iou = torch.tensor([0.25, 1.0, 0.9])
        loss = IoUBalancedCrossEntropyLoss(use_sigmoid=True, eta=1.0, reduction='none')
        expected = torch.tensor([[0.4], [1.6], [1.0]]) * math.log(2)
        torch.testing.assert_close(loss(scores, (labels, iou)), expected)
        # Focal: positives alpha (1/2)^2 ln 2, the negative (1 - alpha) (1/2)^2 ln 2; the same weights.
        loss = IoUBalancedFocalLoss(eta=1.0, reduction='none')
        expected = expected / 4 * torch.tensor([[0.25], [0.25], [0.75]])
        torch.testing.assert_close(loss(scores, (labels, iou)), expected)
        # Softmax over (class 0, background), equal logits: ln 2 each again.
        loss = IoUBalancedCrossEntropyLoss(eta=1.0, reduction='none')
        expected = torch.tensor([0.4, 1.6, 1.0]) * math.log(2)
        torch.testing.assert_close(loss(torch.zeros(3, 2), (labels, iou)), expected)

    @pytest.mark.parametrize('weighted', [False, True])
    @pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
    def test_eta_zero_is_the_stock_loss(self, kind, weighted, reduction):
        balanced, stock = CLASSIFICATION[kind][:2]
        scores, labels, iou = batch(kind, dtype=torch.float32)
        weight = torch.rand(len(labels)) if weighted else None
        actual = value_and_gradient(balanced(eta=0, reduction=reduction), scores, (labels, iou), weight)
        expected = value_and_gradient(stock(reduction=reduction), scores, labels, weight)
        for got, want in zip(actual, expected):
            if kind == 'focal':  # fused: another order of the same sum
                torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-6 * want.abs().max().item())
            else:
                assert torch.equal(got, want)

    def test_blocks_are_rows_that_follow_one_another(self, kind):
        loss = CLASSIFICATION[kind][0]()
        scores, labels, iou = batch(kind)
        inds = (labels < C).nonzero().squeeze(1)
        blocks = [scores[:7].requires_grad_(), scores[7:7].requires_grad_(), scores[7:].requires_grad_()]
        value = loss(blocks, (labels, iou), inds=inds, avg_factor=3)
        expected, grad = value_and_gradient(loss, scores, (labels, iou), avg_factor=3)
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(torch.cat(torch.autograd.grad(value, blocks)), grad)

    @pytest.mark.parametrize('weighted', [False, True])
    def test_equals_naive_loop(self, kind, weighted):
        balanced, _, _, naive = CLASSIFICATION[kind]
        scores, labels, iou = batch(kind)
        weights = torch.rand(len(labels)).to(f64) if weighted else torch.ones(len(labels), dtype=f64)
        weights[0] = 0.0 if weighted else 1.0  # a positive that does not count
        expected = naive(
            scores.tolist(), labels.tolist(), iou.tolist(), eta=1.5, num_classes=C, weights=weights.tolist()
        )
        actual = balanced(reduction='sum')(scores, (labels, iou), weights)
        assert actual.item() == pytest.approx(expected, rel=1e-6)  # mmdet casts the weights to float32

    def test_sum_over_positives_is_kept(self, kind):
        balanced, stock = CLASSIFICATION[kind][:2]
        scores, labels, iou = batch(kind)
        positive = labels < C
        args = scores[positive], labels[positive]
        kept = balanced(reduction='sum')(args[0], (args[1], iou[positive]))
        torch.testing.assert_close(kept, stock(reduction='sum')(*args))

    def test_permutation_changes_nothing(self, kind):
        loss = CLASSIFICATION[kind][0](reduction='sum')
        scores, labels, iou = batch(kind)
        shuffle = torch.randperm(len(labels))
        torch.testing.assert_close(loss(scores[shuffle], (labels[shuffle], iou[shuffle])), loss(scores, (labels, iou)))

    def test_iou_of_negatives_is_not_read(self, kind):
        loss = CLASSIFICATION[kind][0](reduction='sum')
        scores, labels, iou = batch(kind)
        other = torch.where(labels < C, iou, torch.nan)
        assert torch.equal(loss(scores, (labels, iou)), loss(scores, (labels, other)))

    def test_better_fit_pulls_harder(self, kind):
        # The same logits twice: the gradient of the better-fitting positive is larger by (0.9 / 0.3)^eta.
        columns = CLASSIFICATION[kind][2]
        scores, labels = torch.zeros(2, columns, dtype=f64), torch.tensor([1, 1])
        _, grad = value_and_gradient(
            CLASSIFICATION[kind][0](eta=2.0), scores, (labels, torch.tensor([0.3, 0.9], dtype=f64)), avg_factor=1
        )
        torch.testing.assert_close(grad[1, 1] / grad[0, 1], torch.tensor(9.0, dtype=f64))

    def test_only_the_own_class_of_a_positive_is_weighted(self):
        # Sigmoid: the other C - 1 entries of a positive are negatives of weight 1.
        for name in ('focal', 'sigmoid'):
            balanced, stock = CLASSIFICATION[name][:2]
            scores, labels, iou = batch(name)
            change = balanced(reduction='none')(scores, (labels, iou)) - stock(reduction='none')(scores, labels)
            own = torch.zeros_like(change, dtype=torch.bool)
            positive = (labels < C).nonzero().squeeze(1)
            own[positive, labels[positive]] = True
            assert (change[own] != 0).all()
            assert (change[~own] == 0).all()

    def test_gradcheck_with_constant_weights(self, kind):
        # gradcheck moves the logits, and with them Eq. 4's normaliser; so the weights are fixed from outside here
        # and the module's gradient is compared with that of the weighted sum.
        scores, labels, iou = batch(kind, n=8)
        module = CLASSIFICATION[kind][0](reduction='sum')
        positive = (labels < C).nonzero().squeeze(1)
        constant = iou_balanced_weight(iou[positive], module.positive_loss(scores[positive], labels[positive]))

        def weighted_sum(x):
            own = module.positive_loss(x[positive], labels[positive])
            return plain_sum(kind, x, labels) + ((constant - 1) * own).sum()

        assert torch.autograd.gradcheck(weighted_sum, scores.clone().requires_grad_())
        expected = value_and_gradient(weighted_sum, scores)
        actual = value_and_gradient(module, scores, (labels, iou))
        for got, want in zip(actual, expected):
            torch.testing.assert_close(got.to(want), want, **tolerance(kind))

    def test_iou_receives_no_gradient(self, kind):
        scores, labels, iou = batch(kind)
        scores.requires_grad_(), iou.requires_grad_()
        CLASSIFICATION[kind][0]()(scores, (labels, iou)).backward()
        assert iou.grad is None

    def test_sync_normalises_over_all_processes(self, kind, monkeypatch):
        # Another process whose positives all have loss 2 and weight (1/4)^1.5 = 1/8, 3 of them: sums 6 and 6/8.
        def mean_with_another(sums):
            return (sums + sums.new_tensor([6.0, 0.75])) / 2

        monkeypatch.setattr('iou_balanced.losses.classification.reduce_mean', mean_with_another)
        scores, labels, iou = batch(kind)
        module = CLASSIFICATION[kind][0](sync=True, reduction='none')
        alone = CLASSIFICATION[kind][0](reduction='none')
        inds = (labels < C).nonzero().squeeze(1)
        own = module.positive_loss(scores[inds], labels[inds])
        factor = (own.sum() + 6) / ((iou[inds] ** 1.5 * own).sum() + 0.75)
        values = module(scores, (labels, iou))
        entries = values[inds] if kind == 'softmax' else values[inds, labels[inds]]
        torch.testing.assert_close(entries.double(), factor * iou[inds] ** 1.5 * own, **tolerance(kind))
        assert not torch.allclose(values, alone(scores, (labels, iou)))

    def test_ranking_of_hard_examples_does_not_wait_for_other_processes(self, kind, monkeypatch):
        monkeypatch.setattr('iou_balanced.losses.classification.reduce_mean', lambda sums: pytest.fail('a collective'))
        scores, labels, iou = batch(kind)
        ranked = CLASSIFICATION[kind][0](sync=True)(scores, (labels, iou), reduction_override='none')
        torch.testing.assert_close(ranked, CLASSIFICATION[kind][0](reduction='none')(scores, (labels, iou)))

    @pytest.mark.parametrize('positives', [0, 1])
    def test_no_and_one_positive_equal_the_stock_loss(self, kind, positives):
        # With one positive Eq. 4 gives weight 1.
        balanced, stock = CLASSIFICATION[kind][:2]
        scores, labels, iou = batch(kind)
        labels = torch.full_like(labels, C)
        labels[:positives] = 2
        actual = value_and_gradient(balanced(), scores, (labels, iou), avg_factor=max(positives, 1))
        expected = value_and_gradient(stock(), scores, labels, avg_factor=max(positives, 1))
        for got, want in zip(actual, expected):
            torch.testing.assert_close(got, want)

    @pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
    def test_half_precision(self, kind, dtype):
        scores, labels, iou = batch(kind, dtype=torch.float32)
        scores = scores.to(dtype)
        value, grad = value_and_gradient(CLASSIFICATION[kind][0](), scores, (labels, iou), avg_factor=3)
        expected = CLASSIFICATION[kind][0]()(scores.float(), (labels, iou), avg_factor=3)
        assert torch.equal(value, expected)
        assert grad.dtype == dtype

    @pytest.mark.parametrize('extreme', [1e4, -1e4, 88.0, -88.0])
    def test_extreme_logits_are_finite(self, kind, extreme):
        scores, labels, iou = batch(kind, dtype=torch.float32)
        value, grad = value_and_gradient(
            CLASSIFICATION[kind][0](), torch.full_like(scores, extreme), (labels, iou), avg_factor=3
        )
        assert value.isfinite()
        assert grad.isfinite().all()

    def test_module_weight_avg_factor_and_reduction(self, kind):
        make = CLASSIFICATION[kind][0]
        scores, labels, iou = batch(kind)
        weight = torch.rand(len(labels))
        none = make(reduction='none')(scores, (labels, iou), weight)
        args = scores, (labels, iou), weight
        torch.testing.assert_close(make()(*args), none.mean())
        torch.testing.assert_close(make(loss_weight=3)(*args, avg_factor=7), 3 * none.sum() / 7)
        torch.testing.assert_close(make()(*args, reduction_override='sum'), none.sum())
        torch.testing.assert_close(make()(*args, reduction_override='none'), none)
        with pytest.raises(ValueError, match='avg_factor'):
            make(reduction='sum')(*args, avg_factor=7)


def regression(n=25, stds=(1.0,) * 4, dtype=f64):
    scale = torch.tensor(stds, dtype=dtype)
    return torch.randn(n, 4, dtype=dtype) * 0.2 / scale, torch.randn(n, 4, dtype=dtype) * 0.2 / scale


class TestSmoothL1:
    def test_values_by_hand(self):
        # Sample 1: shifted by half a width, IoU 1/3, smooth L1 (beta 1) 0.125. Sample 2: perfect, loss 0.
        # Sample 3: width times e, IoU 1/e, smooth L1 0.5. lambda 1.
        pred = torch.tensor([[0.5, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]])
        target = torch.zeros(3, 4)
        loss = IoUBalancedSmoothL1Loss(beta=1.0, lambda_=1.0, reduction='sum', loss_weight=2.0)
        assert loss(pred, target).item() == pytest.approx(2 * (0.125 / 3 + 0.5 / math.e), rel=1e-6)
        # Eq. 7 keeps the sum 0.125 + 0.5.
        loss = IoUBalancedSmoothL1Loss(beta=1.0, lambda_=1.0, normalize=True, reduction='sum')
        assert loss(pred, target).item() == pytest.approx(0.625, rel=1e-6)

    @pytest.mark.parametrize('weighted', [False, True])
    @pytest.mark.parametrize('normalize', [False, True])
    @pytest.mark.parametrize('reduction', ['none', 'mean', 'sum'])
    def test_lambda_zero_is_the_stock_loss(self, weighted, normalize, reduction):
        pred, target = regression(dtype=torch.float32)
        weight = (torch.rand(25, 1) < 0.6).float().expand(25, 4) if weighted else None
        balanced = IoUBalancedSmoothL1Loss(beta=0.11, lambda_=0, normalize=normalize, reduction=reduction)
        actual = value_and_gradient(balanced, pred, target, weight)
        expected = value_and_gradient(SmoothL1Loss(beta=0.11, reduction=reduction), pred, target, weight)
        for got, want in zip(actual, expected):
            assert torch.equal(got, want)

    @pytest.mark.parametrize('normalize', [False, True])
    @pytest.mark.parametrize('stds', [(1.0,) * 4, (0.1, 0.1, 0.2, 0.2)])
    def test_equals_naive_loop(self, normalize, stds):
        pred, target = regression(stds=stds)
        loss = IoUBalancedSmoothL1Loss(beta=0.11, normalize=normalize, target_stds=stds, reduction='sum')
        expected = reference.localisation(
            pred.tolist(), target.tolist(), beta=0.11, lambda_=1.5, stds=stds, normalize=normalize
        )
        assert loss(pred, target).item() == pytest.approx(expected, rel=1e-10)

    def test_normalised_sum_is_kept_and_permutation_changes_nothing(self):
        pred, target = regression()
        stock = SmoothL1Loss(beta=0.11, reduction='sum')(pred, target)
        normalised = IoUBalancedSmoothL1Loss(beta=0.11, normalize=True, reduction='sum')
        torch.testing.assert_close(normalised(pred, target), stock)
        loss, shuffle = IoUBalancedSmoothL1Loss(reduction='sum'), torch.randperm(len(pred))
        torch.testing.assert_close(loss(pred[shuffle], target[shuffle]), loss(pred, target))

    def test_gradient_is_eq_8(self):
        # d loss / d l = w(iou) d / delta inside delta, w(iou) sign(d) outside; w is a constant.
        pred, target = regression()
        beta, w_loc, lambda_ = 0.11, 3.0, 1.5
        _, grad = value_and_gradient(
            IoUBalancedSmoothL1Loss(beta=beta, lambda_=lambda_, reduction='sum', loss_weight=w_loc), pred, target
        )
        d = pred - target
        weight = w_loc * delta_iou(pred, target).pow(lambda_)
        torch.testing.assert_close(grad, weight[:, None] * (d / beta).clamp(-1, 1))

    def test_gradcheck_with_constant_weights(self):
        pred, target = regression(n=6)
        weight = delta_iou(pred, target).pow(1.5)[:, None].expand(6, 4)
        loss = IoUBalancedSmoothL1Loss(lambda_=0, reduction='sum')
        assert torch.autograd.gradcheck(lambda x: loss(x, target, weight), pred.clone().requires_grad_())

    @pytest.mark.parametrize('normalize', [False, True])
    def test_no_positive_is_a_zero_on_the_graph(self, normalize):
        loss = IoUBalancedSmoothL1Loss(normalize=normalize)
        for n, weight in ((5, torch.zeros(5, 4)), (0, None), (0, torch.zeros(0, 4))):
            pred = torch.randn(n, 4, requires_grad=True)
            for avg_factor in (None, 0, 3):
                value = loss(pred, torch.zeros(n, 4), weight, avg_factor=avg_factor)
                value.backward()
                assert value.item() == 0
                assert torch.equal(pred.grad, torch.zeros(n, 4))
            assert loss.weighted_sums(pred, torch.zeros(n, 4), weight, lambdas=[0.0, 1.5]).tolist() == [0, 0]

    def test_sync_normalises_over_all_processes(self, monkeypatch):
        # Another process whose positives all have loss 2 and weight (1/4)^1.5 = 1/8, 3 of them: sums 6 and 6/8.
        def mean_with_another(sums):
            return (sums + sums.new_tensor([6.0, 0.75])) / 2

        monkeypatch.setattr('iou_balanced.losses.localization.reduce_mean', mean_with_another)
        pred, target = regression()
        loss = IoUBalancedSmoothL1Loss(beta=0.11, normalize=True, reduction='none')
        own, weight = SmoothL1Loss(beta=0.11, reduction='none')(pred, target), delta_iou(pred, target).pow(1.5)
        factor = (own.sum() + 6) / ((weight * own.sum(dim=1)).sum() + 0.75)
        torch.testing.assert_close(loss(pred, target, sync=True), factor * weight[:, None] * own)
        assert not torch.allclose(loss(pred, target), loss(pred, target, sync=True))

    def test_one_positive(self):
        pred, target = regression(n=5)
        weight = torch.zeros(5, 4, dtype=f64)
        weight[3] = 1
        loss = IoUBalancedSmoothL1Loss(reduction='sum')
        torch.testing.assert_close(loss(pred, target, weight), loss(pred[3:4], target[3:4]))

    @pytest.mark.parametrize('normalize', [False, True])
    @pytest.mark.parametrize('bad', [math.nan, math.inf, -math.inf])
    def test_sample_that_is_not_finite_is_left_out_and_counted(self, normalize, bad):
        pred, target = regression(n=5)
        broken = target.clone()
        broken[1, 2] = bad
        loss = IoUBalancedSmoothL1Loss(normalize=normalize, reduction='sum')
        value, grad = value_and_gradient(loss, pred, broken)
        rest = [0, 2, 3, 4]
        torch.testing.assert_close(value, loss(pred[rest], target[rest]))
        assert torch.equal(grad[1], torch.zeros(4, dtype=f64))
        assert grad.isfinite().all()
        assert loss.num_left_out == 1

    def test_negatives_may_hold_anything(self):
        pred, target = regression(n=3)
        weight = torch.tensor([[1.0] * 4, [0.0] * 4, [1.0] * 4], dtype=f64)
        target[1] = torch.nan
        loss = IoUBalancedSmoothL1Loss(reduction='sum')
        assert loss(pred, target, weight).isfinite()
        assert loss.num_left_out == 0

    @pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
    def test_half_precision(self, dtype):
        pred, target = regression(dtype=torch.float32)
        pred = pred.to(dtype)
        value, grad = value_and_gradient(IoUBalancedSmoothL1Loss(), pred, target)
        assert torch.equal(value, IoUBalancedSmoothL1Loss()(pred.float(), target))
        assert grad.dtype == dtype

    def test_extreme_deltas_are_finite(self):
        for size in (1e4, -1e4, 300.0):
            value, grad = value_and_gradient(
                IoUBalancedSmoothL1Loss(), torch.full((3, 4), size), torch.zeros(3, 4), avg_factor=3
            )
            assert value.isfinite()
            assert grad.isfinite().all()

    def test_module_weight_avg_factor_and_reduction(self):
        pred, target = regression()
        weight = torch.rand(25, 4, dtype=f64)
        make = partial(IoUBalancedSmoothL1Loss, beta=0.11)
        none = make(reduction='none')(pred, target, weight)
        torch.testing.assert_close(make()(pred, target, weight), none.mean())
        torch.testing.assert_close(make(loss_weight=3)(pred, target, weight, avg_factor=7), 3 * none.sum() / 7)
        torch.testing.assert_close(make()(pred, target, weight, reduction_override='sum'), none.sum())
        torch.testing.assert_close(make()(pred, target, weight, reduction_override='none'), none)


@pytest.mark.parametrize('shape', [(3,), (3, 80), (2, 3, 4)])
def test_what_is_no_row_of_deltas(shape):
    with pytest.raises(ValueError, match='takes encoded deltas'):
        IoUBalancedSmoothL1Loss()(torch.zeros(shape), torch.zeros(shape))


NAN = float('nan')


@pytest.mark.parametrize(
    ('block', 'message'),
    [
        (dict(type='IoUBalancedFocalLoss', eta=-1), r'eta=-1 \(config key loss_cls.eta\)'),
        (dict(type='IoUBalancedFocalLoss', eta=NAN), r'eta=nan \(config key loss_cls.eta\)'),
        (dict(type='IoUBalancedFocalLoss', eta='1.5'), r"eta='1.5' \(config key loss_cls.eta\)"),
        (dict(type='IoUBalancedFocalLoss', use_sigmoid=False), 'set loss_cls.use_sigmoid=True'),
        (dict(type='IoUBalancedFocalLoss', scope='gpu'), r"scope='gpu' .* batch, level, image"),
        (dict(type='IoUBalancedFocalLoss', scope='image', sync=True), 'goes with loss_cls.scope="batch"'),
        (dict(type='IoUBalancedCrossEntropyLoss', eta=math.inf), r'eta=inf \(config key loss_cls.eta\)'),
        (dict(type='IoUBalancedSmoothL1Loss', lambda_=-0.5), r'lambda_=-0.5 \(config key loss_bbox.lambda_\)'),
        (dict(type='IoUBalancedSmoothL1Loss', lambda_=NAN), r'lambda_=nan \(config key loss_bbox.lambda_\)'),
        (dict(type='IoUBalancedSmoothL1Loss', beta=0), r'beta=0 \(config key loss_bbox.beta\)'),
        (dict(type='IoUBalancedSmoothL1Loss', target_stds=(0.1, 0.2)), 'needs four numbers'),
        (dict(type='IoUBalancedSmoothL1Loss', target_stds=(1, 1, 0, 1)), r'target_stds=0 .* above 0'),
    ],
)
def test_bad_hyper_parameters(block, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(block)


def test_plain_labels_are_refused_with_the_remedy():
    with pytest.raises(TypeError, match='Set its type to the IoU-balanced head'):
        IoUBalancedFocalLoss()(torch.zeros(2, C), torch.zeros(2, dtype=torch.long))


def test_shapes_that_disagree():
    with pytest.raises(ValueError, match=r'\(3, 4\), \(3,\) and \(2,\)'):
        IoUBalancedFocalLoss()(torch.zeros(3, C), (torch.zeros(3, dtype=torch.long), torch.zeros(2)))
