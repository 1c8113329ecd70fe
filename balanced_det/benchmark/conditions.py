"""Where and with what something was measured."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import mmdet
import torch

import balanced_det

CHECKOUT = Path(balanced_det.__file__).resolve().parents[1]


def conditions(part: str, device: torch.device, command: str) -> dict[str, str]:
    """Machine, versions of what takes part, and command line."""
    threads = torch.get_num_threads()
    machine = f'{_cpu()}, {len(os.sched_getaffinity(0))} cores, {threads} thread{"s" * (threads > 1)}'
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
    own = ' '.join(filter(None, ('mmdet-balanced', balanced_det.__version__, commit(CHECKOUT))))
    versions = [f'torch {torch.__version__}', f'mmdet {mmdet.__version__}', own]
    if device.type == 'cuda':
        gpu = torch.cuda.get_device_properties(device)
        machine, memory = f'{gpu.name}; {machine}', gpu.total_memory
        versions += [f'CUDA {torch.version.cuda}', *_installed('triton')]
    if part == 'evaluation':
        versions += _installed('pycocotools', 'faster-coco-eval')
    return dict(
        machine=f'{machine}, {memory / 2**30:.0f} GiB{" on the GPU" * (device.type == "cuda")}',
        versions=', '.join(versions),
        command=command,
    )


def commit(checkout: Path) -> str:
    """Short hash of a checkout's commit, with a + if files of it were changed; empty where git knows of none."""
    git = shutil.which('git')
    if not git or not (checkout / '.git').exists():  # an installed package may lie in somebody else's checkout
        return ''
    describe = [git, '-C', str(checkout), 'describe', '--always', '--dirty=+', '--exclude=*']
    return subprocess.run(describe, capture_output=True, text=True, check=False).stdout.strip()


def _installed(*distributions: str) -> list[str]:
    """Names and versions; one that is missing is left out."""
    found = []
    for name in distributions:
        try:
            found.append(f'{name} {version(name)}')
        except PackageNotFoundError:
            continue
    return found


def _cpu() -> str:
    info = Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.split(':')[1].strip() for line in lines if line.startswith('model name')), platform.processor())
