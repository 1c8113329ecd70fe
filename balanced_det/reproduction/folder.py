"""Whether a job may work in its folder: not beside another process, not on the results of something else."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

from balanced_det.datasets.whole_files import write_text
from balanced_det.reproduction.difference import differences, one_of_each_kind
from balanced_det.reproduction.jobs import Job, JobError
from balanced_det.reproduction.results import Session, WorkDir

LOCK = 'reproduce.lock'


def locked(folder: Path) -> IO[str]:
    """Lock a work directory for this process, until the file is closed or the process ends.

    Args:
        folder: The work directory; it is made.

    Returns:
        The open file that is locked.

    Raises:
        JobError: Another process has it.
        OSError: The folder cannot be written to, or its file system has no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stream = (folder / LOCK).open('a')
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        stream.close()
        raise JobError(f'another process is at work in {folder}') from error
    except OSError as error:
        stream.close()
        raise OSError(error.errno, error.strerror, stream.name) from error
    return stream


def check_folder(job: Job) -> None:
    """Refuse a folder that a job cannot go on in. A start that left nothing does not count.

    Args:
        job: The job.

    Raises:
        JobError: The folder holds the results of another config, data set or schedule, or a training that was begun on
            another number of GPUs.
        ResultError: A file in it is broken.
    """
    work_dir = job.work_dir
    last = told_by(work_dir)
    if last is None:
        if has_pointer(work_dir):
            raise JobError(f'{job.folder} holds a checkpoint and nothing that tells of which config')
        return
    problems = differences(job.cfg, last.plain_config)
    if problems:
        named = '; '.join(map(str, one_of_each_kind(problems).values()))
        raise JobError(
            f'{job.folder} holds the results of something else, which are not overwritten: {named}. '
            'Move the folder away, or name another with --work-dirs'
        )
    check_processes(job)


def told_by(work_dir: WorkDir) -> Session | None:
    """The start that tells whose results are in a folder; None if there are none, or nothing tells."""
    tests = [session for session in work_dir.sessions if session.is_test]
    # A short training may end without a line in its log.
    others = work_dir.sessions if has_pointer(work_dir) else []
    return work_dir.training or next(reversed([*others, *tests]), None)


def has_pointer(work_dir: WorkDir) -> bool:
    """Whether a training has written a checkpoint."""
    return (work_dir.folder / 'last_checkpoint').is_file()


def check_processes(job: Job) -> None:
    """Refuse to resume on another number of GPUs.

    mmengine scales the learning rate to the batch first and then takes that of the checkpoint's optimiser instead.
    """
    if job.only_tests or job.is_trained or not job.work_dir.last_checkpoint:
        return
    trainings = job.work_dir.trainings
    processes = trainings[0].processes if trainings else None
    if processes not in (None, job.gpus):
        raise JobError(
            f'{job.folder}: begun on {processes} GPUs (processes), now on {job.gpus}; a resumed training keeps the '
            f'learning rate of its beginning. Give --gpus-per-row {processes}'
        )


def write_files(job: Job, *, waits: bool = False) -> None:
    """Write the files of a trial; the folder has to be locked.

    Args:
        job: The job.
        waits: Files that are there with other text may be those of a job that waits in a queue.

    Raises:
        JobError: Such a file is there with other text, and results were made with it, or a job may wait for it.
        ResultError: A file in the folder is broken.
    """
    for path, text in unwritten(job).items():
        if path.is_file() and (waits or told_by(job.work_dir)):
            raise JobError(
                f'{path} is there with other settings or data, which the results in {job.folder} or a job in the queue '
                'need. Move the folder away, or name another with --work-dirs'
            )
        write_text(path, text)


def unwritten(job: Job) -> dict[Path, str]:
    """The files of a trial that are not there, or with other text."""
    return {path: text for path, text in job.files.items() if not (path.is_file() and path.read_text() == text)}
