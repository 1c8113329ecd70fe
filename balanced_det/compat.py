"""Which mmdet line is installed, where its scripts are, and what torch needs to read mmengine's checkpoints.

`import mmdet` comes from one of two sets of distributions, called lines here:

* ``onedl``: onedl-mmdetection, onedl-mmengine, onedl-mmcv; the maintained line, for current torch and numpy.
* ``openmmlab``: mmdet, mmengine, mmcv; the original line, last released in January 2024.

They put their files in the same folders, so having both, or parts of each, breaks in ways that are hard to
read.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import pickle
from pathlib import Path
from typing import Any, Callable

LINE_MMDET = {'onedl': 'onedl-mmdetection', 'openmmlab': 'mmdet'}
# One list per import name: only one of its distributions may be installed.
RIVALS = {
    'mmdet': ('onedl-mmdetection', 'mmdet'),
    'mmengine': ('onedl-mmengine', 'mmengine', 'mmengine-lite'),
    'mmcv': ('onedl-mmcv', 'mmcv', 'mmcv-full', 'mmcv-lite'),
}
INSTALL_HINT = (
    'Install one line:\n'
    "  maintained line: pip install 'onedl-mmcv>=2.3' 'onedl-mmengine<1' 'onedl-mmdetection<4'\n"
    "  original line:   pip install 'mmcv<2.2' 'mmengine<1' 'mmdet<4' 'setuptools<82'\n"
    'or, in a checkout of mmdet-balanced: bash tools/setup_env.sh [--line openmmlab]'
)


def installed_line() -> str:
    """Tell which mmdet line is installed, and refuse what cannot work.

    Reads the metadata of the installed distributions and imports nothing. An mmdet that is only on PYTHONPATH
    has no metadata; it is accepted, and its line is that of the installed mmengine.

    Returns:
        ``'onedl'`` or ``'openmmlab'``.

    Raises:
        ImportError: No mmdet, two distributions of one import name, mmdet older than 3.1, a missing mmengine
            or mmcv, or an mmcv that this mmdet refuses. The message says which commands mend it.
    """
    found = {name: _installed(distributions) for name, distributions in RIVALS.items()}
    _refuse_rivals(found)
    for name in RIVALS:
        if not found[name] and importlib.util.find_spec(name) is None:
            raise ImportError(f'mmdet-balanced needs `{name}`, which is not installed.\n{INSTALL_HINT}')
    deciding = found['mmdet'] or found['mmengine']
    line = 'onedl' if any(name.startswith('onedl-') for name in deciding) else 'openmmlab'
    _refuse_versions(line, found)
    return line


def mmdet_script(name: str) -> Path:
    """Find one of mmdet's own tools, such as ``'train.py'``.

    Args:
        name: File name below mmdet's `tools` folder.

    Returns:
        The path of the script: in `<mmdet>/.mim/tools`, or, for an editable mmdet without `.mim`, in the
        `tools` folder of its checkout.

    Raises:
        FileNotFoundError: Neither place has it.
    """
    places = mmdet_places(f'tools/{name}')
    for place in places:
        if place.is_file():
            return place
    tried = ' nor '.join(str(place) for place in places)
    raise FileNotFoundError(
        f"mmdet's tools/{name} was found at neither {tried}. Reinstall mmdet from a wheel "
        f'(pip install --force-reinstall --no-deps {LINE_MMDET[installed_line()]}) or from a full checkout.'
    )


def mmdet_places(path: str) -> list[Path]:
    """Where a file or folder that mmdet ships beside its package may be.

    Args:
        path: Below mmdet's repository, such as ``'configs'`` or ``'tools/train.py'``.

    Returns:
        Its place in `<mmdet>/.mim`, then that in the checkout of an editable mmdet.

    Raises:
        FileNotFoundError: mmdet is not installed.
    """
    spec = importlib.util.find_spec('mmdet')
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f'mmdet is not installed, so its {path} cannot be used.\n{INSTALL_HINT}')
    package = Path(next(iter(spec.submodule_search_locations)))
    return [package / '.mim' / path, package.parent / path]


def register_checkpoint_globals() -> None:
    """Let ``torch.load(weights_only=True)`` read the checkpoints that mmengine writes.

    Since torch 2.6 this is the default of `torch.load`, and mmengine 0.10.7 (the original line) keeps it while
    its checkpoints hold a `HistoryBuffer` of numpy arrays, so resuming fails. Only names without side effects
    are allowed here; nothing switches the check off. On older torch this does nothing; on the maintained line,
    which brings a list of its own, it does no harm.
    """
    import torch

    # Before 2.6 the check is off by default, and 2.4/2.5 do not take (object, name) pairs.
    version = torch.__version__.split('+')[0].split('.')
    if (int(version[0]), int(version[1])) >= (2, 6):
        torch.serialization.add_safe_globals(_checkpoint_globals())


def _installed(distributions: tuple[str, ...]) -> dict[str, str]:
    """Versions of those of `distributions` that are installed."""
    versions = {}
    for name in distributions:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        # A half-removed distribution leaves a folder without metadata, whose version is None.
        if version:
            versions[name] = version
    return versions


def _refuse_rivals(found: dict[str, dict[str, str]]) -> None:
    """Raise if two distributions of one import name are installed: each overwrote files of the other."""
    for name, versions in found.items():
        if len(versions) > 1:
            listed = ' and '.join(f'{dist} {version}' for dist, version in versions.items())
            everything = ' '.join(dist for part in found.values() for dist in part)
            raise ImportError(
                f'{listed} are both installed. They share the folder `{name}`, so one has overwritten files '
                f'of the other. Remove all:\n  pip uninstall -y {everything}\n{INSTALL_HINT}'
            )


def _refuse_versions(line: str, found: dict[str, dict[str, str]]) -> None:
    """Raise on an mmdet before 3.1, and on an mmcv that the original mmdet refuses with a bare assertion."""
    for dist, version in found['mmdet'].items():
        if _release(version) < (3, 1):
            raise ImportError(f'{dist} {version} is installed; mmdet-balanced needs 3.1 or later.\n{INSTALL_HINT}')
    for dist, version in found['mmcv'].items():
        if _release(version) < (2,):
            raise ImportError(f'{dist} {version} is installed; mmdet 3 needs mmcv 2.0 or later.\n{INSTALL_HINT}')
        if line == 'openmmlab' and found['mmdet'] and _release(version) >= (2, 2):
            raise ImportError(
                f'{dist} {version} does not go with mmdet {found["mmdet"]["mmdet"]}, which accepts mmcv '
                f'below 2.2 only. Remove both:\n  pip uninstall -y {dist} mmdet\n{INSTALL_HINT}'
            )


def _release(version: str) -> tuple[int, ...]:
    """First two numbers of a version; `digit_version` would need mmengine, which may be what is missing."""
    return tuple(int(part) for part in version.split('+')[0].split('.')[:2] if part.isdigit())


def _checkpoint_globals() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """Pairs (object, the name a checkpoint has for it).

    Pairs, not bare objects: the maintained mmengine removes its own bare objects again after each load.
    """
    import numpy as np
    from mmengine.logging import HistoryBuffer

    # numpy 2 moved `core` to `_core`; a checkpoint may come from either side.
    multiarray = (getattr(np, '_core', None) or np.core).multiarray
    pairs: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
        (HistoryBuffer, 'mmengine.logging.history_buffer.HistoryBuffer'),
        (_history_method, 'builtins.getattr'),
        (slice, 'builtins.slice'),
        (np.ndarray, 'numpy.ndarray'),
        (np.dtype, 'numpy.dtype'),
    ]
    for core in ('numpy.core', 'numpy._core'):
        pairs.append((multiarray._reconstruct, f'{core}.multiarray._reconstruct'))
        pairs.append((multiarray.scalar, f'{core}.multiarray.scalar'))
    codes = np.typecodes['AllInteger'] + np.typecodes['AllFloat'] + '?SU'
    kinds = {type(np.dtype(code)) for code in codes} - {np.dtype}
    pairs.extend((kind, f'{kind.__module__}.{kind.__qualname__}') for kind in kinds)
    return pairs


def _history_method(owner: Any, name: str) -> Any:
    """Stand in for `getattr` in a checkpoint, where a HistoryBuffer names its statistics functions with it.

    The real `getattr` would open every attribute of every allowed object to a prepared file.
    """
    from mmengine.logging import HistoryBuffer

    if owner is HistoryBuffer and not name.startswith('_'):
        return getattr(HistoryBuffer, name)
    raise pickle.UnpicklingError(f'getattr({owner!r}, {name!r}) is not allowed in a checkpoint')
