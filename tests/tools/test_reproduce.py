"""tools/reproduce.py from its command line; small programs stand for trainings and tests."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import sys

import pytest
import torch
from fake_tools import write_decoy_python, write_fake_tools
from work_dir_cases import A2, ROOT, add_training, row_config

from balanced_det.reproduction import jobs, local
from balanced_det.reproduction.folder import locked


@pytest.fixture
def reproduce(tmp_path, monkeypatch, capsys):
    """Run the tool with some arguments; returns what it printed."""
    spec = importlib.util.spec_from_file_location('reproduce', ROOT / 'tools' / 'reproduce.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    monkeypatch.setattr(jobs, 'TOOLS', write_fake_tools(tmp_path / 'tools'))
    monkeypatch.setattr(local, 'POLL', 0.02)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 0)
    monkeypatch.setenv('PATH', f'{write_decoy_python(tmp_path / "decoy")}:{os.environ["PATH"]}')
    monkeypatch.chdir(tmp_path)
    for name in (
        'annotations/instances_train2017.json',
        'annotations/instances_val2017.json',
        'train2017/',
        'val2017/',
    ):
        path = tmp_path / 'data' / 'coco' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith('/') else path.touch()
    handler = signal.getsignal(signal.SIGTERM)

    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', ['reproduce.py', *map(str, arguments), '--work-dirs', str(tmp_path / 'work')])
        try:
            tool.main()
        finally:
            signal.signal(signal.SIGTERM, handler)
        return capsys.readouterr().out

    return run


def test_dry_run_prints_the_commands_and_writes_nothing(reproduce, tmp_path):
    text = reproduce('A2', '--rows', '1', '3', '--dry-run')
    work, tools = tmp_path / 'work', tmp_path / 'tools'
    config = ROOT / 'configs' / 'iou_balanced' / 'coco' / f'{A2["A2.1"]}.py'
    lines = text.splitlines()
    assert [line.split(':')[0] for line in lines if line[0] == 'A'] == ['A2.1', 'A2.3']
    assert lines[0] == f'A2.1: {A2["A2.1"]}, 1 GPU: not trained'
    folder = work / A2['A2.1']
    assert lines[1] == f'    {sys.executable} {tools}/train.py {config} --work-dir {folder} --auto-scale-lr'
    assert lines[2] == f'    {sys.executable} {tools}/test.py {config} {folder}/epoch_12.pth --work-dir {folder}'
    assert not work.exists()


def test_dry_run_for_several_gpus(reproduce, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 8)
    lines = reproduce('A2.1', '--dry-run').splitlines()
    assert lines[0] == f'A2.1: {A2["A2.1"]}, 2 GPUs: not trained'
    assert lines[1].startswith(f'    bash {tmp_path}/tools/dist_train.sh ')
    assert f'{A2["A2.1"]}.py 2 --work-dir' in lines[1]


def test_a_table_of_which_one_row_fails_and_is_mended(reproduce, tmp_path):
    """The stand-ins train three epochs: a trial of three is finished by them."""
    bad = tmp_path / 'work' / A2['A2.2']
    bad.mkdir(parents=True)
    (bad / 'fail').touch()
    with pytest.raises(SystemExit, match=r'1 failed, see above\. The same command goes on'):
        reproduce('A2', '--rows', '1', '2', '--gpus', '2', '--max-epochs', '3')
    (bad / 'fail').unlink()
    text = reproduce('A2', '--rows', '1', '2', '--gpus', '2', '--max-epochs', '3')
    assert f'A2.1: {A2["A2.1"]}, 1 GPU: done' in text
    assert f'A2.2: {A2["A2.2"]}, 1 GPU: resumes after epoch 1 of 3' in text
    assert f'  A2.2: done, {bad}\n' in text


def test_slurm_dry_run_prints_the_script(reproduce, tmp_path):
    text = reproduce('A2', '--launcher', 'slurm', '--partition', 'gpu', '--gpus', '8', '--dry-run', '--sbatch-args',
                     '--time=2-0 --mem=64G')  # fmt: skip
    assert f'{tmp_path}/work/slurm/A2_0.sh' in text
    for line in ('--array=0-3%4', '--partition=gpu', '--gres=gpu:2', '--time=2-0', '--mem=64G'):
        assert f'#SBATCH {line}\n' in text
    assert not (tmp_path / 'work').exists()


def test_slurm_submits_what_is_left(reproduce, tmp_path, monkeypatch):
    sbatch = tmp_path / 'tools' / 'sbatch'
    sbatch.write_text('#!/bin/bash\necho 4711\n')
    sbatch.chmod(0o755)
    monkeypatch.setenv('PATH', f'{sbatch.parent}:{os.environ["PATH"]}')
    text = reproduce('A2', '--rows', '1', '2', '--launcher', 'slurm')
    assert f'array 4711: A2.1; A2.2; {tmp_path}/work/slurm/A2.1-A2.2_0.sh' in text
    assert (tmp_path / 'work' / 'slurm' / 'A2.1-A2.2_0.sh').is_file()


def test_quoted_rows_are_said_to_be_quoted(reproduce):
    text = reproduce('B2', '--rows', '1', '8', '--dry-run')
    assert text.startswith('B2.1: quoted by the paper from another one, nothing to train\nB2.8: retinanet_r50_fpn_1x')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['A22'], 'A2'),
        (['A2', '--rows', '7'], 'A2.7'),
        (['B2.24'], 'first run python tools/reproduce.py B2.23'),
        (['A2', '--data-root', '/nowhere'], 'no such folder'),
        (['A2', '--test-dev', '--max-iters', '3'], 'a trial has nothing to submit'),
        (['A5.1'], 'A5.1: no annotation file '),
    ],
)
def test_what_cannot_be_done_is_said_without_a_traceback(reproduce, arguments, message):
    with pytest.raises(SystemExit) as caught:
        reproduce(*arguments)
    assert caught.value.code.startswith('error: ')
    assert message in caught.value.code


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['A2', 'A3', '--rows', '1'], '--rows needs exactly one table'),
        (['A2', '--gpus', '0'], '--gpus 0: at least 1'),
        (
            ['A2', '--gpus-per-row', '2', '--gpus', '2', '--launcher', 'none'],
            '--launcher none runs one process for each row; use --launcher pytorch',
        ),
        (['A2', '--gpus-per-row', '4', '--gpus', '2', '--launcher', 'pytorch'], '--gpus-per-row 4: --gpus 2 is all'),
        (['A2', '--max-iters', '3', '--max-epochs', '3'], 'not allowed with'),
    ],
)
def test_wrong_arguments(reproduce, capsys, arguments, message):
    with pytest.raises(SystemExit):
        reproduce(*arguments)
    assert message in capsys.readouterr().err


def test_results_of_another_schedule_are_refused_with_both_named(reproduce, tmp_path):
    cfg = row_config(A2['A2.1'])
    cfg.train_cfg.max_epochs = 2
    add_training(tmp_path / 'work' / A2['A2.1'], cfg, epochs=2)
    with pytest.raises(SystemExit, match=r'another schedule: train_cfg\.max_epochs is 2 there, 12 here'):
        reproduce('A2.1')


def test_missing_data_are_no_matter_of_a_dry_run(reproduce):
    assert 'A5.1: ' in reproduce('A5.1', '--dry-run')


def test_work_dirs_that_are_a_file(reproduce, tmp_path):
    (tmp_path / 'work').touch()
    with pytest.raises(SystemExit, match='work is no folder'):
        reproduce('A2.1')


def test_an_error_of_the_system_is_said_without_a_traceback(reproduce, tmp_path):
    (tmp_path / 'work').mkdir()
    (tmp_path / 'work' / 'slurm').touch()
    sbatch_needs_a_folder = r"error: \[Errno \d+\] .*/work/slurm'"
    with pytest.raises(SystemExit, match=sbatch_needs_a_folder):
        reproduce('A2.1', '--launcher', 'slurm')


def test_other_settings_do_not_touch_a_trial_that_runs(reproduce, tmp_path):
    """One that another process has begun; what is refused is said and not written."""
    job_folder = tmp_path / 'work' / A2['A2.1']
    reproduce('A2.1', '--max-epochs', '3', '--batch-size', '2')
    config = job_folder / 'trial' / f'{A2["A2.1"]}.py'
    before = config.read_text()
    for path in job_folder.glob('2026*'):  # what it has begun and not logged yet
        shutil.rmtree(path)
    (job_folder / 'last_checkpoint').unlink()
    with locked(job_folder), pytest.raises(SystemExit, match='1 failed'):
        reproduce('A2.1', '--max-epochs', '3', '--batch-size', '3')
    assert config.read_text() == before
