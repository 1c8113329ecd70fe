"""The launchers: help, arguments handed on, and errors."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / 'tools'


def run(*command: object, **env: str) -> subprocess.CompletedProcess:
    """Run outside of the checkout, as users do who work in a folder of their own."""
    return subprocess.run(
        [*map(str, command)],
        cwd='/',
        env={**os.environ, 'PYTHONPATH': '', **env},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture
def recorder(tmp_path):
    """A folder with a `python` and an `srun` that print their arguments, one per line, and PYTHONPATH."""
    for name in ('python', 'srun'):
        script = tmp_path / name
        script.write_text('#!/bin/sh\nprintf "%s\\n" "$0" "$@"\necho "PYTHONPATH=$PYTHONPATH"\n')
        script.chmod(0o755)
    return {'PATH': f'{tmp_path}:{os.environ["PATH"]}'}


def run_here(monkeypatch, capsys, tool: str, *arguments: str) -> tuple[int, str, str]:
    """Exit status and outputs of a Python tool in this process, which has mmdet imported already."""
    monkeypatch.setattr(sys, 'argv', [tool, *arguments])
    monkeypatch.setattr(sys, 'path', list(sys.path))
    code: int | str = 0
    with mock.patch.dict(os.environ):  # the tools set LOCAL_RANK
        try:
            runpy.run_path(str(TOOLS / tool), run_name='__main__')
        except SystemExit as end:
            code = end.code or 0
        except FileNotFoundError as error:  # of mmdet's script, which would print it with its traceback
            code = str(error)
    out, err = capsys.readouterr()
    return (code, out, err) if isinstance(code, int) else (1, out, err + code)


@pytest.mark.parametrize(
    ('tool', 'options'),
    [
        ('train.py', ['--amp', '--resume', '--auto-scale-lr', '--cfg-options', '--launcher', '--work-dir', 'config']),
        ('test.py', ['--tta', '--cfg-options', '--launcher', '--work-dir', '--show-dir', 'checkpoint']),
    ],
)
def test_help_of_the_python_tools(monkeypatch, capsys, tool, options):
    status, out, err = run_here(monkeypatch, capsys, tool, '-h')
    assert status == 0, err
    assert f'usage: {tool}' in out
    for option in options:
        assert option in out


@pytest.mark.parametrize('tool', ['train.py', pytest.param('test.py', marks=pytest.mark.slow)])
def test_python_tools_start_from_any_folder(tool):
    # A process that imports mmdet takes seconds.
    done = run(sys.executable, TOOLS / tool, '-h')
    assert done.returncode == 0, done.stderr
    assert f'usage: {tool}' in done.stdout


@pytest.mark.parametrize(
    ('tool', 'words'),
    [
        ('dist_train.sh', ['CONFIG GPUS', 'NNODES', 'NODE_RANK', 'PORT', 'MASTER_ADDR']),
        ('dist_test.sh', ['CONFIG CHECKPOINT GPUS', 'NNODES', 'NODE_RANK', 'PORT', 'MASTER_ADDR']),
        ('slurm_train.sh', ['PARTITION JOB_NAME CONFIG [WORK_DIR]', 'GPUS_PER_NODE', 'SRUN_ARGS']),
        ('slurm_test.sh', ['PARTITION JOB_NAME CONFIG CHECKPOINT', 'CPUS_PER_TASK', 'SRUN_ARGS']),
        ('setup_env.sh', ['--line', '--here', '--torch', '--extras', 'PIP_FIND_LINKS', 'PYTHON=']),
        ('test.sh', ['--fast', '-n WORKERS', '--line', '--here']),
    ],
)
def test_help_of_the_shell_tools(tool, words):
    for flag in ('-h', '--help'):
        done = run('bash', TOOLS / tool, flag)
        assert done.returncode == 0, done.stderr
        for word in words:
            assert word in done.stdout


@pytest.mark.parametrize('tool', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh'])
def test_too_few_arguments_show_the_usage(tool):
    done = run('bash', TOOLS / tool, 'only-one')
    assert done.returncode == 2
    assert 'Usage:' in done.stderr


@pytest.mark.parametrize('arguments', [['--line', 'mmdet2'], ['--nonsense']])
def test_setup_refuses_what_it_does_not_know(arguments):
    done = run('bash', TOOLS / 'setup_env.sh', *arguments)
    assert done.returncode == 2
    assert arguments[-1] in done.stderr


def test_dist_train_starts_torchrun(recorder):
    done = run('bash', TOOLS / 'dist_train.sh', 'a config.py', 4, '--amp', '--cfg-options', 'a=[1, 2]', **recorder)
    assert done.stdout.splitlines()[1:] == [
        *('-m', 'torch.distributed.run', '--nnodes=1', '--node_rank=0', '--master_addr=127.0.0.1'),
        *('--master_port=29500', '--nproc_per_node=4', str(TOOLS / 'train.py'), 'a config.py'),
        *('--launcher', 'pytorch', '--amp', '--cfg-options', 'a=[1, 2]', f'PYTHONPATH={ROOT}'),
    ]


def test_dist_train_on_two_machines(recorder):
    env = {'NNODES': '2', 'NODE_RANK': '1', 'MASTER_ADDR': '10.0.0.1', 'PORT': '29501', 'PYTHONPATH': '/mine'}
    done = run('bash', TOOLS / 'dist_train.sh', 'c.py', 8, **recorder, **env)
    lines = done.stdout.splitlines()
    assert {'--nnodes=2', '--node_rank=1', '--master_addr=10.0.0.1', '--master_port=29501'} <= set(lines)
    assert lines[-1] == f'PYTHONPATH={ROOT}:/mine'


def test_dist_test_hands_the_checkpoint_on(recorder):
    done = run('bash', TOOLS / 'dist_test.sh', 'c.py', 'c.pth', 2, '--tta', **recorder)
    lines = done.stdout.splitlines()
    assert '--nproc_per_node=2' in lines
    assert lines[-7:-1] == [str(TOOLS / 'test.py'), 'c.py', 'c.pth', '--launcher', 'pytorch', '--tta']


@pytest.mark.parametrize(
    ('arguments', 'tail'),
    [
        (['work dir', '--amp'], ['--work-dir', 'work dir', '--launcher', 'slurm', '--amp']),
        (['--amp'], ['--launcher', 'slurm', '--amp']),
        ([], ['--launcher', 'slurm']),
    ],
)
def test_slurm_train_with_and_without_a_work_dir(recorder, arguments, tail):
    env = {'GPUS': '16', 'SRUN_ARGS': '--time=1 --mem=2'}
    done = run('bash', TOOLS / 'slurm_train.sh', 'part', 'job', 'c.py', *arguments, **recorder, **env)
    lines = done.stdout.splitlines()
    assert lines[1:3] == ['-p', 'part']
    assert {'--job-name=job', '--ntasks=16', '--ntasks-per-node=8', '--time=1', '--mem=2'} <= set(lines)
    assert lines[lines.index('-u') : -1] == ['-u', str(TOOLS / 'train.py'), 'c.py', *tail]


def test_slurm_test_hands_the_checkpoint_on(recorder):
    done = run('bash', TOOLS / 'slurm_test.sh', 'part', 'job', 'c.py', 'c.pth', '--tta', **recorder)
    lines = done.stdout.splitlines()
    assert lines[-7:-1] == [str(TOOLS / 'test.py'), 'c.py', 'c.pth', '--launcher', 'slurm', '--tta']


@pytest.mark.parametrize(
    ('arguments', 'given', 'threads'),
    [
        (['--fast', '-k', 'a b'], ['-n', 'auto', '--dist', 'worksteal', '-m', 'not slow', '-k', 'a b'], '1'),
        (['-n4', 'tests'], ['-n', '4', '--dist', 'worksteal', 'tests'], '1'),
        (['-n', '0'], ['-n', '0', '--dist', 'worksteal'], ''),
    ],
)
def test_the_tests_run_over_the_cores(tmp_path, arguments, given, threads):
    # A copy of the script, beside a set-up that names a Python which prints.
    (tmp_path / 'tools').mkdir()
    shutil.copy(TOOLS / 'test.sh', tmp_path / 'tools')
    (tmp_path / 'tools' / 'setup_env.sh').write_text(f'echo {tmp_path}/python')
    python = tmp_path / 'python'
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@" "OMP_NUM_THREADS=$OMP_NUM_THREADS"\n')
    python.chmod(0o755)
    done = run('env', '-u', 'OMP_NUM_THREADS', 'bash', tmp_path / 'tools' / 'test.sh', *arguments)
    lines = done.stdout.splitlines()
    assert lines[lines.index('pytest') + 1 : -1] == [*given, f'OMP_NUM_THREADS={threads}']


@pytest.mark.parametrize(
    'arguments',
    [
        # torch.distributed.launch, which mim calls, puts the rank before the config.
        ['train.py', '--local-rank=0', 'no_such_config.py'],
        ['train.py', '--local_rank=0', 'no_such_config.py'],
        ['test.py', '--local-rank=0', 'no_such_config.py', 'x.pth'],
    ],
)
def test_missing_config_is_named_and_both_spellings_of_the_rank_are_taken(monkeypatch, capsys, arguments):
    status, _, err = run_here(monkeypatch, capsys, *arguments)
    assert status != 0
    assert 'no_such_config.py' in err
    assert 'unrecognized arguments' not in err
