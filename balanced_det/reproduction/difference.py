"""Tells whether two configs describe the same training, and if not, in what they differ.

A result belongs to a row only if it was made with the row's config. A trial on other data, or a shorter schedule, is
something else than another config: the kinds of differences are kept apart.
"""

from __future__ import annotations

import os.path as osp
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.config import Config

from balanced_det.preflight import leaf_datasets

#: (Pattern of the key, kind). The first that matches decides; everything else is 'config'.
KINDS = (
    (r'model\..*num_classes', 'data set'),
    (r'(?:train|test) data', 'data set'),
    (r'(?:train|test) pipeline.*', 'input'),
    (r'model\..*\binit_cfg\b.*|model\.backbone\.(?:frozen_stages|norm_eval)', 'initial weights'),
    (r'train_cfg\..*|param_scheduler\..*', 'schedule'),
    (r'train_dataloader\.batch_size', 'batch size'),
    (r'optim_wrapper\.(?:type|loss_scale)', 'precision'),
    (r'optim_wrapper\.optimizer\.lr', 'learning rate'),
)
#: Neither changes what is learned.
IGNORED = ('_scope_', 'backend_args', 'val_interval', 'val_begin', 'dynamic_intervals', 'score_thr')
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


def differences(expected: Config, found: Config) -> list[Difference]:
    """Compare what two configs train.

    Args:
        expected: A config, for example that of a row.
        found: A config, for example the one that a work directory was made with.

    Returns:
        What differs in model, data, input, schedule and optimiser; 'config' first, then the length and
        the data. How many workers load the data and what is logged does not count.
    """
    here, there = flattened(expected), flattened(found)
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
    """The values of a config that a training depends on, by dotted key."""
    values: dict[str, Any] = {}
    for section in ('model', 'train_cfg', 'param_scheduler', 'optim_wrapper'):
        values.update(_leaves(section, cfg.get(section)))
    values['train_dataloader.batch_size'] = cfg.train_dataloader.batch_size
    for part in ('train', 'test'):
        sets = [dataset for _, dataset in leaf_datasets(cfg[f'{part}_dataloader'].dataset, '')]
        values[f'{part} data'] = [path for dataset in sets for path in _places(dataset)]
        values.update(_leaves(f'{part} pipeline', sets[0].get('pipeline')))
    return values


def _places(dataset: dict) -> list[str]:
    """Annotation file and image folder of a data set; data/coco may be a link."""
    root, prefixes = dataset.get('data_root') or '', dataset.get('data_prefix') or {}
    return [osp.realpath(osp.join(root, path or '')) for path in (dataset.get('ann_file'), *prefixes.values())]


def _leaves(key: str, node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for name, child in node.items():
            if name not in IGNORED:
                yield from _leaves(f'{key}.{name}', child)
    elif isinstance(node, (list, tuple)) and any(isinstance(child, (dict, list, tuple)) for child in node):
        for index, child in enumerate(node):
            yield from _leaves(f'{key}.{index}', child)
    else:
        yield key, list(node) if isinstance(node, (list, tuple)) else node
