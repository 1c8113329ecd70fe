"""Configs are loaded by the hundred here: mmengine's slow steps that no test looks at are left out."""

from __future__ import annotations

import functools

import mmengine
import pytest

load_once = functools.cache(mmengine.load)


@pytest.fixture(autouse=True)
def _quick_configs(monkeypatch):
    # The metafiles of mmdet, a hundred, are read again for each `mmdet::`; a config is formatted to be printed.
    monkeypatch.setattr('mmengine.config.utils.load', load_once)
    for place in ('yapf.yapflib.yapf_api', 'mmengine.config.config'):  # by the version of mmengine
        monkeypatch.setattr(f'{place}.FormatCode', lambda text, **kwargs: (text, True), raising=False)
