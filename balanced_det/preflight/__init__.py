"""Checks of a config before a training starts: each problem names the value, the config key and the remedy."""

from __future__ import annotations

import os.path as osp
import sys

from mmengine.config import Config
from mmengine.registry import init_default_scope

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
        if args.resume:  # the script then takes no other checkpoint
            cfg.load_from = None
        if args.resume not in (None, 'auto') and '://' not in args.resume and not osp.isfile(args.resume):
            raise ConfigProblem(
                f'--resume names no file {osp.abspath(args.resume)}; without a path it takes the last checkpoint in '
                'the work folder'
            )
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
