"""Every config loads, keeps the conventions of the folder and says in its name what it holds."""

from __future__ import annotations

import ast
import copy
import functools
import os
import re
from pathlib import Path

import pytest
import torch
from mmdet.registry import DATASETS, HOOKS, METRICS, MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from balanced_det.heads import check_heads
from balanced_det.preflight import walk
from balanced_det.swap import swap_config

CONFIGS = Path(__file__).parents[2] / 'configs'
LEAVES = sorted(path for path in CONFIGS.rglob('*.py') if '_base_' not in path.parts)
ids = [str(path.relative_to(CONFIGS)) for path in LEAVES]
STOCK_FOLDERS = ('demo', 'dssd', 'refinedet', 'ssd_resnet_fpn')
DETECTORS = {
    'dssd': 'SingleStageDetector',
    'faster-rcnn': 'FasterRCNN',
    'fovea': 'FOVEA',
    'mask-rcnn': 'MaskRCNN',
    'refinedet': 'RefineDet',
    'retinanet': 'RetinaNet',
    'ssd': 'SingleStageDetector',
}
STOCK = [  # of the models that have a sibling of each method
    f'{folder}/{model}_{data}.py'
    for folder, models in {
        'ssd_resnet_fpn': ('ssd300_r50_fpn', 'ssd512_r50_fpn'),
        'dssd': ('dssd320_r50', 'dssd512_r50'),
        'refinedet': ('refinedet320_r50', 'refinedet512_r50'),
    }.items()
    for model in models
    for data in ('bccd', 'coco-tiny')
]


def load(path):
    init_default_scope('mmdet')
    return copy.deepcopy(load_config(path))


@functools.cache
def load_config(path):
    return Config.fromfile(path)


def parts(neck):
    return neck if isinstance(neck, list) else [neck]


def depth(path):
    """Inheritance steps to the farthest file of this folder."""
    bases = next(
        (
            ast.literal_eval(node.value)
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.Assign) and node.targets[0].id == '_base_'
        ),
        [],
    )
    bases = [bases] if isinstance(bases, str) else bases
    return 1 + max((depth(Path(os.path.normpath(path.parent / base))) for base in bases if '::' not in base), default=0)


@pytest.mark.parametrize('path', LEAVES, ids=ids)
class TestLeaf:
    def test_types_are_registered_and_the_model_builds(self, path):
        cfg = load(path)
        for key, block in walk(cfg.model, 'model'):
            if 'loss' in key.rsplit('.', 1)[-1]:
                assert MODELS.get(block.type) is not None
        assert DATASETS.get(cfg.train_dataloader.dataset.type) is not None
        assert METRICS.get(cfg.val_evaluator.type).__name__.startswith('Localization')
        assert all(HOOKS.get(hook.type) is not None for hook in cfg.custom_hooks)
        with torch.device('meta'):  # without memory for the weights
            check_heads(MODELS.build(cfg.model))

    def test_name_says_what_it_holds(self, path):
        cfg = load(path)
        words = path.stem.split('_')
        detector, size = re.fullmatch(r'(\D+?)(\d*)', words[0]).groups()
        assert cfg.model.type == DETECTORS[detector]
        backbone = cfg.model.backbone
        if words[1][1:].isdigit():
            assert (backbone.type, f'r{backbone.depth}') == ('ResNet', words[1])
        else:  # mmdet's SSD, named without its VGG-16
            assert backbone.type.endswith('VGG')
            assert 'vgg' not in path.stem or f'vgg{backbone.depth}' == words[1]
        if size:
            resize = [step.scale for key, step in walk(cfg.train_dataloader, '') if step.get('type') == 'Resize']
            resize += [step.scale for key, step in walk(cfg.test_dataloader, '') if step.get('type') == 'Resize']
            assert set(resize) == {(int(size),) * 2}
            anchors = cfg.model.bbox_head.anchor_generator
            assert anchors.get('input_size', int(size)) == int(size)
            if detector != 'refinedet':  # the last map is 1 x 1: its anchors lie in the middle of the image
                last = anchors.centers[-1] if 'centers' in anchors else (anchors.strides[-1] / 2,) * 2
                assert tuple(last) == (int(size) / 2,) * 2
        if detector in ('ssd', 'dssd'):
            assert ('fpn' in words) == (parts(cfg.model.neck)[0].type == 'FPN')
            assert (detector == 'dssd') == (parts(cfg.model.neck)[-1].type == 'DeconvolutionNeck')
        head = cfg.model.get('bbox_head') or cfg.model.roi_head.bbox_head
        of_method = {'iou-balanced': 'IoUBalanced', 'harmonic': 'Harmonic'}
        for word, prefix in of_method.items():
            assert (word in path.stem) == head.type.startswith(prefix)
            assert word not in path.stem or word.replace('-', '_') in str(path.parent) or 'demo' in str(path.parent)
        if 'arm_head' in cfg.model:
            assert ('iou-balanced-arm' in path.stem) == cfg.model.arm_head.type.startswith('IoUBalanced')
        if 'loss_cls' in head:
            assert ('iou-balanced' in path.stem) == head.loss_cls.type.startswith('IoUBalanced')
            assert ('iou-balanced' in path.stem) == head.loss_bbox.type.startswith('IoUBalanced')
        assert ('harmonic' in path.stem) == ('loss_joint' in head)
        if '1x' in path.stem:
            assert cfg.train_cfg.max_epochs == 12
        if '4xb4' in path.stem:
            assert cfg.train_dataloader.batch_size == 4
        folders = {'voc0712': 'VOCdevkit'}
        assert folders.get(words[-1], words[-1].replace('-', '_')) in cfg.data_root
        assert path.parent.name in (words[-1].replace('-', '_'), *STOCK_FOLDERS)

    def test_conventions(self, path):
        assert depth(path) <= 3
        assert ast.get_docstring(ast.parse(path.read_text()))
        cfg = load(path)
        assert cfg.custom_imports.imports == ['iou_balanced', 'harmonic']
        assert Config.fromstring(cfg.pretty_text, '.py').model == cfg.model  # survives a dump


