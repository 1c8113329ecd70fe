"""The papers' tables with what was measured beside them, as Markdown and as CSV."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from balanced_det.papers import Row, Table
from balanced_det.reproduction.measurement import Measurement, measure

#: Of what a method needs to be one: with none of these above zero a row is a baseline.
METHOD_KEYS = ('eta', 'lambda', 'harmonic')
NOT_TRAINED, QUOTED = 'not trained', 'quoted by the papers'
KINDS = ('measured', 'not tested', 'left out', NOT_TRAINED, QUOTED)
LONG_REMARK = 30  # characters; longer ones stand below the table
CSV_COLUMNS = ('row', 'model', 'backbone', 'config', 'split', 'metric', 'paper', 'measured', 'difference', 'remarks')


@dataclass(frozen=True)
class Results:
    """What was measured of some configs.

    Attributes:
        measured: The measurement of each config that has one.
        problems: Files and folders that could not be read, and those that hold something else.
        remarks: Why a config that somebody has trained, or tried to, has no measurement.
    """

    measured: dict[str, Measurement]
    problems: tuple[str, ...]
    remarks: dict[str, str] = field(default_factory=dict)

    def of(self, row: Row) -> Measurement | None:
        """The measurement of a row, with what there is to say of its split."""
        found = self.measured.get(row.config or '')
        if found and row.split == 'test-dev' and not any('another data set' in mark for mark in found.marks):
            return replace(found, marks=('val2017 in place of test-dev', *found.marks))
        return found

    def remark(self, row: Row) -> str:
        """What there is to say of a row: marks of its measurement, or why it has none."""
        if row.quoted:
            return 'quoted by the paper'
        found = self.of(row)
        return '; '.join(found.marks) if found else self.remarks.get(str(row.config), NOT_TRAINED)

    def kind(self, row: Row) -> str:
        """One of :data:`KINDS`."""
        if row.quoted or self.of(row):
            return QUOTED if row.quoted else 'measured'
        remark = self.remark(row)
        return 'left out' if remark.startswith('left out') else NOT_TRAINED if remark == NOT_TRAINED else 'not tested'


def read_results(rows: Sequence[Row], work_dirs: Path) -> Results:
    """Read what the work directories tell of some rows.

    Args:
        rows: Rows of the papers; those that these quote have no results.
        work_dirs: The folder with a folder for each config, named like it.

    Returns:
        Measurements and problems. Nothing that is wrong with a folder keeps the others from being read.
    """
    readings = {
        name: measure(row, work_dirs) for name, row in {str(row.config): row for row in rows if not row.quoted}.items()
    }
    problems = dict.fromkeys(problem for reading in readings.values() for problem in reading.problems)
    return Results(
        {name: reading.measurement for name, reading in readings.items() if reading.measurement},
        tuple(problems),
        {name: reading.remark for name, reading in readings.items() if not reading.measurement},
    )


def label(row: Row) -> str:
    """Model, backbone and hyper-parameters of a row: ``RetinaNet, ResNet50, eta 1.5``."""
    parts = [row.model, row.backbone]
    for name, value in row.hyper.items():
        if isinstance(value, bool):
            parts.append(name if value else f'no {name}')
        else:
            parts.append(f'{name} {value:g}')
    return ', '.join(parts)


def detector(row: Row) -> tuple[str, str]:
    """Model without its losses, and backbone."""
    name = row.model.removeprefix('IoU-balanced ').removesuffix('‡').strip()
    return name.removesuffix('w/HarmonicDet Loss').strip(), row.backbone


def is_baseline(row: Row) -> bool:
    """Whether a row has the detector's stock losses."""
    return not row.quoted and not any(row.hyper.get(key) for key in METHOD_KEYS)


def baseline(table: Table, row: Row) -> Row | None:
    """The row of a table that a row with other losses is compared with."""
    if row.quoted or is_baseline(row):
        return None
    return next((other for other in table.rows if is_baseline(other) and detector(other) == detector(row)), None)


