"""Every config of the small sets on real images: a step of training, a validation, with each method's losses.

Their ResNets have few channels here, but for some; test_every_config.py tries the configs of the papers' sets.
"""

from __future__ import annotations

import math

import pytest
from config_files import CONFIGS, LEAVES, Name, config_id
from mmengine.config import Config
from mmengine.registry import init_default_scope
from small_training import expected_losses, logged, narrow, quick_runner

VARIABLES = {'bccd': 'BCCD_ROOT', 'coco-tiny': 'COCO_TINY_ROOT'}
METRICS = {'bccd': 'val/pascal_voc/bbox_mAP', 'coco-tiny': 'val/coco/bbox_mAP'}
OF_SMALL_SETS = [path for path in LEAVES if Name.of(path).data in VARIABLES]

pytestmark = pytest.mark.slow


@pytest.fixture
def cfg(path, shared_data, monkeypatch):
    data = Name.of(path).data
    root = shared_data / data.replace('-', '_')
    if not root.is_dir():
        pytest.skip(f'no real data at {root}')
    monkeypatch.setenv(VARIABLES[data], f'{root}/')
    init_default_scope('mmdet')
    return Config.fromfile(path)  # not of the cache, which may have another root


def check_step(cfg, path, tmp_path):
    data = Name.of(path).data
    cfg.default_hooks.checkpoint = None
    runner = quick_runner(cfg, tmp_path / 'out')
    runner.train()
    assert runner.iter == 1
    values = logged(runner)
    losses = {name.removeprefix('train/') for name in values if 'loss_' in name}
    assert losses == expected_losses(cfg.model)
    assert all(math.isfinite(values[f'train/{name}']) for name in losses)
    assert all(values[f'train/{name}'] > 0 for name in losses - {'loss_tc'})
    assert 0 <= values[METRICS[data]] <= 1
    # w_loc: every balanced head has got its own, above 1, since it makes up for weights below 1.
    calibrated = runner.message_hub.get_info('loc_weight_calibration', {})
    assert calibrated.keys() == {f'{name}.loss_bbox' for name in balanced_heads(path)}
    weights = [runner.model.get_submodule(name).loss_weight for name in calibrated]
    assert all(1 < weight < 100 for weight in weights)
    assert len(set(weights)) == len(weights)


def balanced_heads(path):
    name = Name.of(path)
    if name.method != 'iou-balanced':
        return []
    final = 'roi_head.bbox_head' if name.detector.endswith('rcnn') else 'bbox_head'
    return [final, 'arm_head'] if name.losses.endswith('-arm') else [final]


@pytest.mark.parametrize('path', OF_SMALL_SETS, ids=config_id)
def test_with_few_channels(path, cfg, tmp_path):
    if cfg.model.backbone.type == 'ResNet':  # those of a VGG are fixed
        cfg.model = narrow(cfg.model)
    check_step(cfg, path, tmp_path)


@pytest.mark.parametrize(
    'path',
    [
        CONFIGS / 'ssd_resnet_fpn' / 'ssd300_r50_fpn_coco-tiny.py',
        CONFIGS / 'harmonic' / 'bccd' / 'ssd512_r50_fpn_harmonic_bccd.py',
        CONFIGS / 'iou_balanced' / 'coco_tiny' / 'dssd320_r50_iou-balanced_coco-tiny.py',
        CONFIGS / 'dssd' / 'dssd512_r50_bccd.py',
        CONFIGS / 'harmonic' / 'coco_tiny' / 'refinedet320_r50_harmonic_coco-tiny.py',
        CONFIGS / 'iou_balanced' / 'bccd' / 'refinedet512_r50_iou-balanced_bccd.py',
    ],
    ids=config_id,
)
def test_as_configured(path, cfg, tmp_path):
    check_step(cfg, path, tmp_path)