def test_names_are_unique():
    # mim looks a config up by its name alone.
    names = [path.name for path in LEAVES]
    assert len(set(names)) == len(names)


def test_one_file_has_custom_imports():
    with_imports = [path for path in CONFIGS.rglob('*.py') if 'custom_imports' in path.read_text()]
    assert with_imports == [CONFIGS / '_base_' / 'runtime.py']


def test_the_demo_arms_differ_in_the_losses_alone():
    stock, balanced, harmonic = (
        load(CONFIGS / 'demo' / f'retinanet_r18_fpn_{arm}digit-scenes.py') for arm in ('', 'iou-balanced_', 'harmonic_')
    )
    assert harmonic.model.bbox_head.pop('loss_joint').type == 'HarmonicDetLoss'
    assert {cfg.model.bbox_head.pop('type') for cfg in (stock, balanced, harmonic)} == {
        'RetinaHead',
        'IoUBalancedRetinaHead',
        'HarmonicRetinaHead',
    }
    assert harmonic.model == stock.model
    for block in ('loss_cls', 'loss_bbox'):
        assert stock.model.bbox_head.pop(block) != balanced.model.bbox_head.pop(block)
        harmonic.model.bbox_head.pop(block)
    assert balanced.pop('custom_hooks') == [*stock.custom_hooks, dict(type='LocWeightCalibrationHook')]
    assert stock.pop('custom_hooks') == harmonic.pop('custom_hooks')
    for key in stock:
        assert stock[key] == balanced[key] == harmonic[key]


def sibling(stock, method):
    """The config of the same model and data with a method's losses."""
    model, data = Path(stock).stem.rsplit('_', 1)
    return CONFIGS / method.replace('-', '_') / data.replace('-', '_') / f'{model}_{method}_{data}.py'


