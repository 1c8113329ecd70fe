"""RefineDet (Zhang et al. 2018) as loops in float64: anchors, refinement, matching, mining, losses, detections."""

from __future__ import annotations

import math
from typing import NamedTuple

from reference.boxes import decode, iou
from reference.iou_balanced import smooth_l1, softmax_loss
from reference.ssd import STDS, encode, match

STRIDES = (8, 16, 32, 64)


class Image(NamedTuple):
    """Both heads' outputs of one image, a row for each anchor, and its ground truth."""

    anchors: list
    arm_logits: list  # of an object, of background
    arm_deltas: list
    logits: list  # of each class, of background
    deltas: list
    boxes: list
    labels: list

    @property
    def objectness(self):
        return [softmax(row)[0] for row in self.arm_logits]

    @property
    def refined(self):
        return [decode(*row, STDS) for row in zip(self.anchors, self.arm_deltas)]


class Mined(NamedTuple):
    """Samples of one image: what a head learns from."""

    owner: dict  # positive -> its box
    negatives: list

    def targets(self, priors, boxes):
        """Encoded deltas of the positives."""
        return [encode(priors[i], boxes[number]) for i, number in sorted(self.owner.items())]


def softmax(row):
    top = max(row)
    parts = [math.exp(x - top) for x in row]
    return [part / sum(parts) for part in parts]


def rows(maps, image, width):
    """The maps (N, anchors * width, H, W) of one image as a row for each anchor: levels, then y, x, anchor."""
    found = []
    for level in maps:
        values = level[image].double().tolist()
        for y in range(len(values[0])):
            for x in range(len(values[0][0])):
                for anchor in range(len(values) // width):
                    found.append([values[anchor * width + k][y][x] for k in range(width)])
    return found


def anchors(sizes):
    """Three at each place: area (4 * stride) ** 2, height by width 1, 2, 1/2; centres half a stride from the border."""
    found = []
    for stride, (height, width) in zip(STRIDES, sizes):
        for y in range(height):
            for x in range(width):
                for ratio in (1.0, 2.0, 0.5):
                    half_w, half_h = 2 * stride / math.sqrt(ratio), 2 * stride * math.sqrt(ratio)
                    cx, cy = (x + 0.5) * stride, (y + 0.5) * stride
                    found.append((cx - half_w, cy - half_h, cx + half_w, cy + half_h))
    return found


def mine(priors, logits, boxes, eligible, ratio=3):
    """Positives, and ``ratio`` times as many of the negatives that may be mined, of the largest cross-entropy."""
    owner = {i: number for i, number in enumerate(match(priors, boxes)) if number is not None}
    background = len(logits[0]) - 1
    losses = {i: softmax_loss(row, background) for i, row in enumerate(logits) if i not in owner and eligible[i]}
    hardest = sorted(losses, key=losses.get, reverse=True)
    return Mined(owner, hardest[: ratio * len(owner)])


def mine_odm(image, threshold=0.01):
    """The samples of the detection head."""
    eligible = [value >= threshold for value in image.objectness]
    return mine(image.refined, image.logits, image.boxes, eligible)


def mine_arm(image):
    """The samples of the refinement head: every negative is eligible, every box an object."""
    return mine(image.anchors, image.arm_logits, image.boxes, [True] * len(image.anchors))


def divisor(mined):
    """mmdet's: positives, at least one for each image."""
    return sum(max(len(samples.owner), 1) for samples in mined)


def odm_samples(images, mined):
    """Logits and labels of the mined samples, deltas and targets of the positives; positives first, image by image."""
    logits, labels, deltas, targets = [], [], [], []
    for image, samples in zip(images, mined):
        inds = sorted(samples.owner)
        logits += [image.logits[i] for i in [*inds, *samples.negatives]]
        labels += [image.labels[samples.owner[i]] for i in inds]
        labels += [len(image.logits[0]) - 1] * len(samples.negatives)
        deltas += [image.deltas[i] for i in inds]
        targets += samples.targets(image.refined, image.boxes)
    return logits, labels, deltas, targets


def arm_samples(images, mined):
    """The same of the refinement head."""
    images = [
        image._replace(logits=image.arm_logits, deltas=image.arm_deltas, labels=[0] * len(image.boxes))
        for image in images
    ]
    logits, labels, deltas, _ = odm_samples(images, mined)
    targets = [row for image, samples in zip(images, mined) for row in samples.targets(image.anchors, image.boxes)]
    return logits, labels, deltas, targets


def losses(samples, factor, beta=1.0):
    """Softmax cross-entropy and smooth L1, each by the divisor."""
    logits, labels, deltas, targets = samples
    loss_cls = sum(softmax_loss(row, label) for row, label in zip(logits, labels))
    loss_bbox = sum(smooth_l1(p - t, beta) for row in zip(deltas, targets) for p, t in zip(*row))
    return loss_cls / factor, loss_bbox / factor


class Detection(NamedTuple):
    score: float
    label: int
    box: tuple


def candidates(image, size, threshold=0.01, score_thr=0.01):
    """Every class of every anchor that is no easy negative and has the score, by anchor."""
    found = []
    for objectness, prior, row, delta in zip(image.objectness, image.refined, image.logits, image.deltas):
        height, width = size
        box = [min(max(value, 0.0), limit) for value, limit in zip(decode(prior, delta, STDS), (width, height) * 2)]
        scores = softmax(row)[:-1] if objectness >= threshold else []
        found.append([Detection(score, k, tuple(box)) for k, score in enumerate(scores) if score > score_thr])
    return found


def detect(per_anchor, counts, nms_pre=1000, overlap=0.45, keep=500):
    """The ``nms_pre`` best of each level, non-maximum suppression in each class, the ``keep`` best."""
    pool, start = [], 0
    for count in counts:
        level = [detection for found in per_anchor[start : start + count] for detection in found]
        pool += sorted(level, reverse=True)[:nms_pre]
        start += count
    kept = []
    for one in sorted(pool, reverse=True):
        if all(one.label != other.label or iou(one.box, other.box) <= overlap for other in kept):
            kept.append(one)
    return kept[:keep]
