"""Tells whether two configs describe the same training, and if not, in what they differ.

A result belongs to a row only if it was made with the row's config. A trial on other data, or a shorter schedule, is
something else than another config: the kinds of differences are kept apart.
"""

from __future__ import annotations

import os.path as osp
import re
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config

from balanced_det.preflight import leaf_datasets

#: (Pattern of the key, kind). The first that matches decides; everything else is 'config'.
KINDS = (
    (r'model\..*num_classes', 'data set'),
    (r'(?:train|test) data set\.(?:.*\.)?times', 'schedule'),
    (r'(?:train|test) data.*', 'data set'),
    (r'(?:train|test) pipeline.*', 'input'),
    (r'model\..*\binit_cfg\b.*|model\.backbone\.(?:frozen_stages|norm_eval)', 'initial weights'),
    (r'train_cfg\..*|param_scheduler\..*|train_dataloader\.(?:batch_)?sampler.*', 'schedule'),
    (r'train_dataloader\.batch_size', 'batch size'),
    (r'optim_wrapper\.(?:type|loss_scale)', 'precision'),
    (r'optim_wrapper\.optimizer\.lr|auto_scale_lr\.base_batch_size', 'learning rate'),
    (r'custom_hooks.*', 'hooks'),
    (r'test_evaluator.*', 'evaluator'),
    (r'model\..*\.score_thr', 'score threshold'),
)
#: Neither changes what is learned or measured.
IGNORED = ('_scope_', 'backend_args', 'val_interval', 'val_begin', 'dynamic_intervals', 'classwise')
#: Keys of a data set and of an evaluator that are compared by what they name.
PLACES = ('data_root', 'data_prefix', 'ann_file', 'seg_prefix', 'outfile_prefix', 'pipeline')
ABSENT = object()
#: What tells most of a schedule and of data.
FIRST = ('train_cfg.max_epochs', 'train_cfg.max_iters', 'train data')


@dataclass(frozen=True)
class Difference:
    """One key of two configs that differs.

    Attributes:
        kind: 'config', or one of the kinds of :data:`KINDS`.
        key: The dotted key.
        expected: Its value in the first config.
        found: Its value in the second.
    """

    kind: str
    key: str
    expected: Any
    found: Any

    def __str__(self) -> str:
        another = 'other' if self.kind.endswith('s') else 'another'
        there, here = ('missing' if value is ABSENT else repr(value) for value in (self.found, self.expected))
        return f'{another} {self.kind}: {self.key} is {there} there, {here} here'


def differences(
    expected: Config, found: Config, values: Callable[[Config], dict[str, Any]] | None = None
) -> list[Difference]:
    """Compare what two configs train and test.

    Args:
        expected: A config, for example that of a row.
        found: A config, for example the one that a work directory was made with.
        values: :func:`values_of_training` or :func:`values_of_test` to compare that alone.

    Returns:
        What differs in model, data, input, schedule, optimiser, hooks and evaluator; 'config' first, then the length
        and the data. How many workers load the data and what is logged does not count.
    """
    read = values or flattened
    here, there = read(expected), read(found)
    keys = sorted(key for key in {*here, *there} if here.get(key, ABSENT) != there.get(key, ABSENT))
    found_all = [Difference(kind_of(key), key, here.get(key, ABSENT), there.get(key, ABSENT)) for key in keys]
    return sorted(found_all, key=lambda found: (found.kind != 'config', found.key not in FIRST))


def one_of_each_kind(found: Sequence[Difference]) -> dict[str, Difference]:
    """The first difference of each kind."""
    first: dict[str, Difference] = {}
    for difference in found:
        first.setdefault(difference.kind, difference)
    return first


def kind_of(key: str) -> str:
    """The kind of a difference at a key."""
    return next((kind for pattern, kind in KINDS if re.fullmatch(pattern, key)), 'config')


def flattened(cfg: Config) -> dict[str, Any]:
    """The values of a config that a training and its test depend on, by dotted key."""
    return {**values_of_training(cfg), **values_of_test(cfg)}


def values_of_training(cfg: Config) -> dict[str, Any]:
    """The values that a training depends on."""
    values: dict[str, Any] = dict(_leaves('model', _without('test_cfg', cfg.model)))
    for section in ('train_cfg', 'param_scheduler', 'optim_wrapper', 'custom_hooks'):
        values.update(_leaves(section, cfg.get(section)))
    for name in ('batch_size', 'sampler', 'batch_sampler'):
        values.update(_leaves(f'train_dataloader.{name}', cfg.train_dataloader.get(name)))
    values['auto_scale_lr.base_batch_size'] = cfg.get('auto_scale_lr', {}).get('base_batch_size')
    return {**values, **_data_values('train', cfg)}


def values_of_test(cfg: Config) -> dict[str, Any]:
    """The values that a test depends on: the checkpoint takes the place of the initial weights."""
    model = cfg.model.get('module', cfg.model)  # mmdet's --tta wraps it
    leaves = dict(_leaves('model', _without('train_cfg', model)))
    values = {key: value for key, value in leaves.items() if kind_of(key) != 'initial weights'}
    if model is not cfg.model:
        values.update(_leaves('tta', _without('module', cfg.model)))
    values.update(_leaves('test_evaluator', cfg.test_evaluator))
    return {**values, **_data_values('test', cfg)}


def with_tta(cfg: Config) -> Config:
    """A config as mmdet's ``test.py --tta`` changes it."""
    changed = deepcopy(cfg)
    changed.model = dict(**changed.tta_model, module=changed.model)
    changed.test_dataloader.dataset.pipeline = changed.tta_pipeline
    return changed


def _data_values(part: str, cfg: Config) -> dict[str, Any]:
    """What is read, what is left out of it, and what becomes of an image."""
    dataset = cfg[f'{part}_dataloader'].dataset
    sets = [leaf for _, leaf in leaf_datasets(dataset, '')]
    values: dict[str, Any] = dict(_leaves(f'{part} data set', dataset))
    values[f'{part} data'] = [path for leaf in sets for path in _places(leaf)]
    if part == 'test':
        evaluators = cfg.test_evaluator if isinstance(cfg.test_evaluator, (list, tuple)) else [cfg.test_evaluator]
        values['test data'] += [osp.realpath(each['ann_file']) for each in evaluators if each.get('ann_file')]
    pipelines: list[Any] = []
    for leaf in sets:  # those of VOC 2007 and 2012 are one
        if leaf.get('pipeline') not in pipelines:
            pipelines.append(leaf.get('pipeline'))
    for index, pipeline in enumerate(pipelines):
        values.update(_leaves(f'{part} pipeline.{index}', pipeline))
    return values


def _places(dataset: dict) -> list[str]:
    """Annotation file and image folder of a data set; data/coco may be a link."""
    root, prefixes = dataset.get('data_root') or '', dataset.get('data_prefix') or {}
    return [osp.realpath(osp.join(root, path or '')) for path in (dataset.get('ann_file'), *prefixes.values())]


def _without(name: str, node: dict) -> dict:
    return {key: value for key, value in node.items() if key != name}


def _leaves(key: str, node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for name, child in node.items():
            if name not in IGNORED and name not in PLACES:
                yield from _leaves(f'{key}.{name}', child)
    elif isinstance(node, (list, tuple)) and any(isinstance(child, (dict, list, tuple)) for child in node):
        for index, child in enumerate(node):
            yield from _leaves(f'{key}.{index}', child)
    else:
        yield key, list(node) if isinstance(node, (list, tuple)) else node
