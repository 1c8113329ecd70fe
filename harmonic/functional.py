"""The mathematics of *HarmonicDet* (Wang and Zhang): per-sample losses of positives, no reduction.

Equation numbers are those of the paper. P is the number of positive samples.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SUM_TOLERANCE = 1e-2  # probabilities of half precision miss a sum of 1 by less


def harmonic_loss(
    cls_loss: Tensor, loc_loss: Tensor, *, score: Tensor | None = None, detach_factors: bool = False
) -> tuple[Tensor, Tensor]:
    r"""Harmonic loss, Eq. 2-3: each task weighs the other by how well it is doing itself.

    .. math:: L = (1 + \beta_r) \, CE + (1 + \beta_c) \, L_{loc}, \quad
              \beta_r = e^{-L_{loc}}, \quad \beta_c = e^{-CE}

    Args:
        cls_loss: Shape (P,), classification loss of each positive, at least 0.
        loc_loss: Shape (P,), localisation loss of each positive, at least 0.
        score: Shape (P,), takes the place of :math:`\beta_c`. Eq. 5 has :math:`\beta_c = p`, which is the same for the
            plain cross-entropy and another factor for the focal loss.
        detach_factors: Take the two factors as constants.

    Returns:
        The classification and the localisation term, each of shape (P,).

    *Gradient*: flows through the factors too, as Eq. 4-7 differentiate them. So the classification is taught by the
    localisation loss, and the other way round: the derivative by :math:`L_{loc}` is
    :math:`1 + \beta_c - CE \, e^{-L_{loc}}`, negative where :math:`CE \, e^{-L_{loc}} > 1 + \beta_c`. There the
    loss falls as the box gets worse; ``detach_factors`` excludes that.

    Example:
        >>> harmonic_loss(torch.tensor([0.0]), torch.tensor([1.0]))
        (tensor([0.]), tensor([2.]))
    """
    _check_vectors(cls_loss=cls_loss, loc_loss=loc_loss)
    beta_r, beta_c = torch.exp(-loc_loss), torch.exp(-cls_loss) if score is None else score
    if detach_factors:
        beta_r, beta_c = beta_r.detach(), beta_c.detach()
    return (1 + beta_r) * cls_loss, (1 + beta_c) * loc_loss


def hiou_loss(iou: Tensor, *, gamma: float = 0.8) -> Tensor:
    r"""Harmonic IoU loss, Eq. 10.

    .. math:: L_{HIoU} = (1 + IoU)^\gamma (1 - IoU)

    With ``gamma=0`` it is the IoU loss, Eq. 9.

    Args:
        iou: Shape (P,), IoU of the regressed boxes with their ground truth, in [0, 1].
        gamma: Focus on well-fitting samples, in [0, 1]. Above 1 the loss rises with the IoU of badly fitting samples.

    Returns:
        Shape (P,).

    Raises:
        ValueError: ``gamma`` is outside [0, 1].

    *Gradient*: of the whole expression, :math:`(1 + IoU)^{\gamma - 1} (\gamma - 1 - (\gamma + 1) IoU)`, which is at
    most 0 if and only if gamma is at most 1. With a constant factor there would be no such bound.

    Example:
        >>> hiou_loss(torch.tensor([0.0, 0.5, 1.0]), gamma=1.0)
        tensor([1.0000, 0.7500, 0.0000])
    """
    if not 0 <= gamma <= 1:
        raise ValueError(
            f'gamma={gamma!r} must be in [0, 1]: above 1 the HIoU loss is not monotonic, and rises with the IoU of '
            'badly fitting boxes'
        )
    return (1 + iou).pow(gamma) * (1 - iou)


def entropy(prob: Tensor, *, validate: bool = True) -> Tensor:
    r"""Entropy of each sample's class distribution, the exponent of Eq. 8.

    .. math:: H = -\sum_k p_k \ln p_k

    Args:
        prob: Shape (P, C), probabilities; each row sums to 1. :math:`0 \ln 0` counts as 0.
        validate: Check the sums, for which the host waits for a GPU.

    Returns:
        Shape (P,), nats, in [0, ln C].

    Raises:
        ValueError: A row is no distribution.

    *Gradient*: flows to ``prob``; it is infinite where a probability is 0.

    Example:
        >>> entropy(torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
        tensor([0.0000, 0.6931])
    """
    if validate:
        _check_distributions(prob)
    return torch.special.entr(prob).sum(dim=-1)


def task_contrastive_loss(score: Tensor, iou: Tensor, entropy: Tensor, *, margin: float = 0.2) -> Tensor:
    r"""Task-contrastive loss, Eq. 8: score and IoU may differ by a margin.

    .. math:: L_{TC} = \frac{1}{1 + e^H} \max(0, |p - IoU| - margin)

    Args:
        score: Shape (P,), predicted probability p of the ground-truth class.
        iou: Shape (P,), IoU of the regressed boxes with their ground truth, in [0, 1].
        entropy: Shape (P,), H in nats. The weight lies in [1 / (1 + C), 1 / 2]: a sure sample counts more.
        margin: Difference that costs nothing, at least 0.

    Returns:
        Shape (P,).

    Raises:
        ValueError: ``margin`` is negative or not finite.

    *Gradient*: flows to ``score`` and ``iou``; the weight is a constant.

    Example:
        >>> task_contrastive_loss(torch.tensor([0.9]), torch.tensor([0.5]), torch.tensor([0.0]))
        tensor([0.1000])
    """
    if not (math.isfinite(margin) and margin >= 0):
        raise ValueError(f'margin={margin!r} must be a finite number of at least 0')
    _check_vectors(score=score, iou=iou, entropy=entropy)
    weight = 1 / (1 + torch.exp(entropy.detach()))
    return weight * torch.relu((score - iou).abs() - margin)


def _check_distributions(prob: Tensor) -> None:
    sums = prob.sum(dim=-1)
    off = sums[(sums - 1).abs() > SUM_TOLERANCE]  # not of NaN: that is no wrong distribution, but no number at all
    if len(off):
        raise ValueError(f'each row of prob must be a distribution with the sum 1, got a sum of {off[0].item():.6g}')


def _check_vectors(**tensors: Tensor) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != 1 for shape in shapes.values()):
        listed = ', '.join(f'{name} {shape}' for name, shape in shapes.items())
        raise ValueError(f'one value for each positive sample is needed, all of one shape (P,); got {listed}')
