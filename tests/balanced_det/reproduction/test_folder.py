"""Whether a job may work in its folder."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from work_dir_cases import A2, add_checkpoint, add_test, add_training, row_config

from balanced_det import papers
from balanced_det.reproduction import folder
from balanced_det.reproduction.folder import check_folder, locked, write_files
from balanced_det.reproduction.jobs import Job, JobError
from balanced_det.reproduction.plan import Options, make_plan
from balanced_det.reproduction.trial import Trial

STEM = A2['A2.1']


def make_job(tmp_path, **options) -> Job:
    (job,) = make_plan(papers.find(['A2.1']), Options(tmp_path, **options)).jobs
    return job


def test_a_lock_that_another_process_holds(tmp_path):
    text = f"import fcntl, sys\nstream = open('{tmp_path}/reproduce.lock', 'a')\nfcntl.flock(stream, fcntl.LOCK_EX)\n"
    wait = "print('locked', flush=True)\nsys.stdin.read()\n"
    with subprocess.Popen([sys.executable, '-c', text + wait], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b'locked\n'
        with pytest.raises(JobError, match=f'another process is at work in {tmp_path}'):
            locked(tmp_path)
        other.stdin.close()
    locked(tmp_path).close()


def test_a_file_system_without_locks_is_not_called_another_process(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(folder.fcntl, 'flock', refuse)
    with pytest.raises(OSError, match=f"No locks available: '{tmp_path}/reproduce.lock'"):
        locked(tmp_path)


def test_a_training_is_not_resumed_on_another_number_of_gpus(tmp_path):
    """mmengine scales the learning rate first and then takes that of the old optimiser: checked in its runner."""
    cfg = row_config(STEM)
    add_training(tmp_path / STEM, cfg, epochs=2, gpus=2)
    cfg.resume = True
    add_training(tmp_path / STEM, cfg, time='20261122_080000', epochs=3, gpus=4)
    with pytest.raises(JobError, match=r'begun on 2 GPUs \(processes\), now on 4; .* Give --gpus-per-row 2'):
        make_job(tmp_path, launcher='pytorch', gpus=8, gpus_per_row=4)
    job = make_job(tmp_path, launcher='pytorch', gpus=8)
    assert job.state() == 'resumes after epoch 3 of 12'
    add_checkpoint(tmp_path / STEM, 'epoch_12.pth')  # nothing is resumed: a test may run on any number
    assert make_job(tmp_path, launcher='pytorch', gpus=8, gpus_per_row=4).state() == 'trained, not tested'


def test_a_start_that_left_nothing_blocks_no_other_batch_or_input(tmp_path):
    add_training(tmp_path / STEM, row_config(STEM), epochs=0)
    assert make_job(tmp_path, trial=Trial(batch_size=2, scale=(320, 240))).state() == 'not trained'


def test_a_training_without_a_line_in_its_log_counts_by_its_checkpoint(tmp_path):
    add_training(tmp_path / STEM, row_config(STEM), epochs=0)
    add_checkpoint(tmp_path / STEM, 'epoch_1.pth')
    with pytest.raises(JobError, match='another batch size'):
        make_job(tmp_path, trial=Trial(batch_size=2))


def test_a_test_of_something_else_counts(tmp_path):
    add_test(tmp_path / STEM, row_config(STEM))
    with pytest.raises(JobError, match='another batch size'):
        make_job(tmp_path, trial=Trial(batch_size=2))


def files_of(job: Job) -> dict[Path, str]:
    return {path: path.read_text() for path in job.files}


def test_files_of_a_trial_without_results_follow_the_settings(tmp_path):
    for size in (2, 3):
        job = make_job(tmp_path, trial=Trial(batch_size=size))
        write_files(job)
        assert files_of(job) == dict(job.files)
    write_files(job)  # the same again


def test_files_that_results_were_made_with_are_kept(tmp_path):
    """The settings are the same; what differs is the text, as of data that were converted again."""
    job = make_job(tmp_path, trial=Trial(max_epochs=3))
    write_files(job)
    (path,) = job.files
    path.write_text('# of another day\n')
    add_training(job.folder, job.cfg, epochs=1, gpus=1)
    check_folder(job)
    with pytest.raises(JobError, match=f'{path} is there with other settings or data'):
        write_files(job)
    assert path.read_text() == '# of another day\n'


def test_files_that_a_queued_job_may_need_are_kept(tmp_path):
    first, second = (make_job(tmp_path, trial=Trial(batch_size=size)) for size in (2, 3))
    write_files(first, waits=True)
    write_files(first, waits=True)  # submitted again
    with pytest.raises(JobError, match='or a job in the queue need'):
        write_files(second, waits=True)
    assert files_of(first) == dict(first.files)
