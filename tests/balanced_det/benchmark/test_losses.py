"""The cases of the part ``loss`` are the losses that they are called."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from mmdet.registry import MODELS

import iou_balanced  # noqa: F401  registers the loss
from balanced_det.benchmark import losses
from balanced_det.benchmark.losses import (
    BALANCED,
    FUSED,
    STOCK,
    authors_focal_loss,
    loss_cases,
    make_problem,
)
from balanced_det.benchmark.measure import peak_memory


@pytest.fixture(scope='module')
def problem():
    return make_problem(num_anchors=2000, num_classes=8, num_positives=30)


def test_problem_is_what_its_documentation_says(problem):
    positive = problem.labels < 8
    assert positive.sum() == problem.num_positives == 30
    assert (problem.weight == 0).sum() == 100
    assert problem.weight[positive].min() == 1
    assert abs(problem.logits.mean() + 4) < 0.05
    labels_of_boxes = set(zip(problem.boxes.tolist(), problem.labels[positive].tolist()))
    assert len(labels_of_boxes) == len(problem.boxes.unique())  # a box has one class


@pytest.mark.parametrize('fused', [True, False])
@pytest.mark.parametrize('eta', [0.0, 1.5])
def test_the_authors_formulation_is_the_same_loss(problem, fused, eta):
    problem = replace(problem, logits=problem.logits.detach().double().requires_grad_(), weight=problem.weight.double())
    module = MODELS.build(dict(BALANCED, eta=eta, fused=fused))
    actual = module(problem.logits, (problem.labels, problem.iou), problem.weight, avg_factor=30)
    expected = authors_focal_loss(problem, eta)
    torch.testing.assert_close(actual.double(), expected, rtol=1e-6, atol=0)
    grads = [torch.autograd.grad(loss, problem.logits)[0] for loss in (actual, expected)]
    torch.testing.assert_close(*grads, rtol=0, atol=1e-6 * grads[1].abs().max().item())


def test_without_balance_all_cases_have_the_gradient_of_the_stock_loss(problem):
    cases = loss_cases(problem)
    (expected,) = cases[STOCK]()
    for name in ('eta=0', 'eta=0, fused=False'):
        torch.testing.assert_close(cases[name]()[0], expected, rtol=0, atol=1e-6 * expected.abs().max().item())


def test_peers_reach_the_logits_and_their_own_inputs(problem):
    cases = loss_cases(problem)
    for name in ('PISA: ISR-P, FocalLoss, CARL', 'GFL: QFL, DFL'):
        weight = problem.weight.clone()
        for grad in cases[name]():
            assert grad.isfinite().all()
            assert grad.abs().sum() > 0
        assert torch.equal(problem.weight, weight)


def test_the_fused_loss_holds_its_gradient_and_little_else():
    """Of these 6 MB the buffers of a chunk, two of half a megabyte, are 0.16."""
    cases = loss_cases(make_problem(num_anchors=20_000, num_positives=50))
    stock, fused = (peak_memory(cases[name], torch.device('cpu')) / (20_000 * 80 * 4) for name in (STOCK, FUSED))
    assert 1 <= fused < 1.2
    assert stock > 4


def test_rows_of_a_smoke_run():
    rows = list(losses.measure_losses(torch.device('cpu'), rounds=2, quick=True))
    assert {row['group'] for row in rows} == {'2000 anchors, 8 classes, 20 positives'}
    assert rows[0]['case'] == STOCK
    assert all(len(row['seconds']) == 2 for row in rows)
    assert rows[-1]['memory'] == pytest.approx(1, abs=1e-3)  # the copy
