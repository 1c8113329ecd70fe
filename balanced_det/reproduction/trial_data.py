"""The data set of a trial: a folder in the layout of COCO or of Pascal VOC."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

VOC_FOLDERS = ('JPEGImages', 'Annotations', 'ImageSets/Main')
#: The splits to take for each purpose, the first that is there.
CHOICES = {'train': ('train', 'trainval'), 'val': ('val', 'test'), 'test': ('test', 'val')}


class TrialError(ValueError):
    """A trial that cannot be made; the message says why."""


@dataclass(frozen=True)
class Splits:
    """Training, validation and test set as COCO files.

    Attributes:
        root: The folder of the data set.
        annotations: The COCO file of each part.
        contents: What is in each file; of a VOC set it is to be written there.
        images: The folder of each part's images.
    """

    root: Path
    annotations: dict[str, Path]
    contents: dict[str, dict]
    images: dict[str, Path]

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the category ids."""
        return tuple(cat['name'] for cat in sorted(self.contents['train']['categories'], key=lambda cat: cat['id']))

    @property
    def num_training_images(self) -> int:
        """Images of the training set."""
        return len(self.contents['train']['images'])

    @property
    def has_masks(self) -> bool:
        """Whether the training set has a mask for each object that is no crowd."""
        return all(ann.get('segmentation') for ann in self.contents['train']['annotations'] if not ann.get('iscrowd'))

    def dataset(self, part: str, pipeline: list[dict]) -> dict[str, Any]:
        """The dataset block of a part."""
        block = dict(
            type='CocoDataset',
            data_root='',
            ann_file=str(self.annotations[part]),
            data_prefix=dict(img=f'{self.images[part]}/'),
            metainfo=dict(classes=self.classes),
            pipeline=pipeline,
        )
        if part == 'train':
            return dict(block, filter_cfg=dict(filter_empty_gt=True, min_size=32))
        return dict(block, test_mode=True)


def find_splits(root: Path, folder: Path) -> Splits:
    """Find the parts of a data set.

    Args:
        root: A folder with ``annotations/*.json``, or with ``JPEGImages``, ``Annotations`` and ``ImageSets/Main``.
        folder: Where COCO files of a VOC set are to be written; nothing is written here.

    Returns:
        The parts.

    Raises:
        TrialError: The folder has neither layout, or no training or validation set.
    """
    if all((root / name).is_dir() for name in VOC_FOLDERS):
        return voc_splits(root, folder)
    if any((root / 'annotations').glob('*.json')):
        return coco_splits(root)
    there = ', '.join(sorted(path.name for path in root.iterdir())) if root.is_dir() else 'no such folder'
    raise TrialError(
        f'--data-root {root} has neither the layout of COCO (annotations/*.json) nor that of VOC '
        f'({", ".join(VOC_FOLDERS)}); it has: {there or "nothing"}'
    )


def coco_splits(root: Path) -> Splits:
    """The parts of a data set in the layout of COCO."""
    files = {}
    for path in sorted((root / 'annotations').glob('*.json')):
        found = re.fullmatch(r'(?:instances_)?(train|val|test)\d*', path.stem)
        if found:
            files[found[1]] = path
    annotations = choose(root / 'annotations', files)
    contents: dict[Path, dict] = {}
    for path in annotations.values():
        if path not in contents:
            contents[path] = load(path)
    return Splits(
        root,
        annotations,
        {part: contents[path] for part, path in annotations.items()},
        {part: image_folder(root, path, contents[path]) for part, path in annotations.items()},
    )


def voc_splits(root: Path, folder: Path) -> Splits:
    """The parts of a data set in the layout of VOC, converted."""
    from balanced_det.datasets.preparation import voc_to_coco

    lists = {path.stem: path for path in (root / 'ImageSets' / 'Main').glob('*.txt')}
    chosen = choose(root / 'ImageSets' / 'Main', lists)
    contents: dict[str, dict] = {}
    classes: Sequence[str] | None = None
    for part, path in chosen.items():
        contents[part] = voc_to_coco(root, path, classes)
        classes = [category['name'] for category in contents[part]['categories']]
    annotations = {part: folder / f'{path.stem}.json' for part, path in chosen.items()}
    return Splits(root, annotations, contents, dict.fromkeys(chosen, root))


def choose(folder: Path, files: dict[str, Path]) -> dict[str, Path]:
    """The file for each part, of those that a folder has."""
    chosen = {}
    for part, names in CHOICES.items():
        name = next((name for name in names if name in files), None)
        if name is None:
            raise TrialError(f'{folder} has no {part} set; it has: {", ".join(sorted(files)) or "none"}')
        chosen[part] = files[name]
    return chosen


def load(path: Path) -> dict:
    """A COCO file with images, annotations and categories."""
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise TrialError(f'{path} is not JSON: {error}') from error
    missing = [
        key for key in ('images', 'annotations', 'categories') if not (isinstance(content, dict) and key in content)
    ]
    if missing:
        raise TrialError(f'{path} is no COCO annotation file: it lacks {", ".join(missing)}')
    return content


def image_folder(root: Path, path: Path, content: dict) -> Path:
    """The folder of the images of a COCO file: the one that has the first."""
    if not content['images']:
        raise TrialError(f'{path} names no image')
    name = content['images'][0]['file_name']
    candidates = [root / path.stem.removeprefix('instances_'), root, *sorted(root.iterdir())]
    for candidate in candidates:
        if (candidate / name).is_file():
            return candidate
    raise TrialError(f'{path} names the image {name}, which is in no folder of {root}')
