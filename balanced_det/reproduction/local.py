"""Runs jobs on this machine: as many side by side as its GPUs allow."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from balanced_det.analysis import runs
from balanced_det.reproduction.jobs import Job, Step, progress

POLL = 2.0  # seconds


@dataclass
class Machine:
    """Where jobs run.

    Attributes:
        slots: What each process gets: the number of a GPU, or on a machine without GPUs '' for each process.
        launcher: 'none' or 'pytorch'.
    """

    slots: list[str]
    launcher: str = 'none'

    @property
    def has_gpus(self) -> bool:
        """Whether the slots are GPUs."""
        return any(self.slots)

    def environment(self, slots: Sequence[str]) -> dict[str, str]:
        """Variables for a process that gets some slots."""
        env = {'CUDA_VISIBLE_DEVICES': ','.join(slots)} if self.has_gpus else {}
        return {**env, 'PORT': str(free_port())} if self.launcher == 'pytorch' else env


@dataclass
class Running:
    """A job that is being done: its process and what it occupies."""

    job: Job
    step: Step
    process: subprocess.Popen
    slots: list[str]
    lock: IO[str]


@dataclass
class Runner:
    """Does jobs; a failure stops neither the others nor what was begun.

    Attributes:
        machine: Where they run.
        say: Called with each line of news.
        report: Called every two seconds with what is running.
        failed: Name of each job that could not be done, with the reason.
    """

    machine: Machine
    say: Callable[[str], None]
    report: Callable[[Sequence[Running]], None]
    failed: dict[str, str] = field(default_factory=dict)

    def run(self, jobs: Sequence[Job]) -> None:
        """Do all that is left to do of some jobs, begun in their order.

        Args:
            jobs: Each needs at most as many slots as the machine has.
        """
        waiting = [job for job in jobs if job.steps()]
        going: list[Running] = []
        free = list(self.machine.slots)
        with ExitStack() as stack:
            stack.callback(lambda: runs.stop([running.process for running in going]))
            while waiting or going:
                self._begin(waiting, going, free)
                if not going:
                    continue
                time.sleep(POLL)
                self.report(going)
                for running in [running for running in going if running.process.poll() is not None]:
                    going.remove(running)
                    self._end(running, going, free)

    def _begin(self, waiting: list[Job], going: list[Running], free: list[str]) -> None:
        """Start what can be started, dropping what never can."""
        for job in list(waiting):
            if self._must_wait(job, [*waiting, *(running.job for running in going)]) or len(free) < job.gpus:
                continue
            waiting.remove(job)
            if job.needs and not job.needs.is_trained:
                self._fail(job, f'{job.needs.config.stem}, whose checkpoint it needs, has failed')
                continue
            lock = locked(job.folder)
            if lock is None:
                self._fail(job, f'another process is at work in {job.folder}')
                continue
            slots = [free.pop(0) for _ in range(job.gpus)]
            going.append(self._start(job, job.steps()[0], slots, lock))

    def _must_wait(self, job: Job, others: Sequence[Job]) -> bool:
        return job.needs is not None and any(other.folder == job.needs.folder for other in others)

    def _start(self, job: Job, step: Step, slots: list[str], lock: IO[str]) -> Running:
        place = f' on GPU {",".join(slots)}' if self.machine.has_gpus else ''
        self.say(f'{job.name}: {step.name}{place}, log in {step.log}')
        process = runs.start(
            step.command(self.machine.launcher, job.gpus),
            step.log,
            one_thread=not self.machine.has_gpus,
            env=self.machine.environment(slots),
        )
        return Running(job, step, process, slots, lock)

    def _end(self, running: Running, going: list[Running], free: list[str]) -> None:
        """Go on with the next step of a job, or leave its slots to others."""
        job, code = running.job, running.process.returncode
        left = job.steps()
        if code:
            self._fail(job, runs.failure(running.step.name, code, running.step.log))
        elif left and left[0].name == running.step.name:
            self._fail(job, f'{running.step.name} ended well but left no result; see {running.step.log}')
        elif left:
            going.append(self._start(job, left[0], running.slots, running.lock))
            return
        else:
            self.say(f'{job.name}: done')
        running.lock.close()
        free.extend(running.slots)

    def _fail(self, job: Job, reason: str) -> None:
        self.failed[job.name] = reason
        self.say(f'{job.name}: FAILED: {reason}')


def describe(going: Sequence[Running]) -> str:
    """Where everything is that is running, in a line."""
    return ' | '.join(f'{running.job.name} {progress(running.step)}' for running in going)


def locked(folder: Path) -> IO[str] | None:
    """Lock a work directory for this process; None if another has it. The system unlocks it when the process ends."""
    folder.mkdir(parents=True, exist_ok=True)
    stream = (folder / 'reproduce.lock').open('a')
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        stream.close()
        return None
    return stream


def free_port() -> int:
    """A port that nobody listens on, for the processes of one training to meet."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def visible_gpus(count: int) -> list[str]:
    """The GPUs of this machine, as CUDA_VISIBLE_DEVICES names them.

    Args:
        count: How many torch sees.
    """
    named = os.environ.get('CUDA_VISIBLE_DEVICES')
    return [name.strip() for name in named.split(',')][:count] if named else [str(index) for index in range(count)]
