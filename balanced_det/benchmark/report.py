"""What was measured, as json, as tables, and as the generated part of docs/performance.md."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from balanced_det.benchmark.goals import goal_lines
from balanced_det.benchmark.measure import ratio
from balanced_det.datasets.whole_files import write_text

PARTS = {
    'loss': 'Forward and backward of a classification loss',
    'heads': 'Loss step of a head: matching, losses, backward to its outputs',
    'steps': 'Training step of a detector: forward, losses, backward, SGD',
    'growth': 'Growth: anchors x classes',
    'evaluation': 'Evaluation: matching and AP of one backend or the other',
}
MARKER = '<!-- {} of {}: written by tools/benchmark.py --update -->'


#: What stands in a column, from a row and all rows of its part.
Cell = Callable[[dict, Sequence[dict]], str]


class BenchmarkError(ValueError):
    """Results that cannot be read or written; the message says which and why."""


@dataclass
class Result:
    """One part of the benchmark.

    Attributes:
        part: A key of :data:`PARTS`.
        device: 'cpu' or 'cuda'.
        conditions: Machine, versions, command line.
        quick: Whether it was a smoke run, whose numbers say nothing.
        complete: Whether it ran to its end.
        rows: What was measured: ``group``, ``case``, ``seconds`` of each round, and what else the part has. The first
            of a group is the base of its ratios.
    """

    part: str
    device: str
    conditions: dict[str, str]
    quick: bool
    complete: bool = False
    rows: list[dict] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Write it as json."""
        write_text(_path(folder, self.device, self.part), json.dumps(asdict(self), indent=1) + '\n')


def read(folder: Path, device: str) -> dict[str, Result]:
    """The parts that a folder has of a device.

    Raises:
        BenchmarkError: A file is broken.
    """
    found = {}
    for part in PARTS:
        path = _path(folder, device, part)
        if path.is_file():
            try:
                found[part] = Result(**json.loads(path.read_text()))
            except (ValueError, TypeError) as error:
                raise BenchmarkError(f'{path} is broken: {error}: measure the part {part} again') from error
    return found


def text(result: Result) -> str:
    """Markdown of a part: title, table, conditions."""
    remarks = ['A smoke run: its numbers say nothing.'] * result.quick + ['Interrupted.'] * (not result.complete)
    return '\n\n'.join([f'### {PARTS[result.part]}', *remarks, table(result), said(result)])


def said(result: Result) -> str:
    """The conditions of a part, in a line."""
    return '; '.join((result.conditions['machine'], result.conditions['versions'], f'`{result.conditions["command"]}`'))


def table(result: Result, times: bool = True) -> str:
    """The table of a part.

    Args:
        result: The part.
        times: Give absolute times too, which hold for this machine alone.
    """
    columns: dict[str, Cell] = {'case': _case, 'median': _median, 'ratio (range)': _ratio, **EXTRAS[result.part]}
    if not times:
        del columns['median']
    cells = [cell for cell in columns.values() if any(cell(row, result.rows) for row in result.rows)]
    titles = [title for title, cell in columns.items() if cell in cells]
    lines = ['| ' + ' | '.join(['', *titles]) + ' |', '|---' * (len(titles) + 1) + '|']
    before = None
    for row in result.rows:
        group = row['group'] if row['group'] != before else ''
        lines.append('| ' + ' | '.join([group, *(cell(row, result.rows) for cell in cells)]) + ' |')
        before = row['group']
    return '\n'.join(lines)


def check(results: Mapping[str, Result], device: str) -> None:
    """Whether the results of a device can be documented.

    Raises:
        BenchmarkError: There are none, or a part was a smoke run or was interrupted.
    """
    if not results:
        raise BenchmarkError(f'nothing was measured on {device}: run the parts first')
    for result in results.values():
        if result.quick or not result.complete:
            what = 'a smoke run' if result.quick else 'interrupted'
            raise BenchmarkError(f'{result.part} on {device} was {what} and is no result: measure it again')


def generated(results: Mapping[str, Result], device: str) -> str:
    """The generated part of docs/performance.md of a device: goals, then the parts."""
    goals = goal_lines({part: result.rows for part, result in results.items()}, device)
    blocks = ['| goal | limit | measured | holds |\n|---|---|---|---|\n' + '\n'.join(goals)]
    before = None
    for part, result in results.items():
        if said(result) != before:  # several parts of one run have it once
            blocks.append(before := said(result))
        blocks += [f'### {PARTS[part]}', table(result, times=False)]
        if part == 'growth':
            blocks.append(f'![Time and memory over anchors and classes](images/{figure_name(device)})')
    return '\n\n'.join(blocks)


def update(page: Path, results: Mapping[str, Result], device: str) -> None:
    """Write the generated part of a page.

    Raises:
        BenchmarkError: It lacks its markers, or the results do not pass :func:`check`.
    """
    check(results, device)
    begin, end = (MARKER.format(word, device) for word in ('begin', 'end'))
    before, found, rest = page.read_text().partition(begin)
    _, found_end, after = rest.partition(end)
    if not found or not found_end:
        raise BenchmarkError(f'{page} lacks the line {begin!r} or, after it, {end!r}')
    write_text(page, f'{before}{begin}\n{generated(results, device)}\n{end}{after}')


def figure_name(device: str) -> str:
    """File name of the figure of the part ``growth``."""
    return f'growth_{device}.png'


def _path(folder: Path, device: str, part: str) -> Path:
    return folder / f'{device}_{part}.json'


def _case(row: dict, rows: Sequence[dict]) -> str:
    return row['case']


def _median(row: dict, rows: Sequence[dict]) -> str:
    return f'{statistics.median(row["seconds"]) * 1e3:.4g} ms' if 'seconds' in row else ''


def _ratio(row: dict, rows: Sequence[dict]) -> str:
    base = next(other for other in rows if other['group'] == row['group'])
    if 'seconds' not in row:
        return row['skipped']
    if row is base or 'seconds' not in base:
        return '1' if row is base else ''
    return '{:.3f} ({:.3f} to {:.3f})'.format(*ratio(row['seconds'], base['seconds']))


def _number(key: str, form: str) -> Cell:
    return lambda row, rows: '' if row.get(key) is None else format(row[key], form)


def _relative_to_first(row: dict, rows: Sequence[dict]) -> str:
    """Time of a logit, to that of the first size of the same loss."""
    if 'seconds' not in row:
        return ''
    mine = (other for other in rows if 'seconds' in other and _series(other) == _series(row))
    return f'{_per_logit(row) / _per_logit(next(mine)):.2f}'


def _series(row: dict) -> tuple[str, str]:
    return row['over'], row['case']


def _per_logit(row: dict) -> float:
    return statistics.median(row['seconds']) / (row['anchors'] * row['classes'])


#: Part -> title of a further column -> its cells; an empty column is left out.
EXTRAS: dict[str, dict[str, Cell]] = {
    'loss': {'peak memory, in logits': _number('memory', '.2f')},
    'heads': {'host waits': _number('syncs', 'd'), 'host waits, by CUDA': _number('cuda_syncs', 'd')},
    'steps': {},
    'growth': {
        'time of a logit, to the first size': _relative_to_first,
        'peak memory, in logits': _number('memory', '.2f'),
    },
    'evaluation': {'largest difference': _number('difference', '.1e')},
}
