"""What mmengine is told so that several processes run without a GPU."""

from __future__ import annotations

import argparse
import subprocess
import sys

import pytest
from mmengine.config import Config, DictAction

from balanced_det import compat, launch

TORCHRUN = dict(RANK='0', WORLD_SIZE='2')
SLURM = dict(SLURM_PROCID='3', SLURM_NTASKS='8', SLURM_LOCALID='1', SLURM_NODELIST='n[7-8]')


def wrapper(**content):
    """The ``model_wrapper_cfg`` of a config, once mmdet's scripts have read the options."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    cfg = Config(content)
    options = launch.cpu_options(cfg)
    # After options of the user: both lists count.
    cfg.merge_from_dict(parser.parse_args(['--cfg-options', 'a=1', '--cfg-options', *options]).cfg_options)
    assert cfg.a == 1
    return dict(cfg.model_wrapper_cfg)


@pytest.mark.parametrize('unused', [False, True])
def test_the_wrapper_is_the_default_one_without_a_device(unused):
    expected = dict(type='MMDistributedDataParallel', broadcast_buffers=False, device_ids=None)
    assert wrapper(find_unused_parameters=unused) == dict(expected, find_unused_parameters=unused)
    assert wrapper() == dict(expected, find_unused_parameters=False)


def test_a_wrapper_of_the_config_keeps_its_arguments():
    mine = dict(type='Mine', static_graph=True)
    assert wrapper(model_wrapper_cfg=mine) == dict(mine, device_ids=None)


@pytest.fixture
def slurm(monkeypatch):
    for name in ('MASTER_ADDR', 'MASTER_PORT'):
        monkeypatch.delenv(name, raising=False)
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)


def test_variables_of_slurm(slurm, monkeypatch):
    calls = []
    monkeypatch.setattr(subprocess, 'check_output', lambda call, **_: calls.append(call) or 'n7\nn8\n')
    expected = dict(RANK='3', WORLD_SIZE='8', LOCAL_RANK='1', MASTER_ADDR='n7', MASTER_PORT='29500')
    assert launch.slurm_environment() == expected
    assert calls == [['scontrol', 'show', 'hostnames', 'n[7-8]']]
    monkeypatch.setenv('MASTER_ADDR', '10.0.0.1')
    monkeypatch.setenv('MASTER_PORT', '1234')
    assert launch.slurm_environment()['MASTER_PORT'] == '1234'
    assert len(calls) == 1


@pytest.fixture
def script(tmp_path, monkeypatch):
    """A script in place of mmdet's, and what it and the process group were given."""
    seen = {}
    (tmp_path / 'train.py').write_text('import sys\nsys.seen.update(argv=sys.argv[1:])\n')
    (tmp_path / 'c.py').write_text('model = dict()\n')
    monkeypatch.setattr(sys, 'seen', seen, raising=False)
    monkeypatch.setattr(compat, 'mmdet_script', lambda name: tmp_path / name)
    monkeypatch.setattr(launch, 'join_on_cpu', lambda launcher: seen.update(joined=launcher))
    monkeypatch.setattr(launch.torch.distributed, 'destroy_process_group', lambda: seen.update(left=True))
    monkeypatch.setattr(launch.preflight, 'explain_failed_downloads', lambda: None)
    for name, value in {**TORCHRUN, **SLURM}.items():
        monkeypatch.setenv(name, value)
    return seen


def start(monkeypatch, tmp_path, device, *options, script='train.py'):
    monkeypatch.setattr(launch, 'get_device', lambda: device)
    arguments = [str(tmp_path / 'c.py'), *options]
    monkeypatch.setattr(sys, 'argv', ['train.py', *arguments])
    launch.run_mmdet(script)
    return arguments


@pytest.mark.parametrize('device', ['cuda', 'npu'])
def test_nothing_changes_with_a_gpu(script, monkeypatch, tmp_path, device):
    arguments = start(monkeypatch, tmp_path, device, '--launcher', 'pytorch')
    assert script == dict(argv=arguments)


def test_nor_with_one_process(script, monkeypatch, tmp_path):
    arguments = start(monkeypatch, tmp_path, 'cpu', '--cfg-options', 'a=1')
    assert script == dict(argv=arguments)


@pytest.mark.parametrize('launcher', ['pytorch', 'slurm'])
def test_processes_without_a_gpu_are_joined(script, monkeypatch, tmp_path, launcher):
    arguments = start(monkeypatch, tmp_path, 'cpu', '--launcher', launcher)
    assert script['joined'] == launcher
    assert script['left']
    assert script['argv'][: len(arguments)] == arguments
    assert 'model_wrapper_cfg.device_ids=None' in script['argv']


def test_missing_config(script, monkeypatch, tmp_path):
    (tmp_path / 'c.py').unlink()
    with pytest.raises(SystemExit, match=r'c\.py: no such config file'):
        start(monkeypatch, tmp_path, 'cpu', '--launcher', 'pytorch')
    assert script == {}


@pytest.mark.parametrize('device', ['cpu', 'cuda'])
@pytest.mark.parametrize('tool', ['train', 'test'])
@pytest.mark.parametrize(
    ('launcher', 'started', 'name', 'variables'),
    [
        ('pytorch', 'processes of torchrun', 'dist', TORCHRUN),
        ('slurm', 'tasks of srun', 'slurm', ('SLURM_PROCID', 'SLURM_NTASKS')),
    ],
)
def test_a_launcher_that_has_not_started_this(
    script, monkeypatch, tmp_path, device, tool, launcher, started, name, variables
):
    message = rf'^--launcher {launcher} is for {started}: use tools/{name}_{tool}\.sh$'
    for variable in variables:  # one missing, then both
        monkeypatch.delenv(variable)
        with pytest.raises(SystemExit, match=message):
            start(monkeypatch, tmp_path, device, '--launcher', launcher, script=f'{tool}.py')
    assert script == {}


def test_a_part_of_a_config_cannot_be_tested(script, monkeypatch, tmp_path):
    (tmp_path / 'c.py').write_text('work_dir = None\n')
    with pytest.raises(SystemExit, match=r'c\.py: no model in it'):
        start(monkeypatch, tmp_path, 'cpu', script='test.py')
    assert script == {}
