"""RetinaNet's matched anchors of an image, as loops: anchors, overlaps, assignment, encoding (Lin et al. 2017)."""

from __future__ import annotations

import math

from reference.boxes import iou

STRIDES = (8, 16, 32, 64, 128)


def resized(size, boxes, scale):
    """Image (height, width) and boxes after a resize that keeps the ratio; ``scale`` is (long edge, short edge)."""
    height, width = size
    factor = min(max(scale) / max(size), min(scale) / min(size))
    new_height, new_width = int(height * factor + 0.5), int(width * factor + 0.5)
    by = (new_width / width, new_height / height) * 2
    limits = (new_width, new_height) * 2
    return (new_height, new_width), [
        tuple(min(max(value * b, 0.0), limit) for value, b, limit in zip(box, by, limits)) for box in boxes
    ]


def anchors(size, divisor=32):
    """All anchors of an image that is padded to a multiple of ``divisor``: 3 scales and 3 ratios at each place."""
    height, width = (math.ceil(side / divisor) * divisor for side in size)
    found = []
    for stride in STRIDES:
        for row in range(math.ceil(height / stride)):
            for column in range(math.ceil(width / stride)):
                for ratio in (0.5, 1.0, 2.0):
                    for octave in range(3):
                        side = stride * 4 * 2 ** (octave / 3)
                        w, h = side / math.sqrt(ratio) / 2, side * math.sqrt(ratio) / 2
                        x, y = column * stride, row * stride
                        found.append((x - w, y - h, x + w, y + h))
    return found


def assign(priors, boxes, positive=0.5):
    """Pairs (anchor, box, overlap, whether only as the best of its box) of the positives."""
    table = [[iou(prior, box) for box in boxes] for prior in priors]
    owner = {}
    for index, row in enumerate(table):
        if max(row) >= positive:
            owner[index] = (row.index(max(row)), False)
    for number in range(len(boxes)):
        best = max(row[number] for row in table)
        for index, row in enumerate(table):
            if row[number] == best > 0:
                owner[index] = (number, max(row) < positive)
    return [(priors[i], boxes[n], table[i][n], forced) for i, (n, forced) in owner.items()]


def encode(anchor, box):
    """R-CNN parametrisation of a box relative to an anchor."""
    (ax, ay, aw, ah), (bx, by, bw, bh) = (
        ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1) for x1, y1, x2, y2 in (anchor, box)
    )
    return (bx - ax) / aw, (by - ay) / ah, math.log(bw / aw), math.log(bh / ah)
