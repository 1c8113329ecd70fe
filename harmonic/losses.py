"""The losses of :mod:`harmonic.functional` as registered mmdet modules."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmdet.models.losses.utils import weight_reduce_loss
from mmdet.registry import MODELS
from torch import Tensor, nn

from balanced_det.boxes import aligned_iou, finite_rows
from harmonic.functional import entropy, harmonic_loss, hiou_loss, task_contrastive_loss


@MODELS.register_module()
class HIoULoss(nn.Module):
    r"""Harmonic IoU loss of decoded boxes, Eq. 10: a ``loss_bbox`` for heads with ``reg_decoded_bbox=True``.

    .. math:: L_{HIoU} = (1 + IoU)^\gamma (1 - IoU)

    The paper adds it to smooth L1 (Eq. 11), which is what :class:`HarmonicDetLoss` does; this is the loss alone.

    Args:
        gamma: Focus on well-fitting samples, in [0, 1]; 0 is the IoU loss, Eq. 9.
        reduction: 'none', 'mean' or 'sum'.
        loss_weight: Factor of the loss.
    """

    takes_boxes = True  # for the check that a head hands over decoded boxes

    def __init__(self, gamma: float = 0.8, reduction: str = 'mean', loss_weight: float = 1.0) -> None:
        super().__init__()
        self.gamma = _gamma(gamma)
        self.reduction = reduction
        self.loss_weight = loss_weight

    def forward(
        self,
        pred: Tensor,
        target: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | None = None,
        reduction_override: str | None = None,
        **kwargs: object,
    ) -> Tensor:
        """Loss of a set of boxes.

        Args:
            pred: Shape (n, 4), xyxy, absolute pixels. Half precision is computed in float32.
            target: Shape (n, 4), as ``pred``. A pair that is not finite is left out.
            weight: Shape (n,) or (n, 4), weight of each box.
            avg_factor: Divisor of the sum under ``reduction='mean'``; None is the number of boxes.
            reduction_override: 'none', 'mean' or 'sum' in place of the module's own.
            **kwargs: Taken and ignored, as mmdet's IoU losses do.

        Returns:
            A scalar, or shape (n,) for reduction 'none'.
        """
        reduction = reduction_override or self.reduction
        if not len(pred) and reduction != 'none':
            return pred.sum() * 0  # the mean of nothing would be NaN
        inds = finite_rows(pred.detach(), target).nonzero().squeeze(1)
        of_finite = hiou_loss(aligned_iou(pred[inds], target[inds]), gamma=self.gamma)
        loss = of_finite.new_zeros(len(pred)).index_put((inds,), of_finite)
        if weight is not None and weight.ndim > 1:
            weight = weight.mean(dim=1)
        return self.loss_weight * weight_reduce_loss(loss, weight, reduction, avg_factor)


class HarmonicTerms(NamedTuple):
    """Loss of each positive, shape (P,), in its three parts: Eq. 12.

    Attributes:
        cls: The classification term.
        loc: The localisation term.
        tc: The task-contrastive loss; zeros if it is switched off.
    """

    cls: Tensor
    loc: Tensor
    tc: Tensor


@MODELS.register_module()
class HarmonicDetLoss(nn.Module):
    r"""HarmonicDet: couples the two losses of each positive sample, Eq. 12.

    .. math:: L = (1 + \beta_r) \, CE + (1 + \beta_c) \, L_{loc} + L_{TC}, \quad
              L_{loc} = \text{smooth}_{L1} + \alpha L_{HIoU}, \quad \beta_r = e^{-L_{loc}}, \quad \beta_c = e^{-CE}

    A block ``loss_joint`` beside the ``loss_cls`` and ``loss_bbox`` of a Harmonic head, whose per-sample values are CE
    and smooth L1. The parts can be switched one by one, which gives the rows of the paper's Tables 3 to 5; with all off
    it is the stock loss.

    Args:
        harmonic: Eq. 2-3, the two factors.
        hiou: Add the HIoU loss, Eq. 10-11.
        tc: Add the task-contrastive loss, Eq. 8.
        alpha: Weight of the HIoU loss, at least 0.
        gamma: Exponent of the HIoU loss, in [0, 1]; 0 is the IoU loss, Eq. 9.
        margin: Difference of score and IoU that the task-contrastive loss tolerates, at least 0.
        detach_factors: Take the factors of Eq. 3 as constants. The paper differentiates them (Eq. 4-7), which reverses
            the gradient at the boxes of samples with :math:`CE \, e^{-L_{loc}} > 1 + \beta_c`.
        cls_factor: What :math:`\beta_c` is: 'loss', Eq. 3, with the head's own classification loss (a focal loss too),
            or 'score', Eq. 5, the predicted probability of the ground-truth class. Softmax cross-entropy makes no
            difference.
        avg: What a head divides by: 'head', as the stock head does, or 'positives', Eq. 13.
        fused: Compute a stock ``FocalLoss`` of a head in one pass over the logits
            (:func:`balanced_det.fused_focal.focal_negatives`), which takes a fraction of its time and memory and cannot
            be differentiated twice.
    """

    def __init__(
        self,
        harmonic: bool = True,
        hiou: bool = True,
        tc: bool = True,
        alpha: float = 1.5,
        gamma: float = 0.8,
        margin: float = 0.2,
        detach_factors: bool = False,
        cls_factor: str = 'loss',
        avg: str = 'head',
        fused: bool = True,
    ) -> None:
        super().__init__()
        self.harmonic, self.hiou, self.tc = bool(harmonic), bool(hiou), bool(tc)
        self.alpha = _at_least_0('alpha', alpha)
        self.gamma = _gamma(gamma)
        self.margin = _at_least_0('margin', margin)
        self.detach_factors = bool(detach_factors)
        self.cls_factor = _choice('cls_factor', cls_factor, ('loss', 'score'))
        self.avg = _choice('avg', avg, ('head', 'positives'))
        self.fused = bool(fused)
        self.num_left_out: Tensor | int = 0  # samples that a head leaves out as not finite

    def forward(
        self,
        cls_loss: Tensor,
        bbox_loss: Tensor,
        iou: Tensor,
        score: Tensor,
        prob: Tensor,
        keep: Tensor | None = None,
    ) -> HarmonicTerms:
        """Terms of a set of positives, without weights or reduction.

        Args:
            cls_loss: Shape (P,), classification loss of the ground-truth class.
            bbox_loss: Shape (P,), smooth L1 summed over the four coordinates.
            iou: Shape (P,), in [0, 1], IoU of the regressed boxes with their ground truth.
            score: Shape (P,), predicted probability of the ground-truth class.
            prob: Shape (P, C), distribution over the classes, each row with the sum 1; that is not checked here.
            keep: Shape (P,), bool, which samples count; the terms of the others are 0. None: all.

        Returns:
            The terms; gradients flow to ``cls_loss``, ``bbox_loss``, ``iou`` and ``score``.
        """
        loc_loss = self.loc_loss(bbox_loss, iou)
        cls_term, loc_term = cls_loss, loc_loss
        if self.harmonic:
            beta_c = score if self.cls_factor == 'score' else None
            cls_term, loc_term = harmonic_loss(cls_loss, loc_loss, score=beta_c, detach_factors=self.detach_factors)
        tc = torch.zeros_like(cls_loss)
        if self.tc:
            tc = task_contrastive_loss(score, iou, entropy(prob.detach(), validate=False), margin=self.margin)
        terms = HarmonicTerms(cls_term, loc_term, tc)
        return terms if keep is None else HarmonicTerms(*(term.where(keep, 0) for term in terms))

    def loc_loss(self, bbox_loss: Tensor, iou: Tensor) -> Tensor:
        """Full localisation loss of each positive, Eq. 11; (P,), (P,) -> (P,)."""
        return bbox_loss + self.alpha * hiou_loss(iou, gamma=self.gamma) if self.hiou else bbox_loss

    @torch.no_grad()
    def factors(self, cls_loss: Tensor, bbox_loss: Tensor, iou: Tensor, score: Tensor) -> tuple[Tensor, Tensor]:
        r"""The factors :math:`\beta_r`, :math:`\beta_c` of Eq. 3, each (P,), to look at; arguments as ``forward``."""
        beta_c = score if self.cls_factor == 'score' else torch.exp(-cls_loss)
        return torch.exp(-self.loc_loss(bbox_loss, iou)), beta_c


def class_probabilities(cls_score: Tensor, labels: Tensor, *, use_sigmoid: bool) -> tuple[Tensor, Tensor]:
    """Score of the ground-truth class, and the class distribution whose entropy Eq. 8 takes.

    Args:
        cls_score: Shape (P, C), logits; of a softmax head with the background as a class.
        labels: Shape (P,), ground-truth class.
        use_sigmoid: Whether the scores are sigmoids. They do not sum to 1; their distribution is each by their sum.

    Returns:
        The score, shape (P,), and the distribution, shape (P, C).
    """
    # Each sigmoid by their sum, in logarithms: all of them may underflow.
    prob = (F.logsigmoid(cls_score) if use_sigmoid else cls_score).softmax(dim=1)
    own = labels[:, None]
    score = cls_score.gather(1, own).sigmoid() if use_sigmoid else prob.gather(1, own)
    return score.squeeze(1), prob


def _gamma(gamma: float) -> float:
    hiou_loss(torch.zeros(0), gamma=gamma)  # raises the error with its reason
    return float(gamma)


def _at_least_0(name: str, value: float) -> float:
    if not (isinstance(value, (int, float)) and math.isfinite(value) and value >= 0):
        raise ValueError(f'{name}={value!r} (config key loss_joint.{name}) must be a finite number of at least 0')
    return float(value)


def _choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ValueError(f'{name}={value!r} (config key loss_joint.{name}) is not one of {", ".join(choices)}')
    return value
