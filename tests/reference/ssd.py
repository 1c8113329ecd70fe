"""SSD's samples as loops over anchors and boxes: anchors, matching, encoding, mining (Liu et al. 2016, section 2.2)."""

from __future__ import annotations

import math
from typing import NamedTuple

from reference import anchors as reference_anchors
from reference.boxes import iou
from reference.iou_balanced import softmax_loss

STDS = (0.1, 0.1, 0.2, 0.2)


def box_shapes(min_size, max_size, ratios):
    """(width, height) of the anchors of a place: two squares, and each ratio of the smaller both ways round."""
    shapes = [(min_size, min_size), (math.sqrt(min_size * max_size),) * 2]
    for ratio in ratios:
        long, short = min_size * math.sqrt(ratio), min_size / math.sqrt(ratio)
        shapes += [(long, short), (short, long)]
    return shapes


def grid(size, stride, center, shapes):
    """Anchors of a square map, row by row."""
    found = []
    for row in range(size):
        for column in range(size):
            x, y = center + column * stride, center + row * stride
            found += [(x - w / 2, y - h / 2, x + w / 2, y + h / 2) for w, h in shapes]
    return found


def match(priors, boxes, positive=0.5):
    """Index of each anchor's box, or None: an overlap of 0.5, and the best anchor of each box; the later box wins."""
    table = [[iou(prior, box) for box in boxes] for prior in priors]
    owners = [row.index(max(row)) if boxes and max(row) >= positive else None for row in table]
    for number in range(len(boxes)):
        column = [row[number] for row in table]
        owners[column.index(max(column))] = number
    return owners


def encode(prior, box):
    return [delta / std for delta, std in zip(reference_anchors.encode(prior, box), STDS)]


class Positive(NamedTuple):
    logits: list[float]
    label: int
    pred: list[float]
    target: list[float]

    @property
    def cross_entropy(self):
        return softmax_loss(self.logits, self.label)


def samples(priors, logits, preds, boxes, labels):
    """Positives of an image, and the cross-entropies of its hardest negatives, three for each positive."""
    owners = match(priors, boxes)
    positives = [
        Positive(logits[i], labels[number], preds[i], encode(priors[i], boxes[number]))
        for i, number in enumerate(owners)
        if number is not None
    ]
    background = len(logits[0]) - 1
    negatives = [softmax_loss(row, background) for row, number in zip(logits, owners) if number is None]
    return positives, sorted(negatives, reverse=True)[: 3 * len(positives)]
