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
