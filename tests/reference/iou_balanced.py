"""The IoU-balanced losses of paper A as loops over samples, Eq. 1-7."""

from __future__ import annotations

import math

from reference.boxes import delta_iou


def balanced_weights(ious, losses, exponent):
    """Eq. 4 (with eta and the classification losses) and Eq. 7 (with lambda and the localisation losses)."""
    kept = sum(iou**exponent * loss for iou, loss in zip(ious, losses))
    return [iou**exponent * sum(losses) / kept for iou in ious]


def log_sigmoid(x):
    return -math.log1p(math.exp(-x)) if x > 0 else x - math.log1p(math.exp(x))


def focal_entry(logit, is_target, gamma=2.0, alpha=0.25):
    """Sigmoid focal loss of one class of one sample (Lin et al. 2017, Eq. 5)."""
    sign, factor = (1, alpha) if is_target else (-1, 1 - alpha)
    log_p = log_sigmoid(sign * logit)
    return -factor * (1 - math.exp(log_p)) ** gamma * log_p


def binary_entry(logit, is_target):
    """Eq. 1 for one class of one sample."""
    return -log_sigmoid(logit if is_target else -logit)


def softmax_loss(logits, label):
    return math.log(sum(math.exp(x) for x in logits)) - logits[label]


def classification(logits, labels, ious, entry, eta, num_classes, weights=None):
    """Eq. 3: sum over samples and classes; Eq. 4 on the ground-truth entry of the positives."""
    weights = weights or [1.0] * len(labels)
    positives = [i for i, label in enumerate(labels) if label < num_classes and weights[i] > 0]
    own = [weights[i] * entry(logits[i][labels[i]], True) for i in positives]
    balance = dict(zip(positives, balanced_weights([ious[i] for i in positives], own, eta)))
    total = 0.0
    for i, label in enumerate(labels):
        for k in range(num_classes):
            factor = balance[i] if i in balance and k == label else 1.0
            total += weights[i] * factor * entry(logits[i][k], k == label)
    return total


def softmax_classification(logits, labels, ious, eta, num_classes, weights=None):
    """Eq. 3-4 on the softmax cross-entropy; the last logit is the background's."""
    weights = weights or [1.0] * len(labels)
    losses = [w * softmax_loss(row, label) for w, row, label in zip(weights, logits, labels)]
    positives = [i for i, label in enumerate(labels) if label < num_classes and weights[i] > 0]
    balance = balanced_weights([ious[i] for i in positives], [losses[i] for i in positives], eta)
    for i, factor in zip(positives, balance):
        losses[i] *= factor
    return sum(losses)


def smooth_l1(x, beta):
    """Eq. 2."""
    return x * x / (2 * beta) if abs(x) <= beta else abs(x) - beta / 2


def localisation(preds, targets, beta, lambda_, stds=(1.0,) * 4, normalize=False):
    """Eq. 5 with Eq. 6 (w_loc 1) or, normalised, Eq. 7."""
    losses = [sum(smooth_l1(p - t, beta) for p, t in zip(pred, target)) for pred, target in zip(preds, targets)]
    ious = [delta_iou(pred, target, stds) for pred, target in zip(preds, targets)]
    weights = balanced_weights(ious, losses, lambda_) if normalize else [iou**lambda_ for iou in ious]
    return sum(weight * loss for weight, loss in zip(weights, losses))
