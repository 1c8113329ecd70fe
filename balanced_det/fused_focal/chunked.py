"""The pass over the negatives on a CPU: chunk by chunk, so that what is computed of a chunk stays in the cache."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from balanced_det.blocks import positive_inds

# Entries of a chunk: its buffers, half a megabyte each, fit the cache, and are large enough for torch to divide an
# operation among threads.
CHUNK = 2**17


def negative_sum(
    logits: Tensor,
    labels: Tensor,
    weight: Tensor | None,
    *,
    gamma: float,
    factor: float | Tensor,
    grad: Tensor | None = None,
) -> Tensor:
    r"""Sum of the focal loss of all entries but the positive ones.

    .. math:: factor \sum_{c \ne y_i} w_i \, p_{ic}^\gamma \, (-\log(1 - p_{ic})), \quad p = \sigma(x)

    Args:
        logits: Shape (n, C). Half precision is computed in float32.
        labels: Shape (n,); the entry (i, y_i) is left out where y_i is in [0, C).
        weight: Shape (n,), or None.
        gamma: Focusing exponent, at least 0.
        factor: Factor of the sum, a number or a scalar.
        grad: Shape (n, C), is filled with the gradient by the logits. None: no gradient.

    Returns:
        A scalar, float64.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    total = logits.new_zeros((), dtype=torch.float64)
    for chunk, prob, loss, focus in _with_buffers(_chunks(logits, labels, weight, grad), dtype):
        total += _chunk_sum(chunk, prob, loss, focus, gamma)
        if chunk.grad is not None:
            _fill_gradient(chunk, chunk.grad, prob, loss, focus, gamma, factor)
    return total * factor


def scale_(values: Tensor, factor: Tensor) -> None:
    """Multiply by a scalar in place, which mostly is 1."""
    if factor != 1:
        values.mul_(factor)


class _Chunk(NamedTuple):
    """Some rows; ``rows`` and ``classes`` are the positive entries among them."""

    logits: Tensor
    weight: Tensor | None
    rows: Tensor
    classes: Tensor
    grad: Tensor | None


def _chunks(logits: Tensor, labels: Tensor, weight: Tensor | None, grad: Tensor | None) -> Iterator[_Chunk]:
    if not logits.numel():
        return
    num_rows = max(1, CHUNK // logits.size(1))
    inds = positive_inds(labels, logits.size(1))
    pieces = logits.split(num_rows)
    starts = torch.arange(len(pieces) + 1) * num_rows
    cuts = torch.searchsorted(inds, starts).tolist()
    weights = [None] * len(pieces) if weight is None else _unless_ones(weight, num_rows)
    grads = [None] * len(pieces) if grad is None else grad.split(num_rows)
    for number, piece in enumerate(pieces):
        own = inds[cuts[number] : cuts[number + 1]]
        yield _Chunk(piece, weights[number], own - number * num_rows, labels[own], grads[number])


def _unless_ones(weight: Tensor, num_rows: int) -> list[Tensor | None]:
    """Weights of each chunk, (rows, 1); None where all are 1, which spares the multiplication."""
    padded = F.pad(weight != 1, (0, -len(weight) % num_rows))
    needed = padded.view(-1, num_rows).any(dim=1).tolist()
    return [piece[:, None] if need else None for piece, need in zip(weight.split(num_rows), needed)]


def _with_buffers(chunks: Iterable[_Chunk], dtype: torch.dtype) -> Iterator[tuple[_Chunk, Tensor, Tensor, Tensor]]:
    """Chunks, each with three buffers of its shape; the first is its gradient, where that has the type."""
    buffers = None
    for chunk in chunks:
        if buffers is None:  # the first chunk is the largest
            in_grad = chunk.grad is not None and chunk.grad.dtype == dtype
            buffers = chunk.logits.new_empty(2 if in_grad else 3, *chunk.logits.shape, dtype=dtype)
        own = buffers[:, : len(chunk.logits)]
        yield (chunk, chunk.grad, *own) if in_grad else (chunk, *own)


def _chunk_sum(chunk: _Chunk, prob: Tensor, loss: Tensor, focus: Tensor, gamma: float) -> Tensor:
    r"""Sum of :math:`w p^\gamma s`, s = softplus(x); leaves p, the loss and :math:`w p^\gamma` in the buffers."""
    logits = chunk.logits.to(prob.dtype)
    torch.sigmoid(logits, out=prob)
    torch.pow(prob, gamma, out=focus)
    if chunk.weight is not None:
        focus.mul_(chunk.weight)
    torch.logaddexp(logits, logits.new_zeros(()), out=loss).mul_(focus)  # softplus; torch's own has no public out
    if len(chunk.rows):
        loss[chunk.rows, chunk.classes] = 0
    return loss.sum()


def _fill_gradient(
    chunk: _Chunk, grad: Tensor, prob: Tensor, loss: Tensor, focus: Tensor, gamma: float, factor: float | Tensor
) -> None:
    r"""Gradient :math:`w p^\gamma (p + \gamma (1 - p) s)` from what :func:`_chunk_sum` left; uses the buffers up."""
    focus.mul_(prob)
    complement = torch.sub(prob.new_ones(()), prob, out=prob)
    torch.mul(focus.addcmul_(loss, complement, value=gamma), factor, out=grad)
    if len(chunk.rows):
        grad[chunk.rows, chunk.classes] = 0
