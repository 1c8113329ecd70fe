"""Pascal VOC 2007 and 2012, and other sets in their format: checked, and converted to COCO's format."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from mmdet.datasets import VOCDataset

from .conversion import Conversion, own_categories, resumable
from .files import file_problems, file_sizes, read_coco
from .report import Check, PreparationError, Report, listed, number, wrong_number
from .voc_xml import class_names, coco_from_records, merged, read_split, read_xml

SERVER = 'http://host.robots.ox.ac.uk/pascal/VOC'
SPLITS = ('trainval', 'train', 'val', 'test')


class Split(NamedTuple):
    """A list of images, and the annotation file made of it.

    Attributes:
        folder: With ``Annotations``, ``JPEGImages`` and ``ImageSets/Main``, below the root; ``''`` is the root itself.
        name: Of the split file in ``ImageSets/Main``, without its ending.
        output: Name of the annotation file, without its ending.
        images: How many there must be; None: any number.
        source: Where to get it.
    """

    folder: str
    name: str
    output: str
    images: int | None = None
    source: str = ''

    @property
    def list_file(self) -> str:
        """The split file, below the root."""
        return self.below('ImageSets', 'Main', f'{self.name}.txt')

    @property
    def output_file(self) -> str:
        """The annotation file, below the root."""
        return f'annotations/{self.output}.json'

    def below(self, *parts: str) -> str:
        """A path in the folder, below the root."""
        return '/'.join([*filter(None, [self.folder]), *parts])


VOC = (
    Split('VOC2007', 'trainval', 'voc07_trainval', 5011, f'{SERVER}/voc2007/VOCtrainval_06-Nov-2007.tar'),
    Split('VOC2007', 'test', 'voc07_test', 4952, f'{SERVER}/voc2007/VOCtest_06-Nov-2007.tar'),
    Split('VOC2012', 'trainval', 'voc12_trainval', 11540, f'{SERVER}/voc2012/VOCtrainval_11-May-2012.tar'),
)
TOGETHER = ('voc07_trainval', 'voc12_trainval')
MERGED = 'voc0712_trainval'


def prepare_voc(
    root: str | Path,
    *,
    classes: Sequence[str] | None = None,
    subset: bool = False,
    deep: bool = False,
    force: bool = False,
    workers: int | None = None,
) -> Report:
    """Check a set in Pascal VOC's format and write its splits in COCO's, for COCO-style AP.

    A root with ``VOC2007`` or ``VOC2012`` is VOC itself: writes ``annotations/voc07_trainval.json``,
    ``voc07_test.json``, ``voc12_trainval.json`` and ``voc0712_trainval.json``, the first and the third together.

    A root with ``ImageSets/Main`` is another set in this format: writes ``annotations/<split>.json`` of its splits
    trainval, train, val and test; it may have any number of images.

    Args:
        root: Folder of the set.
        classes: Names of the classes, in order. Default: VOC's 20; of another set, those in its annotations, sorted.
            Annotation files written here before that have the same classes in another order give the default order.
        subset: A part of VOC: any number of images will do, and a year may be missing.
        deep: Decode every image; else only files of 0 bytes are found broken.
        force: Convert again what is up to date.
        workers: Number of processes that decode; default: one per core, at most 8.

    Returns:
        What was found and done.

    Raises:
        PreparationError: The root has neither layout, an annotation file that names the classes cannot be read, or a
            class is named twice.
    """
    report = Report(Path(root))
    _refuse_twice(classes or ())
    splits = _splits(report.root, subset)
    classes = _default_classes(report.root, splits) if classes is None else classes
    lists = {split: read_split(report.root / split.list_file) for split in splits}
    made: dict[str, Conversion] = {}
    for split, (names, problems) in lists.items():
        others = {other: other_names for other, (other_names, _) in lists.items() if other != split}
        problems += _wrong_list(report.root, split, names, others)
        checks = [_check_list(split, names, problems), *_check_files(report.root, split, names, deep, workers)]
        conversion = _conversion(report.root, split, names, classes)
        make = partial(_convert, report.root / split.folder, split, names, classes)
        complete = not any(check.problems for check in checks)
        checks.append(conversion.run(make, force=force) if complete else conversion.skipped())
        if not checks[-1].problems:
            made[split.output] = conversion
        report.checks += checks
    if {*TOGETHER} <= {split.output for split in splits}:
        report.checks.append(_merge(report.root, [made.get(name) for name in TOGETHER], force))
    report.checks += _left_over(report.root, splits)
    return report


def voc_to_coco(
    root: str | Path,
    split_file: str | Path,
    classes: Sequence[str] | None = None,
    *,
    prefix: str = '',
    journal: Path | None = None,
) -> dict[str, Any]:
    """Convert one split of a set in Pascal VOC's format to COCO's.

    Args:
        root: Folder with ``Annotations`` and ``JPEGImages``.
        split_file: Text file with the names of the images; a relative path is below `root`.
        classes: Names of the categories, in order. Default: the names in all files of ``Annotations``, sorted,
            so that they are the same for every split.
        prefix: Put before ``JPEGImages/<name>.jpg`` to make ``file_name``.
        journal: Keeps results of an interrupted conversion, see :func:`~.conversion.resumable`. Default: none.

    Returns:
        The content of a COCO annotation file. Boxes of zero size are in it; mmdet's ``CocoDataset`` leaves them out.
        Details: :func:`~.voc_xml.coco_from_records`.

    Raises:
        PreparationError: The split file or an annotation is wrong or missing, or a class is not among `classes` or
            twice.
    """
    _refuse_twice(classes or ())
    root = Path(root)
    names, problems = read_split(root / split_file)
    if problems:
        raise PreparationError(f'{root / split_file}: {"; ".join(problems)}')
    paths = [root / 'Annotations' / f'{name}.xml' for name in names]
    if classes is None:
        classes = _all_classes(root)
    records = resumable(read_xml, paths, journal, label=f'{root.name} {Path(split_file).stem}')
    _check_classes(paths, records, classes)
    return coco_from_records(records, [f'{prefix}JPEGImages/{name}.jpg' for name in names], classes)


def _all_classes(folder: Path) -> list[str]:
    paths = sorted((folder / 'Annotations').glob('*.xml'))
    return class_names(resumable(read_xml, paths, None, label='names of the classes'))


def _default_classes(root: Path, splits: list[Split]) -> Sequence[str]:
    """Names in the order of a file that is there, whose ids a training may have seen; else VOC's, or sorted."""
    classes = VOCDataset.METAINFO['classes'] if splits[0].folder else _all_classes(root)
    orders = (own_categories(root / split.output_file) for split in splits)
    return next((order for order in orders if sorted(order) == sorted(classes)), classes)


