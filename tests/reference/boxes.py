"""IoU of two boxes by hand, and of two delta vectors on a given anchor."""

from __future__ import annotations

import math


def iou(box, other):
    """xyxy boxes, four floats each."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    intersection = max(width, 0.0) * max(height, 0.0)
    areas = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, other)]
    return intersection / (sum(areas) - intersection)


def decode(anchor, delta, stds):
    """R-CNN parametrisation (Girshick et al. 2014): centre shift in anchor sizes, log of the size ratio."""
    dx, dy, dw, dh = (value * std for value, std in zip(delta, stds))
    width, height = anchor[2] - anchor[0], anchor[3] - anchor[1]
    x, y = (anchor[0] + anchor[2]) / 2 + dx * width, (anchor[1] + anchor[3]) / 2 + dy * height
    width, height = width * math.exp(dw), height * math.exp(dh)
    return (x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def delta_iou(pred, target, stds=(1.0,) * 4, anchor=(10.0, -3.0, 47.0, 16.0)):
    return iou(decode(anchor, pred, stds), decode(anchor, target, stds))
