"""Every config loads, keeps the conventions of the folder and says in its name what it holds."""

from __future__ import annotations

import ast
import copy
import os
import re
from pathlib import Path

import pytest
import torch
from config_files import (
    CONFIGS,
    FILES,
    LEAVES,
    OF_PAPERS,
    TEST_DEV,
    TTA,
    Name,
    config_id,
    head,
    load,
    read,
    scales,
    without_losses,
)
from mmdet.registry import DATASETS, HOOKS, METRICS, MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from balanced_det.heads import check_heads
from balanced_det.preflight import walk
from balanced_det.swap import swap_config

STOCK_FOLDERS = ('demo', 'dssd', 'refinedet', 'ssd_resnet_fpn')
DATA_FOLDERS = {'voc0712': 'voc', 'coco-tiny': 'coco_tiny'}  # others are named as in the file's name
DATA_ROOTS = {'voc0712': 'VOCdevkit', 'coco-tiny': 'coco_tiny', 'digit-scenes': 'digit_scenes'}
SCALES = {  # of training and of test, where the name has none
    'coco': ([(1333, 800)], [(1333, 800)]),
    'voc0712': ([(1000, 600)], [(1000, 600)]),
    'cityscapes': ([(2048, 800), (2048, 1024)], [(2048, 1024)]),
}
CLASSES = {'coco': 80, 'coco-tiny': 80, 'voc0712': 20, 'cityscapes': 8, 'bccd': 3}
EPOCHS_1X = {'coco': (12, 1), 'voc0712': (4, 3), 'cityscapes': (8, 8)}  # and repeats of the set in each
SSD_RUNS = {'coco': (5, 2e-3, 64), 'voc0712': (10, 1e-3, 32)}  # repeats in each of 24 epochs, learning rate, its batch
DETECTORS = {
    'dssd': 'SingleStageDetector',
    'faster-rcnn': 'FasterRCNN',
    'fovea': 'FOVEA',
    'mask-rcnn': 'MaskRCNN',
    'refinedet': 'RefineDet',
    'retinanet': 'RetinaNet',
    'ssd': 'SingleStageDetector',
}
BATCHES = {'coco': 16, 'voc0712': 16, 'cityscapes': 8}  # of the 1x schedules, where the name has none
# Learning rate of an image, mmdet's: by detector, of the 1x schedules.
RATES = {'retinanet': 0.01 / 16, 'fovea': 0.01 / 16, 'faster-rcnn': 0.02 / 16, 'mask-rcnn': 0.02 / 16}
BETAS = {'retinanet': 0.111, 'faster-rcnn': 1.0, 'fovea': 0.11, 'ssd': 1.0}  # of paper A's smooth L1 (Eq. 13)
W_LOC = {  # of the paper's Table 3 and the authors' configs, by detector, backbone, data and lambda
    ('retinanet', 'r50', 'coco', 0.5): 1.575,
    ('retinanet', 'r50', 'coco', 1.0): 2.226,
    ('retinanet', 'r50', 'coco', 1.5): 3.049,
    ('retinanet', 'r50', 'coco', 1.8): 3.649,
    ('retinanet', 'r101', 'coco', 1.5): 2.878,
    ('retinanet', 'r50', 'voc0712', 1.5): 2.34,
    ('retinanet', 'r101', 'voc0712', 1.5): 2.369,
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


def dataset(loader):
    """The set inside wrappers, with the number of its repeats and its parts."""
    block, repeats = loader.dataset, 1
    while block.type == 'RepeatDataset':
        block, repeats = block.dataset, repeats * block.times
    return block, repeats


def pipelines(loader):
    block, _ = dataset(loader)
    return [part.pipeline for part in block.get('datasets', [block])]


@pytest.fixture
def cfg(path):
    return read(path)


@pytest.fixture
def name(path):
    return Name.of(path)


@pytest.mark.parametrize('path', LEAVES, ids=config_id)
class TestLeaf:
    def test_types_are_registered(self, cfg):
        for key, block in walk(cfg.model, 'model'):
            if 'loss' in key.rsplit('.', 1)[-1]:
                assert MODELS.get(block.type) is not None
        assert DATASETS.get(cfg.train_dataloader.dataset.type) is not None
        assert METRICS.get(cfg.val_evaluator.type).__name__.startswith('Localization')
        assert all(HOOKS.get(hook.type) is not None for hook in cfg.custom_hooks)

    def test_conventions(self, cfg, path):
        assert depth(path) <= 3
        assert ast.get_docstring(ast.parse(path.read_text()))
        assert cfg.custom_imports.imports == ['iou_balanced', 'harmonic']
        assert Config.fromstring(cfg.pretty_text, '.py').model == cfg.model  # survives a dump

    def test_detector(self, cfg, name):
        assert cfg.model.type == DETECTORS[name.detector]
        if name.detector in ('ssd', 'dssd'):
            assert name.fpn == (parts(cfg.model.neck)[0].type == 'FPN')
            assert (name.detector == 'dssd') == (parts(cfg.model.neck)[-1].type == 'DeconvolutionNeck')

    def test_backbone(self, cfg, name):
        backbone = cfg.model.backbone
        if name.backbone.startswith('r'):
            assert (backbone.type, f'r{backbone.depth}') == ('ResNet', name.backbone)
        elif name.backbone.startswith('x'):
            held = f'x{backbone.depth}-{backbone.groups}x{backbone.base_width}d'
            assert (backbone.type, held) == ('ResNeXt', name.backbone)
        else:  # mmdet's SSD is named without its VGG-16
            assert backbone.type.endswith('VGG')
            assert name.backbone in ('', f'vgg{backbone.depth}')
        if 'init_cfg' in backbone and backbone.init_cfg is not None and name.backbone.startswith('r'):
            assert backbone.init_cfg.checkpoint == f'torchvision://resnet{backbone.depth}'

    def test_input_scale(self, cfg, name):
        found = [[scales(pipeline) for pipeline in pipelines(cfg[f'{part}_dataloader'])] for part in ('train', 'test')]
        if name.size:
            expected = [[(name.size, name.size)]] * 2
        elif name.scale:
            expected = [[name.scale]] * 2
        elif name.data in SCALES:
            expected = SCALES[name.data]
        else:
            return  # a small set: of its own images
        for ours, wanted in zip(found, expected):
            assert all(of_part == wanted for of_part in ours)

    def test_anchors_of_the_input(self, cfg, name):
        if not name.size:
            return
        anchors = cfg.model.bbox_head.anchor_generator
        assert anchors.get('input_size', name.size) == name.size
        if name.detector != 'refinedet':  # the last map is 1 x 1: its anchors lie in the middle of the image
            last = anchors.centers[-1] if 'centers' in anchors else (anchors.strides[-1] / 2,) * 2
            assert tuple(last) == (name.size / 2,) * 2

    def test_losses(self, cfg, name, path):
        block = head(cfg.model)
        prefix = {'iou-balanced': 'IoUBalanced', 'harmonic': 'Harmonic', 'stock': ''}[name.method]
        assert block.type.startswith(prefix)
        assert prefix or not block.type.startswith(('IoUBalanced', 'Harmonic'))
        assert ('loss_joint' in block) == (name.method == 'harmonic')
        assert (name.method == 'iou-balanced') == any(
            block.get(loss, {}).get('type', '').startswith('IoUBalanced') for loss in ('loss_cls', 'loss_bbox')
        )
        if name.method != 'stock':
            assert name.method.replace('-', '_') in path.parts or 'demo' in path.parts
        if 'arm_head' in cfg.model:
            assert name.losses.endswith('-arm') == cfg.model.arm_head.type.startswith('IoUBalanced')
        if 'smooth-l1' in name.losses:
            assert (block.loss_bbox.type, block.loss_bbox.beta) == ('SmoothL1Loss', BETAS[name.detector])

    def test_data(self, cfg, name, path):
        assert DATA_ROOTS.get(name.data, name.data) in cfg.data_root
        assert path.parent.name in (DATA_FOLDERS.get(name.data, name.data), *STOCK_FOLDERS)
        if name.data in CLASSES:
            found = {block.num_classes for _, block in walk(cfg.model, 'model') if 'num_classes' in block}
            assert found - {1} == {CLASSES[name.data]}  # 1: of RefineDet's ARM
            assert ('val' if name.data != 'voc0712' else 'test') in cfg.val_dataloader.dataset.ann_file

    def test_schedule(self, cfg, name):
        if '1x' in name.settings.split('-'):
            epochs, repeats = EPOCHS_1X.get(name.data, (12, 1))
            assert (cfg.train_cfg.max_epochs, dataset(cfg.train_dataloader)[1]) == (epochs, repeats)
            # The learning rate falls after 2/3 and 11/12 of them, or, where they are few, before the last.
            steps = [step for step in cfg.param_scheduler if step.type == 'MultiStepLR']
            milestones = [8, 11] if epochs == 12 else [epochs - 1]
            assert [step.milestones for step in steps] == [milestones]
            assert steps[0].end == epochs
        elif name.detector == 'ssd' and not name.backbone and name.data in SSD_RUNS:  # VGG-16
            repeats, rate, batch = SSD_RUNS[name.data]
            assert (cfg.train_cfg.max_epochs, dataset(cfg.train_dataloader)[1]) == (24, repeats)
            assert (cfg.auto_scale_lr.base_batch_size, cfg.optim_wrapper.optimizer.lr) == (batch, rate)

    def test_batch(self, cfg, name):
        base = cfg.auto_scale_lr.base_batch_size
        images = cfg.train_dataloader.batch_size
        assert base % images == 0
        if name.batch:
            assert images == name.batch[1]
            assert base == name.batch[0] * name.batch[1]
        elif '1x' in name.settings.split('-') and name.data in BATCHES:
            assert base == BATCHES[name.data]

    def test_learning_rate_is_that_of_the_batch(self, cfg, name):
        # The linear scaling rule: mmdet's rate for 16 images, and in proportion for the batch that the config states.
        if name.detector in RATES and name.data in ('coco', 'cityscapes'):
            rate = cfg.optim_wrapper.optimizer.lr / cfg.auto_scale_lr.base_batch_size
            assert rate == pytest.approx(RATES[name.detector])


# One of each detector and method in the normal run.
BUILT = {(Name.of(path).detector, Name.of(path).method): path for path in LEAVES}.values()


@pytest.mark.parametrize(
    'path',
    [pytest.param(path, id=config_id(path), marks=[] if path in BUILT else pytest.mark.slow) for path in LEAVES],
)
def test_the_model_builds_and_its_heads_fit_their_losses(cfg):
    with torch.device('meta'):  # without memory for the weights
        check_heads(MODELS.build(copy.deepcopy(cfg.model)))


def only(method):
    return pytest.mark.parametrize(
        'path', [path for path in OF_PAPERS if Name.of(path).method == method], ids=config_id
    )


@only('iou-balanced')
class TestIoUBalanced:
    def test_cls_or_loc_alone_leaves_the_other_loss_stock(self, cfg, name):
        block = head(cfg.model)
        cls, loc = ('-cls' in name.losses, '-loc' in name.losses)
        assert block.loss_cls.type.startswith('IoUBalanced') == (cls or not loc)
        assert block.loss_bbox.type == ('SmoothL1Loss' if cls else 'IoUBalancedSmoothL1Loss')

    def test_eta_and_lambda(self, cfg, name):
        # Paper A: 1.5 of both (Table 3, best rows), eta 1.3 for Faster R-CNN (the authors' configs).
        block = head(cfg.model)
        if block.loss_cls.type.startswith('IoUBalanced'):
            assert block.loss_cls.eta == (name.number('eta') or (1.3 if name.detector == 'faster-rcnn' else 1.5))
            assert block.loss_cls.loss_weight == 1.0
        if block.loss_bbox.type.startswith('IoUBalanced'):
            assert block.loss_bbox.lambda_ == (name.number('lambda') or 1.5)
        assert block.loss_bbox.beta == BETAS[name.detector]

    def test_w_loc_is_published_or_calibrated(self, cfg, name):
        loss = head(cfg.model).loss_bbox
        if not loss.type.startswith('IoUBalanced'):
            published = 1.0
        elif name.detector == 'faster-rcnn':
            published = 2.4
        else:
            published = W_LOC.get((name.detector, name.backbone, name.data, loss.lambda_))
        calibrated = any(hook.type == 'LocWeightCalibrationHook' for hook in cfg.custom_hooks)
        assert calibrated == (published is None)
        assert calibrated or loss.loss_weight == published


@only('harmonic')
class TestHarmonic:
    def test_parts_and_numbers(self, cfg, name):
        # Paper B: alpha 1.5, gamma 0.8 (Table 5, best), margin 0.2.
        joint = head(cfg.model).loss_joint
        assert joint.type == 'HarmonicDetLoss'
        assert joint.get('harmonic', True)
        assert joint.get('hiou', True) == ('no-hiou' not in name.losses)
        assert joint.get('tc', True) == ('no-tc' not in name.losses)
        alpha, gamma = name.number('alpha'), name.number('gamma')
        assert joint.alpha == (1.5 if alpha is None else alpha)
        assert joint.gamma == (0.8 if gamma is None else gamma)
        assert joint.margin == 0.2
        assert not joint.get('detach_factors', False)


def stock_of(path):
    """The config of the same model, schedule and data with the stock losses."""
    losses = Name.of(path).losses
    stems = {path.name.replace(f'{losses}-', f'{stock}').replace(f'_{losses}_', '_') for stock in ('smooth-l1-', '')}
    (found,) = [path.with_name(name) for name in sorted(stems) if path.with_name(name) in OF_PAPERS]
    return found


@pytest.mark.parametrize(
    'path', [path for path in OF_PAPERS if Name.of(path).method != 'stock' and path not in TTA], ids=config_id
)
def test_a_method_changes_the_losses_alone(path):
    stock, own = read(stock_of(path)), read(path)
    kind = head(stock.model).type.removeprefix('Configurable')
    assert head(own.model).type == f'{"Harmonic" if "harmonic" in path.stem else "IoUBalanced"}{kind}'
    ours, theirs = without_losses(own), without_losses(stock)
    assert ours.keys() == theirs.keys()
    for key in theirs:
        assert ours[key] == theirs[key], key


@pytest.mark.parametrize('path', [path for path in OF_PAPERS if 'cityscapes' in path.parts], ids=config_id)
def test_cityscapes_begins_with_the_same_losses_on_coco(path):
    name = path.name.replace('_cityscapes', '_coco')
    start = CONFIGS / 'iou_balanced' / 'coco' / name
    assert start in OF_PAPERS
    assert read(path).load_from.removeprefix('./') == (
        f'work_dirs/{start.stem}/epoch_{read(start).train_cfg.max_epochs}.pth'
    )


@pytest.mark.parametrize('path', TEST_DEV, ids=config_id)
def test_test_dev_changes_the_images_and_the_output_alone(path):
    stem = path.stem.removesuffix('_test-dev')
    cfg, trained = load(path), read(path.with_name(f'{stem}.py'))
    assert depth(path) <= 4
    images = cfg.test_dataloader.dataset
    assert (images.ann_file, images.data_prefix) == (
        'annotations/image_info_test-dev2017.json',
        dict(img='test2017/'),
    )
    images.update({key: trained.test_dataloader.dataset[key] for key in ('ann_file', 'data_prefix')})
    evaluator = cfg.test_evaluator
    assert evaluator.format_only is True
    assert evaluator.ann_file == f'{cfg.data_root}annotations/image_info_test-dev2017.json'
    # As the evaluation server wants the file to be called; beside the trained model.
    folder, file = os.path.split(evaluator.pop('outfile_prefix'))
    assert os.path.normpath(folder) == f'work_dirs/{stem}'
    assert re.fullmatch(r'detections_test-dev2017_[\w.-]+_results', file)
    evaluator.update({key: trained.test_evaluator[key] for key in ('ann_file', 'format_only')})
    assert dict(cfg) == dict(trained)


@pytest.mark.parametrize('path', TTA, ids=config_id)
def test_test_time_augmentation_changes_the_test_alone(path):
    cfg, trained = read(path), read(path.with_name(path.name.replace('-tta', '')))
    assert cfg.tta_model.type == 'DetTTAModel'
    assert len(scales(cfg.tta_pipeline)) > 1
    for key in ('train_dataloader', 'train_cfg', 'param_scheduler', 'optim_wrapper', 'custom_hooks', 'val_dataloader'):
        assert cfg[key] == trained[key]


def test_names_are_unique():
    # mim looks a config up by its name alone.
    names = [path.name for path in FILES]
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
