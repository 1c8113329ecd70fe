"""The parts of the repository that are written from the papers' rows and from recorded measurements.

README tables and metafiles lie between two markers in their files; what stands outside is written by hand.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from balanced_det import papers
from balanced_det.datasets.whole_files import write_text
from balanced_det.papers import Row, Table
from balanced_det.reproduction.jobs import ROOT
from balanced_det.reproduction.measurement import Measurement
from balanced_det.reproduction.report import Results, aligned, label

BEGIN, END = 'begin: written by tools/report.py --update', 'end: written by tools/report.py --update'
FOLDERS = {'A': 'iou_balanced', 'B': 'harmonic'}
COLLECTIONS = {'A': 'IoU-balanced losses', 'B': 'HarmonicDet'}
#: What mmdet's metafiles call the data and the metric.
DATASETS = {'coco': 'COCO', 'voc0712': 'VOC07+12', 'cityscapes': 'Cityscapes'}
INDEX = 'model-index.yml'


class GeneratedError(ValueError):
    """A generated file, or the file of recorded measurements, is not as it has to be."""


def record_file(root: Path = ROOT) -> Path:
    """The committed measurements."""
    return root / 'configs' / 'measured.json'


def read_record(root: Path = ROOT) -> dict[str, Measurement]:
    """The recorded measurement of each config.

    Raises:
        GeneratedError: The file is broken.
    """
    path = record_file(root)
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text())
        return {
            name: Measurement(entry['values'], tuple(entry['marks']), comparable=True)
            for name, entry in content.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise GeneratedError(f'{path} is broken: {type(error).__name__}: {error}') from error


def record(measured: dict[str, Measurement], root: Path = ROOT) -> tuple[list[str], list[str]]:
    """Add measurements to the committed ones.

    Args:
        measured: The measurement of each config. Those that are not comparable with the paper are left out.
        root: Of the repository.

    Returns:
        Names of the configs that were recorded, and of those that were not, with the reason.
    """
    good = {name: found for name, found in measured.items() if found.comparable and found.values}
    left_out = [f'{name}: {"; ".join(found.marks)}' for name, found in measured.items() if name not in good]
    together = {**read_record(root), **good}
    content = {
        name: {key: value for key, value in asdict(together[name]).items() if key != 'comparable'}
        for name in sorted(together)
    }
    if good:
        write_text(record_file(root), json.dumps(content, indent=2) + '\n')
    return list(good), left_out


def generated_files(root: Path = ROOT) -> dict[Path, str]:
    """The text that each generated file must have, what is written by hand included.

    Raises:
        GeneratedError: A file lacks its markers, or the record is broken.
    """
    results = Results(read_record(root), ())
    files = {}
    for paper, folder in FOLDERS.items():
        tables = [table for table in papers.tables().values() if table.paper == paper]
        readme, metafile = root / 'configs' / folder / 'README.md', root / 'configs' / folder / 'metafile.yml'
        files[readme] = replaced(readme, '\n\n'.join(readme_table(table, results) for table in tables), '<!-- {} -->')
        files[metafile] = replaced(metafile, '\n'.join(models(tables, results)), '# {}')
    index = root / INDEX
    imports = '\n'.join(['Import:', *(f'  - configs/{folder}/metafile.yml' for folder in FOLDERS.values())])
    files[index] = replaced(index, imports, '# {}')
    return files


def replaced(path: Path, text: str, comment: str) -> str:
    """What a file holds, with another text between its markers."""
    begin, end = comment.format(BEGIN), comment.format(END)
    content = path.read_text() if path.is_file() else ''
    before, found, rest = content.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found or not found_end:
        raise GeneratedError(f'{path} lacks the line {begin!r} or, after it, {end!r}')
    return f'{before}{begin}\n{text}\n{end}{after}'


def update(root: Path = ROOT) -> list[Path]:
    """Write the generated files that are stale, and name them."""
    stale = [(path, text) for path, text in generated_files(root).items() if path.read_text() != text]
    for path, text in stale:
        write_text(path, text)
    return [path for path, _ in stale]


def stale(root: Path = ROOT) -> str:
    """What :func:`update` would change, as a diff; empty if nothing."""
    lines: list[str] = []
    for path, text in generated_files(root).items():
        name = str(path.relative_to(root))
        old, new = path.read_text().splitlines(keepends=True), text.splitlines(keepends=True)
        lines.extend(difflib.unified_diff(old, new, name, f'{name}, up to date'))
    return ''.join(lines)


def readme_table(table: Table, results: Results) -> str:
    """A table of a README: paper's numbers, measured ones below, link to the config."""
    lines = [['row', 'detector', *table.columns, 'config']]
    for row in table.rows:
        lines.append([row.key, label(row), *(f'{row.reported[metric]:.1f}' for metric in table.columns), link(row)])
        found = results.of(row)
        if found:
            numbers = [f'**{found.values[metric]:.1f}**' if metric in found.values else '' for metric in table.columns]
            lines.append(['', 'measured', *numbers, '; '.join(found.marks)])
        elif not row.quoted:
            lines[-1][-1] += ', not trained'
    return f'### {table.key}. {table.caption}\n\n{table.setup}\n\n{aligned(lines)}'


def link(row: Row) -> str:
    """The config of a row, from the README of its folder."""
    if row.quoted:
        return f'quoted; `{row.config}`' if row.config else 'quoted'
    path = Path(str(row.config))
    return f'[config]({path.relative_to(Path("configs") / FOLDERS[row.paper])})'


def models(tables: Sequence[Table], results: Results) -> Iterator[str]:
    """The Models of a metafile: each config once, results only where there are any."""
    first: dict[str, Row] = {}
    for table in tables:
        for row in table.rows:
            if not row.quoted:
                first.setdefault(str(row.config), row)
    yield 'Models:'
    for name, row in first.items():
        yield f'  - Name: {Path(name).stem}'
        yield f'    In Collection: {COLLECTIONS[row.paper]}'
        yield f'    Config: {name}'
        yield '    Metadata:'
        yield f'      Training Data: {DATASETS[row.data]}'
        rows = [other.key for table in tables for other in table.rows if other.config == name]
        yield f'      Rows of the paper: {", ".join(rows)}'
        if name in results.measured:
            yield from result_lines(row, results.measured[name].values)


def result_lines(row: Row, values: dict[str, float]) -> Iterator[str]:
    """The measured results of a model."""
    yield '    Results:'
    yield '      - Task: Object Detection'
    yield f'        Dataset: {DATASETS[row.data]}'
    yield '        Metrics:'
    for metric, value in values.items():
        yield f'          {"box AP" if metric == "AP" else metric}: {value}'
