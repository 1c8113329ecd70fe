"""Config files with balanced losses: find the original, load it, write the file that inherits from it."""

from __future__ import annotations

import difflib
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from balanced_det.compat import mmdet_places
from balanced_det.swap.detector import SwapError
from balanced_det.swap.methods import METHODS
from balanced_det.swap.plan import plan_swap
from balanced_det.swap.text import inheriting_config


@dataclass(frozen=True)
class SwappedConfig:
    """A config file with balanced losses.

    Attributes:
        path: Where it was or, in a dry run, would be written.
        text: What it holds.
        original: The config it inherits from, as loaded.
        result: The new config, as loaded.
        notes: What stays as it is although it was to be swapped, and why.
    """

    path: Path
    text: str
    original: Config
    result: Config
    notes: tuple[str, ...]

    def diff(self, name: str = 'original') -> str:
        """Unified diff from the original, called ``name`` in it, to the new config, both whole."""
        before, after = (cfg.pretty_text.splitlines() for cfg in (self.original, self.result))
        return '\n'.join(difflib.unified_diff(before, after, name, str(self.path), lineterm=''))


def swap_losses(
    config: str | os.PathLike,
    method: str = 'iou-balanced',
    out: str | os.PathLike | None = None,
    *,
    losses: str = 'both',
    eta: float | None = None,
    lambda_: float | None = None,
    force: bool = False,
    dry_run: bool = False,
) -> SwappedConfig:
    """Write a small config that inherits from another and changes its losses.

    Args:
        config: As :func:`find_config`.
        method: As :func:`plan_swap`, like ``losses``, ``eta`` and ``lambda_``.
        out: The file to write; None is ``<name of the config>_<method>.py`` in the current folder.
        losses: 'cls', 'loc' or 'both'.
        eta: In place of the table's.
        lambda_: In place of the table's.
        force: Overwrite ``out``.
        dry_run: Write nothing.

    Returns:
        The new file, with the config before and after.

    Raises:
        SwapError: The config is not found, does not load or cannot be swapped, or ``out`` cannot be written.
    """
    source = find_config(config)
    path = Path(out or f'{source.stem}_{method}.py').expanduser()
    if not dry_run:
        _check_out(path, source, force)
    reference = _mmdet_reference(source)
    original = _load(f'_base_ = {reference or str(source)!r}\n', source)
    swap = plan_swap(original, method, losses=losses, eta=eta, lambda_=lambda_)
    docstring = f'{METHODS[method].title} on {source.name}.'
    # Loaded before it is written, with the absolute path: no file is left that does not load.
    result = _load(inheriting_config(swap, original, reference or str(source), docstring), source)
    text = inheriting_config(swap, original, reference or _relative(source, path), docstring)
    if not dry_run:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding='utf-8')
        except OSError as error:
            raise SwapError(f'{path} cannot be written: {error}') from error
    return SwappedConfig(path, text, original, result, swap.notes)


def find_config(config: str | os.PathLike) -> Path:
    """A config file by its path, or one of mmdet's own by its name.

    Args:
        config: A path; or a name with or without its folder, `.py` and `mmdet::`, such as
            ``mmdet::retinanet/retinanet_r50_fpn_1x_coco.py`` or ``retinanet_r50_fpn_1x_coco``.

    Returns:
        The absolute path of the file.

    Raises:
        SwapError: There is none, or more than one.
    """
    path = Path(config).expanduser()
    if path.is_file():
        return path.resolve()
    folder = _stock_folder()
    files = [file for file in sorted(folder.rglob('*.py')) if '_base_' not in file.parts]
    stock = {file.relative_to(folder).with_suffix('').as_posix(): file for file in files}
    wanted = re.sub(r'^mmdet::|\.py$', '', str(config))
    found = [name for name in stock if f'/{name}'.endswith(f'/{wanted}')]
    if len(found) == 1:
        return stock[found[0]].resolve()
    if found:
        raise SwapError(f'{config} is the name of {len(found)} configs of mmdet; choose one of {", ".join(found)}')
    near = difflib.get_close_matches(Path(wanted).name, {Path(name).name for name in stock}, n=3)
    hint = f'did you mean {" or ".join(near)}?' if near else f'those are in {folder}'
    raise SwapError(f"{config} is neither a config file nor the name of one of mmdet's own: {hint}")


def _check_out(out: Path, source: Path, force: bool) -> None:
    if out.suffix != '.py':
        raise SwapError(f'{out}: the name of the new config must end in .py')
    if out.exists() and out.samefile(source):
        raise SwapError(f'{out} is the original, from which the new config inherits: choose another name')
    if out.exists() and not force:
        raise SwapError(f'{out} exists: choose another name, or overwrite it with --force')


def _stock_folder() -> Path:
    """The configs of mmdet: in the package, or, for an editable mmdet without `.mim`, in its checkout."""
    places = mmdet_places('configs')
    for place in places:
        if (place / '_base_').is_dir():
            return place
    raise SwapError(f"mmdet's own configs are at neither {' nor '.join(map(str, places))}: give the path of a config")


def _mmdet_reference(source: Path) -> str:
    """A config of mmdet as mmengine finds it wherever mmdet is installed; empty for another file."""
    folder = mmdet_places('configs')[0].resolve()  # the only one in which mmengine looks
    name = source.relative_to(folder).as_posix() if source.is_relative_to(folder) else ''
    # mmengine takes no other name of a folder: not `gn+ws`.
    return f'mmdet::{name}' if re.match(r'\w+/', name) else ''


def _relative(source: Path, out: Path) -> str:
    """A config as seen from the folder of another file."""
    path = Path(os.path.relpath(source, out.parent.resolve())).as_posix()
    return path if path.startswith('..') else f'./{path}'


def _load(text: str, source: Path) -> Config:
    """What mmengine makes of a text config that inherits from ``source``."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, 'config.py')
        file.write_text(text, encoding='utf-8')
        try:
            return Config.fromfile(file)
        except Exception as error:  # a config is a program
            if 'lazy_import' in str(error):
                raise SwapError(
                    f'{source} is a pure-Python config (read_base), from which no text config can inherit: make a text '
                    'config of it first, with mmengine.Config.fromfile(...).dump(...)'
                ) from error
            reason = error.__cause__ or error
            first_line = (str(reason).splitlines() or [''])[0]
            raise SwapError(f'{source} does not load: {type(reason).__name__}: {first_line}') from error
