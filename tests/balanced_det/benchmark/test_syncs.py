"""Operations for which a host would wait for a GPU, made by hand."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F

from balanced_det.benchmark.syncs import count_cuda_syncs, count_syncs
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


def test_operations_are_named_and_those_of_a_module_can_be_left_out():
    def step():
        chunked.negative_sum(X[:, None], LABELS, None, gamma=2.0, factor=1.0)
        return positive_inds(LABELS, 2), X.max().item()

    alone = {'aten.nonzero': 1, 'aten._local_scalar_dense': 1}
    assert count_syncs(step, ignored=chunked.__file__) == alone
    assert sum(count_syncs(step).values()) > 2


def test_cuda_is_counted_without_its_notice_of_a_prototype(monkeypatch):
    """Texts of torch, of which the first comes with the first change of the mode in a process."""
    modes = []

    def change(mode):
        modes.append(mode)
        warnings.warn(
            'Synchronization debug mode is a prototype feature and does not yet detect all synchronizing operations',
            stacklevel=1,
        )

    def step():
        for _ in range(3):
            warnings.warn(
                'called a synchronizing CUDA operation (Triggered internally at CUDAFunctions.cpp)', stacklevel=1
            )
        warnings.warn('something else', stacklevel=1)

    monkeypatch.setattr(torch.cuda, 'get_sync_debug_mode', lambda: 0)
    monkeypatch.setattr(torch.cuda, 'set_sync_debug_mode', change)
    assert count_cuda_syncs(step) == 3
    assert modes == ['warn', 0]
