"""COCO's average precision as a plain loop over boxes, for one class, with VOC's `difficult`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Box = Sequence[float]


class Image(NamedTuple):
    """Ground truth and detections of one image; boxes xyxy, absolute pixels."""

    boxes: list[Box]
    difficult: list[bool]
    detections: list[Box]
    scores: list[float]


def iou(a: Box, b: Box) -> float:
    """IoU of two boxes of positive area."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (areas - width * height)


def average_precision(images: list[Image], threshold: float) -> float:
    """Mean over recalls 0, 0.01, ..., 1 of the best precision at that recall or a higher one."""
    outcomes = [outcome for image in images for outcome in _outcomes(image, threshold)]
    outcomes.sort(key=lambda outcome: -outcome[0])
    positives = sum(not flag for image in images for flag in image.difficult)
    curve, true, false = [], 0, 0
    for _, found in outcomes:
        true, false = true + found, false + (not found)
        curve.append((true / positives, true / (true + false)))
    total = 0.0
    for recall in np.linspace(0, 1, 101):
        total += max((precision for reached, precision in curve if reached >= recall), default=0.0)
    return total / 101


def _outcomes(image: Image, threshold: float) -> list[tuple[float, bool]]:
    """(score, is it a true positive) of each detection that counts; best score first gets its choice."""
    outcomes, taken = [], set()
    for index in sorted(range(len(image.scores)), key=lambda i: -image.scores[i]):
        overlaps = [iou(image.detections[index], box) for box in image.boxes]
        free = [
            (overlap, k)
            for k, overlap in enumerate(overlaps)
            if overlap >= threshold and not image.difficult[k] and k not in taken
        ]
        if free:
            taken.add(max(free)[1])
            outcomes.append((image.scores[index], True))
        elif not any(o >= threshold and flag for o, flag in zip(overlaps, image.difficult)):
            outcomes.append((image.scores[index], False))
    return outcomes
