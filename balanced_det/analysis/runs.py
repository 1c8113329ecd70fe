"""Trainings and predictions as processes: several at a time, resumed where they stopped."""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
#: In an installed package, or in a checkout, where an editable install has links to it.
TOOLS = next(path for path in (PACKAGE / '.mim' / 'tools', PACKAGE.parent / 'tools') if path.is_dir()).resolve()
LOG_TAIL = 25


class RunFailed(RuntimeError):
    """A process ended with an error; the message holds the end of its log."""


@dataclass(frozen=True)
class Run:
    """One training of a config and the predictions of its last checkpoint.

    Attributes:
        name: What is trained, for messages.
        config: The config file.
        folder: Where everything of the run is written.
        max_iters: Iterations of the training.
        options: ``--cfg-options`` of training and prediction, as ``key=value``.
    """

    name: str
    config: Path
    folder: Path
    max_iters: int
    options: tuple[str, ...] = ()

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint of a finished training."""
        return self.folder / f'iter_{self.max_iters}.pth'

    @property
    def predictions(self) -> Path:
        """Detections in COCO's result format."""
        return self.folder / 'predictions.bbox.json'

    @property
    def trained(self) -> bool:
        """Whether the training is finished; mmengine names a checkpoint here after it has been written."""
        last = self.folder / 'last_checkpoint'
        return last.is_file() and Path(last.read_text().strip()).name == self.checkpoint.name

    @property
    def iterations(self) -> int:
        """Iterations that the log of the training tells of."""
        log = self.folder / 'train.log'
        done = re.findall(r'Iter\(train\)\s*\[\s*(\d+)/', log.read_text(errors='replace')) if log.is_file() else []
        return int(done[-1]) if done else 0

    def train_command(self) -> list[str]:
        """Trains, or goes on from the last checkpoint in the folder."""
        return self._command('train.py', '--resume')

    def predict_command(self) -> list[str]:
        """Writes :attr:`predictions`; under another name first, so that an unfinished file is not taken for one."""
        return self._command(
            'test.py', str(self.checkpoint), options=[f'test_evaluator.outfile_prefix={self.folder / "unfinished"}']
        )

    def keep_predictions(self) -> None:
        """To be called when the prediction has ended well."""
        (self.folder / 'unfinished.bbox.json').replace(self.predictions)

    def _command(self, tool: str, *arguments: str, options: Sequence[str] = ()) -> list[str]:
        return [
            sys.executable,
            str(TOOLS / tool),
            str(self.config),
            *arguments,
            '--work-dir',
            str(self.folder),
            '--cfg-options',
            *self.options,
            *options,
        ]


def train_and_predict(runs: Sequence[Run], parallel: int, report: Callable[[Sequence[Run]], None]) -> None:
    """Finish every run: those that are finished already cost nothing.

    Args:
        runs: The runs, begun in this order.
        parallel: Processes at a time. With more than one, each gets one thread, which for small models is faster
            than one process with all of them.
        report: Called every two seconds with the runs that are training.

    Raises:
        RunFailed: A process failed. The others were stopped; a later call resumes all.
    """
    jobs = [run for run in runs if not run.trained]
    for run in jobs:
        run.predictions.unlink(missing_ok=True)  # of a shorter training in the same folder
    run_all(jobs, [run.train_command() for run in jobs], 'train.log', parallel, report)
    jobs = [run for run in runs if not run.predictions.is_file()]
    run_all(jobs, [run.predict_command() for run in jobs], 'predict.log', parallel)
    for run in jobs:
        run.keep_predictions()


def run_all(
    runs: Sequence[Run],
    commands: Sequence[list[str]],
    log_name: str,
    parallel: int,
    report: Callable[[Sequence[Run]], None] | None = None,
) -> None:
    """Run one command for each run, ``parallel`` at a time, with their output in a log of the run's folder."""
    waiting = list(zip(runs, commands))
    going: dict[Run, subprocess.Popen] = {}
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: stop(list(going.values())))
        while waiting or going:
            while waiting and len(going) < parallel:
                run, command = waiting.pop(0)
                going[run] = start(command, run.folder / log_name, one_thread=parallel > 1)
            time.sleep(2)
            if report is not None:
                report(list(going))
            for run, process in list(going.items()):
                if process.poll() is None:
                    continue
                del going[run]
                if process.returncode:
                    raise RunFailed(failure(run.name, process.returncode, run.folder / log_name))


def start(command: list[str], log: Path, *, one_thread: bool, env: Mapping[str, str] | None = None) -> subprocess.Popen:
    """Start a command with its output appended to ``log``; it dies with this process, however that ends.

    Args:
        command: The command line.
        log: Made with its folder if it is not there.
        one_thread: Let torch use a single thread.
        env: Variables to set beside those of this process.

    Returns:
        The process.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    threads = dict(OMP_NUM_THREADS='1', MKL_NUM_THREADS='1') if one_thread else {}
    with log.open('a') as stream:
        return subprocess.Popen(
            command,
            stdout=stream,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **threads, **(env or {})},
            preexec_fn=_die_with_parent if sys.platform == 'linux' else None,
        )


def stop(processes: Sequence[subprocess.Popen]) -> None:
    """End the processes that still run, and wait for them."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait()


def failure(name: str, code: int, log: Path) -> str:
    """What a user needs to know of a failed process."""
    tail = '\n'.join(log.read_text(errors='replace').splitlines()[-LOG_TAIL:])
    return f'{name} ended with exit code {code}. The end of {log}:\n{tail}'


def _die_with_parent() -> None:
    # A process left over by a killed parent would go on training beside the one that resumes it.
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
