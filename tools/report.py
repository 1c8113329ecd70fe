"""Print the papers' tables with what was measured beside them.

Reads what trainings and tests have written to work_dirs/<name of the config>, whatever started them, and marks what
differs from the paper: another data set, a shorter schedule, another batch, val2017 in place of test-dev.

  python tools/report.py                          all twelve tables
  python tools/report.py A2 B3.4 --out report     two, also as report/report.md and report/report.csv
  python tools/report.py --record --update        keep real measurements, and write them into READMEs and metafiles
  python tools/report.py --check                  exit status 1 if these are not up to date
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

# In a checkout the package lies beside tools/; in an installed package (.mim/tools) there is nothing to add.
ROOT = Path(__file__).resolve().parents[1]
if (ROOT / 'balanced_det' / '__init__.py').is_file():
    sys.path.insert(0, str(ROOT))

from balanced_det import papers
from balanced_det.datasets.whole_files import write_text
from balanced_det.reproduction import generated, report


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('keys', nargs='*', metavar='TABLE|ROW', help='default: all; tools/papers.py list shows them')
    parser.add_argument('--work-dirs', type=Path, help='default: work_dirs')
    parser.add_argument('--markdown', type=Path, metavar='FILE', help='write the tables as Markdown')
    parser.add_argument('--csv', type=Path, metavar='FILE', help='write them as CSV, one line for each metric')
    parser.add_argument('--out', type=Path, metavar='DIR', help='write both, as report.md and report.csv')
    parser.add_argument('--record', action='store_true', help='keep measurements that are no trials in the repository')
    parser.add_argument('--update', action='store_true', help='write READMEs and metafiles from what is recorded')
    parser.add_argument('--check', action='store_true', help='exit status 1 with the difference if they are stale')
    args = parser.parse_args()
    if args.work_dirs and not args.work_dirs.is_dir():
        parser.error(f'--work-dirs {args.work_dirs}: there is no such folder')
    args.work_dirs = args.work_dirs or Path('work_dirs')
    if args.out:
        args.markdown = args.markdown or args.out / 'report.md'
        args.csv = args.csv or args.out / 'report.csv'
    return args


def selected_tables(keys: list[str]) -> list[papers.Table]:
    """The tables of some keys, with the rows that these name."""
    if not keys:
        return list(papers.tables().values())
    rows = papers.find(keys)
    names = dict.fromkeys(row.table_key for row in rows)
    return [
        replace(papers.table(name), rows=tuple(row for row in papers.table(name).rows if row in rows)) for name in names
    ]


def print_report(args: argparse.Namespace) -> None:
    tables = selected_tables(args.keys)
    results = report.read_results([row for table in tables for row in table.rows], args.work_dirs)
    text = '\n'.join(report.markdown(table, results) for table in tables)
    print(text)
    print(report.summary(tables, results))
    for path, content in ((args.markdown, text), (args.csv, report.csv_text(tables, results))):
        if path:
            write_text(path, content)
            print(f'wrote {path}')
    if args.record:
        recorded, left_out = generated.record(results.measured)
        for name in recorded:
            print(f'recorded: {name}')
        for reason in left_out:
            print(f'not recorded: {reason}')


def main() -> None:
    args = parse_args()
    try:
        if args.keys or args.record or args.markdown or args.csv or not (args.update or args.check):
            print_report(args)
        if args.check:
            difference = generated.stale()
            if difference:
                sys.exit(f'{difference}\nThe generated files are stale: run python tools/report.py --update')
            print('The generated files are up to date.')
            return
        if args.update:
            for path in generated.update() or ['nothing: all was up to date']:
                print(f'updated {path}')
    except (papers.UnknownRowError, generated.GeneratedError, OSError) as error:
        sys.exit(f'error: {error}')


if __name__ == '__main__':
    main()
