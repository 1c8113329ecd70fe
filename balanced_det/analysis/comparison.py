"""Detectors compared: accuracy at several IoU thresholds and the correlation of score and IoU."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from balanced_det.evaluation import MatchedDetections, match_detections, precision_at, score_iou_correlation

#: Columns of the table: AP in percent, and the correlation.
THRESHOLDS = (0.5, 0.75, 0.85, 0.9)
CORRELATION = 'r(score, IoU)'


def load(annotations: Path, predictions: Path) -> tuple[COCO, COCO]:
    """Ground truth and detections of one run, without pycocotools' prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = COCO(str(annotations))
        return ground_truth, ground_truth.loadRes(str(predictions))


def measure(annotations: Path, predictions: Path) -> tuple[dict[str, float], MatchedDetections]:
    """Accuracy of one run.

    Args:
        annotations: COCO annotation file.
        predictions: Detections in COCO's result format.

    Returns:
        AP, AP50, AP75, AP85, AP90 in percent and the correlation of score and IoU; and score and IoU of each
        detection.
    """
    ground_truth, detections = load(annotations, predictions)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(ground_truth, detections, 'bbox')
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    values = {'AP': 100 * evaluation.stats[0]}
    values.update({f'AP{round(100 * iou)}': 100 * precision_at(evaluation, iou) for iou in THRESHOLDS})
    matched = match_detections(ground_truth, detections)
    values[CORRELATION] = score_iou_correlation(matched)
    return values, matched


def comparison_table(measured: Mapping[str, Sequence[Mapping[str, float]]]) -> pd.DataFrame:
    """Mean of each method over its seeds, and what each changes against the first.

    Args:
        measured: Method -> the values of each seed, the seeds in the same order for every method. The first method
            is the baseline.

    Returns:
        A row for each method. For each further method also a row of the mean paired difference and, with two seeds
        or more, one of its standard error.
    """
    frames = {method: pd.DataFrame(list(values)) for method, values in measured.items()}
    baseline, *others = frames
    rows = {method: frame.mean() for method, frame in frames.items()}
    for method in others:
        paired = frames[method] - frames[baseline]
        rows[f'{method} - {baseline}'] = paired.mean()
        if len(paired) > 1:
            rows[f'standard error of {method} - {baseline}'] = paired.std(ddof=1) / np.sqrt(len(paired))
    return pd.DataFrame(rows).T


def format_table(table: pd.DataFrame) -> pd.DataFrame:
    """The table as text: AP to one decimal, the correlation to three, differences with their sign."""

    def text(row: str, column: str) -> str:
        sign = '+' if ' - ' in row and not row.startswith('standard error') else ''
        return format(table.loc[row, column], f'{sign}.{3 if column == CORRELATION else 1}f')

    return pd.DataFrame({column: [text(row, column) for row in table.index] for column in table}, index=table.index)
