"""Weights of Eq. 4, 6 and 7: values by hand, the naive loops, and what the paper says of them."""

from __future__ import annotations

import pytest
import torch
from reference import iou_balanced as reference

from iou_balanced.functional import iou_balanced_weight, iou_normalized_weight, iou_power_weight

f64 = torch.float64


def samples(n=40):
    return torch.rand(n, dtype=f64), torch.rand(n, dtype=f64) * 3


def test_values_by_hand():
    # iou (1/4, 1), CE (2, 1), eta 1: factor (2 + 1) / (1/4 * 2 + 1 * 1) = 2, weights 1/2 and 2.
    iou, loss = torch.tensor([0.25, 1.0]), torch.tensor([2.0, 1.0])
    torch.testing.assert_close(iou_balanced_weight(iou, loss, eta=1.0), torch.tensor([0.5, 2.0]))
    torch.testing.assert_close(iou_normalized_weight(iou, loss, lambda_=1.0), torch.tensor([0.5, 2.0]))
    # (1/4)^1.5 = 1/8.
    torch.testing.assert_close(iou_power_weight(iou), torch.tensor([0.125, 1.0]))


def test_exponent_zero_is_exactly_one():
    iou, loss = samples()
    iou[0] = 0.0
    for weight in (
        iou_balanced_weight(iou, loss, eta=0.0),
        iou_normalized_weight(iou, loss, lambda_=0.0),
        iou_power_weight(iou, lambda_=0.0),
    ):
        assert torch.equal(weight, torch.ones_like(iou))


@pytest.mark.parametrize('exponent', [0.5, 1.3, 1.5])
def test_equals_naive_loop(exponent):
    iou, loss = samples()
    expected = torch.tensor(reference.balanced_weights(iou.tolist(), loss.tolist(), exponent), dtype=f64)
    torch.testing.assert_close(iou_balanced_weight(iou, loss, eta=exponent), expected)
    torch.testing.assert_close(iou_normalized_weight(iou, loss, lambda_=exponent), expected)


def test_normaliser_keeps_the_sum():
    iou, loss = samples()
    torch.testing.assert_close((iou_balanced_weight(iou, loss) * loss).sum(), loss.sum())


def test_weights_rise_with_iou_and_follow_a_permutation():
    iou, loss = samples()
    order = iou.argsort()
    assert (iou_balanced_weight(iou, loss)[order].diff() > 0).all()
    assert (iou_power_weight(iou)[order].diff() > 0).all()
    shuffle = torch.randperm(len(iou))
    torch.testing.assert_close(
        iou_balanced_weight(iou[shuffle], loss[shuffle]), iou_balanced_weight(iou, loss)[shuffle]
    )


def test_scale_of_the_loss_cancels():
    iou, loss = samples()
    torch.testing.assert_close(iou_balanced_weight(iou, loss * 1e-6), iou_balanced_weight(iou, loss))


def test_weights_are_constants():
    iou, loss = (tensor.requires_grad_() for tensor in samples())
    for weight in (iou_balanced_weight(iou, loss), iou_normalized_weight(iou, loss), iou_power_weight(iou)):
        assert not weight.requires_grad


@pytest.mark.parametrize(
    ('iou', 'loss'),
    [
        pytest.param([0.0, 0.0], [1.0, 2.0], id='nothing overlaps'),
        pytest.param([0.5, 0.9], [0.0, 0.0], id='no loss'),
        pytest.param([1e-30, 1e-30], [1.0, 2.0], id='quotient would overflow'),
    ],
)
def test_samples_that_cannot_be_told_apart_weigh_one(iou, loss):
    weight = iou_balanced_weight(torch.tensor(iou), torch.tensor(loss))
    assert torch.equal(weight, torch.ones(2))


def test_sample_without_iou_gets_no_weight():
    weight = iou_balanced_weight(torch.tensor([torch.nan, 0.5]), torch.tensor([1.0, 1.0]))
    torch.testing.assert_close(weight, torch.tensor([0.0, 2.0]))


def test_one_positive_weighs_one_and_none_is_fine():
    torch.testing.assert_close(iou_balanced_weight(torch.tensor([0.3]), torch.tensor([2.0])), torch.ones(1))
    assert iou_balanced_weight(torch.zeros(0), torch.zeros(0)).shape == (0,)


def test_reduce_sees_the_sums_of_all_processes():
    iou, loss = samples()
    halves = [(iou[:15], loss[:15]), (iou[15:], loss[15:])]
    sums = [torch.stack([part_loss.sum(), (part_iou**1.5 * part_loss).sum()]) for part_iou, part_loss in halves]
    mean = torch.stack(sums).mean(dim=0)
    together = torch.cat([iou_balanced_weight(*half, reduce=lambda _: mean) for half in halves])
    torch.testing.assert_close(together, iou_balanced_weight(iou, loss))
