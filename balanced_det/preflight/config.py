"""Reading a config, finding blocks in it, and what is raised for one that cannot train."""

from __future__ import annotations

import argparse
import os
import os.path as osp
from collections.abc import Iterator

from mmengine.config import Config, ConfigDict, DictAction


class ConfigProblem(ValueError):
    """A config that cannot train; the message says what is wrong, at which key, and how to mend it."""


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """What the arguments of mmdet's tools/train.py and tools/test.py say of config and processes.

    Args:
        argv: The arguments, without the program's name.

    Returns:
        'config' (None without one), 'cfg_options', 'work_dir', 'launcher', 'resume' ('auto' without a path) and 'help'.
    """
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument('config', nargs='?')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    parser.add_argument('--launcher', default='none')
    parser.add_argument('--work-dir')
    parser.add_argument('--resume', nargs='?', const='auto')
    parser.add_argument('-h', '--help', action='store_true')
    # Options that take a value, so that the value is not taken for the config.
    for option in ('--local_rank', '--local-rank', '--out', '--show-dir', '--wait-time'):
        parser.add_argument(option)
    return parser.parse_known_args(argv)[0]


def is_first_process() -> bool:
    """Whether this is the process that speaks for all that torchrun or srun started."""
    return (os.environ.get('RANK') or os.environ.get('SLURM_PROCID') or '0') == '0'


def load_config(path: str, cfg_options: dict | None = None) -> Config:
    """Read a config as mmdet's tools do.

    Args:
        path: The config file.
        cfg_options: What ``--cfg-options`` merges into it.

    Returns:
        The config.

    Raises:
        ConfigProblem: There is no such file, it or a file of its ``_base_`` cannot be read, or it has no model.
    """
    if not osp.isfile(path):
        raise ConfigProblem(f'no such config file; the current folder is {osp.abspath(osp.curdir)}')
    try:
        cfg = Config.fromfile(path)
    except OSError as error:
        raise ConfigProblem(f'this config or one in its _base_ cannot be read: {error}') from error
    except SyntaxError as error:  # mmengine parses a copy, so the error does not know the file
        raise ConfigProblem(
            f'this config or one in its _base_ has a syntax error in line {error.lineno}, '
            f'{(error.text or "").strip()!r}: {error.msg}'
        ) from error
    if cfg_options:
        cfg.merge_from_dict(cfg_options)
    if cfg.get('model') is None:
        raise ConfigProblem('no model in it: a part of other configs, as those in _base_ are? Name one that has it')
    return cfg


def walk(node: object, key: str) -> Iterator[tuple[str, ConfigDict]]:
    """Every dict in a config with its dotted key."""
    if isinstance(node, dict):
        yield key, node
        for name, child in node.items():
            yield from walk(child, f'{key}.{name}')
    elif isinstance(node, (list, tuple)):
        for index, child in enumerate(node):
            yield from walk(child, f'{key}.{index}')
