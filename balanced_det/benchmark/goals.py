"""What was asked of the losses, and whether it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from balanced_det.benchmark.losses import COPY, FUSED, STOCK
from balanced_det.benchmark.measure import ratio

Found = Iterator[tuple[float, str]]


@dataclass(frozen=True)
class Goal:
    """A number that must not be above a limit.

    Attributes:
        text: What it is.
        part: Where it is measured.
        limit: The largest value.
        values: The values among the rows of the part, each with where it was found; the largest counts.
    """

    text: str
    part: str
    limit: float
    values: Callable[[Sequence[dict]], Found]


def goal_lines(rows: Mapping[str, Sequence[dict]], device: str) -> list[str]:
    """A line of a Markdown table for each goal: goal, limit, worst value, whether it holds.

    Args:
        rows: Those of each part that was measured.
        device: 'cpu' or 'cuda'.
    """
    lines = []
    for goal in GOALS[device]:
        measured = holds = 'not measured'
        values = list(goal.values(rows.get(goal.part, ())))
        if values:
            value, where = max(values)
            measured = f'{value:.4g}' + (f' ({where})' if where else '')
            holds = 'yes' if value <= goal.limit else 'no'
        lines.append(f'| {goal.text} | {goal.limit:g} | {measured} | {holds} |')
    return lines


def _time(case: str, base: str) -> Callable[[Sequence[dict]], Found]:
    def values(rows: Sequence[dict]) -> Found:
        seconds = {row['case']: row['seconds'] for row in rows}
        if case in seconds and base in seconds:
            yield ratio(seconds[case], seconds[base]).median, ''

    return values


def _memory(rows: Sequence[dict]) -> Found:
    yield from ((row['memory'], '') for row in rows if row['case'] == FUSED)


def _to_stock(detectors: tuple[str, ...]) -> Callable[[Sequence[dict]], Found]:
    """Times of each group whose name begins so, to the first of the group."""

    def values(rows: Sequence[dict]) -> Found:
        for row, base in _with_base(rows):
            if row['group'].startswith(detectors):
                yield ratio(row['seconds'], base['seconds']).median, f'{row["group"]}, {row["case"]}'

    return values


def _more_waits(rows: Sequence[dict]) -> Found:
    for row, base in _with_base(rows):
        for key in ('syncs', 'cuda_syncs'):
            if row[key] is not None:
                yield row[key] - base[key], f'{row["group"]}, {row["case"]}'


def _difference(rows: Sequence[dict]) -> Found:
    yield from ((row['difference'], row['case']) for row in rows if row['difference'] is not None)


def _with_base(rows: Sequence[dict]) -> Iterator[tuple[dict, dict]]:
    bases: dict[str, dict] = {}
    for row in rows:
        if bases.setdefault(row['group'], row) is not row:
            yield row, bases[row['group']]


_EVERYWHERE = (
    Goal(
        'fused loss: peak memory beside the logits, in logits: one buffer and what is small beside it, the chunks of a '
        'CPU, the partial sums of a GPU',
        'loss',
        1.05,
        _memory,
    ),
    Goal('loss step of a dense head, to the stock losses', 'heads', 1.02, _to_stock(('Retina', 'Fovea', 'SSD'))),
    Goal('loss step of the RoI head, to the stock losses', 'heads', 1.02, _to_stock(('Faster',))),
    Goal('loss step of a head: waits of the host beyond the stock losses', 'heads', 0, _more_waits),
    Goal('training step of RetinaNet, to the stock losses', 'steps', 1.0, _to_stock(('RetinaNet',))),
    Goal('training step of SSD300 and Faster R-CNN', 'steps', 1.01, _to_stock(('SSD', 'Faster'))),
)
GOALS = {
    'cpu': (
        Goal('fused loss: time to the stock FocalLoss', 'loss', 0.12, _time(FUSED, STOCK)),
        *_EVERYWHERE,
        Goal('backends of the metrics: largest difference', 'evaluation', 1e-6, _difference),
    ),
    'cuda': (
        Goal('fused loss: time to the stock FocalLoss', 'loss', 0.4, _time(FUSED, STOCK)),
        Goal('fused loss: time to reading and writing the logits once', 'loss', 1.5, _time(FUSED, COPY)),
        *_EVERYWHERE,
    ),
}
