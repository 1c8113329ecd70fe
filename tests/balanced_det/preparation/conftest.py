"""Real and made sets, and calls that are counted."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import pytest
from preparation_cases import plant, thing, xml


@pytest.fixture
def bccd(request) -> Path:
    return Path(os.environ.get('BCCD_ROOT') or request.getfixturevalue('shared_data') / 'bccd')


@pytest.fixture
def coco_tiny(request) -> Path:
    return Path(os.environ.get('COCO_TINY_ROOT') or request.getfixturevalue('shared_data') / 'coco_tiny')


@pytest.fixture
def count(monkeypatch):
    """Replaces a function by itself, counted, that is interrupted at one of its calls."""

    def count(module: ModuleType, name: str, interrupt_at: int | None = None) -> list:
        function, calls = getattr(module, name), []

        def counted(path):
            if len(calls) + 1 == interrupt_at:
                raise KeyboardInterrupt
            calls.append(path.name)
            return function(path)

        monkeypatch.setattr(module, name, counted)
        return calls

    return count


@pytest.fixture
def devkit(tmp_path) -> Path:
    """VOC with 2 + 1 training images and 1 test image; a dog is difficult."""
    cat, dog = thing('cat', (1, 1, 11, 21)), thing('dog', (5, 6, 15, 26), difficult=1)
    plant(tmp_path / 'VOC2007', dict(trainval=('a', 'b'), test=('c',)), _a=xml(cat, dog))
    plant(tmp_path / 'VOC2012', dict(trainval=('d',)), _d=xml(dog))
    return tmp_path
