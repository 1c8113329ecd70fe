"""The pass over the negatives as a differentiable function of the logits, and the loss of the positives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.models.losses.utils import weight_reduce_loss
from torch import Tensor

from balanced_det.blocks import by_block, take
from balanced_det.fused_focal import chunked, triton_kernels


def focal_negatives(
    cls_scores: Sequence[Tensor],
    labels: Tensor,
    inds: Tensor,
    weight: Tensor | None = None,
    *,
    gamma: float = 2.0,
    alpha: float = 0.25,
    scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    r"""Focal loss of all entries but the positive ones, and the logits of those.

    .. math:: (1 - \alpha) \, scale \sum_{c \ne y_i} w_i \, p_{ic}^\gamma \, (-\log(1 - p_{ic})), \quad p = \sigma(x)

    Neither a one-hot target nor a map of the losses is made: one pass over the logits sums the loss and writes the
    gradient. (Of half precision a second pass does, in the backward pass.) The loss of the positives is the caller's to
    compute, from the second result.

    Args:
        cls_scores: Blocks of logits, shapes (n_k, C), that follow one another, n rows in all, on a device on which the
            pass :func:`runs_on`. Half precision is computed in float32.
        labels: Shape (n,), class index; a row whose label is not in [0, C) has no positive entry.
        inds: Shape (P,), the rows that have one.
        weight: Shape (n,), weight of each row, a constant; None: 1.
        gamma: Focusing exponent, at least 0.
        alpha: Weight of the positives, in [0, 1]; that of the negatives is 1 - alpha.
        scale: Factor of the sum.

    Returns:
        The sum, a scalar, and the logits of the positive entries, shape (P,); float32 at least.

    Raises:
        RuntimeError: In a backward pass that is to be differentiated itself.

    *Gradient*: of both results to the logits, once.
    """
    # Inside of the function the gradient mode is off.
    wants_grad = torch.is_grad_enabled() and any(score.requires_grad for score in cls_scores)
    targets = _Targets(labels, weight, inds, labels[inds], gamma, (1 - alpha) * scale)
    return _FocalNegatives.apply(targets, wants_grad, *(score.contiguous() for score in cls_scores))


def runs_on(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether there is a fused pass for logits of a type on a device: CPUs, and GPUs on which Triton works."""
    return device.type == 'cpu' or (device.type == 'cuda' and triton_kernels.works_on(device, dtype))


def positive_focal_loss(logits: Tensor, *, gamma: float = 2.0, alpha: float = 0.25) -> Tensor:
    r"""Focal loss of positive entries, :math:`\alpha (1 - p)^\gamma (-\log p)`; the shape of ``logits``."""
    return -alpha * torch.sigmoid(-logits).pow(gamma) * F.logsigmoid(logits)


def sum_factor(reduction: str, avg_factor: float | None, num_entries: int) -> float:
    """What mmdet's reduction of a loss multiplies the sum of its entries by; arguments as ``weight_reduce_loss``."""
    if reduction == 'mean' and avg_factor is None:
        return 1 / max(num_entries, 1)
    # numpy's 1 can be summed as a loss can, and is known without asking a device.
    return float(weight_reduce_loss(np.float64(1), None, reduction, avg_factor))


class _Targets(NamedTuple):
    """What the loss needs besides the logits; ``inds`` and ``classes`` are the positive entries."""

    labels: Tensor
    weight: Tensor | None
    inds: Tensor
    classes: Tensor
    gamma: float
    factor: float

    def split(self, blocks: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
        """Logits, labels and weight of each block."""
        sizes = [len(block) for block in blocks]
        weights = [None] * len(blocks) if self.weight is None else self.weight.split(sizes)
        return zip(blocks, self.labels.split(sizes), weights)


class _FocalNegatives(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, targets: _Targets, wants_grad: bool, *blocks: Tensor) -> tuple[Tensor, Tensor]:
        backend = _backend(blocks)
        dtype = torch.promote_types(blocks[0].dtype, torch.float32)
        ctx.targets, ctx.grads = targets, None
        ctx.save_for_backward(*blocks)
        outs: list[Tensor | None] = [None] * len(blocks)
        # The gradient costs little beside the loss. In half precision it waits for the factor that comes with the
        # backward pass: a gradient scaler's keeps it from vanishing.
        if wants_grad and blocks[0].dtype == dtype:
            ctx.grads = outs = [torch.empty_like(block) for block in blocks]
        sums = [
            backend.negative_sum(*block, gamma=targets.gamma, factor=targets.factor, grad=out)
            for block, out in zip(targets.split(blocks), outs)
        ]
        return torch.stack(sums).sum().to(dtype), _entries(targets, blocks).to(dtype)

    @staticmethod
    def backward(ctx: Any, grad_sum: Tensor, grad_entries: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                'the fused focal loss cannot be differentiated twice: set fused=False in its block (loss_cls; '
                'loss_joint in a Harmonic head), or do without create_graph=True'
            )
        targets, blocks = ctx.targets, ctx.saved_tensors
        backend = _backend(blocks)
        grads, ctx.grads = ctx.grads, None
        if grads is None:  # also in a second pass over a graph that was retained
            grads = [torch.empty_like(block) for block in blocks]
            factor = targets.factor * grad_sum
            for block, grad in zip(targets.split(blocks), grads):
                backend.negative_sum(*block, gamma=targets.gamma, factor=factor, grad=grad)
        else:
            for grad in grads:
                backend.scale_(grad, grad_sum)
        _add_to_entries(grads, targets, grad_entries)
        return (None, None, *grads)


def _backend(blocks: Sequence[Tensor]) -> ModuleType:
    return chunked if blocks[0].device.type == 'cpu' else triton_kernels


def _entries(targets: _Targets, blocks: Sequence[Tensor]) -> Tensor:
    """Logits of the positive entries, (P,)."""
    return take(blocks, targets.inds).gather(1, targets.classes[:, None]).squeeze(1)


def _add_to_entries(blocks: Sequence[Tensor], targets: _Targets, values: Tensor) -> None:
    """Add to the positive entries, (P,)."""
    for block, rows, inside in by_block(blocks, targets.inds):
        own = torch.where(inside, values, 0).to(block.dtype)
        block.index_put_((rows, targets.classes), own, accumulate=True)
