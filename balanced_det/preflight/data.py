"""Checks of the data: files, folders and classes."""

from __future__ import annotations

import os.path as osp
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence

import mmengine
from mmdet.registry import DATASETS
from mmengine.config import ConfigDict

from balanced_det.preflight.config import ConfigProblem, walk
from balanced_det.preflight.losses import is_own

MAX_XML_FILES = 200  # enough to meet each class name of a VOC set; reading them all can take minutes
MAX_JSON_MB = 64  # COCO's own file has 450: its classes are not read here, the evaluator checks those of the val set


def check_files(key: str, dataset: ConfigDict) -> None:
    """Annotation file and image folder must be there, unless they lie in a remote store."""
    if dataset.get('backend_args') or '://' in f'{dataset.get("data_root")}{dataset.get("ann_file")}':
        return
    root = dataset.get('data_root') or ''
    if dataset.get('ann_file'):
        path = osp.join(root, dataset.ann_file)
        if not osp.isfile(path):
            raise ConfigProblem(
                f'no annotation file {osp.abspath(path)} ({key}.data_root={root!r}, {key}.ann_file='
                f'{dataset.ann_file!r}): {_data_remedy(key, root)}'
            )
    for name, prefix in (dataset.get('data_prefix') or {}).items():
        path = osp.join(root, prefix or '')
        if not osp.isdir(path):
            raise ConfigProblem(
                f'no folder {osp.abspath(path)} ({key}.data_root={root!r}, {key}.data_prefix.{name}={prefix!r}): '
                f'{_data_remedy(key, root)}'
            )


def class_names(dataset: ConfigDict) -> Sequence[str]:
    """The classes that a dataset block will have; empty if the block does not tell."""
    dataset_type = DATASETS.get(dataset.type) if isinstance(dataset.type, str) else dataset.type
    meta = {**getattr(dataset_type, 'METAINFO', {}), **(dataset.get('metainfo') or {})}
    classes = meta.get('thing_classes') or meta.get('classes')
    return classes if isinstance(classes, (tuple, list)) else ()


def check_classes(key: str, dataset: ConfigDict) -> None:
    """The dataset's classes must be in its annotations."""
    classes = class_names(dataset)
    annotated = annotated_names(dataset)
    missing = [name for name in classes if annotated and name not in annotated]
    if missing:
        raise ConfigProblem(
            f'{key}.metainfo.classes names {missing}, which the annotations do not have; they have '
            f'{sorted(annotated)}: set metainfo=dict(classes=(...)) to the names in the annotations'
        )


def check_num_classes(key: str, dataset: ConfigDict, model: ConfigDict) -> None:
    """The plugin's heads must have as many classes as the training set."""
    classes = class_names(dataset)
    for head_key, head in walk(model, 'model'):
        num_classes = head.get('num_classes')
        # mmdet's other heads may count differently, on purpose; a region proposal network and RefineDet's ARM know one.
        own = any(is_own(head[name]) for name in ('loss_cls', 'loss_bbox') if 'type' in (head.get(name) or ()))
        proposes = 'rpn' in head_key or head_key.endswith('arm_head')
        if num_classes and own and classes and not proposes and num_classes != len(classes):
            raise ConfigProblem(
                f'{head_key}.num_classes={num_classes}, but {key}.metainfo.classes has {len(classes)}: '
                f'{tuple(classes)}; set {head_key}.num_classes={len(classes)}'
            )


def annotated_names(dataset: ConfigDict) -> set[str]:
    """Class names in the annotations of a COCO or VOC set; empty for another format.

    Of a VOC set the first 200 files are read. It may lack a rare class, so nothing is concluded unless none of the
    configured names is met.
    """
    path = osp.join(dataset.get('data_root') or '', dataset.get('ann_file') or '')
    if not osp.isfile(path):
        return set()
    if path.endswith('.json'):
        if osp.getsize(path) > MAX_JSON_MB * 2**20:
            return set()
        try:
            content = mmengine.load(path)
        except ValueError:  # JSON lines
            return set()
        return {cat['name'] for cat in content.get('categories', ())} if isinstance(content, dict) else set()
    if not path.endswith('.txt'):
        return set()
    sub_root = (dataset.get('data_prefix') or {}).get('sub_data_root', '')
    folder = osp.join(dataset.get('data_root') or '', sub_root, dataset.get('ann_subdir', 'Annotations'))
    names: set[str] = set()
    for image_id in mmengine.list_from_file(path)[:MAX_XML_FILES]:
        xml = osp.join(folder, f'{image_id}.xml')
        if osp.isfile(xml):
            names.update(element.text or '' for element in ET.parse(xml).iterfind('object/name'))
    configured = class_names(dataset)
    return set() if names & set(configured) else names


def leaf_datasets(dataset: ConfigDict, key: str) -> Iterator[tuple[str, ConfigDict]]:
    """The data sets inside wrappers such as ``ConcatDataset`` and ``RepeatDataset``, with their keys."""
    if 'datasets' in dataset:
        for index, part in enumerate(dataset.datasets):
            yield from leaf_datasets(part, f'{key}.datasets.{index}')
    elif 'dataset' in dataset:
        yield from leaf_datasets(dataset.dataset, f'{key}.dataset')
    else:
        yield key, dataset


def _data_remedy(key: str, root: str) -> str:
    return (
        f'put or link the data there (ln -s /path/to/data {root.rstrip("/") or "data"}), or name its place with '
        f'--cfg-options {key}.data_root=/path/to/data/'
    )
