"""Files of weights: local ones are looked for before a training; a download that fails says how to do without."""

from __future__ import annotations

import functools
import http.client
import os.path as osp
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlparse

import mmengine
import torch
from mmengine.config import Config
from mmengine.runner import checkpoint
from mmengine.runner.checkpoint import CheckpointLoader

from balanced_det.preflight.config import ConfigProblem, walk


class Weights(NamedTuple):
    """One place of a config that names weights.

    Attributes:
        key: Its dotted key.
        name: What it names: a path, a URL or a name such as 'torchvision://resnet50'.
        switch: ``--cfg-options`` that do without; '' where the model cannot train without.
    """

    key: str
    name: str
    switch: str


class WeightsUnavailable(RuntimeError):
    """Weights that are not on this machine and cannot be had; the message says from where and what to do.

    Args:
        name: What the config says.
        message: The reason and the remedies.
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(f'{name}: {message}')
        self.name = name


def check_weights(cfg: Config) -> None:
    """Local files of weights must be there: those of ``init_cfg`` blocks, and ``load_from``.

    Args:
        cfg: A config for mmdet's ``tools/train.py``.

    Raises:
        ConfigProblem: The first that is missing.
    """
    for key, name, switch in _named_weights(cfg):
        path = osp.abspath(osp.expanduser(name))
        if '://' in name or osp.isfile(path):
            continue
        trained_by = _config_of(path, cfg) if key == 'load_from' else ''
        train = f'train it first (python tools/train.py {trained_by}); or ' if trained_by else ''
        raise ConfigProblem(f'{key}={name!r}: there is no file {path}: {train}{_other_ways(key, switch)}')


def explain_failed_downloads() -> None:
    """Have mmengine raise :class:`WeightsUnavailable` where it cannot get weights by name or URL."""
    loaders = (
        (('http://', 'https://'), checkpoint.load_from_http),
        (('torchvision://', 'modelzoo://'), checkpoint.load_from_torchvision),
        (('open-mmlab://', 'openmmlab://'), checkpoint.load_from_openmmlab),
        ('mmcls://', checkpoint.load_from_mmcls),
    )
    for prefixes, loader in loaders:
        CheckpointLoader.register_scheme(prefixes, _explaining(loader), force=True)


def name_the_key(error: WeightsUnavailable, cfg: Config) -> str:
    """The message of an error, with the key that names the weights and the switch that does without.

    Args:
        error: What :func:`explain_failed_downloads` has raised.
        cfg: The config that was run.

    Returns:
        The message; that of the error where the config does not name the weights.
    """
    for key, name, switch in _named_weights(cfg):
        if name == error.name:
            return f'{key}={error}; or {_other_ways(key, switch)}'
    return f'{error}; or name a file on this machine in its place'


def _other_ways(key: str, switch: str) -> str:
    without = f'; or do without: --cfg-options {switch}' if switch else ''
    return f'name another file with --cfg-options {key}=PATH{without}'


def _named_weights(cfg: Config) -> Iterator[Weights]:
    for key, block in walk(cfg.get('model'), 'model'):
        owner = re.fullmatch(r'(.*)\.init_cfg(\.\d+)?', key)
        if owner and isinstance(block.get('checkpoint'), str):
            yield Weights(f'{key}.checkpoint', block['checkpoint'], _from_scratch(cfg, owner[1]))
    if cfg.get('load_from'):
        yield Weights('load_from', cfg.load_from, '' if _keeps_random_values(cfg) else 'load_from=None')


def _from_scratch(cfg: Config, owner: str) -> str:
    """Switches for a module with random weights: what it keeps fixed as long as they are given has to learn."""
    block: Any = cfg
    for part in owner.split('.'):
        block = block[int(part)] if part.isdigit() else block[part]
    fixed = [
        f'{owner}.{name}={value}' for name, value in (('frozen_stages', -1), ('norm_eval', False)) if name in block
    ]
    return ' '.join([f'{owner}.init_cfg=None', *fixed])


def _keeps_random_values(cfg: Config) -> bool:
    """Whether, without ``load_from``, a module would keep weights or statistics fixed that it never had."""
    return any(
        (block.get('frozen_stages', -1) >= 0 or block.get('norm_eval') or block.get('frozen'))
        and not block.get('init_cfg')
        for _, block in walk(cfg.get('model'), 'model')
    )


def _config_of(path: str, cfg: Config) -> str:
    """The config beside ``cfg`` whose work folder, named like it, holds a checkpoint; '' if there is none."""
    folders = [folder for folder in Path(cfg.filename or '').resolve().parents if folder.name == 'configs']
    configs = [file for folder in folders for file in folder.rglob('*.py') if file.stem == Path(path).parent.name]
    return osp.relpath(configs[0]) if configs else ''


def _explaining(loader: Callable) -> Callable:
    @functools.wraps(loader)
    def load(filename: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return loader(filename, *args, **kwargs)
        except ImportError as error:
            raise WeightsUnavailable(
                filename,
                f'mmengine takes these weights from torchvision, which cannot be imported ({error}): install the '
                f'build that belongs to your torch{_download_by_hand(filename)}',
            ) from error
        except (OSError, http.client.HTTPException) as error:  # URLError, time-outs and broken connections are OSErrors
            url = _url(filename)
            place = osp.join(torch.hub.get_dir(), 'checkpoints', osp.basename(urlparse(url).path))
            raise WeightsUnavailable(
                filename, f'{url} could not be downloaded ({error}): put the file at {place}'
            ) from error

    return load


def _download_by_hand(filename: str) -> str:
    url = _url(filename)
    return '' if url == filename else f'; or download {url} by hand'


def _url(filename: str) -> str:
    """The URL behind a name; the name itself if it is one, or if mmengine's table is not to be had."""
    scheme, name = filename.split('://', 1)
    tables: dict[str, Callable[[], dict]] = {
        'torchvision': _torchvision_urls,
        'modelzoo': _torchvision_urls,
        'open-mmlab': checkpoint.get_external_models,
        'openmmlab': checkpoint.get_external_models,
        'mmcls': checkpoint.get_mmcls_models,
    }
    return tables[scheme]().get(name, filename) if scheme in tables else filename


def _torchvision_urls() -> dict:
    try:
        return checkpoint.get_torchvision_models()
    except ImportError:  # the part of the table that mmengine itself brings
        return mmengine.load(osp.join(mmengine.__path__[0], 'hub', 'torchvision_0.12.json'))
