"""Checks of the loss blocks and of the heads that they belong to."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from mmdet.registry import MODELS
from mmengine.config import ConfigDict

from balanced_det import heads
from balanced_det.preflight.config import ConfigProblem, walk


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
