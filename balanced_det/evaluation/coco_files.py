"""Reading COCO annotation and results files, with errors that say what is wrong in plain words."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO

RESULT_KEYS = ('image_id', 'category_id', 'bbox', 'score')


class CocoFileError(ValueError):
    """A file that cannot be used; the message names it and says what to do."""


def read_annotations(path: Path) -> COCO:
    """Ground truth of an annotation file.

    Args:
        path: A json file in COCO's format, with 'images', 'annotations' and 'categories'.

    Returns:
        The ground truth, indexed.

    Raises:
        CocoFileError: The file is missing, is none of this kind, or holds no box that can be found.
    """
    content = _read(path)
    if isinstance(content, list):
        raise CocoFileError(f'{path} is a list, as results files are: give the predictions first, then the annotations')
    lists = content if isinstance(content, dict) else {}
    missing = [key for key in ('images', 'annotations', 'categories') if not isinstance(lists.get(key), list)]
    if missing:
        raise CocoFileError(f'{path} is no COCO annotation file: it has no list {" and no list ".join(missing)}')
    if not any('bbox' in ann and not ann.get('iscrowd') for ann in content['annotations']):
        raise CocoFileError(f'{path} holds no ground-truth box')
    ground_truth = COCO()
    ground_truth.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints what it does
        ground_truth.createIndex()
    return ground_truth


def read_results(path: Path, ground_truth: COCO) -> COCO:
    """Detections of a results file.

    Args:
        path: A json file in COCO's format: a list with 'image_id', 'category_id', 'bbox' and 'score' of each detection,
            which ``outfile_prefix`` of mmdet's ``CocoMetric`` writes as ``PREFIX.bbox.json``.
        ground_truth: The annotations of the same images.

    Returns:
        The detections, from ``ground_truth.loadRes``.

    Raises:
        CocoFileError: The file is missing, is none of this kind, is empty, or belongs to other annotations.
    """
    content = _read(path)
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise CocoFileError(f'{path} is no COCO results file, which is a list of detections')
    if not content:
        raise CocoFileError(f'{path} holds no detections')
    missing = [key for key in RESULT_KEYS if not all(key in row for row in content)]
    if missing:
        raise CocoFileError(
            f'{path} is no results file of boxes: detections without {", ".join(missing)} (mmdet writes boxes to '
            'PREFIX.bbox.json)'
        )
    _check_known(path, 'image', {row['image_id'] for row in content} - ground_truth.imgs.keys())
    _check_known(path, 'category', {row['category_id'] for row in content} - ground_truth.cats.keys())
    with contextlib.redirect_stdout(io.StringIO()):
        return ground_truth.loadRes(content)


def _read(path: Path) -> Any:
    if not path.is_file():
        raise CocoFileError(f'{path}: no such file')
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise CocoFileError(f'{path} is no JSON file: {error}') from None


def _check_known(path: Path, kind: str, unknown: Iterable) -> None:
    unknown = sorted(unknown, key=str)
    if unknown:
        listed = ', '.join(map(str, unknown[:5])) + (', ...' if len(unknown) > 5 else '')
        raise CocoFileError(
            f'{path}: the annotations do not know {len(unknown)} of its {kind} ids ({listed}): do both files belong to '
            'the same images?'
        )
