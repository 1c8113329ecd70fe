"""Runs jobs on this machine: as many side by side as its GPUs allow."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from balanced_det.analysis import runs
from balanced_det.reproduction.folder import check_folder, locked, write_files
from balanced_det.reproduction.jobs import Job, JobError, Step
from balanced_det.reproduction.results import ResultError

POLL = 2.0  # seconds
LOG_END = 64 * 1024  # bytes that hold the last line of a log
#: What is wrong with one job and leaves the others as they are.
FAILURES = (JobError, ResultError, OSError)


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
        # The scripts for several processes start the python that they find.
        env = {'PATH': os.pathsep.join([str(Path(sys.executable).parent), os.environ.get('PATH', os.defpath)])}
        if self.has_gpus:
            env['CUDA_VISIBLE_DEVICES'] = ','.join(slots)
        if self.launcher == 'pytorch':
            env['PORT'] = str(free_port())
        return env


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
            try:
                running = self._claim(job, free)
            except FAILURES as error:
                self._fail(job, str(error))
            else:
                going.extend(running)

    def _claim(self, job: Job, free: list[str]) -> list[Running]:
        """Begin a job that another process may have begun or ended since it was planned; empty if nothing is left."""
        if job.needs and not job.needs.is_trained:
            raise JobError(f'{job.needs.config.stem}, whose checkpoint it needs, has failed')
        with ExitStack() as stack:
            lock = stack.enter_context(locked(job.folder))
            check_folder(job)
            left = job.steps()
            if not left:
                self.say(f'{job.name}: done')
                return []
            write_files(job)
            running = self._start(job, left[0], free[: job.gpus], lock)
            stack.pop_all()
        del free[: job.gpus]
        return [running]

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
        job = running.job
        try:
            left = self._left_after(running)
            if left:
                going.append(self._start(job, left[0], running.slots, running.lock))
                return
            self.say(f'{job.name}: done')
        except FAILURES as error:
            self._fail(job, str(error))
        running.lock.close()
        free.extend(running.slots)

    def _left_after(self, running: Running) -> list[Step]:
        """What is left to do of a job after a step of it has ended."""
        job, step, code = running.job, running.step, running.process.returncode
        if code:
            raise JobError(runs.failure(step.name, code, step.log))
        if step.name == 'test-dev':
            job.keep_submission()
        left = job.steps()
        if left and left[0].name == step.name:
            raise JobError(f'{step.name} ended well but left no result; see {step.log}')
        return left

    def _fail(self, job: Job, reason: str) -> None:
        self.failed[job.name] = reason
        self.say(f'{job.name}: FAILED: {reason}')


def describe(going: Sequence[Running]) -> str:
    """Where everything is that is running, in a line."""
    return ' | '.join(f'{running.job.name} {progress(running.step)}' for running in going)


def progress(step: Step) -> str:
    """Where a step is, from the end of its log: ``epoch 3 of 12, 50/7330, 10:12:00 left``."""
    if not step.log.is_file():
        return 'starting'
    with step.log.open('rb') as stream:
        stream.seek(max(0, step.log.stat().st_size - LOG_END))
        text = stream.read().decode(errors='replace')
    kind = r'\((?:train|val|test)\)'
    found = re.findall(rf'((?:Epoch|Iter){kind}\s*(?:\[\s*\d+\])?\[\s*\d+/\d+\]).*?eta: (\S+(?: days?, \S+)?)', text)
    if not found:
        return 'starting'
    place, left = found[-1]
    return f'{re.sub(r" +", "", place)}, {left} left'


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
