"""The rows of both papers, by their keys."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from .page import Row, Table, read_tables

PAGES = ('iou_balanced_losses.md', 'harmonic_det.md')


class UnknownRowError(ValueError):
    """No table or row has the key; the message lists the near ones."""


@cache
def _tables() -> dict[str, Table]:
    folder = Path(__file__).parent
    return {table.key: table for page in PAGES for table in read_tables(folder / page)}


def tables() -> dict[str, Table]:
    """All twelve tables by their keys, 'A1' to 'A7' and 'B1' to 'B5'."""
    return dict(_tables())


def rows() -> list[Row]:
    """All 115 rows, in the order of the papers."""
    return [row for table in _tables().values() for row in table.rows]


def table(key: str) -> Table:
    """The table of a key.

    Args:
        key: Such as 'A2'; small letters will do.

    Returns:
        The table.

    Raises:
        UnknownRowError: There is no such table.
    """
    try:
        return _tables()[key.upper()]
    except KeyError:
        raise _unknown(key) from None


def find(keys: Iterable[str]) -> list[Row]:
    """The rows of some keys.

    Args:
        keys: Of tables ('A2') and of rows ('A4.3'); small letters will do.

    Returns:
        The rows in the order of the keys, each once.

    Raises:
        UnknownRowError: A key is of no table and of no row.
    """
    by_key = {row.key: row for row in rows()}
    found: dict[str, Row] = {}
    for key in keys:
        name = key.upper()
        if name in _tables():
            found.update((row.key, row) for row in _tables()[name].rows)
        elif name in by_key:
            found[name] = by_key[name]
        else:
            raise _unknown(key)
    return list(found.values())


def _unknown(key: str) -> UnknownRowError:
    """What to say of a key that is neither a table's nor a row's."""
    table_key, dot, _ = key.upper().partition('.')
    if dot and table_key in _tables():
        hint = f'{table_key} has the rows {table_key}.1 to {table_key}.{len(_tables()[table_key].rows)}'
    else:
        near = difflib.get_close_matches(table_key, _tables(), n=len(_tables()), cutoff=0.5)
        hint = f'near ones are {", ".join(sorted(near))}; ' if near else ''
        hint += 'there are the tables A1 to A7 and B1 to B5, and rows such as A2.3'
    return UnknownRowError(f'no table or row {key!r}: {hint}')
