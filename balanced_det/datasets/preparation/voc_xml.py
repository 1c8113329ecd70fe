"""Split files and annotations in Pascal VOC's format, and COCO's format made of them.

mmdet's own ``tools/dataset_converters/pascal_voc.py`` serves the 20 classes of VOC only, fails on annotations without
``<difficult>`` and on decimal coordinates, and numbers the boxes from 0, an id that ``COCOeval`` takes for 'no match'.
The boxes here are those of mmdet's ``XMLDataset``, which reads such files: corners are cut to integers, and 1 is
subtracted, for VOC counts pixels from 1.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .report import PreparationError, listed

CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')


def read_split(path: Path) -> tuple[list[str], list[str]]:
    """Read a split file.

    Args:
        path: A text file with the name of one image, without its ending, in each line.

    Returns:
        The names, and what is wrong with the file, one sentence each.
    """
    if not path.is_file():
        return [], ['no such file']
    try:
        lines = path.read_text().splitlines()
    except UnicodeDecodeError as error:
        return [], [f'no text file ({error})']
    problems = [] if lines else ['it is empty']
    odd = [f'line {row} {line!r}' for row, line in enumerate(lines, start=1) if not line or line.split() != [line]]
    if odd:
        problems.append(
            f'{len(odd)} lines are no names of images: {listed(odd)}. A line must hold a name and nothing else (files '
            'with two columns belong to one class; a whole split is in trainval.txt, test.txt)'
        )
    twice = [name for name, count in Counter(lines).items() if count > 1]
    if twice:
        problems.append(f'{len(twice)} names are there more than once: {listed(twice)}')
    return lines, problems


def read_xml(path: Path) -> dict[str, Any]:
    """Read one annotation file.

    Args:
        path: An xml file with ``<size>`` and ``<object>`` elements.

    Returns:
        ``width`` and ``height`` of the image and its ``objects``: ``name``, ``difficult`` (0 or 1), ``bbox`` (xyxy,
        absolute pixels, counted from 0).

    Raises:
        PreparationError: The file cannot be read; the message names it and the fault.
    """
    try:
        root = ET.parse(path).getroot()
        size = {key: _integer(root, f'size/{key}') for key in ('width', 'height')}
        if min(size.values()) < 1:
            raise ValueError(f'an image of {size["width"]} x {size["height"]} pixels')
        return {**size, 'objects': [_object(element) for element in root.iterfind('object')]}
    except (OSError, ET.ParseError, ValueError) as error:
        raise PreparationError(f'{path} is no annotation in VOC format: {error}') from None


def class_names(records: Iterable[dict]) -> list[str]:
    """Names of the objects in what :func:`read_xml` returned of some files, sorted."""
    return sorted({item['name'] for record in records for item in record['objects']})


def coco_from_records(records: Sequence[dict], file_names: Sequence[str], classes: Sequence[str]) -> dict[str, Any]:
    """Put annotations in COCO's format.

    Args:
        records: Of each image what :func:`read_xml` returns.
        file_names: Of each image.
        classes: Names of the categories; their ids are 1, 2, ...

    Returns:
        The content of a COCO annotation file. As in mmdet's converter a ``difficult`` box has ``iscrowd`` 1 (mmdet
        does not train on it, and COCO's AP neither demands nor punishes its detection), the segmentation is the box,
        and widths are without VOC's ``+1``.
    """
    ids = {name: number for number, name in enumerate(classes, start=1)}
    images: list[dict] = []
    annotations: list[dict] = []
    for image_id, (record, file_name) in enumerate(zip(records, file_names), start=1):
        images.append(dict(id=image_id, file_name=file_name, width=record['width'], height=record['height']))
        for item in record['objects']:
            link = dict(id=len(annotations) + 1, image_id=image_id, category_id=ids[item['name']])
            annotations.append({**link, **_coco_box(*item['bbox']), 'iscrowd': item['difficult'], 'ignore': 0})
    categories = [dict(id=number, name=name, supercategory='none') for name, number in ids.items()]
    return dict(images=images, annotations=annotations, categories=categories)


def merged(parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Put sets of the same categories one behind the other; images and boxes are numbered anew."""
    images: list[dict] = []
    annotations: list[dict] = []
    for part in parts:
        ids = {image['id']: number for number, image in enumerate(part['images'], start=len(images) + 1)}
        images += [{**image, 'id': ids[image['id']]} for image in part['images']]
        for annotation in part['annotations']:
            annotations.append({**annotation, 'id': len(annotations) + 1, 'image_id': ids[annotation['image_id']]})
    return dict(images=images, annotations=annotations, categories=parts[0]['categories'])


def _object(element: ET.Element) -> dict[str, Any]:
    name = element.findtext('name')
    if not name:
        raise ValueError('an <object> has no <name>')
    difficult = int(element.find('difficult') is not None and _integer(element, 'difficult') != 0)
    corners = [_integer(element, f'bndbox/{corner}') - 1 for corner in CORNERS]
    return dict(name=name, difficult=difficult, bbox=corners)


def _integer(element: ET.Element, path: str) -> int:
    text = element.findtext(path)
    if text is None:
        raise ValueError(f'<{element.tag}> has no {path}')
    try:
        return int(float(text))
    except (ValueError, OverflowError):
        raise ValueError(f'{path} of <{element.tag}> is {text!r}, not a number') from None


def _coco_box(left: int, top: int, right: int, bottom: int) -> dict[str, Any]:
    width, height = right - left, bottom - top
    return dict(
        bbox=[left, top, width, height],
        area=width * height,
        segmentation=[[left, top, left, bottom, right, bottom, right, top]],
    )
