"""Digit scenes, a data set that needs no download: made on the spot, used like any COCO set.

Real handwritten digits, warped, stretched, recoloured and pasted, partly over each other, on crops of two real
photographs. It is a *made* set from real parts: numbers on it compare losses, they are no benchmark result.

* Boxes are exact and amodal: the tight extent of the digit's mask (alpha above ``ALPHA_MIN``, 0.2) before later
  digits cover parts of it. No digit is covered by more than 60 %: one that would do so is moved or left out.
* Images of 128 x 128 hold one to six boxes (3.4 on average), long sides 14 to 80 pixels, width over height 0.3
  to 3. Another image size keeps the shortest side (14) and moves the longest with it (5/8 of the size).
* No handwritten digit is in both splits; the two photographs are.
* An image follows from seed, split and its number alone, so neither the number of workers nor an interruption
  changes a byte. (Other versions of OpenCV or pillow may encode the same picture into other bytes.)
"""

from __future__ import annotations

import json
import os
import re
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import cv2
import numpy as np
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.fileio import exists

from .digit_drawing import MIN_SIDE, Scene, draw_scene, load_sources
from .parallel import default_workers, in_parallel
from .whole_files import write_bytes, write_json

SPLITS = ('train', 'val')
TEN_CLASSES = tuple('0123456789')
MANIFEST = 'digit_scenes.json'
DRAWING_VERSION = 1
"""To be raised whenever the same seed gives other scenes: sets of another version are then not taken as up to date."""

_DESCRIPTION = (
    'Digit scenes: a MADE data set from real parts. Handwritten digits of scikit-learn (load_digits), '
    'warped and pasted on crops of its two photographs (load_sample_images).'
)
_LICENSES = [
    dict(
        id=1,
        name='Photographs: Creative Commons Attribution 2.0, danielbuechele (china), vultilion (flower)',
        url='https://creativecommons.org/licenses/by/2.0/',
    ),
    dict(
        id=2,
        name='Digits: Creative Commons Attribution 4.0, UCI Optical Recognition of Handwritten Digits',
        url='https://creativecommons.org/licenses/by/4.0/',
    ),
]


@DATASETS.register_module()
class DigitScenesDataset(CocoDataset):
    """:class:`mmdet.datasets.CocoDataset` with the class of the digit scenes.

    For a set made with ``classes=10`` put ``metainfo=dict(classes=tuple('0123456789'))`` into the config.

    Raises:
        FileNotFoundError: the set has not been made; the message has the command.
        ValueError: the class list does not match the one the set was made with.
    """

    METAINFO: ClassVar[dict] = dict(
        classes=('digit',),
        # Ten colours: a config for the ten classes then overrides `classes` alone.
        palette=[
            (255, 215, 0),
            (220, 20, 60),
            (0, 120, 255),
            (0, 180, 80),
            (255, 120, 0),
            (150, 60, 220),
            (0, 200, 200),
            (255, 90, 180),
            (130, 90, 40),
            (120, 120, 120),
        ],
    )

    def load_data_list(self) -> list[dict]:
        """Load the annotation file named by ``ann_file``."""
        classes = self.metainfo['classes']
        root = Path(self.ann_file).parent.parent
        if not exists(self.ann_file, backend_args=self.backend_args):
            ten = '' if tuple(classes) == ('digit',) else ' --classes 10'
            raise FileNotFoundError(
                f'dataset.ann_file {self.ann_file!r} does not exist: digit scenes are made, not downloaded. Run '
                f'`python tools/make_digit_scenes.py --root {root}{ten}` (some seconds; `bash tools/demo.sh` does '
                'it by itself), or set data_root to the folder that holds them.'
            )
        data_list = super().load_data_list()
        # CocoDataset drops the boxes of unknown classes without a word and would train on empty images.
        if len(self.cat_ids) != len(classes):
            raise ValueError(
                f'dataset.metainfo.classes {tuple(classes)} does not match {self.ann_file!r}: a set made with '
                f"--classes 1 has ('digit',), one with --classes 10 has {TEN_CLASSES}. Change the class list, or "
                'make the other set in another root and set data_root to it.'
            )
        return data_list


