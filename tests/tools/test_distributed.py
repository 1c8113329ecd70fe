"""Several processes on one machine without a GPU, started as a user starts them, against one process."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from small_training import narrow
from two_processes import HEADS, free_port, run_in_two, steps_of_each_head

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / 'tools'
CONFIG = ROOT / 'configs' / 'iou_balanced' / 'bccd' / 'retinanet_r18_fpn_iou-balanced-1x_bccd.py'

pytestmark = pytest.mark.slow  # each process imports mmdet, which takes seconds


def tool(*command, seconds=400, **env):
    """Run one of the tools without a GPU; a hang fails."""
    path = os.pathsep.join([str(ROOT), str(ROOT / 'tests')])
    env = dict(os.environ, OMP_NUM_THREADS='1', CUDA_VISIBLE_DEVICES='', PYTHONPATH=path, PORT=str(free_port()), **env)
    env['PATH'] = os.pathsep.join([str(Path(sys.executable).parent), env['PATH']])
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, env=env, timeout=seconds, check=False, cwd=TOOLS
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


# ------------------------------------------------------------------------- two processes against one, on BCCD


@pytest.fixture(scope='module')
def config(shared_data, tmp_path_factory):
    """RetinaNet with thin layers, from scratch, on 16 small images that are not flipped; 4 iterations of 4."""
    cfg = Config.fromfile(CONFIG)
    cfg.model = narrow(cfg.model)
    # In evaluation mode from the start the norms are the same in any batch; they still learn scale and shift.
    cfg.model.backbone.update(init_cfg=None, frozen_stages=-1, norm_eval=True)
    cfg.model.bbox_head.loss_cls.sync = True
    cfg.model.test_cfg.score_thr = 0.0
    for loader, images in ((cfg.train_dataloader, 16), (cfg.val_dataloader, 5), (cfg.test_dataloader, 5)):
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.update(data_root=f'{shared_data}/bccd/', indices=images)
        for step in loader.dataset.pipeline:
            step.update({'Resize': dict(scale=(160, 120)), 'RandomFlip': dict(prob=0.0)}.get(step.type, {}))
    cfg.train_cfg.update(max_epochs=1, val_interval=9)
    cfg.param_scheduler = []
    cfg.optim_wrapper.optimizer.lr = 0.01
    cfg.default_hooks.logger.interval = 1
    cfg.custom_imports.imports.append('two_processes')
    cfg.custom_hooks += [dict(type='ConsistencyHook', interval=1), dict(type='LossRecorder')]
    cfg.randomness = dict(seed=0)
    path = tmp_path_factory.mktemp('config') / 'retinanet.py'
    cfg.dump(path)
    return path


@pytest.fixture(scope='module')
def alone(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp('alone')
    options = ['--work-dir', folder, '--cfg-options', 'train_dataloader.batch_size=4']
    tool(sys.executable, TOOLS / 'train.py', config, *options)
    return folder


@pytest.fixture(scope='module')
def together(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp('together')
    options = ['--work-dir', folder, '--cfg-options', 'train_dataloader.batch_size=2']
    log = tool('bash', TOOLS / 'dist_train.sh', config, 2, *options)
    assert log.count('No GPU here: 2 processes on CPU, backend gloo') == 1
    return folder


def rows(folder, rank=0):
    return json.loads((folder / f'losses_{rank}.json').read_text())


def averaged(folder):
    """Each loss of each iteration, mean over the processes, and the images of all."""
    return [
        dict({key: (one[key] + two[key]) / 2 for key in one if 'loss' in key}, images=one['images'] + two['images'])
        for one, two in zip(rows(folder, 0), rows(folder, 1))
    ]


def weights(folder):
    return torch.load(folder / 'epoch_1.pth', map_location='cpu', weights_only=False)['state_dict']


# Both sum the same float32 numbers (rounded to 6e-8) in another order, and the rounding goes through four steps of SGD.
# Without `sync` losses and weights differ by more than a hundred times as much, see below.
RELATIVE = 1e-6
BIAS = 'bbox_head.retina_reg.bias'


def test_two_processes_train_as_one_with_the_doubled_batch(alone, together):
    expected, actual = rows(alone), averaged(together)
    assert len(expected) == len(actual) == 4
    for want, got in zip(expected, actual):
        assert sorted(got['images']) == sorted(want['images'])
        for key in ('loss', 'loss_cls', 'loss_bbox'):
            assert got[key] == pytest.approx(want[key], rel=RELATIVE)
    want, got = weights(alone), weights(together)
    assert want.keys() == got.keys()
    assert want[BIAS].abs().max() > 1e-3  # it begins at 0
    for name, value in want.items():
        torch.testing.assert_close(got[name], value, rtol=RELATIVE, atol=1e-7)


def test_every_process_logs_the_same_keys(together):
    one, two = rows(together, 0), rows(together, 1)
    assert [list(row) for row in one] == [list(row) for row in two]


def test_without_sync_they_differ(config, alone, tmp_path):
    options = ['train_dataloader.batch_size=2', 'model.bbox_head.loss_cls.sync=False']
    tool('bash', TOOLS / 'dist_train.sh', config, 2, '--work-dir', tmp_path, '--cfg-options', *options)
    differences = [
        abs(got[key] / want[key] - 1)
        for want, got in zip(rows(alone), averaged(tmp_path))
        for key in ('loss_cls', 'loss_bbox')
    ]
    assert max(differences) > 100 * RELATIVE
    assert (weights(tmp_path)[BIAS] - weights(alone)[BIAS]).abs().max() > 100 * 1e-7


def test_two_processes_test_as_one(config, together, tmp_path):
    checkpoint = together / 'epoch_1.pth'
    tool(sys.executable, TOOLS / 'test.py', config, checkpoint, '--work-dir', tmp_path, '--out', tmp_path / '1.pkl')
    dist = TOOLS / 'dist_test.sh'
    log = tool('bash', dist, config, checkpoint, 2, '--work-dir', tmp_path, '--out', tmp_path / '2.pkl')
    assert 'pascal_voc/bbox_mAP' in log
    one, two = (pickle.loads((tmp_path / f'{name}.pkl').read_bytes()) for name in '12')
    assert [row['img_id'] for row in one] == [row['img_id'] for row in two]
    for want, got in zip(one, two):
        for key in ('bboxes', 'scores', 'labels'):
            torch.testing.assert_close(got['pred_instances'][key], want['pred_instances'][key])
    assert sum(len(row['pred_instances']['scores']) for row in one) > 100


def test_tasks_of_slurm_find_each_other(config, tmp_path):
    """Without Slurm here: its variables, and no `scontrol` since the master is named."""
    options = ['train_dataloader.batch_size=2', 'train_dataloader.dataset.indices=4']
    command = [sys.executable, TOOLS / 'train.py', config, '--work-dir', tmp_path, '--launcher', 'slurm']
    port = str(free_port())
    tasks = [
        subprocess.Popen(
            [*map(str, command), '--cfg-options', *options],
            env=dict(
                os.environ,
                CUDA_VISIBLE_DEVICES='',
                OMP_NUM_THREADS='1',
                PYTHONPATH=str(ROOT / 'tests'),
                MASTER_ADDR='127.0.0.1',
                MASTER_PORT=port,
                SLURM_PROCID=rank,
                SLURM_LOCALID=rank,
                SLURM_NTASKS='2',
                SLURM_NODELIST='here',
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in '01'
    ]
    try:
        logs = [task.communicate(timeout=400)[0] for task in tasks]
    finally:
        for task in tasks:
            task.kill()
    assert [task.returncode for task in tasks] == [0, 0], logs
    assert 'No GPU here: 2 processes on CPU, backend gloo' in logs[0]
    assert rows(tmp_path, 0)[0]['images'] != rows(tmp_path, 1)[0]['images']


# --------------------------------------------------------------------- a process that has no positives at all


@pytest.fixture(scope='module')
def steps(tmp_path_factory):
    """Two training steps of each head under DDP; the second process has no ground truth."""
    return run_in_two(steps_of_each_head, tmp_path_factory.mktemp('steps'))


@pytest.mark.parametrize('name', HEADS)
def test_a_process_without_positives_keeps_step(steps, name):
    one, two = (rank[name] for rank in steps)
    for first, second in zip(one['logs'], two['logs']):
        assert list(first) == list(second)
        assert 0 < first['loss_bbox'] < float('inf')
        assert second['loss_bbox'] == 0
        assert all(value == value for value in second.values())  # no NaN
    assert one['missing'] == two['missing'] == []
    torch.testing.assert_close(one['state'], two['state'], rtol=0, atol=0)
