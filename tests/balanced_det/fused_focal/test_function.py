"""The fused pass against the formula, entry by entry in float64, and what autograd asks of it."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from balanced_det.fused_focal import chunked, focal_negatives, positive_focal_loss
from balanced_det.fused_focal import function as module

f64 = torch.float64
C = 5


def batch(n=23, dtype=torch.float32, spread=3.0):
    """Logits, labels with ignored and background rows, the rows with a positive, weights with zeros."""
    labels = torch.randint(-1, C + 1, (n,))
    weight = torch.rand(n) * (torch.rand(n) < 0.7)
    inds = ((labels >= 0) & (labels < C)).nonzero().squeeze(1)
    return torch.randn(n, C).mul(spread).to(dtype), labels, inds, weight


def formula(scores, labels, weight, gamma, alpha=0.25):
    """Map of the losses of the negatives, 0 at the positives."""
    prob = scores.sigmoid()
    negative = torch.ones_like(scores)
    for row, label in enumerate(labels.tolist()):
        if 0 <= label < C:
            negative[row, label] = 0
    return (1 - alpha) * weight[:, None] * prob**gamma * F.softplus(scores) * negative


def expected_of(scores, labels, weight, gamma):
    exact = scores.detach().to(f64).requires_grad_()
    total = formula(exact, labels, weight.to(f64), gamma).sum()
    return total.detach(), torch.autograd.grad(total, exact)[0]


@pytest.fixture(params=[2**17, 20], ids=['one chunk', 'many chunks'])
def _chunks(request, monkeypatch):
    monkeypatch.setattr(chunked, 'CHUNK', request.param)


@pytest.mark.usefixtures('_chunks')
@pytest.mark.parametrize('gamma', [0.0, 1.0, 2.0, 2.5])
@pytest.mark.parametrize('factor', [1.0, 3.0])
def test_equals_the_formula(gamma, factor):
    scores, labels, inds, weight = batch()
    scores.requires_grad_()
    total, logits = focal_negatives([scores], labels, inds, weight, gamma=gamma)
    assert torch.equal(logits, scores[inds, labels[inds]])
    (factor * total).backward()
    value, grad = expected_of(scores, labels, weight, gamma)
    torch.testing.assert_close(total.to(f64), value, rtol=1e-6, atol=0)
    torch.testing.assert_close(scores.grad.to(f64), factor * grad, rtol=0, atol=1e-6 * factor * grad.abs().max().item())


@pytest.mark.usefixtures('_chunks')
def test_weights_of_one_are_no_weights():
    scores, labels, inds, _ = batch()
    ones, none = (focal_negatives([scores], labels, inds, weight)[0] for weight in (torch.ones(23), None))
    assert torch.equal(ones, none)
    assert none > 0


@pytest.mark.usefixtures('_chunks')
def test_gradcheck_of_both_results():
    # Also: it differentiates one graph again and again, while the gradient of the forward pass serves once.
    scores, labels, inds, weight = batch(n=9, dtype=f64)

    def both(*blocks):
        return focal_negatives(blocks, labels, inds, weight.to(f64), gamma=2.5, scale=0.7)

    blocks = [block.clone().requires_grad_() for block in (scores[:4], scores[4:])]
    assert torch.autograd.gradcheck(both, blocks)


def test_blocks_equal_one_tensor():
    scores, labels, inds, weight = batch()
    blocks = [scores[:6].clone(), scores[6:6].clone(), scores[6:].clone()]
    for block in (*blocks, scores):
        block.requires_grad_()
    of_blocks, of_one = (focal_negatives(given, labels, inds, weight) for given in (blocks, [scores]))
    for results, leaves in ((of_blocks, blocks), (of_one, [scores])):
        (results[0] + results[1].square().sum()).backward()
        assert all(leaf.grad.shape == leaf.shape for leaf in leaves)
    torch.testing.assert_close(of_blocks, of_one)
    torch.testing.assert_close(torch.cat([block.grad for block in blocks]), scores.grad)


def test_rows_that_are_no_block_of_memory():
    scores, labels, inds, weight = batch()
    spread = torch.zeros(23, 2 * C)[:, ::2].copy_(scores).requires_grad_()
    total, _ = focal_negatives([spread], labels, inds, weight)
    total.backward()
    value, grad = expected_of(scores, labels, weight, 2.0)
    torch.testing.assert_close(total.to(f64), value, rtol=1e-6, atol=0)
    torch.testing.assert_close(spread.grad.to(f64), grad, rtol=0, atol=1e-6 * grad.abs().max().item())


def test_a_graph_that_was_retained():
    scores, labels, inds, weight = batch()
    scores.requires_grad_()
    total, logits = focal_negatives([scores], labels, inds, weight)
    both = total + positive_focal_loss(logits).sum()
    first = torch.autograd.grad(both, scores, retain_graph=True)[0].clone()
    second = torch.autograd.grad(2 * both, scores)[0]
    torch.testing.assert_close(second, 2 * first)


def test_one_result_alone():
    scores, labels, inds, weight = batch()
    scores.requires_grad_()
    total, logits = focal_negatives([scores], labels, inds, weight)
    (of_logits,) = torch.autograd.grad(logits.sum(), scores, retain_graph=True)
    expected = torch.zeros_like(scores).index_put((inds, labels[inds]), torch.ones(len(inds)))
    assert torch.equal(of_logits, expected)
    (of_total,) = torch.autograd.grad(total, scores)
    assert (of_total[inds, labels[inds]] == 0).all()


def test_second_derivatives_are_refused():
    scores, labels, inds, weight = batch()
    scores.requires_grad_()
    total, _ = focal_negatives([scores], labels, inds, weight)
    with pytest.raises(RuntimeError, match='set fused=False'):
        torch.autograd.grad(total, scores, create_graph=True)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    scores, labels, inds, weight = batch(dtype=dtype)
    scores.requires_grad_()
    # Without the factor of a gradient scaler these gradients vanish in float16.
    total, _ = focal_negatives([scores], labels, inds, weight, scale=1e-8)
    (2.0**20 * total).backward()
    value, grad = expected_of(scores, labels, weight, 2.0)
    assert total.dtype == torch.float32
    torch.testing.assert_close(total.to(f64), 1e-8 * value, rtol=1e-6, atol=0)
    rounding = torch.finfo(dtype).eps
    tiny = torch.finfo(dtype).tiny
    torch.testing.assert_close(scores.grad.to(f64), 2.0**20 * 1e-8 * grad, rtol=rounding, atol=tiny)


@pytest.mark.parametrize('extreme', [1e4, 88.0, 30.0, -30.0, -88.0, -1e4])
def test_extreme_logits(extreme):
    scores = torch.full((3, C), extreme, requires_grad=True)
    total, logits = focal_negatives([scores], torch.tensor([0, C, -1]), torch.tensor([0]))
    (total + positive_focal_loss(logits).sum()).backward()
    # 14 negatives: 3/4 p^2 softplus(x); x for large x, e^(3 x) for small ones; derivatives 1 and 3 e^(3 x).
    small = math.exp(3 * extreme) if extreme < 0 else 0.0
    value, slope = (extreme, 1.0) if extreme > 0 else (small, 3 * small)
    assert total.item() == pytest.approx(14 * 0.75 * value, rel=1e-6, abs=1e-37)
    assert scores.grad[1:].flatten().tolist() == pytest.approx([0.75 * slope] * 10, rel=1e-6, abs=1e-37)
    assert scores.grad[0, 0].isfinite()


def test_nothing_to_sum():
    for n, columns in ((0, C), (4, 0)):
        scores = torch.zeros(n, columns, requires_grad=True)
        total, logits = focal_negatives([scores], torch.full((n,), columns), torch.zeros(0, dtype=torch.long))
        (total + logits.sum()).backward()
        assert total == 0
        assert scores.grad.shape == scores.shape


def test_without_gradient_no_gradient_is_made(monkeypatch):
    scores, labels, inds, weight = batch()
    asked = []
    original = chunked.negative_sum
    monkeypatch.setattr(
        module.chunked, 'negative_sum', lambda *a, grad=None, **kw: asked.append(grad) or original(*a, grad=grad, **kw)
    )
    focal_negatives([scores], labels, inds, weight)
    with torch.no_grad():
        focal_negatives([scores.requires_grad_()], labels, inds, weight)
    assert asked == [None, None]
