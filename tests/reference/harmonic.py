"""The losses of paper B as loops over samples, Eq. 2-3, 8-10."""

from __future__ import annotations

import math


def harmonic(cls_losses, loc_losses):
    """Eq. 2-3: the two terms of each sample."""
    return [((1 + math.exp(-loc)) * ce, (1 + math.exp(-ce)) * loc) for ce, loc in zip(cls_losses, loc_losses)]


def hiou(iou, gamma):
    """Eq. 10 for one sample."""
    return (1 + iou) ** gamma * (1 - iou)


def entropy(probs):
    """Of one sample's class distribution, in nats."""
    return sum(-p * math.log(p) for p in probs if p > 0)


def task_contrastive(score, iou, probs, margin):
    """Eq. 8 for one sample."""
    return max(0.0, abs(score - iou) - margin) / (1 + math.exp(entropy(probs)))


def detector_terms(ce, bbox_losses, ious, scores, probs, beta_c=None):
    """Sums over positives of Eq. 12, with the paper's values: the part that Eq. 2 adds to the CE, L_loc, TC."""
    loc = [bbox + 1.5 * hiou(iou, 0.8) for bbox, iou in zip(bbox_losses, ious)]
    if beta_c is None:
        beta_c = [math.exp(-loss) for loss in ce]
    added = sum(math.exp(-loss_loc) * loss for loss, loss_loc in zip(ce, loc))
    loc_term = sum((1 + beta) * loss_loc for beta, loss_loc in zip(beta_c, loc))
    tc = sum(task_contrastive(*row, margin=0.2) for row in zip(scores, ious, probs))
    return added, loc_term, tc
