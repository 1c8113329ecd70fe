"""A function called for many files by several processes, which an interruption leaves no traces of."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

import cv2
from tqdm import tqdm

Task = TypeVar('Task')
Result = TypeVar('Result')


def default_workers() -> int:
    """One for each core that this process may use, at most 8."""
    # The affinity counts the cores a container or a batch system lets this process use.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    return min(cores, 8)


def in_parallel(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    *,
    workers: int | None,
    label: str,
    unit: str = 'file',
    chunksize: int = 1,
    progress: bool = True,
) -> Generator[Result, None, None]:
    """Call a function for every task, with a progress bar on stderr.

    Args:
        function: On module level, so that it can be sent to another process.
        tasks: Its arguments.
        workers: Number of processes; 1: this one alone; None: :func:`default_workers`.
        label: Name of the progress bar.
        unit: What one task is.
        chunksize: Tasks that go to a process at a time.
        progress: Whether to show the bar.

    Yields:
        The results in the order of the tasks. Closing the generator ends the processes.
    """
    workers = min(workers or default_workers(), len(tasks))
    if workers < 2:
        yield from _bar(map(function, tasks), label, len(tasks), unit, progress)
        return
    # Forked workers need not import torch and mmdet again, which takes seconds.
    context = get_context('fork' if sys.platform == 'linux' else None)
    pool = ProcessPoolExecutor(workers, context, _start_worker, (os.getpid(),))
    try:
        yield from _bar(pool.map(function, tasks, chunksize=chunksize), label, len(tasks), unit, progress)
    finally:
        pool.shutdown(cancel_futures=True)


def _bar(results: Iterable[Result], label: str, total: int, unit: str, progress: bool) -> Iterable[Result]:
    pause = 0.1 if sys.stderr.isatty() else 5.0  # in a log file the bar writes a line each time
    return tqdm(results, label, total, unit=unit, mininterval=pause, delay=1.0, disable=not progress)


def _start_worker(parent: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the parent, which stops its workers
    cv2.setNumThreads(0)  # OpenCV's threads do not live through a fork
    threading.Thread(target=_leave_with_parent, args=(parent,), daemon=True).start()


def _leave_with_parent(parent: int) -> None:
    """End this worker when the parent was killed: it would wait for its next task for ever."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
