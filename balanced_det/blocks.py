"""Blocks of rows that follow one another, as the levels of a pyramid do, and are not laid in one tensor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor


def take(blocks: Sequence[Tensor], inds: Tensor) -> Tensor:
    """Rows of the blocks, by their index in all of them.

    How many of the rows a block has is not asked of the device, which the host would have to wait for.

    Args:
        blocks: Shapes (n_k, ...).
        inds: Shape (P,).

    Returns:
        Shape (P, ...), as ``torch.cat(blocks)[inds]``.

    *Gradient*: flows to the blocks.
    """
    if len(blocks) == 1 or not any(map(len, blocks)):
        return concatenated(blocks)[inds]
    taken = blocks[0].new_zeros((len(inds), *blocks[0].shape[1:]))
    for block, rows, inside in by_block(blocks, inds):
        taken = torch.where(inside.view(-1, *[1] * (block.ndim - 1)), block[rows], taken)
    return taken


def by_block(blocks: Sequence[Tensor], inds: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Where the rows at these indices are in each block.

    Args:
        blocks: Shapes (n_k, ...).
        inds: Shape (P,).

    Yields:
        A block that has rows; the row in it for each index, (P,), any one where it has none; and whether it has it.
    """
    start = 0
    for block in blocks:
        rows = inds - start
        start += len(block)
        if len(block):
            yield block, rows.clamp(0, len(block) - 1), (rows >= 0) & (rows < len(block))


def concatenated(blocks: Sequence[Tensor]) -> Tensor:
    """One tensor of all rows; without a copy where there is one block."""
    return blocks[0] if len(blocks) == 1 else torch.cat(list(blocks))


def positive_inds(labels: Tensor, num_classes: int, count: int | None = None) -> Tensor:
    """Indices of the positive samples, ascending.

    Args:
        labels: Shape (n,), class index; what is not in [0, num_classes) is no positive.
        num_classes: Number of classes, the label of the background.
        count: How many there are, if that is known, exactly: then the host need not wait until a GPU has counted them.

    Returns:
        Shape (P,).
    """
    positive = (labels >= 0) & (labels < num_classes)
    if count is not None:
        try:
            return torch.nonzero_static(positive, size=count).squeeze(1)
        except (AttributeError, NotImplementedError):  # an older torch knows it not at all, or not on a GPU
            pass
    return positive.nonzero().squeeze(1)
