"""Cityscapes: images, and boxes and masks from the instance maps of the fine annotations."""

from __future__ import annotations

import os
import runpy
import tempfile
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from mmdet.datasets import CityscapesDataset

from balanced_det.compat import mmdet_script

from .conversion import Conversion, resumable
from .files import decoding_fault, file_problems, file_sizes
from .report import Check, PreparationError, Report, number, wrong_number

IMAGES = {'train': 2975, 'val': 500}
PAGE = 'https://www.cityscapes-dataset.com/downloads/ (needs an account)'
IMAGE, INSTANCES, LABELS = '_leftImg8bit.png', '_gtFine_instanceIds.png', '_gtFine_labelIds.png'
# (folder, end of the file names, archive of the official page)
KINDS = (
    ('leftImg8bit', IMAGE, 'leftImg8bit_trainvaltest.zip'),
    ('gtFine', INSTANCES, 'gtFine_trainvaltest.zip'),
    ('gtFine', LABELS, 'gtFine_trainvaltest.zip'),
)


def prepare_cityscapes(
    root: str | Path, *, subset: bool = False, deep: bool = False, force: bool = False, workers: int | None = None
) -> Report:
    """Check that Cityscapes is all there and convert the instance maps of train and val with mmdet's converter.

    Writes ``annotations/instancesonly_filtered_gtFine_{train,val}.json``, which mmdet's configs read.

    Args:
        root: Folder with ``leftImg8bit/{train,val}`` and ``gtFine/{train,val}``.
        subset: The set is a part of Cityscapes: any number of images will do, but each needs its annotations.
        deep: Decode every image; else only files of 0 bytes are found broken before the conversion.
        force: Convert again what is up to date.
        workers: Number of processes; default: one per core, at most 8.

    Returns:
        What was found and done.
    """
    report = Report(Path(root))
    for split, images in IMAGES.items():
        stems = _stems(report.root, split)
        expected = None if subset else images
        checks = [_check_files(report.root, split, *kind, stems, expected, deep, workers) for kind in KINDS]
        maps = [report.root / 'gtFine' / split / f'{stem}{INSTANCES}' for stem in stems]
        conversion = Conversion(
            report.root,
            f'annotations/instancesonly_filtered_gtFine_{split}.json',
            [f'{stem}{IMAGE}' for stem in stems],
            CityscapesDataset.METAINFO['classes'],
            maps,
        )
        complete = not any(check.problems for check in checks)
        make = partial(_convert, maps, workers)
        report.checks += [*checks, conversion.run(make, force=force) if complete else conversion.skipped()]
    return report


def _stems(root: Path, split: str) -> list[str]:
    """``city/city_sequence_frame`` of everything there is an image or an annotation of."""
    stems = set()
    for folder, end, _ in KINDS:
        base = root / folder / split
        stems |= {path.relative_to(base).as_posix()[: -len(end)] for path in base.glob(f'*/*{end}')}
    return sorted(stems)


def _check_files(
    root: Path,
    split: str,
    folder: str,
    end: str,
    archive: str,
    stems: list[str],
    expected: int | None,
    deep: bool,
    workers: int | None,
) -> Check:
    base, what = root / folder / split, f'{folder}/{split}/*/*{end}'
    names = [f'{stem}{end}' for stem in stems]
    problems = file_problems(base, names, deep=deep, workers=workers, label=what)
    found = len(file_sizes(base, names))
    if base.is_dir():
        problems += wrong_number(found, expected, 'files')
    return Check(what, number(expected, 'files'), number(found, 'files'), problems, f'{archive} of {PAGE}')


def _convert(maps: list[Path], workers: int | None, journal: Path) -> dict[str, Any]:
    _converter()  # before the workers fork, and before anything is written
    infos = resumable(_read_instances, maps, journal, workers=workers, label=str(maps[0].parents[1]))
    with tempfile.TemporaryDirectory() as folder:  # mmdet's function writes its result, and returns it
        content = _converter()['cvt_annotations'](infos, os.path.join(folder, 'instances.json'))
    content.setdefault('annotations', [])
    for annotation in content['annotations']:
        annotation['id'] += 1  # COCOeval takes a match with the id 0, mmdet's first, for no match
    return content


def _read_instances(path: Path) -> dict[str, Any]:
    """Boxes and masks of one instance map, as mmdet's ``load_img_info`` returns them."""
    labels = path.with_name(path.name.replace(INSTANCES, LABELS))
    image = path.parents[3] / 'leftImg8bit' / path.parents[1].name / path.parent.name
    image = image / path.name.replace(INSTANCES, IMAGE)
    try:
        return _converter()['load_img_info']((str(image), str(path), str(labels)))
    except (KeyError, TypeError, AttributeError) as error:
        fault = decoding_fault(str(path)) or f'no instance map of Cityscapes ({type(error).__name__}: {error})'
        raise PreparationError(f'{path}: {fault}') from None


@lru_cache(maxsize=1)
def _converter() -> dict[str, Callable]:
    """The functions of mmdet's converter script."""
    try:
        return runpy.run_path(str(mmdet_script('dataset_converters/cityscapes.py')))
    except ModuleNotFoundError as error:
        if not (error.name or '').startswith('cityscapesscripts'):
            raise
        raise PreparationError(
            "not made: mmdet's converter needs cityscapesscripts; `pip install cityscapesscripts`, and again"
        ) from None
