"""Checks of a config before a training starts: each problem names the value, the config key and the remedy."""

from __future__ import annotations

import os.path as osp
import sys
from argparse import Namespace

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import find_latest_checkpoint

from balanced_det.preflight.config import ConfigProblem, is_first_process, load_config, parse_arguments, walk
from balanced_det.preflight.data import (
    annotated_names,
    check_classes,
    check_files,
    check_num_classes,
    class_names,
    leaf_datasets,
)
from balanced_det.preflight.losses import check_heads, check_losses, is_own, loss_blocks
from balanced_det.preflight.weights import WeightsUnavailable, check_weights, explain_failed_downloads, name_the_key

__all__ = [
    'ConfigProblem',
    'WeightsUnavailable',
    'annotated_names',
    'check_arguments',
    'check_classes',
    'check_config',
    'check_files',
    'check_heads',
    'check_losses',
    'check_num_classes',
    'check_weights',
    'class_names',
    'explain_failed_downloads',
    'is_own',
    'leaf_datasets',
    'load_config',
    'loss_blocks',
    'name_the_key',
    'parse_arguments',
    'walk',
]


def check_arguments(argv: list[str]) -> None:
    """Check the config that the arguments of tools/train.py name.

    Args:
        argv: The arguments, without the program's name. Those of other checks and of mmdet itself pass through.

    Raises:
        SystemExit: With the message of the first problem found.
    """
    args = parse_arguments(argv)
    if args.config is None or args.help or not is_first_process():
        return
    try:
        cfg = load_config(args.config, args.cfg_options)
        if args.resume:
            _check_resume(args, cfg)
            cfg.load_from = None  # the script then takes no other checkpoint
        check_config(cfg)
    except ConfigProblem as problem:
        sys.exit(f'{args.config}: {problem}')


def check_config(cfg: Config) -> None:
    """Check the data, the loss blocks, the heads and the files of weights of a config.

    Args:
        cfg: A config for mmdet's ``tools/train.py``.

    Raises:
        ConfigProblem: The first problem found.
    """
    if not cfg.get('train_dataloader'):
        raise ConfigProblem('no train_dataloader in it: nothing to train on; name a config that has one')
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    check_losses(cfg.model)
    check_heads(cfg.model)
    for loader in ('train_dataloader', 'val_dataloader'):
        if cfg.get(loader):
            for key, dataset in leaf_datasets(cfg[loader].dataset, f'{loader}.dataset'):
                check_files(key, dataset)
                check_classes(key, dataset)
                if loader == 'train_dataloader':
                    check_num_classes(key, dataset, cfg.model)
    check_weights(cfg)


def _check_resume(args: Namespace, cfg: Config) -> None:
    if args.resume == 'auto':
        stem = osp.splitext(osp.basename(args.config))[0]
        work_dir = args.work_dir or cfg.get('work_dir') or osp.join('work_dirs', stem)  # as the script chooses it
        if cfg.get('load_from') and not find_latest_checkpoint(work_dir):
            raise ConfigProblem(
                f'--resume finds no last_checkpoint in {osp.abspath(work_dir)}: nothing to resume, and it would drop '
                f'load_from={cfg.load_from!r}; leave --resume away'
            )
    elif '://' not in args.resume and not osp.isfile(args.resume):
        raise ConfigProblem(
            f'--resume names no file {osp.abspath(args.resume)}; without a path it takes the last checkpoint in the '
            'work folder'
        )
