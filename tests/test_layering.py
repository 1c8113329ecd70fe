"""Imports run one way: functional <- losses <- heads; methods -> balanced_det; never method -> method."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
METHODS = ('iou_balanced', 'harmonic')
PACKAGES = ('balanced_det', *METHODS)
# What a layer of a method must not import: itself and the layers below are allowed.
ABOVE = {'functional': ('losses', 'heads'), 'losses': ('heads',), 'heads': ()}
# The pure layer may import these and the standard library.
FUNCTIONAL_IMPORTS = {'torch'}


def imported_modules(path: Path, root: Path) -> list[str]:
    """Absolute dotted names of all imports of a file, also those inside functions.

    `from a import b` gives both `a` and `a.b`, since b may be a module.
    """
    package = path.relative_to(root).with_suffix('').parts[:-1]
    names = []
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            names.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = '.'.join((*base, *filter(None, [node.module])))
            names.append(module)
            names.extend(f'{module}.{alias.name}' for alias in node.names)
    return names


def violations(root: Path) -> list[str]:
    """One line per import of the three packages under `root` that runs the wrong way."""
    found = []
    for package in PACKAGES:
        for path in sorted((root / package).rglob('*.py')):
            for module in imported_modules(path, root):
                reason = wrong(path.relative_to(root).with_suffix('').parts, module)
                if reason:
                    found.append(f'{path.relative_to(root)} imports {module}: {reason}')
    return found


def wrong(importer: tuple[str, ...], module: str) -> str:
    """Why the module with the path parts `importer` must not import `module`; empty if it may."""
    package, imported = importer[0], module.split('.')
    if imported[0] in ('tools', 'tests', 'configs'):
        return f'a package never imports {imported[0]}'
    if imported[0] in METHODS and imported[0] != package:
        return f'{package} knows nothing of {imported[0]}'
    layer = importer[1] if len(importer) > 1 else ''
    if package not in METHODS or layer not in ABOVE:
        return ''
    if imported[0] == package and len(imported) > 1 and imported[1] in ABOVE[layer]:
        return f'{imported[1]} is above {layer}'
    if layer == 'functional' and imported[0] not in FUNCTIONAL_IMPORTS | {package} | set(sys.stdlib_module_names):
        return 'functional imports torch only'
    return ''


def test_imports_run_one_way():
    assert violations(ROOT) == []


def test_the_walk_sees_the_packages():
    modules = imported_modules(ROOT / 'balanced_det' / '__init__.py', ROOT)
    assert 'balanced_det.compat' in modules


@pytest.mark.parametrize(
    ('file', 'source', 'reason'),
    [
        ('iou_balanced/losses.py', 'import harmonic.functional', 'iou_balanced knows nothing of harmonic'),
        ('harmonic/heads.py', 'from iou_balanced import losses', 'harmonic knows nothing of iou_balanced'),
        ('balanced_det/heads/anchor.py', 'def f():\n    import iou_balanced', 'knows nothing of iou_balanced'),
        ('iou_balanced/functional.py', 'import mmdet.models', 'functional imports torch only'),
        ('iou_balanced/functional.py', 'from balanced_det.boxes import delta_iou', 'functional imports torch only'),
        ('harmonic/functional/tc.py', 'import numpy', 'functional imports torch only'),
        ('iou_balanced/functional.py', 'from .losses import X', 'losses is above functional'),
        ('iou_balanced/losses.py', 'from . import heads', 'heads is above losses'),
        ('iou_balanced/losses.py', 'from iou_balanced.heads import X', 'heads is above losses'),
        ('balanced_det/hooks/calibration.py', 'import tools.train', 'a package never imports tools'),
    ],
)
def test_planted_violation_is_caught(tmp_path, file, source, reason):
    plant(tmp_path, file, source)
    found = violations(tmp_path)
    assert found
    assert all(reason in line for line in found)
    assert all(line.startswith(file) for line in found)


@pytest.mark.parametrize(
    ('file', 'source'),
    [
        ('iou_balanced/functional.py', 'import math\nimport torch\nfrom torch import Tensor'),
        ('iou_balanced/functional/focal.py', 'from .weights import w'),
        ('iou_balanced/losses.py', 'from balanced_det.boxes import delta_iou\nfrom . import functional'),
        ('harmonic/heads.py', 'from .losses import X\nfrom balanced_det.heads import Y\nimport mmdet'),
        ('balanced_det/heads/roi.py', 'from ..boxes import delta_iou'),
    ],
)
def test_arrows_in_the_right_direction_pass(tmp_path, file, source):
    plant(tmp_path, file, source)
    assert violations(tmp_path) == []


def plant(root: Path, file: str, source: str) -> None:
    path = root / file
    path.parent.mkdir(parents=True)
    path.write_text(source)
