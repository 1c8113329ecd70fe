"""Figures; each method has one colour in all of them. The only importer of matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle
from pycocotools.coco import COCO

from balanced_det.analysis.comparison import CORRELATION
from balanced_det.evaluation import MatchedDetections, consistency, consistency_curves, score_iou_correlation
from balanced_det.evaluation.consistency import counted

COLOURS = {'baseline': '#1f77b4', 'iou-balanced': '#d95f02', 'harmonic': '#1b9e77', 'harmonic-detached': '#e7298a'}
GROUND_TRUTH = '#ffffff'
HALF_BIN = 0.025
DENSITY_BINS = 50


def score_iou_figure(matched: Mapping[str, MatchedDetections], subject: str) -> Figure:
    """Score against IoU of every detection, a panel for each method on the same axes.

    The line is the mean score in each IoU bin of width 0.05 (paper A, Figure 3a); the correlation is over the
    detections with an IoU of at least 0.5.

    Args:
        matched: Method -> its detections.
        subject: What was detected, for the title.

    Returns:
        The figure.
    """
    figure = _figure(5.2 * len(matched), 4.6)
    axes = figure.subplots(1, len(matched), sharex=True, sharey=True, squeeze=False)[0]
    for ax, (method, detections) in zip(axes, matched.items()):
        ax.scatter(detections.iou, detections.score, s=4, alpha=0.15, linewidths=0, color=COLOURS.get(method))
        centres, means = mean_score_by_iou(detections)
        ax.plot(centres, means, color='black', marker='o', markersize=3, label='mean score of an IoU bin')
        ax.axvline(0.5, color='grey', linewidth=0.8, linestyle=':')
        ax.set(xlim=(0, 1), ylim=(0, 1), xlabel='IoU with the best ground-truth box')
        ax.set_title(f'{method}: {CORRELATION} = {score_iou_correlation(detections):.3f} at IoU >= 0.5', fontsize=10)
    axes[0].set_ylabel('classification score')
    axes[0].legend(loc='upper left', fontsize=8)
    figure.suptitle(subject, fontsize=10)
    return figure


def mean_score_by_iou(detections: MatchedDetections) -> tuple[np.ndarray, np.ndarray]:
    """Centres of the IoU bins from 0.5 to 1 that hold a detection, and the mean score in each."""
    curves = consistency_curves(detections)
    filled = curves.detections > 0
    return curves.iou[filled] + HALF_BIN, curves.mean_score[filled]


def consistency_figure(
    matched: Mapping[str, MatchedDetections],
    subject: str,
    *,
    min_score: float = 0.0,
    high_score: float = 0.5,
    high_iou: float = 0.5,
) -> Figure:
    """The two curves of paper A's Figure 3, all methods in each; below, as paper B's Figure 5, a panel for each method.

    A panel counts the detections in squares of score and IoU, on one logarithmic scale. Its red corner holds those with
    a high score and a high IoU.

    Args:
        matched: Method -> its detections.
        subject: What was detected, for the title.
        min_score: Detections below are not counted.
        high_score: Lower side of the corner.
        high_iou: Left side of the corner.

    Returns:
        The figure.
    """
    matched = {method: counted(found, min_score) for method, found in matched.items()}
    figure = _figure(max(9.5, 4.4 * len(matched) + 0.8), 8.6)
    upper, lower = figure.subfigures(2, 1, squeeze=False)[:, 0]
    _draw_curves(upper, matched)
    _draw_densities(lower, matched, high_score, high_iou)
    figure.suptitle(subject, fontsize=10)
    return figure


def _draw_curves(figure: SubFigure, matched: Mapping[str, MatchedDetections]) -> None:
    left, right = figure.subplots(1, 2)
    for index, (method, detections) in enumerate(matched.items()):
        curves, colour = consistency_curves(detections), COLOURS.get(method, f'C{index}')
        left.plot(curves.iou + HALF_BIN, curves.mean_score, marker='o', markersize=4, color=colour, label=method)
        right.plot(curves.iou, 100 * curves.share_above, marker='o', markersize=4, color=colour, label=method)
    left.set(xlim=(0.5, 1), ylim=(0, 1), xlabel='IoU, bins of 0.05', ylabel='mean score of the detections in the bin')
    right.set(xlim=(0.5, 1), xlabel='IoU threshold', ylabel='detections with at least this IoU [%]')
    right.set_ylim(bottom=0)
    for ax in (left, right):
        ax.grid(alpha=0.3)
        ax.legend(fontsize=8)


def _draw_densities(
    figure: SubFigure, matched: Mapping[str, MatchedDetections], high_score: float, high_iou: float
) -> None:
    axes = figure.subplots(1, len(matched), sharex=True, sharey=True, squeeze=False)[0]
    edges = np.linspace(0, 1, DENSITY_BINS + 1)
    counts = [np.histogram2d(found.score, found.iou, bins=(edges, edges))[0] for found in matched.values()]
    scale = LogNorm(1, max(2.0, *(count.max() for count in counts)))
    for ax, (method, detections), count in zip(axes, matched.items(), counts):
        mesh = ax.pcolormesh(edges, edges, np.ma.masked_equal(count, 0), norm=scale, cmap='viridis')
        ax.plot([high_iou, high_iou, 1], [1, high_score, high_score], color='red', linewidth=1.5)
        share = consistency(detections, high_score=high_score, high_iou=high_iou).both_high
        ax.set_title(f'{method}\n{share:.1%} of {len(detections.score)} in the corner', fontsize=10)
        ax.set(xlim=(0, 1), ylim=(0, 1), xlabel='IoU with the best ground-truth box')
    axes[0].set_ylabel('classification score')
    figure.colorbar(mesh, ax=axes, label='detections')


def boxes_figure(
    image_ids: Sequence[int],
    image_folder: Path,
    detections: Mapping[str, tuple[COCO, COCO]],
    subject: str,
    min_score: float = 0.3,
) -> Figure:
    """The same images with the boxes and scores of each method: a row for each image, a column for each method.

    Args:
        image_ids: Which images.
        image_folder: Where the files lie.
        detections: Method -> (ground truth, detections).
        subject: What was detected, for the title.
        min_score: Detections below are not drawn.

    Returns:
        The figure.
    """
    figure = _figure(4.6 * len(detections), 4.4 * len(image_ids) + 0.5)
    grid = figure.subplots(len(image_ids), len(detections), squeeze=False)
    for row, image_id in zip(grid, image_ids):
        for ax, (method, (ground_truth, found)) in zip(row, detections.items()):
            image = ground_truth.loadImgs([image_id])[0]
            ax.imshow(mpl.image.imread(str(image_folder / image['file_name'])))
            for ann in ground_truth.loadAnns(ground_truth.getAnnIds([image_id])):
                _draw_box(ax, ann['bbox'], GROUND_TRUTH, linestyle='--')
            for det in found.loadAnns(found.getAnnIds([image_id])):
                if det['score'] >= min_score:
                    _draw_box(ax, det['bbox'], COLOURS.get(method, 'red'), text=f'{det["score"]:.2f}')
            ax.set_title(f'{method}, image {image_id}', fontsize=10)
            ax.set_axis_off()
    legend = f'white dashes: ground truth; coloured: detections with score >= {min_score}'
    figure.suptitle(f'{subject}\n{legend}', fontsize=10)
    return figure


def _draw_box(ax: Axes, box: Sequence[float], colour: str, text: str = '', linestyle: str = '-') -> None:
    x, y, width, height = box
    ax.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=colour, linewidth=1.5, linestyle=linestyle))
    if text:
        ax.text(
            x,
            y,
            text,
            fontsize=7,
            color='white',
            va='bottom',
            clip_on=True,
            bbox=dict(facecolor=colour, edgecolor='none', pad=1),
        )


def _figure(width: float, height: float) -> Figure:
    """A figure of its own backend: no display, no global state. Sizes in inches."""
    figure = Figure(figsize=(width, height), layout='constrained', dpi=130)
    FigureCanvasAgg(figure)
    return figure