class Settings(NamedTuple):
    """What a set is made from; two sets with equal settings are equal."""

    num_train: int = 2000
    num_val: int = 500
    size: int = 128
    classes: int = 1
    seed: int = 0
    version: int = DRAWING_VERSION

    def check(self) -> None:
        """Raise a ValueError that names the value and the remedy for the first bad one."""
        for name, value in self._asdict().items():
            if isinstance(value, bool) or not isinstance(value, int):
                raise ValueError(f'{name} must be an int, but got {value!r}.')
        for name, value in (('num_train', self.num_train), ('num_val', self.num_val)):
            if value < 1:
                raise ValueError(f'{name} must be at least 1, but got {value}: no split may be empty.')
        if self.size < 32:
            raise ValueError(
                f'size must be at least 32 pixels, but got {self.size}: digits have long sides of '
                f'{MIN_SIDE} pixels to 5/8 of the size. The configs take 128.'
            )
        if self.classes not in (1, 10):
            raise ValueError(f"classes must be 1 ('digit') or 10 ('0' to '9'), but got {self.classes}.")
        if self.seed < 0:
            raise ValueError(f'seed must not be negative, but got {self.seed}.')

    def images(self, split: str) -> int:
        """Number of images of a split."""
        return self.num_train if split == 'train' else self.num_val


def make_digit_scenes(
    root: str | Path,
    *,
    num_train: int = 2000,
    num_val: int = 500,
    size: int = 128,
    classes: int = 1,
    seed: int = 0,
    workers: int | None = None,
    force: bool = False,
    progress: bool = True,
) -> Path:
    """Make the data set under ``root``, unless it is there already.

    Writes ``{train,val}/000000.png`` ..., ``annotations/{train,val}.json`` and, last, ``digit_scenes.json``,
    which says with which settings the set was made and that it is complete. A set that was interrupted is
    made again with the same bytes.

    Args:
        root: folder of the set; made if need be.
        num_train: number of training images.
        num_val: number of validation images.
        size: width and height of the images, pixels.
        classes: 1 (``digit``) or 10 (``0`` ... ``9``: the same images and boxes, other category ids).
        seed: another seed, another set.
        workers: number of processes; default: one per core, at most 8.
        force: replace a set of other settings.
        progress: show a progress bar on stderr.

    Returns:
        ``root``.

    Raises:
        ValueError: an argument is out of its range.
        FileExistsError: ``root`` holds a set of other settings (and not ``force``), or files of something else.
        ImportError: scikit-learn is not installed.
    """
    settings = Settings(num_train, num_val, size, classes, seed)
    settings.check()
    workers = default_workers() if workers is None else workers
    if workers < 1:
        raise ValueError(f'workers must be at least 1, but got {workers}.')
    root = Path(root)
    if _is_complete(root, settings, force):
        return root
    load_sources()  # before anything is written, and before the workers fork
    # The manifest comes first, too: without it the folders of an interrupted set are taken for somebody else's.
    root.mkdir(parents=True, exist_ok=True)
    write_json(root / MANIFEST, dict(settings=settings._asdict(), complete=False))
    for folder in (*SPLITS, 'annotations'):
        (root / folder).mkdir(exist_ok=True)
    tasks = [(str(root), split, index, settings) for split in SPLITS for index in range(settings.images(split))]
    drawn = in_parallel(
        _make_image, tasks, workers=workers, label='digit scenes', unit='image', chunksize=8, progress=progress
    )
    with closing(drawn):
        labels = list(drawn)
    for split, per_image in zip(SPLITS, (labels[:num_train], labels[num_train:])):
        write_json(root / 'annotations' / f'{split}.json', _coco(split, per_image, settings))
    write_json(root / MANIFEST, dict(description=_DESCRIPTION, settings=settings._asdict(), complete=True))
    return root


def scene(split: str, index: int, *, size: int = 128, seed: int = 0) -> Scene:
    """Draw image ``index`` of a split: pixels, masks and boxes, without a file."""
    return draw_scene(np.random.default_rng([seed, SPLITS.index(split), index]), split, size)