def _refuse_twice(classes: Sequence[str]) -> None:
    twice = [name for name, count in Counter(classes).items() if count > 1]
    if twice:
        raise PreparationError(f'--classes names {listed(twice)} twice')


def _splits(root: Path, subset: bool) -> list[Split]:
    if any((root / split.folder).is_dir() for split in VOC):
        if not subset:
            return [*VOC]
        return [split._replace(images=None) for split in VOC if (root / split.folder).is_dir()]
    if Path(os.path.abspath(root)).name in {split.folder for split in VOC} and (root / 'ImageSets').is_dir():
        raise PreparationError(f'{root} is one year of VOC; did you mean --root {os.path.normpath(root / os.pardir)}?')
    splits = [Split('', name, name) for name in SPLITS if (root / 'ImageSets' / 'Main' / f'{name}.txt').is_file()]
    if splits:
        return splits
    inside = next((folder for folder in sorted(root.glob('**/VOC20*')) if folder.is_dir()), None)
    hint = f'; did you mean --root {inside.parent}?' if inside else f'. Get VOC from {SERVER}/voc2007/ and /voc2012/'
    lists = ' or '.join(f'{name}.txt' for name in SPLITS)
    raise PreparationError(
        f'{root} has neither a folder VOC2007 or VOC2012 nor a split file {lists} in ImageSets/Main{hint}'
    )


