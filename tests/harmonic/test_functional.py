"""The equations of paper B: values by hand, naive loops, and the paper's own statements."""

from __future__ import annotations

import math

import pytest
import torch
from reference import harmonic as reference

from harmonic.functional import entropy, harmonic_loss, hiou_loss, task_contrastive_loss

f64 = torch.float64


def column(*values, grad=False):
    return torch.tensor(values, dtype=f64, requires_grad=grad)


class TestHarmonicLoss:
    def test_values_by_hand(self):
        # CE = ln 2 and L = ln 4: the factors are 1 + 1/4 and 1 + 1/2.
        cls_term, loc_term = harmonic_loss(column(math.log(2)), column(math.log(4)))
        assert cls_term.item() == pytest.approx(1.25 * math.log(2), rel=1e-14)
        assert loc_term.item() == pytest.approx(1.5 * math.log(4), rel=1e-14)

    def test_equals_naive_loop(self):
        ce, loc = torch.rand(2, 50, dtype=f64) * 6
        terms = torch.stack(harmonic_loss(ce, loc), dim=1)
        torch.testing.assert_close(terms, column(*reference.harmonic(ce.tolist(), loc.tolist())), rtol=1e-12, atol=0)

    def test_gradient_by_the_score_is_equation_7(self):
        # d/dp = L - (1 + e^-L) / p, with the plain cross-entropy CE = -ln p.
        p, loc = (
            grid.flatten()
            for grid in torch.meshgrid(
                torch.linspace(0.02, 0.98, 25, dtype=f64), torch.linspace(0.0, 4.0, 21, dtype=f64), indexing='ij'
            )
        )
        p.requires_grad_()
        total = sum(term.sum() for term in harmonic_loss(-p.log(), loc))
        (grad,) = torch.autograd.grad(total, p)
        torch.testing.assert_close(grad, loc - (1 + torch.exp(-loc)) / p.detach(), rtol=0, atol=1e-10)

    def test_harmonic_factor_of_the_regression_is_the_score(self):
        # Eq. 5: for the plain cross-entropy beta_c is p, so handing p over changes nothing.
        p, loc = column(0.2, 0.7, 0.99), column(0.5, 1.5, 0.1)
        for by_loss, by_score in zip(harmonic_loss(-p.log(), loc), harmonic_loss(-p.log(), loc, score=p)):
            torch.testing.assert_close(by_loss, by_score, rtol=1e-14, atol=0)

    def test_situations_of_section_3_1(self):
        # (1) both good, (2) class good, box bad, (3) class bad, box good, (4) both bad.
        ce, loc = column(0.1, 0.1, 3.0, 3.0), column(0.1, 3.0, 0.1, 3.0)
        cls_term, loc_term = harmonic_loss(ce, loc)
        of_cls, of_loc = (cls_term / ce - 1).tolist(), (loc_term / loc - 1).tolist()  # beta_r, beta_c
        assert of_cls[0] == pytest.approx(of_cls[2])
        assert of_loc[0] == pytest.approx(of_loc[1])
        assert of_cls[0] > 0.9
        assert of_loc[0] > 0.9
        assert of_loc[1] > 0.9
        assert of_cls[1] < 0.1
        assert of_cls[2] > 0.9
        assert of_loc[2] < 0.1
        assert of_cls[3] < 0.1
        assert of_loc[3] < 0.1

    @pytest.mark.parametrize(('p', 'loc'), [(0.1, 0.5), (0.1, 1.0), (0.25, 0.01), (0.25, 0.5), (0.5, 0.1), (0.9, 2.0)])
    def test_regression_gradient_reverses_where_ce_times_exp_minus_l_exceeds_one_plus_p(self, p, loc):
        ce, loc = column(-math.log(p)), column(loc, grad=True)
        (attached,) = torch.autograd.grad(sum(harmonic_loss(ce, loc)), loc)
        reversed_ = ce.item() * math.exp(-loc.item()) > 1 + p
        assert (attached < 0).item() == reversed_
        assert attached.item() == pytest.approx(1 + p + math.log(p) * math.exp(-loc.item()), rel=1e-12)
        (detached,) = torch.autograd.grad(sum(harmonic_loss(ce, loc, detach_factors=True)), loc)
        assert detached.item() == pytest.approx(1 + p, rel=1e-12)

    def test_some_of_the_cases_above_reverse(self):
        assert -math.log(0.1) * math.exp(-0.5) > 1.1
        assert -math.log(0.5) * math.exp(-0.1) < 1.5

    def test_detached_factors_keep_the_value(self):
        ce, loc = column(0.3, 2.0, grad=True), column(1.0, 0.2, grad=True)
        attached, detached = harmonic_loss(ce, loc), harmonic_loss(ce, loc, detach_factors=True)
        assert all(torch.equal(*pair) for pair in zip(attached, detached))
        grads = torch.autograd.grad(sum(term.sum() for term in detached), (ce, loc))
        torch.testing.assert_close(grads[0], 1 + torch.exp(-loc), rtol=1e-14, atol=0)
        torch.testing.assert_close(grads[1], 1 + torch.exp(-ce), rtol=1e-14, atol=0)

    def test_gradcheck(self):
        ce, loc = (torch.rand(2, 6, dtype=f64) * 3).requires_grad_()
        assert torch.autograd.gradcheck(harmonic_loss, (ce.detach().requires_grad_(), loc.detach().requires_grad_()))

    def test_shapes_that_do_not_agree(self):
        with pytest.raises(ValueError, match=r'cls_loss \(2,\), loc_loss \(3,\)'):
            harmonic_loss(torch.zeros(2), torch.zeros(3))


