"""Folders, image files and COCO's json files of a data set."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from ..parallel import in_parallel
from .report import PreparationError, listed

FIELDS: dict[str, dict[str, type]] = dict(
    images=dict(id=int, file_name=str),
    categories=dict(id=int, name=str),
    annotations=dict(image_id=int, category_id=int, bbox=list),
)
"""What the lists of an annotation file in COCO's format must hold, as far as it is used here."""


def read_coco(path: Path) -> dict[str, Any]:
    """Read an annotation file in COCO's format.

    Args:
        path: A json file with ``images`` and ``categories``; ``annotations`` may be missing (a test set).

    Returns:
        Its content, with an empty list for missing ``annotations``.

    Raises:
        PreparationError: The file is missing, no json (half copied?), or none of this kind: a list is missing
            or an entry is of the wrong type.
    """
    if not path.is_file():
        raise PreparationError('no such file')
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise PreparationError(f'no json file, half copied? ({error}, {path.stat().st_size} bytes)') from None
    lists = {'annotations': [], **content} if isinstance(content, dict) else {}
    for name, fields in FIELDS.items():
        rows = lists.get(name)
        if not isinstance(rows, list) or not all(isinstance(row, dict) and row.keys() >= {*fields} for row in rows):
            raise PreparationError(f'no COCO annotation file: no list {name!r} whose rows have {" and ".join(fields)}')
        for field, kind in fields.items():
            wrong = [repr(row[field]) for row in rows if type(row[field]) is not kind]
            if wrong:
                raise PreparationError(
                    f'no COCO annotation file: {len(wrong)} of the {name} have no {kind.__name__} as {field}: '
                    f'{listed(wrong)}'
                )
    return lists


def file_sizes(root: Path, names: Sequence[str]) -> dict[str, int]:
    """Sizes in bytes of those files that are there.

    Args:
        root: A folder.
        names: Paths below it.

    Returns:
        Of `names`, the files that exist. Each folder is listed once: one look at every file is slow on network disks.
    """
    sizes: dict[str, int] = {}
    for folder in sorted({os.path.dirname(name) for name in names}):
        if (root / folder).is_dir():
            sizes.update({os.path.join(folder, name): size for name, size in folder_sizes(root / folder).items()})
    return {name: sizes[name] for name in names if name in sizes}


def folder_sizes(folder: Path) -> dict[str, int]:
    """Sizes in bytes of the files in a folder by their names; a link that leads nowhere is no file."""
    with os.scandir(folder) as entries:
        return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}


def file_problems(
    root: Path, names: Sequence[str], *, deep: bool = False, workers: int | None = None, label: str = 'images'
) -> list[str]:
    """What is wrong with files that must be there.

    Args:
        root: A folder.
        names: Paths below it.
        deep: Also decode every file, as an image, to its end.
        workers: As for :func:`~balanced_det.datasets.parallel.in_parallel`.
        label: Name of the progress bar.

    Returns:
        One sentence for each kind of problem: missing, empty, broken.
    """
    if not root.is_dir():
        return ['no such folder']
    sizes = file_sizes(root, names)
    faults = {
        'missing': [name for name in names if name not in sizes],
        'empty (0 bytes, half copied)': [name for name, size in sizes.items() if not size],
    }
    if deep:
        paths = [str(root / name) for name, size in sizes.items() if size]
        with_fault = zip(paths, in_parallel(decoding_fault, paths, workers=workers, label=label))
        faults['broken'] = [f'{os.path.relpath(path, root)} ({fault})' for path, fault in with_fault if fault]
    return [f'{len(found)} of {len(names)} are {fault}: {listed(found)}' for fault, found in faults.items() if found]


def decoding_fault(path: str) -> str:
    """Decode an image to its end; empty, or what went wrong."""
    try:  # not with cv2.imread, which fills the missing half of a JPEG with grey
        with Image.open(path) as image:
            image.load()
    except UnidentifiedImageError:
        return 'no image'
    except (OSError, SyntaxError, ValueError) as error:
        return str(error)
    return ''
