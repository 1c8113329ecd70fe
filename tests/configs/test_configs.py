"""Every config loads, keeps the conventions of the folder and says in its name what it holds."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest
from mmdet.registry import DATASETS, HOOKS, METRICS, MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from balanced_det.preflight import walk

CONFIGS = Path(__file__).parents[2] / 'configs'
LEAVES = sorted(path for path in CONFIGS.rglob('*.py') if '_base_' not in path.parts)
ids = [str(path.relative_to(CONFIGS)) for path in LEAVES]


def load(path):
    init_default_scope('mmdet')
    return Config.fromfile(path)


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
        MODELS.build(cfg.model)

    def test_name_says_what_it_holds(self, path):
        cfg = load(path)
        words = path.stem.split('_')
        if words[0].startswith('ssd'):
            assert cfg.model.type == 'SingleStageDetector'
            assert f'ssd{cfg.model.bbox_head.anchor_generator.input_size}' == words[0]
            resize = [step.scale for key, step in walk(cfg.train_dataloader, '') if step.get('type') == 'Resize']
            assert resize == [(int(words[0][3:]),) * 2]
        else:
            names = {'faster-rcnn': 'FasterRCNN', 'fovea': 'FOVEA', 'mask-rcnn': 'MaskRCNN', 'retinanet': 'RetinaNet'}
            assert cfg.model.type == names[words[0]]
            assert f'r{cfg.model.backbone.depth}' == words[1]
        head = cfg.model.get('bbox_head') or cfg.model.roi_head.bbox_head
        of_method = {'iou-balanced': 'IoUBalanced', 'harmonic': 'Harmonic'}
        for word, prefix in of_method.items():
            assert (word in path.stem) == head.type.startswith(prefix)
            assert word not in path.stem or word.replace('-', '_') in str(path.parent) or 'demo' in str(path.parent)
        if 'loss_cls' in head:
            assert ('iou-balanced' in path.stem) == head.loss_cls.type.startswith('IoUBalanced')
            assert ('iou-balanced' in path.stem) == head.loss_bbox.type.startswith('IoUBalanced')
        assert ('harmonic' in path.stem) == ('loss_joint' in head)
        if '1x' in path.stem:
            assert cfg.train_cfg.max_epochs == 12
        if '4xb4' in path.stem:
            assert cfg.train_dataloader.batch_size == 4
        assert words[-1].replace('-', '_') in cfg.data_root

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
    cfg = load(CONFIGS / 'iou_balanced' / config)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.data_root == '/somewhere/'
    assert cfg.val_evaluator.get('ann_file', '/somewhere/').startswith('/somewhere/')
