"""Fixtures of all tests."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import mmengine
import pytest
import torch
from mmengine.registry import DefaultScope

ROOT = Path(__file__).resolve().parents[1]
load_once = functools.cache(mmengine.load)


@pytest.fixture(scope='session')
def repo_root() -> Path:
    return ROOT


@pytest.fixture(scope='session')
def shared_data() -> Path:
    """Folder of the real data sets, which are not part of the repository."""
    folder = Path(os.environ.get('MMDET_BALANCED_DATA', ROOT.parent / 'shared' / 'data'))
    if not folder.is_dir():
        pytest.skip(f'no real data at {folder}; MMDET_BALANCED_DATA names the folder of coco_tiny, bccd and cocoapi')
    return folder


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _default_scope():
    """A runner leaves mmengine's default scope behind, which other tests must not see."""
    scopes = DefaultScope._instance_dict.copy()
    yield
    DefaultScope._instance_dict.clear()
    DefaultScope._instance_dict.update(scopes)


@pytest.fixture(autouse=True)
def _quick_configs(monkeypatch):
    """Configs are loaded by the hundred: mmengine's slow steps that no test looks at are left out."""
    # The metafiles of mmdet, a hundred, are read again for each `mmdet::`; a config is formatted to be printed.
    monkeypatch.setattr('mmengine.config.utils.load', load_once)
    for place in ('yapf.yapflib.yapf_api', 'mmengine.config.config'):  # by the version of mmengine
        monkeypatch.setattr(f'{place}.FormatCode', lambda text, **kwargs: (text, True), raising=False)
