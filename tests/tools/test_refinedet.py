"""A RefineDet as a user trains and runs it, with mmdet's own tools: its detector has two heads, mmdet's others one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import mmcv
import mmengine
import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer, inference_detector, init_detector
from refinedet_cases import CONFIG_TEXT, multiply_adds

from balanced_det import compat
from balanced_det.datasets import make_digit_scenes

ROOT = Path(__file__).parents[2]
NUM_VAL = 4

pytestmark = pytest.mark.slow  # each process imports mmdet, which takes seconds

CONFIG = """
ten_digits = dict(data_root='{data}/', metainfo=dict(classes=tuple('0123456789')))
train_dataloader = dict(batch_size=4, dataset=ten_digits)
val_dataloader = dict(batch_size=2, dataset=ten_digits)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file='{data}/annotations/val.json')
test_evaluator = val_evaluator
train_cfg = dict(max_iters=3, val_interval=3)
param_scheduler = []
default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=3),
    logger=dict(interval=1),
    visualization=dict(type='DetVisualizationHook', draw=True, interval=1, score_thr=0.0))
randomness = dict(seed=0)
"""


@pytest.fixture(scope='module')
def config(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('refinedet')
    data = make_digit_scenes(folder / 'digits', num_train=8, num_val=NUM_VAL, classes=10)
    path = folder / 'refinedet_tiny.py'
    path.write_text((CONFIG_TEXT + CONFIG).format(base=ROOT / 'configs' / '_base_', num_classes=10, data=data))
    return path


def run(script, *arguments):
    command = [sys.executable, str(script), *map(str, arguments)]
    env = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT))
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope='module')
def training(config) -> tuple[Path, list[str]]:
    """Three iterations, interrupted, three more; the work folder and both logs."""
    work_dir = config.parent / 'out'
    train = ROOT / 'tools' / 'train.py'
    logs = [run(train, config, '--work-dir', work_dir)]
    logs.append(run(train, config, '--work-dir', work_dir, '--resume', '--cfg-options', 'train_cfg.max_iters=6'))
    return work_dir, logs


@pytest.fixture(scope='module')
def tested(config, training) -> tuple[Path, str]:
    """mmdet's test of the last checkpoint, its predictions and its pictures; the work folder and the log."""
    work_dir = training[0] / 'test'
    files = ('--out', work_dir / 'found.pkl', '--show-dir', 'shown')
    test = ROOT / 'tools' / 'test.py'
    return work_dir, run(test, config, training[0] / 'iter_6.pth', '--work-dir', work_dir, *files)


def images(config):
    return sorted((config.parent / 'digits' / 'val').glob('*.png'))


def test_train_and_resume(training):
    for log, steps in zip(training[1], (['1', '2', '3'], ['4', '5', '6'])):
        assert re.findall(r'Iter\(train\)\s*\[\s*(\d+)/\d\]', log) == steps
        for name in ('loss', 'arm_loss_cls', 'arm_loss_bbox', 'loss_cls', 'loss_bbox'):
            values = [float(value) for value in re.findall(rf' {name}: (\S+)', log)]
            assert len(values) == 3
            assert all(0 < value < 1000 for value in values)  # finite: NaN and inf compare as false
        assert 'coco/bbox_mAP_90:' in log
    assert 'resumed epoch: 0, iter: 3' in training[1][1]
    first, last = (
        torch.load(training[0] / f'iter_{i}.pth', map_location='cpu', weights_only=False)['state_dict'] for i in (3, 6)
    )
    still = {name for name in first if name.endswith('weight') and torch.equal(first[name], last[name])}
    assert not still


def test_test_writes_predictions_and_pictures(config, tested):
    work_dir, log = tested
    assert 'coco/bbox_mAP_90:' in log
    found = mmengine.load(work_dir / 'found.pkl')
    assert len(found) == NUM_VAL
    for image in found:
        predicted = image['pred_instances']
        assert 0 < len(predicted['scores']) <= 30
        assert predicted['scores'].min() > 0.01
        assert predicted['bboxes'].min() >= 0
        assert predicted['bboxes'].max() <= 128
        assert predicted['labels'].max() < 10
    shown = sorted(work_dir.glob('*/shown/*.png'))
    assert [path.name for path in shown] == [path.name for path in images(config)]
    for painted, plain in zip(shown, images(config)):
        # Ground truth at the left, detections at the right, boxes on both.
        left, right = np.split(mmcv.imread(painted), 2, axis=1)
        assert (left != mmcv.imread(plain)).any()
        assert (right != left).any()


def test_pictures_of_the_validation(training):
    pictures = sorted(training[0].glob('*/vis_data/vis_image/val_img_*.png'))
    assert len(pictures) == 4  # the first image of each of two batches, twice
    assert all(mmcv.imread(path).shape == (128, 256, 3) for path in pictures)


def test_inference_of_mmdet(config, training, tested):
    checkpoint = str(training[0] / 'iter_6.pth')
    model = init_detector(str(config), checkpoint, device='cpu')
    paths = [str(path) for path in images(config)]
    ours = [result.pred_instances for result in inference_detector(model, [mmcv.imread(path) for path in paths])]
    theirs = DetInferencer(str(config), checkpoint, device='cpu', show_progress=False)(paths)['predictions']
    of_test = {image['img_id']: image['pred_instances'] for image in mmengine.load(tested[0] / 'found.pkl')}
    assert len(of_test) == len(ours) == len(theirs) == NUM_VAL
    for got, from_tool, (_, from_test) in zip(ours, theirs, sorted(of_test.items())):
        for key in ('scores', 'labels', 'bboxes'):
            torch.testing.assert_close(got[key], from_test[key], rtol=1e-4, atol=1e-3)
            torch.testing.assert_close(got[key].tolist(), from_tool[key], rtol=1e-4, atol=1e-3)


def test_flops_tool_of_mmdet(config, training):
    log = run(compat.mmdet_script('analysis_tools/get_flops.py'), config, '--num-images', 1)
    model = init_detector(str(config), str(training[0] / 'iter_6.pth'), device='cpu')
    macs, parameters = multiply_adds(model, torch.zeros(1, 3, 128, 128)), sum(p.numel() for p in model.parameters())
    unit = {'K': 1e3, 'M': 1e6}
    flops, found = (
        float(number) * unit[letter]
        for number, letter in (re.search(rf'{name}: ([\d.]+)([KM])', log).groups() for name in ('Flops', 'Params'))
    )
    assert found == pytest.approx(parameters, rel=0.01)
    # Convolutions of both heads and of the transfer; the tool adds some for batch norms.
    assert macs < flops < 1.2 * macs
