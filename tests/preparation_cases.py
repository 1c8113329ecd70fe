"""Sets in the formats of COCO, VOC and Cityscapes that are made in a few lines, and what their reports say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def rows(report) -> dict:
    return {check.what: check for check in report.checks}


def problems(report) -> dict:
    return {check.what: list(check.problems) for check in report.checks if check.problems}


def picture(path: Path, width: int = 64, height: int = 48) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    Image.fromarray(noise).save(path)


def cut(path: Path) -> None:
    """The first half of a file, as an interrupted copy leaves it."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def xml(*objects: str, width=64, height=48) -> str:
    size = f'<size><width>{width}</width><height>{height}</height></size>'
    return f'<annotation>{size}{"".join(objects)}</annotation>'


def thing(name: str, corners: tuple, difficult: int | None = 0) -> str:
    flag = '' if difficult is None else f'<difficult>{difficult}</difficult>'
    sides = ''.join(f'<{side}>{x}</{side}>' for side, x in zip(('xmin', 'ymin', 'xmax', 'ymax'), corners))
    return f'<object><name>{name}</name>{flag}<bndbox>{sides}</bndbox></object>'


def plant(folder: Path, splits: dict[str, tuple], **annotations: str) -> Path:
    """A folder in VOC's format: an image and an annotation for each name of the splits."""
    for split, names in splits.items():
        path = folder / 'ImageSets/Main' / f'{split}.txt'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(''.join(f'{name}\n' for name in names))
        for name in names:
            picture(folder / 'JPEGImages' / f'{name}.jpg')
            (folder / 'Annotations').mkdir(exist_ok=True)
            text = annotations.get(f'_{name}', xml(thing('cat', (1, 1, 11, 21))))
            (folder / 'Annotations' / f'{name}.xml').write_text(text)
    return folder


def linked(root: Path, folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in ('Annotations', 'ImageSets', 'JPEGImages'):
        (folder / name).symlink_to(root.resolve() / name)
    return folder
