"""Annotation files made from others: kept when they are up to date, resumed when they were interrupted."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..parallel import in_parallel
from ..whole_files import write_json
from .files import read_coco
from .report import Check, PreparationError, listed, number

MAKER = 'mmdet-balanced, tools/prepare_data.py'
"""``info.contributor`` of the files written here; others are never replaced."""


@dataclass(frozen=True)
class Conversion:
    """One annotation file in COCO's format and what it is made from.

    Args:
        root: Folder of the data set.
        name: The file, as a path below `root`.
        images: ``file_name`` of every image that it must hold.
        categories: Names of its categories, in order.
        inputs: The files that it is made from.
    """

    root: Path
    name: str
    images: Sequence[str]
    categories: Sequence[str]
    inputs: Sequence[Path]

    @property
    def path(self) -> Path:
        """The annotation file."""
        return self.root / self.name

    @property
    def journal(self) -> Path:
        """Where the results of an unfinished conversion are kept, see :func:`resumable`."""
        return self.path.with_name(f'.{self.path.name}.part')

    def run(self, make: Callable[[Path], dict[str, Any]], *, force: bool = False) -> Check:
        """Make the file, unless it is there, complete and newer than its inputs.

        Args:
            make: Takes the journal, returns the content in COCO's format; may raise a PreparationError.
            force: Make it in any case, but do not replace a file of somebody else.

        Returns:
            What was done: ``'kept'``, ``'written'``, or the problem. A problem leaves the old file and the journal.
        """
        try:
            content = self._current(force)
            done = 'kept' if content else 'written'
            if not content:
                if force:
                    self.journal.unlink(missing_ok=True)
                content = make(self.journal)
                write_json(self.path, {'info': dict(contributor=MAKER), **content})
                self.journal.unlink(missing_ok=True)
        except (PreparationError, OSError) as error:  # a folder that cannot be written to hides no other result
            return Check(self.name, number(len(self.images), 'images'), '-', [str(error)])
        found = number(len(content['images']), 'images')
        return Check(self.name, number(len(self.images), 'images'), found, done=done, note=_summary(content))

    def skipped(self) -> Check:
        """The result where the inputs are wrong: nothing is made from them."""
        return Check(self.name, '', '-', ['not made: first mend what it is made from'])

    def _current(self, force: bool) -> dict[str, Any] | None:
        """Content of the file if it may stay; None if it is to be made; raises if it is in the way."""
        if not self.path.exists():
            return None
        try:
            content = read_coco(self.path)
            fault = self._fault(content)
        except PreparationError as error:
            content, fault = {}, str(error)
        if (force or fault) and not _ours(content):
            raise PreparationError(
                f'is there and was not written by this tool, so it is not replaced{f"; {fault}" if fault else ""}. '
                'Move it away'
            )
        return None if force or fault else content

    def _fault(self, content: dict[str, Any]) -> str:
        images = [image['file_name'] for image in content['images']]
        if Counter(images) != Counter(self.images):
            return f'it holds {len(images)} images, which are not the {len(self.images)} of this split'
        categories = [category['name'] for category in content['categories']]
        if categories != [*self.categories]:
            return f'it has the categories {listed(categories)}, not {listed(self.categories)}'
        if any(annotation.get('id') == 0 for annotation in content['annotations']):
            return 'one of its boxes has the id 0, which COCOeval takes for no match'
        written = self.path.stat().st_mtime_ns
        newer = next((path for path in self.inputs if path.stat().st_mtime_ns > written), None)
        return f'it is older than {newer}' if newer else ''


def own_categories(path: Path) -> list[str]:
    """Categories of an annotation file, in order.

    Args:
        path: A file in COCO's format.

    Returns:
        Their names; none if the file is not there, cannot be read, or was not written by :class:`Conversion`.
    """
    try:
        content = read_coco(path)
    except (PreparationError, OSError):
        return []
    return [category['name'] for category in content['categories']] if _ours(content) else []


def _ours(content: dict[str, Any]) -> bool:
    return isinstance(content.get('info'), dict) and content['info'].get('contributor') == MAKER


def resumable(
    function: Callable[[Path], Any],
    inputs: Sequence[Path],
    journal: Path | None,
    *,
    workers: int | None = 1,
    label: str = '',
) -> list[Any]:
    """Call a function for every input file; an interrupted run goes on where it stopped.

    Args:
        function: On module level; takes a path, returns what json can hold.
        inputs: Files of different names.
        journal: File to which every result is appended at once, as a line of json with the input's time and size.
            What it holds of inputs that have not changed is not computed again. None: nothing is kept.
        workers: As for :func:`~balanced_det.datasets.parallel.in_parallel`.
        label: Name of the progress bar.

    Returns:
        The results, in the order of the inputs.

    Raises:
        PreparationError: Inputs are missing, or `function` raised it for some; the others' results are kept.
    """
    absent = [path for path in inputs if not path.is_file()]
    if absent:
        raise PreparationError(f'{len(absent)} of {len(inputs)} files are missing: {listed(absent)}')
    journal = Path(os.devnull) if journal is None else journal
    stamps = {path.name: [path.stat().st_mtime_ns, path.stat().st_size] for path in inputs}
    results = {name: result for name, stamp, result in _lines(journal) if stamps.get(name) == stamp}
    todo = [path for path in inputs if path.name not in results]
    journal.parent.mkdir(parents=True, exist_ok=True)
    faults = []
    with journal.open('a') as stream:
        stream.write('\n')  # ends a line that was cut off
        attempts = in_parallel(partial(_attempt, function), todo, workers=workers, label=label)
        for path, (result, fault) in zip(todo, attempts):
            if fault:
                faults.append(fault)
                continue
            results[path.name] = result
            stream.write(json.dumps([path.name, stamps[path.name], result]) + '\n')
            stream.flush()
    if faults:
        raise PreparationError(f'{len(faults)} of {len(inputs)} files cannot be converted: {listed(faults)}')
    return [results[path.name] for path in inputs]


def _attempt(function: Callable[[Path], Any], path: Path) -> tuple[Any, str]:
    """The result, or what was wrong with the file: one bad file does not hide the others."""
    try:
        return function(path), ''
    except PreparationError as error:
        return None, str(error)


def _lines(journal: Path) -> list[tuple[str, list[int], Any]]:
    """What the journal holds; a line that was cut off is none."""
    lines = []
    for line in journal.read_text().splitlines() if journal.exists() else []:
        try:
            name, stamp, result = json.loads(line)
        except (ValueError, TypeError):
            continue
        lines.append((name, stamp, result))
    return lines


def _summary(content: dict[str, Any]) -> str:
    annotations = content['annotations']
    crowd = sum(bool(annotation.get('iscrowd')) for annotation in annotations)
    empty = sum(min(annotation['bbox'][2:]) <= 0 for annotation in annotations)
    parts = [f'{len(annotations)} boxes']
    parts += [f'{crowd} of them iscrowd'] if crowd else []
    parts += [f'{empty} of zero size, which trainings leave out'] if empty else []
    return ', '.join(parts)
