"""``sync=True``: two processes with an image each have the losses and the gradient of one with both."""

from __future__ import annotations

import pytest
import torch
from two_processes import CASES, case_losses, losses_of_my_image, run_in_two

pytestmark = pytest.mark.slow  # the processes import mmdet


@pytest.fixture(scope='module')
def ranks(tmp_path_factory):
    return run_in_two(losses_of_my_image, tmp_path_factory.mktemp('ranks'))


def averaged(ranks, case):
    """What the optimiser sees: the mean of the losses and, as DDP takes it, of the gradients."""
    (one, one_grads), (two, two_grads) = (rank[case] for rank in ranks)
    losses = {key: (value + two[key]) / 2 for key, value in one.items()}
    return losses, [(first + second) / 2 for first, second in zip(one_grads, two_grads)]


def ids(case):
    name, sync, normalize, positives = case
    return f'{name}-{"sync" if sync else "alone"}-{"eq7" if normalize else "eq6"}-positives on {positives}'


@pytest.mark.parametrize('case', [case for case in CASES if case[1]], ids=ids)
def test_two_processes_are_one_batch(ranks, case):
    losses, grads = averaged(ranks, case)
    expected, expected_grads = case_losses(case, [0, 1])
    assert losses.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(losses[key], value, rtol=1e-7, atol=0)
    for got, want in zip(grads, expected_grads):
        torch.testing.assert_close(got, want, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize('case', [case for case in CASES if not case[1]], ids=ids)
def test_without_it_each_process_goes_by_itself(ranks, case):
    for rank in range(2):
        torch.testing.assert_close(ranks[rank][case], case_losses(case, [rank]))
    losses, _ = averaged(ranks, case)
    expected, _ = case_losses(case, [0, 1])
    assert abs(losses['loss_bbox'] / expected['loss_bbox'] - 1) > 1e-3


@pytest.mark.parametrize('case', [case for case in CASES if case[3] == 'first'], ids=ids)
def test_a_process_without_positives_has_finite_losses(ranks, case):
    losses, grads = ranks[1][case]
    assert losses.keys() == ranks[0][case][0].keys()
    assert losses['loss_bbox'] == 0
    assert all(value.isfinite().all() for value in [*losses.values(), *grads])
