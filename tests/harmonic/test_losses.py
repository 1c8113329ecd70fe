"""The registered losses of paper B: switches, reductions, and arguments that cannot be."""

from __future__ import annotations

import pytest
import torch
from mmdet.models.losses import IoULoss
from mmdet.registry import MODELS
from reference import boxes as reference_boxes
from reference import harmonic as reference

from harmonic.functional import entropy, harmonic_loss, hiou_loss, task_contrastive_loss
from harmonic.losses import HarmonicDetLoss, HIoULoss, class_probabilities

f64 = torch.float64


def boxes(n=6):
    corner = torch.rand(n, 2, dtype=f64) * 20
    pred = torch.cat([corner, corner + 10 + torch.rand(n, 2, dtype=f64) * 20], dim=1)
    return pred, pred + torch.rand(n, 4, dtype=f64) * 6 - 3


class TestHIoULoss:
    def test_equals_naive_loop_under_weights_and_averages(self):
        pred, target = boxes()
        weight = torch.tensor([1.0, 0.0, 2.0, 1.0, 0.5, 1.0], dtype=f64)
        values = [reference.hiou(reference_boxes.iou(*row), 0.8) for row in zip(pred.tolist(), target.tolist())]
        weighted = [value * w for value, w in zip(values, weight.tolist())]
        loss = HIoULoss(loss_weight=3.0)
        assert loss(pred, target).item() == pytest.approx(3 * sum(values) / 6, rel=1e-6)
        assert loss(pred, target, weight, avg_factor=4).item() == pytest.approx(3 * sum(weighted) / 4, rel=1e-6)
        assert loss(pred, target, weight[:, None].expand(6, 4), avg_factor=4).item() == pytest.approx(
            3 * sum(weighted) / 4, rel=1e-6
        )
        each = loss(pred, target, weight, reduction_override='none')
        assert each.tolist() == pytest.approx([3 * value for value in weighted], rel=1e-6)
        assert loss(pred, target, weight, reduction_override='sum').item() == pytest.approx(3 * sum(weighted), rel=1e-6)

    def test_gamma_0_is_mmdets_linear_iou_loss(self):
        pred, target = boxes()
        torch.testing.assert_close(HIoULoss(gamma=0.0)(pred, target), IoULoss(mode='linear')(pred, target))

    def test_pair_that_is_not_finite_is_left_out(self):
        pred, target = boxes()
        expected = HIoULoss(reduction='sum')(pred[1:], target[1:])
        target[0, 2] = float('nan')
        pred.requires_grad_()
        loss = HIoULoss(reduction='sum')(pred, target)
        torch.testing.assert_close(loss, expected)
        (grad,) = torch.autograd.grad(loss, pred)
        assert grad.isfinite().all()

    def test_without_boxes_it_hangs_on_the_graph(self):
        pred = torch.zeros(0, 4, requires_grad=True)
        HIoULoss()(pred, torch.zeros(0, 4), avg_factor=1).backward()
        assert pred.grad.shape == (0, 4)

    @pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
    def test_large_boxes_in_half_precision(self, dtype):
        # 600 x 600 pixels: the area overflows float16.
        pred = torch.tensor([[0, 0, 600, 600]], dtype=dtype)
        target = torch.tensor([[0, 0, 300, 600]], dtype=dtype)
        assert HIoULoss(gamma=1.0)(pred, target).item() == pytest.approx(0.75, rel=1e-6)


def positives(n=8, num_classes=5):
    logits, labels = torch.randn(n, num_classes, dtype=f64), torch.randint(num_classes, (n,))
    score, prob = class_probabilities(logits, labels, use_sigmoid=False)
    return dict(
        cls_loss=-score.log(),
        bbox_loss=torch.rand(n, dtype=f64) * 2,
        iou=torch.rand(n, dtype=f64),
        score=score,
        prob=prob,
    )


