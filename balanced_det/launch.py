"""Starts mmdet's own scripts: as mmdet does on a machine with a GPU, with gloo on one without."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device

from balanced_det import compat, preflight

# What starts the processes of a launcher, the variables that it sets, and the name of its scripts in tools/.
STARTERS = dict(
    pytorch=('processes of torchrun', ('RANK', 'WORLD_SIZE'), 'dist'),
    slurm=('tasks of srun', ('SLURM_PROCID', 'SLURM_NTASKS'), 'slurm'),
)


def run_mmdet(script: str) -> None:
    """Run one of mmdet's tools with the arguments of this program.

    mmengine itself starts several processes on GPUs alone. Without a GPU they are joined here, before the script, and
    the script is told to keep the model on the CPU.

    Args:
        script: 'train.py' or 'test.py'.

    Raises:
        SystemExit: There is no such config, pretrained weights cannot be had, or the launcher has not started this
            process; with what to do about it.
    """
    args = preflight.parse_arguments(sys.argv[1:])
    if args.config is None or args.help:
        return _run(script)
    check_launcher(args.launcher, script)
    try:
        cfg = preflight.load_config(args.config, args.cfg_options)
        on_cpu = args.launcher in ('pytorch', 'slurm') and get_device() == 'cpu'
        if on_cpu:
            join_on_cpu(args.launcher)
            sys.argv += ['--cfg-options', *cpu_options(cfg)]
        preflight.explain_failed_downloads()
        _run(script)
    except preflight.ConfigProblem as problem:
        raise SystemExit(f'{args.config}: {problem}') from problem
    except preflight.WeightsUnavailable as error:
        raise SystemExit(f'{args.config}: {preflight.name_the_key(error, cfg)}') from error
    if on_cpu:
        torch.distributed.destroy_process_group()


def check_launcher(launcher: str, script: str) -> None:
    """Stop where ``--launcher`` names what has not started this process.

    Args:
        launcher: As of mmdet's scripts; those that are not in :data:`STARTERS` are not checked.
        script: 'train.py' or 'test.py'.

    Raises:
        SystemExit: A variable of the launcher is missing; with the script to use.
    """
    starter, variables, name = STARTERS.get(launcher, ('', (), ''))
    if not all(variable in os.environ for variable in variables):
        raise SystemExit(f'--launcher {launcher} is for {starter}: use tools/{name}_{Path(script).stem}.sh')


def join_on_cpu(launcher: str) -> None:
    """Make the process group of what torchrun or srun started, with the backend gloo.

    Args:
        launcher: 'pytorch' or 'slurm'.
    """
    if launcher == 'slurm':
        os.environ.update(slurm_environment())
    torch.distributed.init_process_group('gloo')
    if torch.distributed.get_rank() == 0:
        print(f'No GPU here: {torch.distributed.get_world_size()} processes on CPU, backend gloo', flush=True)


def cpu_options(cfg: Config) -> list[str]:
    """What ``--cfg-options`` has to say for mmengine to wrap the model without a GPU.

    Args:
        cfg: The config. Without a ``model_wrapper_cfg`` it gets the one that mmengine has by default.

    Returns:
        Options, ``KEY=VALUE``.
    """
    options: dict[str, object] = dict(device_ids=None)
    if not cfg.get('model_wrapper_cfg'):
        options.update(
            type='MMDistributedDataParallel',
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )
    return [f'model_wrapper_cfg.{key}={value}' for key, value in options.items()]


def slurm_environment() -> dict[str, str]:
    """Variables of torch for a task of srun, chosen as mmengine does: the first node is the master, its port 29500."""
    variables = dict(RANK='SLURM_PROCID', WORLD_SIZE='SLURM_NTASKS', LOCAL_RANK='SLURM_LOCALID')
    found = {name: os.environ[of_slurm] for name, of_slurm in variables.items()}
    found['MASTER_PORT'] = os.environ.get('MASTER_PORT', '29500')
    if 'MASTER_ADDR' not in os.environ:
        nodes = ['scontrol', 'show', 'hostnames', os.environ['SLURM_NODELIST']]
        found['MASTER_ADDR'] = subprocess.check_output(nodes, text=True).split()[0]
    return found


def _run(script: str) -> None:
    runpy.run_path(str(compat.mmdet_script(script)), run_name='__main__')
