"""Rows of blocks are those of the concatenated tensor, with their gradient."""

from __future__ import annotations

import pytest
import torch

from balanced_det.blocks import positive_inds, take

LABELS = torch.tensor([3, 0, -1, 2, 3, 1])


@pytest.mark.parametrize('sizes', [(6,), (2, 4), (0, 1, 0, 5), (3, 0, 3)])
@pytest.mark.parametrize('inds', [[], [0], [1, 3, 5], [5, 0, 0]])
def test_take_equals_indexing_of_one_tensor(sizes, inds):
    whole, inds = torch.randn(6, 2, requires_grad=True), torch.tensor(inds, dtype=torch.long)
    blocks = [block.detach().requires_grad_() for block in whole.split(sizes)]
    taken, expected = take(blocks, inds), whole[inds]
    assert torch.equal(taken, expected)
    weights = torch.randn_like(expected)
    (taken * weights).sum().backward()
    (expected * weights).sum().backward()
    assert torch.equal(torch.cat([block.grad for block in blocks if len(block)]), whole.grad)


@pytest.mark.parametrize('count', [None, 3])
def test_positives(count):
    assert positive_inds(LABELS, 3, count).tolist() == [1, 3, 5]


@pytest.mark.parametrize('error', [AttributeError, NotImplementedError])
def test_positives_where_torch_cannot_take_their_number(error, monkeypatch):
    def missing(*args, **kwargs):
        raise error

    monkeypatch.setattr(torch, 'nonzero_static', missing)
    assert positive_inds(LABELS, 3, 3).tolist() == [1, 3, 5]


def test_no_positives():
    assert positive_inds(torch.tensor([3, -1]), 3, 0).shape == (0,)
