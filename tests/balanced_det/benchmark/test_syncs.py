"""Operations for which a host would wait for a GPU, made by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from balanced_det.benchmark.syncs import count_syncs
from balanced_det.blocks import positive_inds
from balanced_det.fused_focal import chunked

X = torch.tensor([3.0, -1.0, 2.0])
MASK, INDS = X > 0, torch.tensor([0, 2])
LABELS = torch.tensor([0, 2, 1])


def assign(index, value):
    x = X.clone()
    x[index] = value


def backward_of(function):
    x = X.clone().requires_grad_()
    torch.autograd.grad(function(x).sum(), x)


@pytest.mark.parametrize(
    ('step', 'waits'),
    [
        (lambda: X[MASK], 1),
        (lambda: X[INDS], 0),
        (lambda: X[1:].sum() * 2, 0),
        (lambda: torch.where(MASK, X, 0), 0),
        (lambda: X.masked_fill(MASK, 0), 0),
        (lambda: X.masked_select(MASK), 1),
        (lambda: X.nonzero(), 1),
        (lambda: torch.where(MASK), 1),
        (lambda: LABELS.unique(), 1),
        (lambda: LABELS.bincount(), 1),
        (lambda: X.topk(2), 0),
        (lambda: X.sum().item(), 1),
        (lambda: float(X.sum()) + int(X[0]), 2),
        (lambda: 1 if X.any() else 0, 1),
        (lambda: X.tolist(), 1),
        (lambda: X.cpu(), 1),
        (lambda: assign(MASK, 0.0), 0),  # a masked_fill
        (lambda: assign(MASK, X[INDS]), 1),
        (lambda: assign(INDS, X[INDS]), 0),
        (lambda: torch.equal(X, X), 1),
        (lambda: F.one_hot(LABELS, num_classes=3), 0),  # on a GPU it does not look at the labels
        (lambda: backward_of(lambda x: x[MASK]), 2),  # forward, and the gradient is put back by the mask
        (lambda: backward_of(lambda x: x[INDS]), 0),
    ],
)
def test_known_operations(step, waits):
    assert sum(count_syncs(step).values()) == waits


def test_operations_are_named_and_those_of_a_folder_can_be_left_out():
    def step():
        chunked.negative_sum(X[:, None], LABELS, None, gamma=2.0, factor=1.0)
        return positive_inds(LABELS, 2), X.max().item()

    alone = {'aten.nonzero': 1, 'aten._local_scalar_dense': 1}
    assert count_syncs(step, ignored=Path(chunked.__file__).parent) == alone
    assert sum(count_syncs(step).values()) > 2