class TestHIoULoss:
    @pytest.mark.parametrize(
        ('iou', 'gamma', 'value'),
        [(0.0, 0.8, 1.0), (1.0, 0.8, 0.0), (0.5, 1.0, 0.75), (0.5, 0.0, 0.5), (0.21, 0.5, 1.1 * 0.79)],
    )
    def test_values_by_hand(self, iou, gamma, value):
        assert hiou_loss(column(iou), gamma=gamma).item() == pytest.approx(value, rel=1e-14)

    def test_equals_naive_loop_and_default_is_the_papers(self):
        iou = torch.rand(50, dtype=f64)
        expected = column(*(reference.hiou(x, 0.8) for x in iou.tolist()))
        torch.testing.assert_close(hiou_loss(iou), expected, rtol=1e-13, atol=0)

    @pytest.mark.parametrize('gamma', [0.0, 0.5, 0.8, 1.0])
    def test_falls_with_the_iou(self, gamma):
        # Section 3.2: monotonic for gamma <= 1, here by its derivative.
        iou = torch.linspace(0, 1, 101, dtype=f64, requires_grad=True)
        (grad,) = torch.autograd.grad(hiou_loss(iou, gamma=gamma).sum(), iou)
        assert (grad <= 1e-15).all()

    def test_weighs_well_fitting_samples_more_than_the_iou_loss(self):
        iou = column(0.0, 0.25, 0.5, 0.75, 1.0, grad=True)
        (grad,) = torch.autograd.grad(hiou_loss(iou).sum(), iou)
        # (1 + iou)^-0.2 (0.2 + 1.8 iou), by hand
        expected = [(1 + x) ** -0.2 * (0.2 + 1.8 * x) for x in iou.tolist()]
        assert (-grad).tolist() == pytest.approx(expected, rel=1e-12)

    @pytest.mark.parametrize('gamma', [1.01, 2.0, -0.1, float('nan')])
    def test_other_gammas_are_errors(self, gamma):
        with pytest.raises(ValueError, match=f'gamma={gamma}'):
            hiou_loss(torch.zeros(1), gamma=gamma)


class TestEntropy:
    def test_values_by_hand(self):
        prob = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.25] * 4, [0.5, 0.5, 0.0, 0.0]], dtype=f64)
        torch.testing.assert_close(entropy(prob), column(0.0, math.log(4), math.log(2)), rtol=1e-14, atol=0)

    def test_equals_naive_loop(self):
        prob = torch.randn(20, 7, dtype=f64).softmax(dim=1)
        expected = column(*(reference.entropy(row) for row in prob.tolist()))
        torch.testing.assert_close(entropy(prob), expected, rtol=1e-12, atol=0)


