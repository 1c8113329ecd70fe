"""COCO 2017: annotation files and images. mmdet reads them as they are, so nothing is written."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from mmdet.datasets import CocoDataset

from .files import file_problems, folder_sizes, read_coco
from .report import Check, PreparationError, Report, listed, number, wrong_number

DOWNLOADS = 'https://cocodataset.org/#download'


class Split(NamedTuple):
    """An annotation file and its folder of images."""

    annotations: str
    folder: str
    images: int
    files: int
    archive: str
    optional: bool = False


# The images of test-dev are a part of the folder test2017.
SPLITS = (
    Split('annotations/instances_train2017.json', 'train2017', 118287, 118287, 'annotations_trainval2017.zip'),
    Split('annotations/instances_val2017.json', 'val2017', 5000, 5000, 'annotations_trainval2017.zip'),
    Split('annotations/image_info_test-dev2017.json', 'test2017', 20288, 40670, 'image_info_test2017.zip', True),
)


def check_coco(root: str | Path, *, subset: bool = False, deep: bool = False, workers: int | None = None) -> Report:
    """Check that COCO 2017 is all there, laid out as mmdet's configs expect it.

    Args:
        root: Folder with ``annotations/``, ``train2017/``, ``val2017/`` and, optional, ``test2017/``.
        subset: The set is a part of COCO: any number of images will do, but each must be there.
        deep: Decode every image; else only files of 0 bytes are found broken.
        workers: Number of processes that decode; default: one per core, at most 8.

    Returns:
        What was found.
    """
    report = Report(Path(root))
    for split in SPLITS:
        if split.optional and not any((report.root / name).exists() for name in (split.annotations, split.folder)):
            report.checks.append(Check(split.annotations, '', '-', done='not there (optional)'))
            continue
        names, check = _check_annotations(report.root, split, subset)
        report.checks += [check, _check_images(report.root, split, names, subset, deep, workers)]
    return report


def _check_annotations(root: Path, split: Split, subset: bool) -> tuple[list[str], Check]:
    expected = None if subset else split.images
    source = f'http://images.cocodataset.org/annotations/{split.archive} ({DOWNLOADS})'
    cell = number(expected, 'images')
    try:
        content = read_coco(root / split.annotations)
    except PreparationError as error:
        return [], Check(split.annotations, cell, '-', [str(error)], source)
    names = [image['file_name'] for image in content['images']]
    problems = wrong_number(len(names), expected, 'images') + _inconsistencies(content)
    return names, Check(split.annotations, cell, number(len(names), 'images'), problems, source)


def _inconsistencies(content: dict[str, Any]) -> list[str]:
    """What is wrong inside an annotation file."""
    problems = []
    classes = CocoDataset.METAINFO['classes']
    names = [category['name'] for category in content['categories']]
    if sorted(names) != sorted(classes):
        differ = sorted({*classes} ^ {*names}) or names
        problems.append(f'{len(names)} categories, expected the {len(classes)} of COCO; differing: {listed(differ)}')
    for key in ('id', 'file_name'):
        twice = [value for value, count in Counter(image[key] for image in content['images']).items() if count > 1]
        if twice:
            problems.append(f'{len(twice)} images have the same {key}: {listed(twice)}')
    for key, rows in (('image', content['images']), ('category', content['categories'])):
        known = {row['id'] for row in rows}
        unknown = sorted({row[f'{key}_id'] for row in content['annotations']} - known)
        if unknown:
            problems.append(f'boxes have {len(unknown)} {key} ids that the file does not list: {listed(unknown)}')
    return problems


def _check_images(root: Path, split: Split, names: list[str], subset: bool, deep: bool, workers: int | None) -> Check:
    folder = root / split.folder
    expected = None if subset else split.files
    problems = file_problems(folder, names, deep=deep, workers=workers, label=split.folder)
    files = [name for name in folder_sizes(folder) if name.endswith('.jpg')] if folder.is_dir() else []
    if folder.is_dir():
        problems += wrong_number(len(files), expected, 'images')
    unlisted = sorted({*files} - {*names})
    if names and not subset and split.images == split.files and unlisted:
        problems.append(f'{len(unlisted)} that {split.annotations} does not list: {listed(unlisted)}')
    return Check(
        what=f'{split.folder}/',
        expected=number(expected, 'images'),
        found=number(len(files), 'images') if folder.is_dir() else '-',
        problems=problems,
        source=f'http://images.cocodataset.org/zips/{split.folder}.zip ({DOWNLOADS})',
    )
