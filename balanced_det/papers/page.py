"""What a row and a table are, and how they are read from the Markdown page of a paper."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

METRICS = ('AP', 'AP50', 'AP60', 'AP70', 'AP75', 'AP80', 'AP90', 'APs', 'APm', 'APl')
HYPER_PARAMETERS = ('eta', 'lambda', 'w_loc', 'harmonic', 'tc', 'hiou', 'alpha', 'gamma')
# Stand in a column of their own where the rows of a table differ in them, else once above the table.
_NAMES = ('model', 'backbone', 'schedule')
_FACTS = ('data', 'split', 'configs', 'setup')
_QUOTED_ONLY = 'quoted only'


@dataclass(frozen=True)
class Row:
    """One row of a table of a paper.

    Attributes:
        paper: 'A' (IoU-balanced losses) or 'B' (HarmonicDet).
        table: Number of the table in the paper.
        number: Place of the row in the table, from 1.
        model: As printed, without reference numbers; in an ablation, the model that the table is about.
        backbone: As printed.
        schedule: As printed or as the text says: '1x', '120e', 'default' (MMDetection's) or '-' (not said).
        data: 'coco', 'voc0712' or 'cityscapes'.
        split: What the numbers were measured on: 'test-dev', 'val2017', 'test2007' or 'val'.
        config: 'configs/...' from the root of the repository; of a quoted row the nearest stock config
            ('mmdet::...'), or None where mmdet has none.
        hyper: What differs from the stock losses: `eta`, `lambda`, `w_loc`, `harmonic`, `tc`, `hiou`, `alpha`,
            `gamma`, as far as they apply. Empty for a baseline.
        reported: The printed numbers in percent, by the keys of `METRICS`, in printed order.
    """

    paper: str
    table: int
    number: int
    model: str
    backbone: str
    schedule: str
    data: str
    split: str
    config: str | None
    hyper: dict[str, float | bool] = field(hash=False)
    reported: dict[str, float] = field(hash=False)

    @property
    def table_key(self) -> str:
        """Such as 'A2'."""
        return f'{self.paper}{self.table}'

    @property
    def key(self) -> str:
        """Such as 'A2.3'."""
        return f'{self.table_key}.{self.number}'

    @property
    def quoted(self) -> bool:
        """Whether the paper quotes the row from another one: nothing here reproduces it."""
        return self.config is None or self.config.startswith('mmdet::')

    @property
    def train_config(self) -> str | None:
        """The config that trains the row: for test-time augmentation (`-tta`) the one without; None if quoted."""
        if self.config is None or self.quoted:
            return None
        return self.config.replace('-tta', '')

    @property
    def test_config(self) -> str | None:
        """The config that evaluates the row: for test-dev the variant that writes the submission; None if quoted."""
        if self.config is None or self.quoted:
            return None
        return self.config.replace('.py', '_test-dev.py') if self.split == 'test-dev' else self.config


@dataclass(frozen=True)
class Table:
    """One table of a paper.

    Attributes:
        paper: 'A' or 'B'.
        number: Of the table in the paper.
        caption: What the table compares, in our words.
        setup: What the paper's text says about training and evaluation, in our words.
        notes: Where text and table disagree, and what else a reader should know.
        columns: The metrics in printed order.
        rows: In printed order.
    """

    paper: str
    number: int
    caption: str
    setup: str
    notes: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def key(self) -> str:
        """Such as 'A2'."""
        return f'{self.paper}{self.number}'


def read_tables(file: Path) -> list[Table]:
    """Read the tables of a paper.

    Args:
        file: Markdown page with one section `## A2. Caption` per table: a list of `- name: text`, with `note` as
            often as needed, and the table.

    Returns:
        The tables in the order of the page.

    Raises:
        ValueError: The page is malformed; says in which section and row.
    """
    sections = re.split(r'^## ', file.read_text(encoding='utf-8'), flags=re.M)[1:]
    tables = []
    for section in sections:
        heading = section.split('\n', 1)[0]
        try:
            tables.append(_table(heading, section))
        except ValueError as error:
            raise ValueError(f'{file}, section "{heading}": {error}') from error
    return tables


def _table(heading: str, section: str) -> Table:
    title = re.fullmatch(r'([AB])(\d)\. (.+)', heading)
    if not title:
        raise ValueError('the heading must be like "## A2. Caption"')
    paper, number, caption = title[1], int(title[2]), title[3]
    # An item may go on in indented lines.
    items = [
        (name, ' '.join(text.split())) for name, text in re.findall(r'^- (\w+): (.+(?:\n  .+)*)', section, flags=re.M)
    ]
    shared = dict(items)
    columns, lines = _cells(section)
    _refuse_gaps(columns, shared)
    rows = [_row(paper, number, place, shared, dict(zip(columns, cells))) for place, cells in enumerate(lines, start=1)]
    return Table(
        paper=paper,
        number=number,
        caption=caption,
        setup=shared['setup'],
        notes=tuple(text for name, text in items if name == 'note'),
        columns=tuple(name for name in columns if name in METRICS),
        rows=tuple(rows),
    )


def _cells(section: str) -> tuple[list[str], list[list[str]]]:
    """Column names, and the cells of each row."""
    lines = [[cell.strip() for cell in line.split('|')] for line in re.findall(r'^\|(.*)\|$', section, flags=re.M)]
    if len(lines) < 3:
        raise ValueError('no table with a heading, a rule and rows')
    columns, _, *rows = lines
    for place, cells in enumerate(rows, start=1):
        if len(cells) != len(columns):
            raise ValueError(f'row {place} has {len(cells)} cells for {len(columns)} columns')
    return columns, rows


def _refuse_gaps(columns: list[str], shared: Mapping[str, str]) -> None:
    unknown = set(columns) - {*_NAMES, *METRICS, *HYPER_PARAMETERS, 'config'}
    if unknown:
        raise ValueError(f'unknown columns {", ".join(sorted(unknown))}')
    missing = [name for name in (*_FACTS, *_NAMES, 'config') if name not in shared and name not in columns]
    if missing:
        raise ValueError(f'neither an item nor a column gives {", ".join(missing)}')


def _row(paper: str, table: int, number: int, shared: Mapping[str, str], cells: Mapping[str, str]) -> Row:
    try:
        values = {name: _value(cells[name]) for name in (*HYPER_PARAMETERS, *METRICS) if cells.get(name)}
    except ValueError as error:
        raise ValueError(f'row {number}: {error}') from error
    model, backbone, schedule = (cells.get(name) or shared[name] for name in _NAMES)
    return Row(
        paper=paper,
        table=table,
        number=number,
        model=model,
        backbone=backbone,
        schedule=schedule,
        data=shared['data'],
        split=shared['split'],
        config=_config(cells['config'], shared['configs']),
        hyper={name: value for name, value in values.items() if name in HYPER_PARAMETERS},
        reported={name: values[name] for name in cells if name in METRICS and name in values},
    )


def _value(cell: str) -> float | bool:
    return cell == 'yes' if cell in ('yes', 'no') else float(cell)


def _config(cell: str, folder: str) -> str | None:
    if cell == _QUOTED_ONLY:
        return None
    return cell if '::' in cell else f'{folder}/{cell}'
