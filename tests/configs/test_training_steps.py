"""SSD on ResNet-FPN, DSSD and RefineDet on real images: a step of training, a validation, with each method's losses."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from small_training import logged, narrow, quick_runner

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
STOCK = {
    'ssd300_r50_fpn': 'ssd_resnet_fpn',
    'ssd512_r50_fpn': 'ssd_resnet_fpn',
    'dssd320_r50': 'dssd',
    'dssd512_r50': 'dssd',
    'refinedet320_r50': 'refinedet',
    'refinedet512_r50': 'refinedet',
}
METHODS = ('stock', 'iou-balanced', 'harmonic')
DATA = {'bccd': 'BCCD_ROOT', 'coco-tiny': 'COCO_TINY_ROOT'}
METRIC = {'bccd': 'val/pascal_voc/bbox_mAP', 'coco-tiny': 'val/coco/bbox_mAP'}
CASES = [
    *((model, method, data) for model in STOCK for method in METHODS for data in DATA),
    ('refinedet320_r50', 'iou-balanced-arm', 'bccd'),
    ('refinedet320_vgg16', 'stock', 'coco-tiny'),
]

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def data_roots(shared_data, monkeypatch):
    for name, variable in DATA.items():
        monkeypatch.setenv(variable, f'{shared_data / name.replace("-", "_")}/')
    return shared_data


def load(model, method, data, data_roots):
    folder = data.replace('-', '_')
    if not (data_roots / folder).is_dir():
        pytest.skip(f'no real data at {data_roots / folder}')
    if method == 'stock':
        path = CONFIGS / STOCK.get(model, 'refinedet') / f'{model}_{data}.py'
    else:
        place = 'harmonic' if method == 'harmonic' else 'iou_balanced'
        path = CONFIGS / place / folder / f'{model}_{method}_{data}.py'
    init_default_scope('mmdet')
    return Config.fromfile(path)


def check_step(cfg, method, data, tmp_path):
    cfg.default_hooks.checkpoint = None
    runner = quick_runner(cfg, tmp_path / 'out')
    runner.train()
    assert runner.iter == 1
    values = logged(runner)
    losses = {name.split('/')[1] for name in values if 'loss_' in name}
    expected = {'loss_cls', 'loss_bbox'}
    if cfg.model.type == 'RefineDet':
        expected |= {'arm_loss_cls', 'arm_loss_bbox'}
    if method == 'harmonic':
        expected |= {'loss_tc'}
    assert losses == expected
    assert all(math.isfinite(values[f'train/{name}']) for name in losses)
    assert all(values[f'train/{name}'] > 0 for name in losses - {'loss_tc'})
    assert 0 <= values[METRIC[data]] <= 1
    # w_loc: every balanced head has got its own, above 1, since it makes up for weights below 1.
    calibrated = runner.message_hub.get_info('loc_weight_calibration', {})
    heads = {'stock': [], 'harmonic': [], 'iou-balanced': ['bbox_head'], 'iou-balanced-arm': ['bbox_head', 'arm_head']}
    assert calibrated.keys() == {f'{head}.loss_bbox' for head in heads[method]}
    weights = [runner.model.get_submodule(name).loss_weight for name in calibrated]
    assert all(1 < weight < 100 for weight in weights)
    assert len(set(weights)) == len(weights)


@pytest.mark.parametrize(('model', 'method', 'data'), CASES, ids=['-'.join(case) for case in CASES])
def test_with_few_channels(model, method, data, data_roots, tmp_path):
    cfg = load(model, method, data, data_roots)
    if 'vgg' not in model:  # its channels are fixed
        cfg.model = narrow(cfg.model)
    check_step(cfg, method, data, tmp_path)


@pytest.mark.parametrize(
    ('model', 'method', 'data'),
    [
        ('ssd300_r50_fpn', 'stock', 'coco-tiny'),
        ('ssd512_r50_fpn', 'harmonic', 'bccd'),
        ('dssd320_r50', 'iou-balanced', 'coco-tiny'),
        ('dssd512_r50', 'stock', 'bccd'),
        ('refinedet320_r50', 'harmonic', 'coco-tiny'),
        ('refinedet512_r50', 'iou-balanced', 'bccd'),
    ],
)
def test_as_configured(model, method, data, data_roots, tmp_path):
    check_step(load(model, method, data, data_roots), method, data, tmp_path)