def _wrong_list(root: Path, split: Split, names: list[str], others: dict[Split, list[str]]) -> list[str]:
    """Names that are not of this folder, or that are tested and trained on."""
    problems = []
    if names:
        problems += wrong_number(len(names), split.images, 'names')
    if split.name == 'test':
        trained = {name for other, theirs in others.items() if other.folder == split.folder for name in theirs}
        both = sorted({*names} & trained)
        if both:
            problems.append(f'{len(both)} names are in the training lists too: {listed(both)}')
    files = [split.below('Annotations', f'{name}.xml') for name in names]
    there = file_sizes(root, files)
    astray = [name for name, file in zip(names, files) if file not in there]
    for year in sorted({other.folder for other in VOC} - {split.folder}) if split.folder else []:
        moved = file_sizes(root, [f'{year}/Annotations/{name}.xml' for name in astray])
        if moved:
            problems.append(f'{len(moved)} names are of {year}: {listed(Path(file).stem for file in moved)}')
    return problems


def _check_list(split: Split, names: list[str], problems: list[str]) -> Check:
    found = number(len(names), 'names') if names else '-'
    return Check(split.list_file, number(split.images, 'names'), found, problems, split.source)


def _check_files(root: Path, split: Split, names: list[str], deep: bool, workers: int | None) -> list[Check]:
    checks = []
    for folder, end in (('Annotations', '.xml'), ('JPEGImages', '.jpg')):
        files, base = [f'{name}{end}' for name in names], root / split.below(folder)
        what = f'{split.below(folder)}/*{end} of {split.name}'
        problems = file_problems(base, files, deep=deep and end == '.jpg', workers=workers, label=what)
        if names:
            expected, found = number(len(files), 'files'), number(len(file_sizes(base, files)), 'files')
        else:
            expected, found = number(split.images, 'files'), 'not checked'
        checks.append(Check(what, expected, found, problems, split.source))
    return checks


def _conversion(root: Path, split: Split, names: list[str], classes: Sequence[str]) -> Conversion:
    return Conversion(
        root,
        split.output_file,
        [split.below('JPEGImages', f'{name}.jpg') for name in names],
        classes,
        [root / split.list_file, *(root / split.below('Annotations', f'{name}.xml') for name in names)],
    )


def _convert(folder: Path, split: Split, names: list[str], classes: Sequence[str], journal: Path) -> dict[str, Any]:
    list_file = f'ImageSets/Main/{split.name}.txt'
    return voc_to_coco(folder, list_file, classes, prefix=split.below(''), journal=journal)


def _check_classes(paths: list[Path], records: list[dict], classes: Sequence[str]) -> None:
    unknown = {item['name']: path for path, record in zip(paths, records) for item in record['objects']}
    unknown = {name: path for name, path in unknown.items() if name not in classes}
    if unknown:
        name, path = next(iter(unknown.items()))
        raise PreparationError(
            f'objects have {len(unknown)} names that are no classes: {listed(sorted(unknown))} ({name!r} in {path}). '
            f'The classes are {listed(classes)}; --classes names others'
        )


def _merge(root: Path, parts: list[Conversion | None], force: bool) -> Check:
    complete = [part for part in parts if part]
    conversion = Conversion(
        root,
        f'annotations/{MERGED}.json',
        [image for part in complete for image in part.images],
        complete[0].categories if complete else (),
        [part.path for part in complete],
    )
    if len(complete) < len(parts):
        return conversion.skipped()
    return conversion.run(lambda _: merged([read_coco(part.path) for part in complete]), force=force)


def _left_over(root: Path, splits: list[Split]) -> list[Check]:
    """Annotation files of the years that a part of VOC does not have: they list images that nobody has checked."""
    outputs = {split.output for split in splits}
    years = {split.output: split.folder for split in VOC if splits[0].folder and split.output not in outputs}
    gone = [years[output] for output in TOGETHER if output in years]
    years.update({MERGED: gone[0]} if gone else {})
    files = {f'annotations/{output}.json': year for output, year in years.items()}
    return [
        Check(file, '', '-', [f'made from {year}, a year that is not there: put it back or move this file away'])
        for file, year in files.items()
        if (root / file).exists()
    ]