def _is_complete(root: Path, settings: Settings, force: bool) -> bool:
    """Whether the set is there; clears what ``force`` replaces, raises if anything else is in the way."""
    manifest = root / MANIFEST
    if not manifest.exists():
        ours = f'.{MANIFEST}.'  # a manifest whose writing was interrupted
        if root.exists() and (not root.is_dir() or any(not path.name.startswith(ours) for path in root.iterdir())):
            raise FileExistsError(
                f'{str(root)!r} exists and is not a folder of digit scenes (no {MANIFEST}); '
                'nothing was changed. Give another root, or empty this one by hand.'
            )
        return False
    try:
        found = json.loads(manifest.read_text())
        differ = [
            f'{name} is {found["settings"].get(name)}, asked for {value}'
            for name, value in settings._asdict().items()
            if found['settings'].get(name) != value
        ]
    except (ValueError, KeyError, TypeError, AttributeError):
        found, differ = {}, [f'{MANIFEST} is not readable']
    if not differ:
        return bool(found.get('complete')) and _files_are_there(root, settings)
    if not force:
        raise FileExistsError(
            f'{str(root)!r} holds digit scenes of other settings ({"; ".join(differ)}); nothing '
            'was changed. Give another root, or --force (force=True) to replace them.'
        )
    _clear(root)
    return False


def _files_are_there(root: Path, settings: Settings) -> bool:
    for split in SPLITS:
        if not (root / split).is_dir() or not (root / 'annotations' / f'{split}.json').is_file():
            return False
        names = set(os.listdir(root / split))  # one call: thousands of is_file() are slow on network disks
        if not all(_file_name(index) in names for index in range(settings.images(split))):
            return False
    return True


def _clear(root: Path) -> None:
    """Delete what this module wrote and nothing else; the manifest last, so that it can be interrupted too."""
    for split in SPLITS:
        (root / 'annotations' / f'{split}.json').unlink(missing_ok=True)
        for path in (root / split).glob('*.png'):
            if re.fullmatch(r'\d{6}', path.stem):
                path.unlink()
    (root / MANIFEST).unlink()


def _make_image(task: tuple[str, str, int, Settings]) -> list[dict]:
    """Draw and write one image; returns what its annotations say."""
    root, split, index, settings = task
    drawn = scene(split, index, size=settings.size, seed=settings.seed)
    # Level 1 is the fastest; the level and strategy are spelt out because OpenCV's defaults change.
    done, png = cv2.imencode(
        '.png', drawn.image, [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
    )
    if not done:
        raise RuntimeError('OpenCV could not encode a PNG.')
    write_bytes(Path(root, split, _file_name(index)), png.tobytes())
    return [
        dict(bbox=digit.bbox, digit=digit.label, source=digit.source, visible=round(visible, 4))
        for digit, visible in zip(drawn.digits, drawn.visible)
    ]


def _file_name(index: int) -> str:
    return f'{index:06d}.png'


def _coco(split: str, per_image: list[list[dict]], settings: Settings) -> dict[str, Any]:
    """The annotation file of a split; no dates, for the same settings must give the same bytes.

    Beyond COCO's fields an annotation says which ``digit`` it is, the ``source`` sample of ``load_digits()``
    and the ``visible`` share; ``area`` is the box's, there are no masks.
    """
    names = ('digit',) if settings.classes == 1 else TEN_CLASSES
    annotations: list[dict] = []
    for image_id, labels in enumerate(per_image):
        for label in labels:
            _, _, width, height = label['bbox']
            category = 1 if settings.classes == 1 else label['digit'] + 1
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=category,
                    area=width * height,
                    iscrowd=0,
                    **label,
                )
            )
    size = settings.size
    return dict(
        info=dict(description=_DESCRIPTION, version=str(settings.version), split=split, settings=settings._asdict()),
        licenses=_LICENSES,
        images=[
            dict(id=index, file_name=_file_name(index), width=size, height=size, license=1)
            for index in range(len(per_image))
        ],
        annotations=annotations,
        categories=[dict(id=number, name=name, supercategory='digit') for number, name in enumerate(names, 1)],
    )
