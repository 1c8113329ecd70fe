"""The heads in a detector's config, with what mmdet fills in where the config says nothing."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Union

from mmdet.models.dense_heads import SSDHead
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import Registry

Keys = tuple[Union[str, int], ...]  # a place in a config: ('model', 'roi_head', 'bbox_head', 0)


class SwapError(ValueError):
    """A config whose losses cannot be swapped; the message says what stands in the way, where, and the remedy."""


@dataclass(frozen=True)
class Head:
    """A head in a config.

    Attributes:
        keys: Its place.
        block: Its block.
        cls: Its class.
        train_cfg: That of its detector.
        roi_head: The class of the RoI head that it belongs to, if any.
    """

    keys: Keys
    block: Mapping[str, Any]
    cls: type
    train_cfg: Mapping[str, Any]
    roi_head: type | None = None

    @property
    def name(self) -> str:
        """The place as a text: model.roi_head.bbox_head.0."""
        return dotted(self.keys)

    def argument(self, name: str) -> Any:
        """What the head is built with: the config's value, else the default."""
        return self.block.get(name, default(self.cls, name))

    def loss(self, key: str) -> Mapping[str, Any]:
        """A loss block; of a head on ``SSDHead``, which needs none, the loss that it computes without."""
        if not issubclass(self.cls, SSDHead) or self.block.get(key):
            return self.argument(key)
        if key == 'loss_cls':
            return dict(type='CrossEntropyLoss', use_sigmoid=False)
        return dict(type='SmoothL1Loss', beta=self.train_cfg.get('smoothl1_beta', 1.0))


def find_heads(cfg: Config) -> list[Head]:
    """The heads of a config's detector that score and regress its final boxes.

    Those are ``roi_head.bbox_head``, each stage of a cascade; in a detector without a ``roi_head`` the ``bbox_head``
    (of RefineDet that is the ODM, and the ARM stays); in a region proposal network alone the ``rpn_head``. The detector
    may be the ``detector`` of a tracker or of a semi-supervised model.

    Raises:
        SwapError: There is none, or its type is not registered.
    """
    if not isinstance(cfg.get('model'), dict):
        raise SwapError('there is no model in this config')
    keys: Keys = ('model',)
    model = cfg.model
    while 'type' in (model.get('detector') or ()):
        model, keys = model.detector, (*keys, 'detector')
    train_cfg = model.get('train_cfg') or {}
    heads = [
        Head(at, block, class_of(block, at), train_cfg, class_of(roi_head, above))
        for above, roi_head in _blocks((*keys, 'roi_head'), model.get('roi_head'))
        for at, block in _blocks((*above, 'bbox_head'), roi_head.get('bbox_head'))
    ]
    if not model.get('roi_head'):
        at = (*keys, 'bbox_head' if model.get('bbox_head') else 'rpn_head')
        heads = [Head(at, block, class_of(block, at), train_cfg) for at, block in _blocks(at, model.get(at[-1]))]
    if not heads:
        raise SwapError(f'{dotted(keys)} ({model.get("type")}) has no bbox_head, roi_head.bbox_head or rpn_head')
    return heads


def class_of(block: Any, keys: Keys, registry: Registry = MODELS) -> type:
    """The class that a block names.

    Raises:
        SwapError: It is not registered.
    """
    kind = block.get('type') if isinstance(block, Mapping) else None
    cls = registry.get(kind) if isinstance(kind, str) else kind
    if cls is None:
        raise SwapError(f'{dotted(keys)}.type={kind!r} is not registered: is its package in custom_imports?')
    return cls


def stock_name(cls: type) -> str:
    """The name of a class of mmdet or ours; empty for one of another package, which may compute something else."""
    return cls.__name__ if cls.__module__.startswith(('mmdet.', 'balanced_det.')) else ''


def default(cls: type, name: str) -> Any:
    """Default of a constructor's argument, from the first class of the line of inheritance that names it."""
    for base in cls.__mro__:
        if '__init__' in vars(base):
            parameter = inspect.signature(vars(base)['__init__']).parameters.get(name)
            if parameter:
                return parameter.default
    return inspect.Parameter.empty


def dotted(keys: Keys) -> str:
    """A place in a config as a text."""
    return '.'.join(map(str, keys))


def _blocks(keys: Keys, node: Any) -> Iterator[tuple[Keys, Mapping[str, Any]]]:
    """A block, or each block of a list, with its place."""
    if isinstance(node, Mapping):
        yield keys, node
    elif isinstance(node, (list, tuple)):
        yield from (((*keys, index), block) for index, block in enumerate(node))