class TestHarmonicDetLoss:
    def test_defaults_are_equation_12_with_the_papers_values(self):
        given = positives()
        terms = HarmonicDetLoss()(**given)
        loc = given['bbox_loss'] + 1.5 * hiou_loss(given['iou'], gamma=0.8)
        cls_term, loc_term = harmonic_loss(given['cls_loss'], loc)
        tc = task_contrastive_loss(given['score'], given['iou'], entropy(given['prob']), margin=0.2)
        for actual, expected in zip(terms, (cls_term, loc_term, tc)):
            torch.testing.assert_close(actual, expected, rtol=1e-14, atol=0)

    def test_rows_of_table_3(self):
        # Harmonic alone; with the IoU loss (gamma 0); with HIoU; with TC: what each row adds to the one before.
        given = positives()
        rows = [
            dict(hiou=False, tc=False),
            dict(gamma=0.0, tc=False),
            dict(tc=False),
            dict(),
        ]
        terms = [HarmonicDetLoss(**row)(**given) for row in rows]
        locs = [given['bbox_loss'], given['bbox_loss'] + 1.5 * (1 - given['iou'])]
        locs += [given['bbox_loss'] + 1.5 * hiou_loss(given['iou'])] * 2
        for (cls_term, loc_term, _), loc in zip(terms, locs):
            torch.testing.assert_close(cls_term, (1 + torch.exp(-loc)) * given['cls_loss'])
            torch.testing.assert_close(loc_term, (1 + torch.exp(-given['cls_loss'])) * loc)
        assert [term.tc.sum().item() > 0 for term in terms] == [False, False, False, True]

    def test_all_parts_off_is_the_stock_loss_exactly(self):
        given = positives()
        terms = HarmonicDetLoss(harmonic=False, hiou=False, tc=False)(**given)
        assert torch.equal(terms.cls, given['cls_loss'])
        assert torch.equal(terms.loc, given['bbox_loss'])
        assert torch.equal(terms.tc, torch.zeros(8, dtype=f64))

    def test_score_in_place_of_the_loss_in_the_factor(self):
        given = dict(positives(), cls_loss=torch.full((8,), 0.1, dtype=f64))  # a focal loss, say
        loc = given['bbox_loss'] + 1.5 * hiou_loss(given['iou'])
        by_score = HarmonicDetLoss(cls_factor='score')(**given).loc
        torch.testing.assert_close(by_score, (1 + given['score']) * loc)
        torch.testing.assert_close(HarmonicDetLoss()(**given).loc, (1 + torch.tensor(-0.1, dtype=f64).exp()) * loc)

    @pytest.mark.parametrize('cls_factor', ['loss', 'score'])
    def test_factors_are_those_of_the_terms(self, cls_factor):
        given, loss = positives(), HarmonicDetLoss(tc=False, cls_factor=cls_factor)
        terms = loss(**given)
        beta_r, beta_c = loss.factors(*(given[name] for name in ('cls_loss', 'bbox_loss', 'iou', 'score')))
        torch.testing.assert_close(terms.cls, (1 + beta_r) * given['cls_loss'])
        torch.testing.assert_close(terms.loc, (1 + beta_c) * loss.loc_loss(given['bbox_loss'], given['iou']))

    def test_gradcheck(self):
        given = {key: value.detach() for key, value in positives(4).items()}
        given['iou'] = torch.tensor([0.05, 0.35, 0.6, 0.95], dtype=f64)
        given['score'] = torch.tensor([0.6, 0.9, 0.3, 0.1], dtype=f64)  # beyond the margin, away from the kink
        names = ('cls_loss', 'bbox_loss', 'iou', 'score')
        inputs = [given[name].clone().requires_grad_() for name in names]
        assert torch.autograd.gradcheck(
            lambda *values: tuple(HarmonicDetLoss()(**dict(zip(names, values)), prob=given['prob'])), inputs
        )

    @pytest.mark.parametrize(
        ('arguments', 'message'),
        [
            (dict(gamma=1.2), r'gamma=1.2 must be in \[0, 1\]'),
            (dict(alpha=-1.0), r'alpha=-1.0 \(config key loss_joint.alpha\)'),
            (dict(margin=-0.1), r'margin=-0.1 \(config key loss_joint.margin\)'),
            (dict(alpha=float('nan')), 'alpha=nan'),
            (dict(cls_factor='focal'), "cls_factor='focal' .* is not one of loss, score"),
            (dict(avg='samples'), "avg='samples' .* is not one of head, positives"),
        ],
    )
    def test_arguments_that_cannot_be(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            MODELS.build(dict(type='HarmonicDetLoss', **arguments))

    def test_terms_of_samples_that_do_not_count_are_zeros(self):
        given, keep = positives(n=4), torch.tensor([True, False, True, True])
        every, some = HarmonicDetLoss()(**given), HarmonicDetLoss()(**given, keep=keep)
        assert all(term[1] > 0 for term in every[:2])
        for term, kept in zip(every, some):
            torch.testing.assert_close(kept, term * keep)


class TestClassProbabilities:
    def test_softmax_by_hand(self):
        logits = torch.tensor([[0.0, torch.tensor(3.0).log(), 0.0]])
        score, prob = class_probabilities(logits, torch.tensor([1]), use_sigmoid=False)
        torch.testing.assert_close(score, torch.tensor([0.6]))
        torch.testing.assert_close(prob, torch.tensor([[0.2, 0.6, 0.2]]))

    def test_sigmoid_by_hand(self):
        # Sigmoids 1/2 and 3/4; their distribution is 2/5 and 3/5.
        logits = torch.tensor([[0.0, torch.tensor(3.0).log()]])
        score, prob = class_probabilities(logits, torch.tensor([1]), use_sigmoid=True)
        torch.testing.assert_close(score, torch.tensor([0.75]))
        torch.testing.assert_close(prob, torch.tensor([[0.4, 0.6]]))

    def test_sigmoids_that_underflow_keep_a_distribution(self):
        _, prob = class_probabilities(torch.full((1, 3), -200.0), torch.tensor([0]), use_sigmoid=True)
        torch.testing.assert_close(prob.sum(dim=1), torch.ones(1))
