"""The figure of the part ``growth``."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from balanced_det.benchmark.growth import FLOAT
from balanced_det.benchmark.losses import FUSED, STOCK

COLOURS = {STOCK: '#1f77b4', FUSED: '#d95f02'}


def growth_figure(rows: Sequence[dict], subject: str) -> Figure:
    """Time, forward and backward, and memory over anchors and over classes; both axes are logarithmic.

    Time is relative to that of the fused loss at the first size. The dotted line through this point, and through that
    of its memory, has the slope 1: time and memory in proportion.

    Args:
        rows: Those of the part.
        subject: The machine, for the title.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(10, 7), layout='constrained', dpi=110)
    FigureCanvasAgg(figure)
    for column, over in zip(figure.subplots(2, 2).T, ('anchors', 'classes')):
        mine = [row for row in rows if row['over'] == over and 'seconds' in row]
        fixed = 'classes' if over == 'anchors' else 'anchors'
        label = f'{over}, at {mine[0][fixed]:,} {fixed}'
        times = [(row['case'], row[over], statistics.median(row['seconds'])) for row in mine]
        _, size, base = next(time for time in times if time[0] == FUSED)
        memory = [
            (row['case'], row[over], row['memory'] * row['anchors'] * row['classes'] * FLOAT / 2**20) for row in mine
        ]
        times = [(case, number, seconds / base) for case, number, seconds in times]
        _draw(column[0], times, f'time (fused at {size:,} = 1)', label)
        _draw(column[1], memory, 'peak memory beside the logits [MiB]', label)
    figure.suptitle(subject, fontsize=10)
    return figure


def _draw(ax: Axes, points: Sequence[tuple[str, int, float]], ylabel: str, xlabel: str) -> None:
    for case, colour in COLOURS.items():
        x = [size for name, size, _ in points if name == case]
        y = [value for name, _, value in points if name == case]
        ax.plot(x, y, marker='o', markersize=4, color=colour, label=case)
    ax.plot([x[0], x[-1]], [y[0], y[0] * x[-1] / x[0]], color='grey', linestyle=':', label='in proportion')
    ax.set(xscale='log', yscale='log', xlabel=xlabel, ylabel=ylabel)
    ax.grid(alpha=0.3, which='both')
    ax.legend(fontsize=8)