class TestTaskContrastiveLoss:
    def test_values_by_hand(self):
        # Within the margin; 0.5 beyond it with a sure sample; 0.1 beyond it with two equal classes.
        loss = task_contrastive_loss(column(0.6, 0.9, 0.2), column(0.5, 0.2, 0.5), column(0.3, 0.0, math.log(2)))
        assert loss.tolist() == pytest.approx([0.0, 0.25, 0.1 / 3], rel=1e-12)

    def test_equals_naive_loop(self):
        prob = torch.randn(30, 5, dtype=f64).softmax(dim=1)
        score, iou = prob[:, 0], torch.rand(30, dtype=f64)
        expected = [
            reference.task_contrastive(*row, margin=0.2) for row in zip(score.tolist(), iou.tolist(), prob.tolist())
        ]
        loss = task_contrastive_loss(score, iou, entropy(prob))
        torch.testing.assert_close(loss, column(*expected), rtol=1e-11, atol=1e-15)

    @pytest.mark.parametrize('num_classes', [2, 21, 81])
    def test_weight_lies_between_one_over_one_plus_c_and_a_half(self, num_classes):
        sure, unsure = torch.eye(num_classes, dtype=f64)[:1], torch.full((1, num_classes), 1 / num_classes, dtype=f64)
        random = torch.randn(50, num_classes, dtype=f64).mul(3).softmax(dim=1)
        prob = torch.cat([sure, unsure, random])
        ones = torch.ones(len(prob), dtype=f64)
        weight = task_contrastive_loss(ones, 0 * ones, entropy(prob), margin=0.0)
        assert weight[0].item() == pytest.approx(0.5, rel=1e-12)
        assert weight[1].item() == pytest.approx(1 / (1 + num_classes), rel=1e-12)
        assert ((weight[2:] > weight[1]) & (weight[2:] < weight[0])).all()

    def test_gradient_flows_to_score_and_iou_and_not_through_the_weight(self):
        logits = torch.tensor([[2.0, 0.0, -1.0]], dtype=f64, requires_grad=True)
        score, iou = column(0.9, grad=True), column(0.3, grad=True)
        uncertain = entropy(logits.softmax(dim=1))
        loss = task_contrastive_loss(score, iou, uncertain)
        of_score, of_iou, of_logits = torch.autograd.grad(loss.sum(), (score, iou, logits), allow_unused=True)
        weight = 1 / (1 + math.exp(uncertain.item()))
        assert (of_score.item(), of_iou.item()) == pytest.approx((weight, -weight), rel=1e-12)
        assert of_logits is None

    def test_gradcheck(self):
        score, iou = column(0.9, 0.1, 0.5, grad=True), column(0.3, 0.8, 0.45, grad=True)
        constant = column(0.2, 1.0, 0.7)
        assert torch.autograd.gradcheck(lambda s, i: task_contrastive_loss(s, i, constant), (score, iou))

    @pytest.mark.parametrize('margin', [-0.1, float('inf'), float('nan')])
    def test_other_margins_are_errors(self, margin):
        with pytest.raises(ValueError, match=f'margin={margin}'):
            task_contrastive_loss(torch.zeros(1), torch.zeros(1), torch.zeros(1), margin=margin)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_extreme_values_stay_finite_in_half_precision(dtype):
    ce, loc = torch.tensor([0.0, 1e-4, 300.0], dtype=dtype), torch.tensor([300.0, 0.0, 1e-4], dtype=dtype)
    for tensor in (*harmonic_loss(ce, loc), hiou_loss(torch.tensor([0.0, 1.0], dtype=dtype))):
        assert tensor.isfinite().all()


def test_without_samples():
    empty = torch.zeros(0, requires_grad=True)
    total = sum(harmonic_loss(empty, empty)).sum() + hiou_loss(empty).sum()
    total = total + task_contrastive_loss(empty, empty, entropy(torch.zeros(0, 3))).sum()
    total.backward()
    assert total == 0


def test_samples_do_not_see_each_other():
    ce, loc, iou, score = torch.rand(4, 20, dtype=f64)
    prob = torch.randn(20, 5, dtype=f64).softmax(dim=1)
    order = torch.randperm(20)

    def values(at):
        cls_term, loc_term = harmonic_loss(ce[at], loc[at])
        return [cls_term, loc_term, hiou_loss(iou[at]), task_contrastive_loss(score[at], iou[at], entropy(prob[at]))]

    for permuted, plain in zip(values(order), values(torch.arange(20))):
        assert torch.equal(permuted, plain[order])
