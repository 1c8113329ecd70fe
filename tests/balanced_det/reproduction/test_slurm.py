"""The scripts for Slurm: their text, and what they do when bash runs them with a recording srun."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest
from mmengine.config import Config

from balanced_det.reproduction import jobs
from balanced_det.reproduction.folder import locked
from balanced_det.reproduction.jobs import Job, JobError
from balanced_det.reproduction.slurm import Cluster, arrays, submit


def make_job(tmp_path, name, **values) -> Job:
    stem = values.pop('stem', name.lower())
    cfg = Config(dict(train_cfg=dict(max_epochs=12)))
    return Job((name,), tmp_path / f'{stem}.py', cfg, tmp_path / 'work dirs' / stem, **values)


@pytest.fixture
def recorded(tmp_path):
    """Run task 0 of a script; returns the status, the commands that srun got, and the output."""
    (tmp_path / 'bin').mkdir()
    srun = tmp_path / 'bin' / 'srun'
    srun.write_text(
        f'#!/bin/bash\nprintf "%s|" "$@" >>{tmp_path}/calls\necho >>{tmp_path}/calls\n'
        'if [[ ${@: -1} == test_evaluator.outfile_prefix=* ]]; then\n'
        '    prefix=${@: -1} && prefix=${prefix#*=} && mkdir -p "${prefix%/*}"\n'
        '    echo "[]" >"$prefix.bbox.json" && echo "[]" >"$prefix.segm.json"\nfi\nexit ${SRUN_RC:-0}\n'
    )
    srun.chmod(0o755)

    def run(array, **env):
        (tmp_path / 'calls').unlink(missing_ok=True)
        path = f'{tmp_path}/bin:{os.environ["PATH"]}'
        env = dict(os.environ, PATH=path, SLURM_ARRAY_TASK_ID='0', SLURM_JOB_ID='41007', SLURM_CPUS_PER_TASK='7', **env)
        array.script.parent.mkdir(exist_ok=True, parents=True)
        array.script.write_text(array.text)
        done = subprocess.run(['bash', str(array.script)], env=env, capture_output=True, text=True, check=False)
        calls = (tmp_path / 'calls').read_text().splitlines() if (tmp_path / 'calls').is_file() else []
        prefix = f'--kill-on-bad-exit=1|--cpus-per-task=7|{sys.executable}|-u|'
        assert all(call.startswith(prefix) for call in calls)
        return done.returncode, [call.removeprefix(prefix).split('|')[:-1] for call in calls], done.stdout + done.stderr

    return run


def test_one_task_for_each_config(tmp_path):
    rows = [make_job(tmp_path, 'A2.1', gpus=2), make_job(tmp_path, 'A2.2', gpus=2)]
    (array,) = arrays(rows, Cluster('A2', 'gpu', arguments=('--time=2-0',), at_a_time=8), tmp_path / 'slurm')
    assert array.script == tmp_path / 'slurm' / 'A2_0.sh'
    assert array.text.split('set -euo')[0] == (
        '#!/usr/bin/env bash\n'
        '# Written by tools/reproduce.py; may be submitted again: it skips what is trained and resumes what is not.\n'
        '#SBATCH --job-name=A2\n'
        '#SBATCH --array=0-1%4\n'
        '#SBATCH --partition=gpu\n'
        '#SBATCH --ntasks=2\n'
        '#SBATCH --ntasks-per-node=2\n'
        '#SBATCH --gres=gpu:2\n'
        '#SBATCH --cpus-per-task=5\n'
        '#SBATCH --requeue\n'
        '#SBATCH --open-mode=append\n'
        f'#SBATCH --output={tmp_path}/slurm/A2_0_%a.log\n'
        '#SBATCH --time=2-0\n'
    )
    assert 'names=(A2.1 A2.2)' in array.text


def test_several_nodes(tmp_path):
    (array,) = arrays([make_job(tmp_path, 'A1.8', gpus=16)], Cluster('A1'), tmp_path)
    assert '#SBATCH --ntasks=16\n#SBATCH --ntasks-per-node=8\n#SBATCH --gres=gpu:8\n' in array.text
    with pytest.raises(JobError, match=r'A1.8: 12 GPUs cannot be shared out evenly to nodes of 8: give '
                       r'--gpus-per-row 8, or --gpus-per-node 6'):  # fmt: skip
        arrays([make_job(tmp_path, 'A1.8', gpus=12)], Cluster('A1'), tmp_path)


def test_a_task_trains_and_tests(tmp_path, recorded):
    job = make_job(tmp_path, 'A2.1')
    (array,) = arrays([job], Cluster('A2'), tmp_path / 'slurm')
    code, calls, output = recorded(array)
    assert code == 0, output
    folder, tools = str(job.folder), str(jobs.ROOT / 'tools')
    common = ['--work-dir', folder, '--launcher', 'slurm']
    assert calls == [
        [f'{tools}/train.py', str(job.config), *common, '--auto-scale-lr'],
        [f'{tools}/test.py', str(job.config), f'{folder}/epoch_12.pth', *common],
    ]


@pytest.mark.parametrize(('last', 'steps'), [('epoch_3.pth', ['train', 'test']), ('epoch_12.pth', ['test'])])
def test_a_requeued_task_goes_on(tmp_path, recorded, last, steps):
    job = make_job(tmp_path, 'A2.1')
    job.folder.mkdir(parents=True)
    (job.folder / 'last_checkpoint').write_text(f'/where/it/was/{last}')
    (job.folder / last).touch()
    (array,) = arrays([job], Cluster('A2'), tmp_path / 'slurm')
    code, calls, output = recorded(array)
    assert code == 0, output
    assert [call[0].rpartition('/')[2].removesuffix('.py') for call in calls] == steps
    resumed = [call[-2:] for call in calls if '--resume' in call]
    assert resumed == ([['--resume', f'{job.folder}/{last}']] if 'train' in steps else [])


def test_a_last_checkpoint_that_is_gone_is_trained_again(tmp_path, recorded):
    job = make_job(tmp_path, 'A2.1')
    job.folder.mkdir(parents=True)
    (job.folder / 'last_checkpoint').write_text(f'{job.folder}/epoch_12.pth')
    _, calls, _ = recorded(arrays([job], Cluster('A2'), tmp_path / 'slurm')[0])
    assert calls[0][0].endswith('train.py')
    assert '--resume' not in calls[0]


def test_a_task_does_nothing_in_a_folder_where_another_process_works(tmp_path, recorded):
    job = make_job(tmp_path, 'A2.1')
    (array,) = arrays([job], Cluster('A2'), tmp_path / 'slurm')
    with locked(job.folder):
        code, calls, output = recorded(array)
    assert (code, calls) == (1, [])
    assert f'another process is at work in {job.folder}' in output
    assert recorded(array)[0] == 0


def test_a_task_locks_its_folder_for_all_it_does(tmp_path, recorded):
    """Seen from what srun starts."""
    job = make_job(tmp_path, 'A2.1')
    (array,) = arrays([job], Cluster('A2'), tmp_path / 'slurm')
    srun = tmp_path / 'bin' / 'srun'
    srun.write_text(f'{srun.read_text()[:-len("exit ${SRUN_RC:-0}") - 1]}exec 9>&-\n'
                    f'flock -n {str(job.folder / "reproduce.lock")!r} true || exit 0\nexit 4\n')  # fmt: skip
    code, calls, output = recorded(array)
    assert (code, len(calls)) == (0, 2), output


def test_a_failed_training_is_not_tested(tmp_path, recorded):
    (array,) = arrays([make_job(tmp_path, 'A2.1')], Cluster('A2'), tmp_path / 'slurm')
    code, calls, _ = recorded(array, SRUN_RC='3')
    assert (code, len(calls)) == (3, 1)


def test_what_needs_another_waits_for_its_array(tmp_path, recorded):
    first = make_job(tmp_path, 'A4.2', gpus=8)
    others = [make_job(tmp_path, 'A4.3', gpus=4), make_job(tmp_path, 'A6.1', gpus=8, needs=first)]
    found = arrays([first, *others], Cluster('A4-A6'), tmp_path / 'slurm')
    assert [[job.name for job in array.jobs] for array in found] == [['A4.3'], ['A4.2'], ['A6.1']]
    assert [array.after for array in found] == [(), (), (found[0].script, found[1].script)]

    code, calls, output = recorded(found[2])
    assert (code, calls) == (1, [])
    assert f'{first.folder}/epoch_12.pth is not there: the training that makes it has failed' in output
    first.folder.mkdir(parents=True)
    (first.folder / 'epoch_12.pth').touch()
    code, calls, output = recorded(found[2])
    assert code == 0, output
    assert calls[0][-2:] == ['--cfg-options', f'load_from={first.folder}/epoch_12.pth']


def test_multi_scale_test_and_submission(tmp_path, recorded):
    plain = make_job(tmp_path, 'B2.23')
    tta = make_job(tmp_path, 'B2.24', stem='b-tta', needs=plain, test_dev=True)
    tta.test_dev_config.write_text("test_evaluator = dict(outfile_prefix='work_dirs/b/detections')")
    plain.folder.mkdir(parents=True)
    plain.checkpoint.touch()
    (array,) = arrays([tta], Cluster('B2'), tmp_path / 'slurm')
    assert array.after == ()
    code, calls, output = recorded(array)
    assert code == 0, output
    assert [call[1:3] for call in calls] == [
        [str(tta.config), str(plain.checkpoint)],
        [str(tmp_path / 'b-tta_test-dev.py'), str(plain.checkpoint)],
    ]
    assert calls[0][-1] == '--tta'
    assert calls[1][-1] == f'test_evaluator.outfile_prefix={tta.folder}/test-dev/unfinished'
    assert '--tta' in calls[1]
    place = tta.folder / 'test-dev'
    assert {path.name for path in place.iterdir()} == {'detections.bbox.json', 'detections.segm.json'}
    assert tta.is_submittable

    assert len(recorded(array)[1]) == 1  # the submission file is there
    os.utime(tta.submission, (0, 0))
    assert len(recorded(array)[1]) == 2


def test_a_submission_file_is_kept_only_if_it_was_written_to_the_end(tmp_path, recorded):
    job = make_job(tmp_path, 'A1.8', test_dev=True)
    job.test_dev_config.write_text("test_evaluator = dict(outfile_prefix='work_dirs/b/detections')")
    job.folder.mkdir(parents=True)
    job.checkpoint.touch()
    (job.folder / 'last_checkpoint').write_text('epoch_12.pth')
    srun = tmp_path / 'bin' / 'srun'
    srun.write_text(srun.read_text().replace('exit ${', '[[ $* != *test-dev* ]] || exit 3\nexit ${'))
    code, calls, _ = recorded(arrays([job], Cluster('A1'), tmp_path / 'slurm')[0])
    assert (code, len(calls)) == (3, 2)
    assert not job.submission.exists()


def test_arrays_share_a_limit_by_running_one_after_the_other(tmp_path):
    first = make_job(tmp_path, 'A4.2', gpus=4)
    rows = [make_job(tmp_path, 'A4.1', gpus=2), first, make_job(tmp_path, 'A6.1', gpus=4, needs=first)]
    found = arrays(rows, Cluster('A', at_a_time=4), tmp_path / 'slurm')
    assert [array.after for array in found] == [(), (found[0].script,), (found[1].script,)]


def test_an_option_with_a_space_is_refused(tmp_path):
    with pytest.raises(JobError, match='no option with a space from a script: --comment=my rows'):
        arrays([make_job(tmp_path, 'A2.1')], Cluster('A2', arguments=('--comment=my rows',)), tmp_path)
    with pytest.raises(JobError, match='no option with a space from a script: --output='):
        arrays([make_job(tmp_path, 'A2.1')], Cluster('A2'), tmp_path / 'my slurm')


@pytest.fixture
def sbatch(tmp_path, monkeypatch):
    """An sbatch that records and numbers what it gets."""
    path = tmp_path / 'bin' / 'sbatch'
    path.parent.mkdir()
    path.write_text(
        f'#!/bin/bash\necho "$@" >>{tmp_path}/calls\necho $((100 + $(wc -l <{tmp_path}/calls)))";cluster"\n'
    )
    path.chmod(0o755)
    monkeypatch.setenv('PATH', f'{path.parent}:{os.environ["PATH"]}')
    return path


def test_submission_in_order_with_dependencies(tmp_path, sbatch):
    first = make_job(tmp_path, 'A4.2')
    found = arrays([first, make_job(tmp_path, 'A6.1', needs=first)], Cluster('A'), tmp_path / 'slurm')
    assert submit(found) == ['101', '102']
    assert (tmp_path / 'calls').read_text() == (
        f'--parsable {tmp_path}/slurm/A_0.sh\n--parsable --dependency=afterany:101 {tmp_path}/slurm/A_1.sh\n'
    )
    assert (tmp_path / 'slurm' / 'A_1.sh').read_text() == found[1].text


def test_files_of_a_trial_are_written_when_it_is_submitted(tmp_path, sbatch):
    job = make_job(tmp_path, 'A4.2')
    path = job.folder / 'trial' / 'a4.2.py'
    submit(arrays([replace(job, files={path: 'x = 1'})], Cluster('A'), tmp_path / 'slurm'))
    assert path.read_text() == 'x = 1'
    with pytest.raises(JobError, match=f'{path} is there with other settings'):
        submit(arrays([replace(job, files={path: 'x = 2'})], Cluster('A'), tmp_path / 'slurm'))
    assert path.read_text() == 'x = 1'
    with locked(job.folder):  # the task is running
        submit(arrays([replace(job, files={path: 'x = 1'})], Cluster('A'), tmp_path / 'slurm'))


def test_sbatch_that_refuses_or_is_not_there(tmp_path, sbatch, monkeypatch):
    found = arrays([make_job(tmp_path, 'A4.2')], Cluster('A'), tmp_path / 'slurm')
    sbatch.write_text('#!/bin/bash\necho "sbatch: error: invalid partition" >&2\nexit 1\n')
    with pytest.raises(JobError, match=r'A_0.sh failed: sbatch: error: invalid partition'):
        submit(found)
    monkeypatch.setenv('PATH', str(tmp_path))
    with pytest.raises(JobError, match='no sbatch on this machine'):
        submit(found)


def test_script_is_valid_bash(tmp_path):
    (array,) = arrays([make_job(tmp_path, 'A2.1')], Cluster('A2'), tmp_path)
    assert subprocess.run(['bash', '-n'], input=array.text, text=True, check=False).returncode == 0
