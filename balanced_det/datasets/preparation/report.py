"""What was found of a data set: one line for each thing, and for each that is wrong what exactly and the remedy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

LISTED = 5
"""How many names a message lists before it goes on with dots."""


class PreparationError(ValueError):
    """Data that cannot be used; the message names the file and says what to do."""


@dataclass(frozen=True)
class Check:
    """One thing of a data set, expected and found.

    Args:
        what: The thing, as a path below the root.
        expected: How much of it there must be; empty if any number will do.
        found: How much there is.
        problems: What is wrong, one sentence each.
        source: Where to get it.
        done: What was done about it, if nothing is wrong.
        note: Something to know that is not wrong.
    """

    what: str
    expected: str
    found: str
    problems: Sequence[str] = ()
    source: str = ''
    done: str = 'ok'
    note: str = ''

    @property
    def status(self) -> str:
        """One word for the table."""
        return 'WRONG' if self.problems else self.done


@dataclass
class Report:
    """All checks of a data set.

    Args:
        root: Folder of the data set.
        checks: In the order in which they are shown.
    """

    root: Path
    checks: list[Check] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether nothing is wrong."""
        return not any(check.problems for check in self.checks)

    def __str__(self) -> str:
        rows = [('what', 'expected', 'found', 'status')]
        rows += [(check.what, check.expected or '-', check.found, check.status) for check in self.checks]
        widths = [max(map(len, column)) for column in zip(*rows)]
        lines = ['  '.join(map(str.ljust, row, widths)).rstrip() for row in rows]
        lines += ['', *(f'{check.what}: {check.note}' for check in self.checks if check.note)]
        for check in self.checks:
            lines += [f'{check.what}: {problem}' for problem in check.problems]
            if check.problems and check.source:
                lines.append(f'    from {check.source}')
        wrong = sum(bool(check.problems) for check in self.checks)
        lines.append(f'{self.root}: {f"{wrong} of {len(self.checks)} things are wrong" if wrong else "complete"}')
        return '\n'.join(lines)


def listed(names: Iterable[object]) -> str:
    """The first few names, for a message.

    >>> listed('abcdefg')
    'a, b, c, d, e, ...'
    """
    texts = [str(name) for name in names]
    return ', '.join([*texts[:LISTED], *(['...'] if len(texts) > LISTED else [])])


def wrong_number(found: int, expected: int | None, what: str) -> list[str]:
    """The problem of a count: none if it is right, or if `expected` is None (a subset)."""
    if expected is None:
        return [] if found else [f'it has no {what}']
    if found == expected:
        return []
    return [f'{found} {what}, expected {expected} (a part of the set on purpose? --subset)']


def number(count: int | None, what: str) -> str:
    """A cell of the table: ``'80 images'``; empty for None."""
    return '' if count is None else f'{count} {what}'
