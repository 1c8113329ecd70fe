"""The mathematics of *IoU-balanced loss functions* (Wu et al.): per-sample weights, no reduction.

Equation numbers are those of the paper. P is the number of positive samples.
"""

from __future__ import annotations

from typing import Callable, Optional

import torch
from torch import Tensor

Reduce = Optional[Callable[[Tensor], Tensor]]


def iou_balanced_weight(iou: Tensor, loss: Tensor, *, eta: float = 1.5, reduce: Reduce = None) -> Tensor:
    r"""Weights of the IoU-balanced classification loss, Eq. 4.

    .. math:: w_i = iou_i^\eta \, \frac{\sum_j CE_j}{\sum_j iou_j^\eta \, CE_j}

    The normaliser keeps the sum: :math:`\sum_i w_i CE_i = \sum_i CE_i`. With ``eta=0`` each weight is exactly 1. Where
    the denominator is 0 (no positive overlaps its target, or no loss) the samples cannot be told apart, and each
    weight is 1, the value for any set of equal IoUs.

    Args:
        iou: Shape (P,), IoU of the regressed boxes with their ground truth, in [0, 1]. NaN counts as 0.
        loss: Shape (P,), classification loss of the positives, at least 0.
        eta: Focus on well-fitting samples, at least 0.
        reduce: Takes the two sums of the normaliser, shape (2,), to their sum or mean over all processes, so that j
            runs over the positives of all of them. None: those of this process.

    Returns:
        Shape (P,), the dtype of ``loss`` promoted with that of ``iou``.

    *Gradient*: none; the weights are constants.

    Example:
        >>> iou_balanced_weight(torch.tensor([0.25, 1.0]), torch.tensor([2.0, 1.0]), eta=1.0)
        tensor([0.5000, 2.0000])
    """
    powered, loss = iou.detach().nan_to_num(nan=0.0).pow(eta), loss.detach()
    sums = torch.stack([loss.sum(), (powered * loss).sum()])
    total, kept = sums if reduce is None else reduce(sums)
    separable = kept > total * torch.finfo(kept.dtype).tiny  # else the quotient below overflows, or is 0 / 0
    return torch.where(separable, powered * (total / kept), torch.ones_like(powered))


def iou_power_weight(iou: Tensor, *, lambda_: float = 1.5) -> Tensor:
    r"""Weights of the IoU-balanced localisation loss without their constant factor, Eq. 6.

    .. math:: w_i = iou_i^\lambda

    The factor :math:`w_{loc}` of Eq. 6 is the ``loss_weight`` of the loss. With ``lambda_=0`` each weight is exactly 1.

    Args:
        iou: Shape (P,), IoU of the regressed boxes with their ground truth, in [0, 1].
        lambda_: Focus on well-fitting samples, at least 0.

    Returns:
        Shape (P,).

    *Gradient*: none; the weights are constants (text above Eq. 8).

    Example:
        >>> iou_power_weight(torch.tensor([0.25, 1.0]), lambda_=1.5)
        tensor([0.1250, 1.0000])
    """
    return iou.detach().pow(lambda_)


def iou_normalized_weight(iou: Tensor, loss: Tensor, *, lambda_: float = 1.5, reduce: Reduce = None) -> Tensor:
    r"""Weights of the IoU-balanced localisation loss that keep its sum in every iteration, Eq. 7.

    .. math:: w_i = iou_i^\lambda \, \frac{\sum_j L_j}{\sum_j iou_j^\lambda \, L_j}

    with :math:`L_j` the smooth L1 loss of sample j summed over its four coordinates. It is Eq. 4 with another loss and
    another exponent; the paper finds it slightly inferior to a fixed factor.

    Args:
        iou: Shape (P,), IoU of the regressed boxes with their ground truth, in [0, 1].
        loss: Shape (P,), localisation loss of the positives, at least 0.
        lambda_: Focus on well-fitting samples, at least 0.
        reduce: As for :func:`iou_balanced_weight`.

    Returns:
        Shape (P,).

    *Gradient*: none; the weights are constants.
    """
    return iou_balanced_weight(iou, loss, eta=lambda_, reduce=reduce)