@pytest.mark.parametrize('stock', STOCK)
def test_siblings_differ_in_the_losses_alone(stock):
    # swap_config makes the same of the stock config.
    own = load(CONFIGS / stock)
    balanced = load(sibling(stock, 'iou-balanced'))
    head = balanced.model.bbox_head
    assert head.loss_cls == dict(type='IoUBalancedCrossEntropyLoss', use_sigmoid=False, eta=1.5, loss_weight=1.0)
    assert head.loss_bbox == dict(
        type='IoUBalancedSmoothL1Loss', beta=1.0, lambda_=1.5, target_stds=(0.1, 0.1, 0.2, 0.2), loss_weight=1.0
    )
    assert balanced.custom_hooks == [*own.custom_hooks, dict(type='LocWeightCalibrationHook')]
    harmonic = load(sibling(stock, 'harmonic'))
    assert harmonic.model.bbox_head.loss_joint == dict(type='HarmonicDetLoss', alpha=1.5, gamma=0.8, margin=0.2)
    assert harmonic.custom_hooks == own.custom_hooks
    for cfg, method in ((balanced, 'iou-balanced'), (harmonic, 'harmonic')):
        expected = swap_config(own, method)
        for block in ('loss_cls', 'loss_bbox', 'loss_joint'):  # the paper's values are spelled out here
            assert (cfg.model.bbox_head.pop(block, None) is None) == (expected.model.bbox_head.pop(block, None) is None)
        for key in own:
            assert cfg[key] == expected[key], key


def test_the_arm_may_be_balanced_too():
    odm, both = (
        load(CONFIGS / 'iou_balanced' / 'bccd' / f'refinedet320_r50_iou-balanced{arm}_bccd.py') for arm in ('', '-arm')
    )
    arm = both.model.arm_head
    assert arm.pop('type') == 'IoUBalancedDSSDHead'
    for block in ('loss_cls', 'loss_bbox'):
        assert arm.pop(block) == both.model.bbox_head[block]
    assert odm.model.arm_head.pop('type') == 'DSSDHead'
    for key in odm:
        assert odm[key] == both[key]


@pytest.mark.parametrize('model', ['dssd320', 'refinedet320'])
def test_resnet_101_differs_in_the_backbone_alone(model):
    folder = CONFIGS / model.rstrip('0123456789')
    r50, r101 = (load(folder / f'{model}_{depth}_coco-tiny.py') for depth in ('r50', 'r101'))
    assert (r101.model.backbone.pop('depth'), r50.model.backbone.pop('depth')) == (101, 50)
    assert r101.model.backbone.pop('init_cfg').checkpoint == 'torchvision://resnet101'
    r50.model.backbone.pop('init_cfg')
    for key in r50:
        assert r50[key] == r101[key]


def test_refinedets_detections_are_the_releases_or_the_papers(tmp_path):
    for config in ('refinedet320_r50_bccd.py', 'refinedet320_vgg16_coco-tiny.py'):
        base = CONFIGS / 'refinedet' / config
        release = load(base).model.test_cfg
        assert (release.nms_pre, release.max_per_img) == (1000, 500)
        (tmp_path / config).write_text(
            f'_base_ = {str(base)!r}\nmodel = dict(test_cfg=_base_.refinedet_paper)\n',
        )
        assert load(tmp_path / config).model.test_cfg == dict(release, nms_pre=400, max_per_img=200)


def test_losses_hold_the_papers_values():
    # Paper A: eta and lambda 1.5 (Table 3, best rows), beta 0.111 (Eq. 13), w_loc 3.049 (Table 3, lambda 1.5).
    head = load(CONFIGS / 'iou_balanced' / 'coco' / 'retinanet_r50_fpn_iou-balanced-1x_coco.py').model.bbox_head
    assert (head.loss_cls.eta, head.loss_cls.gamma, head.loss_cls.alpha) == (1.5, 2.0, 0.25)
    assert (head.loss_bbox.lambda_, head.loss_bbox.beta, head.loss_bbox.loss_weight) == (1.5, 0.111, 3.049)


@pytest.mark.parametrize(
    ('variable', 'config'),
    [
        ('BCCD_ROOT', 'bccd/retinanet_r18_fpn_iou-balanced-1x_bccd.py'),
        ('COCO_TINY_ROOT', 'coco_tiny/faster-rcnn_r50_fpn_iou-balanced-1x_coco-tiny.py'),
    ],
)
def test_the_environment_names_the_data(monkeypatch, variable, config):
    monkeypatch.setenv(variable, '/somewhere/')
    init_default_scope('mmdet')
    cfg = Config.fromfile(CONFIGS / 'iou_balanced' / config)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.data_root == '/somewhere/'
    assert cfg.val_evaluator.get('ann_file', '/somewhere/').startswith('/somewhere/')