def differences(measured: dict[str, float], paper: dict[str, float]) -> dict[str, float]:
    """Measured minus paper, or method minus baseline, for the metrics that both have."""
    return {metric: round(measured[metric] - paper[metric], 1) for metric in paper if metric in measured}


def markdown(table: Table, results: Results) -> str:
    """One table: each row with the paper's numbers, below them the measured ones and the difference.

    Args:
        table: A table of a paper.
        results: What was measured.

    Returns:
        The table, and below it the gains of the methods over their baselines where both were measured.
    """
    lines = [
        ['row', 'detector', '', *table.columns, 'remarks'],
        *(line for row in table.rows for line in row_lines(table, row, results)),
    ]
    notes = list(dict.fromkeys(line[-1] for line in lines if len(line[-1]) > LONG_REMARK))
    for line in lines:
        if line[-1] in notes:
            line[-1] = f'({notes.index(line[-1]) + 1})'
    text = f'### {table.key}. {table.caption}\n\n{aligned(lines)}'
    text += ''.join(f'\n\n({number}) {note}' for number, note in enumerate(notes, 1))
    gains = list(gain_lines(table, results))
    if gains:
        text += f'\n\nGain over the baseline:\n\n{aligned([["row", "over", "", *table.columns], *gains])}'
    return f'{text}\n'


def row_lines(table: Table, row: Row, results: Results) -> Iterator[list[str]]:
    """The lines of one row."""
    measurement, remark = results.of(row), results.remark(row)
    yield [row.key, label(row), 'paper', *cells(table, row.reported), '' if measurement else remark]
    if measurement:
        yield ['', '', 'measured', *cells(table, measurement.values), remark]
        yield ['', '', 'difference', *cells(table, differences(measurement.values, row.reported), '+.1f'), '']


def gain_lines(table: Table, results: Results) -> Iterator[list[str]]:
    """The gains of the rows that were measured with their baseline."""
    for row in table.rows:
        base = baseline(table, row)
        here, there = results.of(row), results.of(base) if base else None
        if base and here and there and here.values and there.values:
            yield [row.key, base.key, 'paper', *cells(table, differences(row.reported, base.reported), '+.1f')]
            yield ['', '', 'measured', *cells(table, differences(here.values, there.values), '+.1f')]


def cells(table: Table, values: dict[str, float], style: str = '.1f') -> list[str]:
    """The values of a row as text, empty where there is none."""
    return [format(values[metric], style) if metric in values else '' for metric in table.columns]


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table that can be read as text too."""
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(lines[0]))]
    rows = ['| ' + ' | '.join(cell.ljust(width) for cell, width in zip(line, widths)) + ' |' for line in lines]
    return '\n'.join([rows[0], '|' + '|'.join('-' * (width + 2) for width in widths) + '|', *rows[1:]])


def csv_text(tables: Sequence[Table], results: Results) -> str:
    """All tables as CSV, one line for each metric of each row; the percents as numbers."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator='\n')
    writer.writerow(CSV_COLUMNS)
    for table in tables:
        for row in table.rows:
            found = results.of(row)
            measured = found.values if found else {}
            gaps = differences(measured, row.reported)
            for metric, value in row.reported.items():
                numbers = (value, measured.get(metric, ''), gaps.get(metric, ''))
                facts = (row.key, row.model, row.backbone, row.config or '', row.split)
                writer.writerow((*facts, metric, *numbers, results.remark(row)))
    return stream.getvalue()


def summary(tables: Sequence[Table], results: Results) -> str:
    """How many rows there are of each kind, and what could not be read."""
    rows = [row for table in tables for row in table.rows]
    counts = Counter(map(results.kind, rows))
    text = f'{len(rows)} rows: {", ".join(f"{counts[kind]} {kind}" for kind in KINDS)}'
    return '\n'.join([text, *(f'left out: {problem}' for problem in results.problems)])
