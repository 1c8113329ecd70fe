"""Checks of a config before a training starts: each problem names the value, the config key and the remedy."""

from __future__ import annotations

import argparse
import difflib
import os
import os.path as osp
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence

import mmengine
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.registry import init_default_scope

from balanced_det import heads

MAX_XML_FILES = 200  # enough to meet each class name of a VOC set; reading them all can take minutes
MAX_JSON_MB = 64  # COCO's own file has 450: its classes are not read here, the evaluator checks those of the val set


class ConfigProblem(ValueError):
    """A config that cannot train; the message says what is wrong, at which key, and how to mend it."""


def check_arguments(argv: list[str]) -> None:
    """Check the config that the arguments of tools/train.py name.

    Args:
        argv: The arguments, without the program's name. Those of other checks and of mmdet itself pass through.

    Raises:
        SystemExit: With the message of the first problem found.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument('config', nargs='?')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    # mmdet's options that take a value, so that the value is not taken for the config.
    parser.add_argument('--resume', nargs='?')
    for option in ('--work-dir', '--launcher', '--local_rank', '--local-rank'):
        parser.add_argument(option)
    args, _ = parser.parse_known_args(argv)
    rank = os.environ.get('RANK') or os.environ.get('SLURM_PROCID') or '0'
    if args.config is None or {'-h', '--help'} & set(argv) or rank != '0':
        return
    try:
        check_config(load_config(args.config, args.cfg_options))
    except ConfigProblem as problem:
        sys.exit(f'{args.config}: {problem}')


def load_config(path: str, cfg_options: dict | None = None) -> Config:
    """Read a config as mmdet's tools do.

    Args:
        path: The config file.
        cfg_options: What ``--cfg-options`` merges into it.

    Returns:
        The config.

    Raises:
        ConfigProblem: There is no such file.
    """
    if not osp.isfile(path):
        raise ConfigProblem(f'no such config file; the current folder is {osp.abspath(osp.curdir)}')
    cfg = Config.fromfile(path)
    if cfg_options:
        cfg.merge_from_dict(cfg_options)
    return cfg


def check_config(cfg: Config) -> None:
    """Check the data, the loss blocks and the heads of a config.

    Args:
        cfg: A config for mmdet's ``tools/train.py``.

    Raises:
        ConfigProblem: The first problem found.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    check_losses(cfg.model)
    check_heads(cfg.model)
    for loader in ('train_dataloader', 'val_dataloader'):
        if cfg.get(loader):
            for key, dataset in leaf_datasets(cfg[loader].dataset, f'{loader}.dataset'):
                check_files(key, dataset)
                check_classes(key, dataset)
                if loader == 'train_dataloader':
                    check_num_classes(key, dataset, cfg.model)


def check_losses(model: ConfigDict) -> None:
    """Each loss block must name a registered loss; those of this plugin must have arguments they accept."""
    for key, block in loss_blocks(model):
        name = block['type']
        if not isinstance(name, str) or '.' in name:  # a class, or a loss of another library's registry
            continue
        if MODELS.get(name) is None:
            near = difflib.get_close_matches(name, MODELS.module_dict, n=3)
            hint = f'did you mean {" or ".join(near)}?' if near else 'is its package in custom_imports?'
            raise ConfigProblem(f'{key}.type={name!r} is not a registered loss: {hint}')
        if is_own(block):  # some of mmdet's heads take keys out of their blocks before they build them
            try:
                MODELS.build(block)
            except (TypeError, ValueError) as error:
                raise ConfigProblem(f'{key}: {error}') from error


def check_heads(model: ConfigDict) -> None:
    """The plugin's losses must fit their heads, stock heads too; what else a model lacks, mmdet will say."""
    if not any(is_own(block) for _, block in loss_blocks(model)):
        return
    try:
        heads.check_heads(MODELS.build(model))
    except heads.LossMismatchError as error:
        raise ConfigProblem(str(error)) from error
    except Exception:  # a package that is not installed, a process group that is not there yet
        return


def loss_blocks(model: ConfigDict) -> Iterator[tuple[str, ConfigDict]]:
    """The loss blocks of a model with their keys."""
    for key, block in walk(model, 'model'):
        if key.rsplit('.', 1)[-1].startswith('loss') and 'type' in block:
            yield key, block


def is_own(block: ConfigDict) -> bool:
    """Whether a loss block names a loss that is not mmdet's."""
    loss = MODELS.get(block['type']) if isinstance(block['type'], str) else block['type']
    return loss is not None and not loss.__module__.startswith('mmdet.')


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


def walk(node: object, key: str) -> Iterator[tuple[str, ConfigDict]]:
    """Every dict in a config with its dotted key."""
    if isinstance(node, dict):
        yield key, node
        for name, child in node.items():
            yield from walk(child, f'{key}.{name}')
    elif isinstance(node, (list, tuple)):
        for index, child in enumerate(node):
            yield from walk(child, f'{key}.{index}')


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
