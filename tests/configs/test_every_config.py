"""Every config of the papers' data sets, with its full-size model: a step of training and a prediction.

The images are made up and small, the weights random; models, pipelines, losses, schedules and evaluators are the
configs' own. Those of the small sets are tried on real images in test_training_steps.py.
"""

from __future__ import annotations

import json
import math

import pytest
import torch
from config_files import CONFIGS, LEAVES, TEST_DEV, TTA, Name, config_id, load
from made_data import HEIGHT, WIDTH, write_all
from mmengine.config import ConfigDict
from mmengine.hooks import Hook
from small_training import expected_losses, logged, quick_runner, shrink

from balanced_det.preflight import walk

DATA = ('coco', 'voc0712', 'cityscapes')
TRIED = [path for path in LEAVES if Name.of(path).data in DATA and path not in TTA]
FAST = {  # each method, and each format of the data; the others take minutes together
    'harmonic/coco/mask-rcnn_r50_fpn_harmonic-1x_coco.py',
    'harmonic/voc/faster-rcnn_r50_fpn_harmonic-1x_voc0712.py',
    'iou_balanced/cityscapes/retinanet_r50_fpn_iou-balanced-1x_cityscapes.py',
    'iou_balanced/coco/retinanet_r18_fpn_iou-balanced-1x_coco.py',
}


@pytest.fixture(scope='session')
def made_data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('made_data')
    write_all(folder)
    return folder


@pytest.fixture(autouse=True)
def _at_the_data(made_data, monkeypatch):
    monkeypatch.chdir(made_data)  # the data_root of the configs is relative


class Recorder(Hook):
    """The weights that a training begins with, and the predictions of a test."""

    def __init__(self):
        self.predictions = []

    def before_train(self, runner):
        self.weights = {key: value.clone() for key, value in runner.model.named_parameters()}

    def after_test_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.predictions += outputs


def shrunken(path):
    cfg = load(path)
    cfg.load_from = None
    cfg.default_hooks.checkpoint = None
    shrink([cfg.train_dataloader, cfg.test_dataloader, cfg.get('tta_pipeline')])
    for _, block in walk(cfg.model, 'model'):  # of the small images few boxes will do
        for key, most in (('max_per_img', 50), ('num', 64)):
            if key in block:
                block[key] = min(block[key], most)
    return cfg


def runner_of(cfg, tmp_path):
    """A runner that trains one batch, and tests the two images that there are, with its recorder."""
    runner = quick_runner(cfg, tmp_path / 'out', images=None, validate=False)
    recorder = Recorder()
    runner.register_hook(recorder)
    return runner, recorder


def check_losses(runner, model):
    values = logged(runner)
    losses = {name.removeprefix('train/'): value for name, value in values.items() if 'loss_' in name}
    assert losses.keys() == expected_losses(model)
    assert all(math.isfinite(value) for value in losses.values())
    assert all(value > 0 for name, value in losses.items() if name != 'loss_tc')
    assert math.isclose(sum(losses.values()), values['train/loss'], rel_tol=1e-4)


def check_step(runner, before):
    """The final heads' two layers have moved, and nothing has left the finite."""
    moved = set()
    for name, value in runner.model.named_parameters():
        assert value.isfinite().all(), name
        if not torch.equal(value, before[name]):
            moved.add(name)
    frozen = {name for name, value in runner.model.named_parameters() if not value.requires_grad}
    assert moved
    assert moved.isdisjoint(frozen)
    for kind in ('cls', 'reg'):
        assert any(kind in name and 'bbox_head' in name for name in moved), kind


def check_predictions(predictions, num_classes):
    assert len(predictions) == 2
    for image in predictions:
        found = image.pred_instances
        assert len(found) > 0
        assert found.labels.min() >= 0
        assert found.labels.max() < num_classes
        assert found.bboxes.isfinite().all()
        assert found.bboxes.min() >= 0
        assert found.bboxes[:, 0::2].max() <= WIDTH + 0.01
        assert found.bboxes[:, 1::2].max() <= HEIGHT + 0.01
        assert ((found.scores > 0) & (found.scores <= 1)).all()
        if 'masks' in found:
            assert found.masks.shape == (len(found), HEIGHT, WIDTH)


def check_metrics(metrics, cfg):
    kinds = ['bbox', 'segm'] if 'segm' in cfg.test_evaluator.get('metric', ()) else ['bbox']
    prefix = 'pascal_voc' if 'voc' in cfg.test_evaluator.type.lower() else 'coco'
    for kind in kinds:
        for threshold in ('', '_50', '_60', '_70', '_75', '_80', '_90'):
            assert 0 <= metrics[f'{prefix}/{kind}_mAP{threshold}'] <= 1


def num_classes(model):
    return (model.get('bbox_head') or model.roi_head.bbox_head).num_classes


@pytest.mark.parametrize(
    'path',
    [
        pytest.param(path, id=config_id(path), marks=[] if config_id(path) in FAST else pytest.mark.slow)
        for path in TRIED
    ],
)
def test_a_step_and_a_prediction(path, tmp_path):
    cfg = shrunken(path)
    runner, recorder = runner_of(cfg, tmp_path)
    runner.train()
    assert runner.iter == 1
    check_losses(runner, cfg.model)
    check_step(runner, recorder.weights)
    metrics = runner.test()
    check_predictions(recorder.predictions, num_classes(cfg.model))
    check_metrics(metrics, cfg)


@pytest.mark.slow
@pytest.mark.parametrize('path', TTA, ids=config_id)
def test_test_time_augmentation(path, tmp_path):
    cfg = shrunken(path)
    model = cfg.model
    # As `tools/test.py --tta` does.
    cfg.model = ConfigDict(**cfg.tta_model, module=model)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    runner, recorder = runner_of(cfg, tmp_path)
    metrics = runner.test()
    check_predictions(recorder.predictions, num_classes(model))
    check_metrics(metrics, cfg)


@pytest.mark.slow
@pytest.mark.parametrize('path', {Name.of(path).detector: path for path in TEST_DEV}.values(), ids=config_id)
def test_test_dev_writes_the_submission(path, tmp_path):
    cfg = shrunken(path)
    prefix = tmp_path / cfg.test_evaluator.outfile_prefix
    cfg.test_evaluator.outfile_prefix = str(prefix)
    runner, recorder = runner_of(cfg, tmp_path)
    runner.test()
    check_predictions(recorder.predictions, 80)
    written = json.loads(prefix.with_name(f'{prefix.name}.bbox.json').read_text())
    assert {entry['image_id'] for entry in written} == {1, 2}
    assert len(written) == sum(len(image.pred_instances) for image in recorder.predictions)


def test_every_config_is_tried_somewhere():
    small = [path for path in LEAVES if Name.of(path).data in ('bccd', 'coco-tiny')]
    demo = sorted((CONFIGS / 'demo').glob('*.py'))
    assert sorted([*TRIED, *TTA, *small, *demo]) == LEAVES
    assert {config_id(path) for path in TRIED} >= FAST
