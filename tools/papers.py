"""Print the rows of the tables of both papers: what they report, and which config reproduces them.

Paper A has the IoU-balanced losses (tables A1 to A7), paper B has HarmonicDet (B1 to B5).
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import os
import sys
import textwrap
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

# In a checkout the package lies beside tools/; in an installed package (.mim/tools) there is nothing to add.
ROOT = Path(__file__).resolve().parents[1]
if (ROOT / 'balanced_det' / '__init__.py').is_file():
    sys.path.insert(0, str(ROOT))

EXAMPLES = """examples:
  python tools/papers.py list
  python tools/papers.py list --paper B --csv > rows.csv
  python tools/papers.py list A2 A4.3
  python tools/papers.py show A2
  python tools/papers.py show B2.24 A1.2
"""
NOTE_WIDTH = 120
ON_GPUS = """All rows of a table, on the GPUs that their batches need: python tools/reproduce.py TABLE
One row on N GPUs: bash tools/dist_train.sh CONFIG N --auto-scale-lr, bash tools/dist_test.sh CONFIG CHECKPOINT N
DSSD and RefineDet count iterations, which no scaling of the learning rate makes up for: keep their batch."""


def load_papers() -> ModuleType:
    """`balanced_det.papers` by its path: importing `balanced_det` brings mmdet, which takes seconds."""
    package = importlib.util.find_spec('balanced_det')
    if package is None or not package.submodule_search_locations:
        sys.exit('error: the package balanced_det is not installed; run this tool in a checkout or install it')
    folder = Path(package.submodule_search_locations[0], 'papers')
    spec = importlib.util.spec_from_file_location(
        'balanced_det_papers', folder / '__init__.py', submodule_search_locations=[str(folder)]
    )
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


papers = load_papers()


def parse_args() -> argparse.Namespace:
    options = dict(formatter_class=argparse.RawDescriptionHelpFormatter, epilog=EXAMPLES)
    parser = argparse.ArgumentParser(description=__doc__, **options)
    commands = parser.add_subparsers(dest='command', required=True, metavar='list|show')
    listing = commands.add_parser('list', help='one line for each row', **options)
    listing.add_argument('keys', nargs='*', metavar='KEY', help='table (A2) or row (A2.3); none: all rows')
    listing.add_argument('--paper', choices=('A', 'B'), type=str.upper, help='only the rows of this paper')
    listing.add_argument('--csv', action='store_true', help='everything about each row, as CSV')
    showing = commands.add_parser('show', help='all numbers, losses, commands and notes', **options)
    showing.add_argument('keys', nargs='+', metavar='KEY', help='table (A2) or row (A2.3)')
    return parser.parse_args()


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """The cells of some lines in columns; numbers to the right, the last column as it is."""
    widths = [max(map(len, column)) for column in zip(*lines)]
    numeric = [all(cell.replace('.', '').isdigit() for cell in column[1:] if cell) for column in zip(*lines)]
    return [
        '  '.join(
            cell.rjust(width) if right else cell.ljust(width) for cell, width, right in zip(line, widths, numeric)
        ).rstrip()
        for line in lines
    ]


def by_table(rows: Iterable[Any]) -> Iterable[tuple[Any, list[Any]]]:
    for key, group in groupby(rows, attrgetter('table_key')):
        yield papers.table(key), list(group)


def heading(table: Any) -> str:
    return f'{table.key}  {table.caption} ({table.rows[0].data}, {table.rows[0].split})'


def losses(row: Any) -> str:
    """Such as `eta 1.5, lambda 1.5` or `harmonic, tc, no hiou`."""
    parts = []
    for name, value in row.hyper.items():
        parts.append((name if value else f'no {name}') if isinstance(value, bool) else f'{name} {value}')
    return ', '.join(parts) or ('quoted' if row.quoted else 'stock')


def listing(rows: Iterable[Any]) -> str:
    blocks = []
    for table, group in by_table(rows):
        lines = [('row', 'model', 'backbone', 'schedule', 'AP', 'config')]
        for row in group:
            config = row.config or 'quoted only'
            lines.append((row.key, row.model, row.backbone, row.schedule, f'{row.reported["AP"]:.1f}', config))
        blocks.append('\n'.join([heading(table), *aligned(lines)]))
    return '\n\n'.join(blocks)


def everything(rows: Iterable[Any]) -> str:
    blocks = []
    for table, group in by_table(rows):
        notes = [textwrap.fill(f'- {note}', NOTE_WIDTH, subsequent_indent='  ') for note in table.notes]
        lines = [('row', 'model', 'backbone', 'schedule', *table.columns, 'losses')]
        for row in group:
            numbers = (f'{row.reported[name]:.1f}' for name in table.columns)
            lines.append((row.key, row.model, row.backbone, row.schedule, *numbers, losses(row)))
        ways = [f'{row.key}\n{textwrap.indent(ways_to_run(row), "  ")}' for row in group]
        setup = textwrap.fill(table.setup, NOTE_WIDTH)
        blocks.append('\n'.join([heading(table), '', setup, *notes, '', *aligned(lines), '', *ways]))
    return '\n\n\n'.join([*blocks, ON_GPUS])


def ways_to_run(row: Any) -> str:
    """Config and commands of a row, one per line; to be run from the root of the repository."""
    if row.config is None:
        return 'quoted only: mmdet has no config of this detector'
    name = Path(row.config).stem
    if row.quoted:
        return f'quoted; the nearest stock config is {row.config}\n' + f'mim download mmdet --config {name} --dest .'
    lines = [
        f'python tools/train.py {row.train_config} --auto-scale-lr',
        f'python tools/test.py {row.test_config} "$(cat work_dirs/{Path(row.train_config).stem}/last_checkpoint)"',
    ]
    if row.train_config != row.config:
        lines[1] += ' --tta'
    return '\n'.join([row.config, *lines])


def write_csv(rows: Iterable[Any]) -> None:
    names = ('key', 'model', 'backbone', 'schedule', 'data', 'split', 'config')
    writer = csv.DictWriter(sys.stdout, [*names, *papers.METRICS, *papers.HYPER_PARAMETERS])
    writer.writeheader()
    for row in rows:
        writer.writerow({name: getattr(row, name) for name in names} | row.reported | row.hyper)


def main() -> None:
    args = parse_args()
    try:
        rows = papers.find(args.keys) if args.keys else papers.rows()
    except papers.UnknownRowError as error:
        sys.exit(f'error: {error}')
    if args.command == 'show':
        print(everything(rows))
        return
    rows = [row for row in rows if args.paper in (None, row.paper)]
    if not rows:
        sys.exit(f'error: paper {args.paper} has none of {", ".join(args.keys)}')
    if args.csv:
        write_csv(rows)
    else:
        print(listing(rows))


if __name__ == '__main__':
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:
        # `| head` has read enough. Python would complain once more when it closes the pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
