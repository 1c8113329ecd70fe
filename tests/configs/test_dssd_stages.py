"""DSSD's schedule on VOC07+12: what learns in each stage, for how long, and from which checkpoint."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from made_data import write_voc
from mmdet.datasets import VOCDataset
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import init_default_scope
from small_training import logged, narrow, quick_runner
from torch.nn.modules.batchnorm import _BatchNorm

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
ENCODER, STAGE_1, STAGE_2 = STAGES = [
    f'{name}_voc0712' for name in ('ssd320_r50_dssd-encoder', 'dssd320_r50_stage-1', 'dssd320_r50_stage-2')
]
ONE_STAGE = 'dssd320_r50_voc0712'


def load(name):
    init_default_scope('mmdet')
    folder = 'harmonic/voc' if name == ONE_STAGE else 'dssd'  # a row of the paper lies with its method
    return Config.fromfile(CONFIGS / folder / f'{name}.py')


def build(name):
    cfg = load(name)
    with torch.device('meta'):
        return MODELS.build(cfg.model)


def of_encoder(name):
    return name.startswith(('backbone.', 'neck.0.'))


def norms(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, _BatchNorm)}


# ------------------------------------------------------------------------------------------ as configured


@pytest.mark.parametrize(
    ('name', 'iterations', 'milestones', 'rate', 'start'),
    [
        (ONE_STAGE, 80000, [40000, 60000], 1e-3, None),
        (ENCODER, 80000, [40000, 60000], 1e-3, None),
        (STAGE_1, 30000, [20000], 1e-3, f'work_dirs/{ENCODER}/iter_80000.pth'),
        (STAGE_2, 40000, [20000], 1e-4, f'work_dirs/{STAGE_1}/iter_30000.pth'),
    ],
)
def test_schedule(name, iterations, milestones, rate, start):
    # DSSD's release: ssd_pascal_resnet_321.py, ssd_pascal_resnet_deconv_321.py, ssd_pascal_resnet_deconv_ft_321.py.
    cfg = load(name)
    assert (cfg.train_cfg.type, cfg.train_cfg.max_iters) == ('IterBasedTrainLoop', iterations)
    warm_up, steps = cfg.param_scheduler
    assert (warm_up.type, warm_up.end) == ('LinearLR', 500)
    assert (steps.type, steps.by_epoch, steps.milestones, steps.gamma) == ('MultiStepLR', False, milestones, 0.1)
    assert dict(cfg.optim_wrapper.optimizer) == dict(type='SGD', lr=rate, momentum=0.9, weight_decay=5e-4)
    assert cfg.train_dataloader.batch_size * 4 == cfg.auto_scale_lr.base_batch_size == 32  # 4 GPUs
    assert cfg.get('load_from') == start  # the file that the stage before leaves
    assert iterations % cfg.default_hooks.checkpoint.interval == 0
    # The weights of ImageNet are those of the first stage alone.
    assert (cfg.model.backbone.init_cfg is None) == (start is not None)


@pytest.mark.parametrize('name', [ONE_STAGE, *STAGES])
def test_data(name):
    cfg = load(name)
    sets = cfg.train_dataloader.dataset
    assert sets.type == 'ConcatDataset'
    assert [part.ann_file for part in sets.datasets] == [f'VOC{y}/ImageSets/Main/trainval.txt' for y in (2007, 2012)]
    assert all(part.pipeline == cfg.ssd_train_pipeline for part in sets.datasets)
    assert all('bbox_min_size' not in part.filter_cfg for part in sets.datasets)  # SSD learns small boxes too
    assert cfg.val_dataloader.dataset.pipeline == cfg.ssd_test_pipeline
    assert cfg.val_dataloader.dataset.ann_file == 'VOC2007/ImageSets/Main/test.txt'
    assert cfg.ssd_train_pipeline[5].scale == cfg.ssd_test_pipeline[1].scale == (320, 320)
    assert cfg.model.bbox_head.num_classes == len(VOCDataset.METAINFO['classes'])


@pytest.mark.parametrize('name', STAGES)
def test_what_learns(name):
    model = build(name)
    learning = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    of_norms = {f'{norm}.{kind}' for norm in norms(model) for kind in ('weight', 'bias')}
    expected = {
        ENCODER: {key for key, _ in model.named_parameters()},
        STAGE_1: {key for key, _ in model.named_parameters() if not of_encoder(key)},
        STAGE_2: {key for key, _ in model.named_parameters()} - of_norms,  # their scales and shifts neither
    }
    assert learning == expected[name]
    assert len(of_norms) > 100


@pytest.mark.parametrize('name', [ONE_STAGE, *STAGES])
def test_which_norms_keep_their_statistics(name):
    model = build(name).train()
    fixed = {key for key, norm in norms(model).items() if not norm.training}
    expected = {
        ONE_STAGE: {key for key in norms(model) if key.startswith('backbone.')},
        ENCODER: {key for key in norms(model) if key.startswith('backbone.')},
        STAGE_1: {key for key in norms(model) if of_encoder(key)},
        STAGE_2: set(norms(model)),
    }
    assert fixed == expected[name]


def test_the_encoder_is_the_ssd_part_of_dssd():
    encoder, stage_1, stage_2 = (build(name).state_dict() for name in STAGES)
    assert {key for key in stage_1 if key not in encoder} == {key for key in stage_1 if key.startswith('neck.1.')}
    other = [key for key in encoder if encoder[key].shape != stage_1[key].shape]
    # The first convolution and the shortcut of the blocks behind a deconvolution: it gives 512 channels.
    assert {tuple(key.split('.')[:3]) for key in other} == {
        ('bbox_head', 'prediction_modules', str(k)) for k in range(1, 5)
    }
    assert stage_1.keys() == stage_2.keys()
    assert all(stage_1[key].shape == stage_2[key].shape for key in stage_1)


# ------------------------------------------------------------------------------------------ one after the other


class Loaded(Hook):
    """The weights that a training begins with."""

    def before_train(self, runner):
        self.weights = {key: value.clone() for key, value in runner.model.state_dict().items()}


def trained(name, tmp_path):
    """A stage of a narrow DSSD after one iteration; its weights before and after, and its checkpoint."""
    cfg = load(name)
    cfg.model = narrow(cfg.model)
    cfg.param_scheduler = []  # no warm-up: the step is to be seen
    work_dir = tmp_path / 'work_dirs' / name
    runner = quick_runner(cfg, work_dir, images=None)
    loaded = Loaded()
    runner.register_hook(loaded)
    runner.train()
    assert math.isfinite(logged(runner)['train/loss'])
    assert 'val/pascal_voc/bbox_mAP' in logged(runner)
    after = torch.load(work_dir / 'iter_1.pth', map_location='cpu', weights_only=False)['state_dict']
    (work_dir / 'iter_1.pth').rename(work_dir / f'iter_{load(name).train_cfg.max_iters}.pth')
    return loaded.weights, after


@pytest.mark.slow
def test_each_stage_goes_on_with_the_weights_of_the_one_before(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # load_from and data_root are relative
    write_voc(tmp_path / 'data' / 'VOCdevkit', [(2007, 'trainval'), (2012, 'trainval'), (2007, 'test')])

    def same(left, right):
        return {key for key in left.keys() & right.keys() if torch.equal(left[key], right[key])}

    _, encoder = trained(ENCODER, tmp_path)
    before, stage_1 = trained(STAGE_1, tmp_path)
    fitting = {key for key in before if key in encoder and encoder[key].shape == before[key].shape}
    assert fitting > {key for key in before if of_encoder(key)}
    assert same(before, encoder) >= fitting
    assert {key for key in before if of_encoder(key)} <= same(stage_1, before)
    moved = stage_1.keys() - same(stage_1, before)
    assert {key.split('.')[0] for key in moved} == {'neck', 'bbox_head'}
    assert 'neck.1.modules_up.0.deconv.weight' in moved
    assert 'neck.1.modules_up.0.deep.bn.running_mean' in moved

    before, stage_2 = trained(STAGE_2, tmp_path)
    assert same(before, stage_1) == before.keys() == stage_1.keys()
    moved = stage_2.keys() - same(stage_2, before)
    assert {'backbone.conv1.weight', 'neck.0.blocks.0.conv1.weight', 'bbox_head.cls_convs.0.weight'} <= moved
    of_norms = {f'{norm}.{key}' for norm, module in norms(build(STAGE_2)).items() for key in module.state_dict()}
    assert of_norms < stage_2.keys()
    assert moved.isdisjoint(of_norms)
