"""A training as a user runs it: train, be interrupted, resume, test; in processes of their own, on made data."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from balanced_det.datasets import make_digit_scenes

ROOT = Path(__file__).parents[2]
DEMO = ROOT / 'configs' / 'demo'

pytestmark = pytest.mark.slow  # each process imports mmdet, which takes seconds


@pytest.fixture(scope='module')
def digits(tmp_path_factory) -> Path:
    return make_digit_scenes(tmp_path_factory.mktemp('digits'), num_train=16, num_val=6)


def tool(name, *arguments, data, iters=6, interval=3):
    options = [
        f'{loader}.dataset.data_root={data}/' for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader')
    ]
    for evaluator in ('val_evaluator', 'test_evaluator'):
        options.append(f'{evaluator}.ann_file={data}/annotations/val.json')
    options += [
        f'train_cfg.max_iters={iters}',
        f'train_cfg.val_interval={iters}',
        'param_scheduler.0.end=2',
        'param_scheduler.1.begin=2',
        f'default_hooks.checkpoint.interval={interval}',
        'default_hooks.logger.interval=1',
        'train_dataloader.batch_size=2',
        'randomness.seed=0',
    ]
    command = [sys.executable, str(ROOT / 'tools' / name), *map(str, arguments), '--cfg-options', *options]
    env = dict(os.environ, OMP_NUM_THREADS='1')
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=600, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize('arm', ['', 'iou-balanced_', 'harmonic_'], ids=['baseline', 'iou-balanced', 'harmonic'])
def test_train_resume_and_test(digits, tmp_path, arm):
    config = DEMO / f'retinanet_r18_fpn_{arm}digit-scenes.py'
    code, log = tool('train.py', config, '--work-dir', tmp_path, data=digits, iters=3)
    assert code == 0, log
    assert 'train.json: 16 images, 0 without boxes' in log
    losses = [float(value) for value in re.findall(r'loss_bbox: (\d\S*)', log)]
    assert len(losses) == 3
    assert all(0 < value < 100 for value in losses)
    assert 'coco/bbox_mAP_90:' in log
    calibrated = re.findall(r'w_loc (\S+) = .* loss_weight \S+ -> (\S+)', log)
    assert len(calibrated) == (arm == 'iou-balanced_')

    code, log = tool('train.py', config, '--work-dir', tmp_path, '--resume', data=digits, iters=6)
    assert code == 0, log
    assert re.findall(r'w_loc (\S+) = .*from the checkpoint.* loss_weight \S+ -> (\S+)', log) == calibrated
    assert re.findall(r'Iter\(train\)\s*\[\s*(\d+)/6\]', log) == ['4', '5', '6']

    code, log = tool('test.py', config, tmp_path / 'iter_6.pth', '--work-dir', tmp_path, data=digits)
    assert code == 0, log
    assert 'coco/bbox_mAP_90:' in log or 'testing results of the whole dataset is empty' in log


def test_frozen_stages_and_gradient_accumulation(digits, tmp_path):
    config = tmp_path / 'options.py'
    config.write_text(
        f'_base_ = {str(DEMO / "retinanet_r18_fpn_iou-balanced_digit-scenes.py")!r}\n'
        'model = dict(backbone=dict(frozen_stages=1))\n'
        'optim_wrapper = dict(accumulative_counts=2)\n'
        'default_hooks = dict(checkpoint=dict(max_keep_ckpts=-1))\n'
    )
    code, log = tool('train.py', config, '--work-dir', tmp_path, data=digits, iters=3, interval=1)
    assert code == 0, log
    first, second, third = (
        torch.load(tmp_path / f'iter_{i}.pth', map_location='cpu', weights_only=False)['state_dict'] for i in (1, 2, 3)
    )
    # Steps after the second iteration and, as mmengine does at the end, after the third.
    moved = {
        name: not torch.equal(first[name], second[name])
        for name in first
        if name.endswith('conv1.weight') or name.startswith('bbox_head')
    }
    frozen = [name for name in moved if name.startswith(('backbone.conv1', 'backbone.layer1'))]
    assert len(frozen) == 3
    assert [name for name in moved if not moved[name]] == frozen
    assert any(not torch.equal(second[name], third[name]) for name in moved)


def test_wrong_data_root_stops_before_the_training(tmp_path):
    code, log = tool(
        'train.py', DEMO / 'retinanet_r18_fpn_digit-scenes.py', '--work-dir', tmp_path / 'out', data=tmp_path
    )
    assert code == 1
    assert 'no annotation file' in log
    assert 'Traceback' not in log
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('filtered', [True, False], ids=['dropped by the pipeline', 'left out by the head'])
def test_zero_size_boxes_of_bccd_do_no_harm(shared_data, tmp_path, filtered):
    (tmp_path / 'list.txt').write_text('BloodImage_00338\nBloodImage_00343\n')  # the two images with such a box
    smallest = (-1, 0)[filtered]  # FilterAnnotations keeps what is larger
    command = [
        *(sys.executable, ROOT / 'tools' / 'train.py'),
        ROOT / 'configs' / 'iou_balanced' / 'bccd' / 'retinanet_r18_fpn_iou-balanced-1x_bccd.py',
        *('--work-dir', tmp_path / 'out', '--cfg-options', 'model.backbone.init_cfg=None', 'train_cfg.max_epochs=2'),
        *('default_hooks.logger.interval=1', 'train_dataloader.batch_size=1'),
        *('train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False', 'randomness.seed=0'),
        *(f'{loader}.dataset.ann_file={tmp_path}/list.txt' for loader in ('train_dataloader', 'val_dataloader')),
        f'train_dataloader.dataset.pipeline.2.min_gt_bbox_wh=({smallest},{smallest})',
        'train_dataloader.dataset.pipeline.3.scale=(160,120)',
    ]
    env = dict(os.environ, OMP_NUM_THREADS='1', BCCD_ROOT=f'{shared_data}/bccd/')
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=env, timeout=600, check=False)
    log = done.stdout + done.stderr
    assert done.returncode == 0, log
    assert 'of which 2 of zero size' in log
    losses = [float(value) for value in re.findall(r' loss: (\S+)', log)]
    assert len(losses) == 4
    assert all(0 < value < 10 for value in losses)  # finite: NaN and inf compare as false
    assert sum(float(value) for value in re.findall(r'gt_left_out: (\S+)', log)) == (0 if filtered else 4)
