"""Which differences of two configs are what kind."""

from __future__ import annotations

import pytest
from mmengine.config import Config
from work_dir_cases import A2, row_config

from balanced_det.reproduction.difference import differences, values_of_test, values_of_training


@pytest.fixture
def cfg():
    return row_config(A2['A2.4'])


def test_a_config_is_itself_after_a_round_trip_through_a_file(cfg, tmp_path):
    cfg.dump(tmp_path / 'config.py')
    assert differences(cfg, Config.fromfile(tmp_path / 'config.py', import_custom_modules=False)) == []


@pytest.mark.parametrize(
    ('key', 'value', 'kind'),
    [
        ('model.bbox_head.loss_cls.eta', 1.4, 'config'),
        ('model.backbone.depth', 101, 'config'),
        ('optim_wrapper.optimizer.weight_decay', 0.1, 'config'),
        ('model.bbox_head.num_classes', 3, 'data set'),
        ('train_dataloader.dataset.ann_file', 'other.json', 'data set'),
        ('test_dataloader.dataset.data_root', 'elsewhere/', 'data set'),
        ('train_dataloader.dataset.data_prefix.img', 'other/', 'data set'),
        ('train_cfg.max_epochs', 2, 'schedule'),
        ('param_scheduler.1.milestones', [1, 2], 'schedule'),
        ('train_dataloader.dataset.pipeline.2.scale', (320, 240), 'input'),
        ('model.backbone.init_cfg', None, 'initial weights'),
        ('model.backbone.frozen_stages', -1, 'initial weights'),
        ('train_dataloader.batch_size', 2, 'batch size'),
        ('optim_wrapper.optimizer.lr', 0.1, 'learning rate'),
        ('optim_wrapper.type', 'AmpOptimWrapper', 'precision'),
        ('auto_scale_lr.base_batch_size', 6, 'learning rate'),
        ('train_dataloader.dataset.filter_cfg.min_size', 0, 'data set'),
        ('train_dataloader.dataset.indices', 100, 'data set'),
        ('test_dataloader.dataset.indices', 10, 'data set'),
        ('test_dataloader.dataset.pipeline.1.scale', (320, 240), 'input'),
        ('train_dataloader.sampler.type', 'InfiniteSampler', 'schedule'),
        ('custom_hooks.0', dict(type='EMAHook'), 'hooks'),
        ('test_evaluator.proposal_nums', (1, 10, 100), 'evaluator'),
        ('test_evaluator.ann_file', 'other.json', 'data set'),
        ('model.test_cfg.score_thr', 0.5, 'score threshold'),
        ('model.test_cfg.nms.iou_threshold', 0.9, 'config'),
    ],
)
def test_kinds(cfg, key, value, kind):
    other = Config(cfg.to_dict())
    *parents, last = key.split('.')
    node = other
    for name in parents:
        node = node[int(name) if name.isdigit() else name]
    node[int(last) if last.isdigit() else last] = value
    assert {difference.kind for difference in differences(cfg, other)} == {kind}


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('work_dir', '/tmp/x'),
        ('launcher', 'pytorch'),
        ('load_from', 'x.pth'),
        ('train_dataloader.num_workers', 0),
        ('default_hooks.logger.interval', 1),
        ('train_cfg.val_interval', 3),
        ('auto_scale_lr.enable', True),
        ('test_evaluator.classwise', True),
        ('test_evaluator.outfile_prefix', 'x'),
    ],
)
def test_what_changes_nothing(cfg, key, value):
    other = Config(cfg.to_dict())
    other.merge_from_dict({key: value})
    assert differences(cfg, other) == []


def test_another_config_comes_first_and_both_values_are_named(cfg):
    other = Config(cfg.to_dict())
    other.train_cfg.max_epochs = 1
    other.model.bbox_head.loss_cls.eta = 1.4
    first = differences(cfg, other)[0]
    assert str(first) == 'another config: model.bbox_head.loss_cls.eta is 1.4 there, 1.5 here'


def test_what_tells_most_is_said_first(cfg):
    other = Config(cfg.to_dict())
    other.model.bbox_head.num_classes = 3
    other.train_dataloader.dataset.ann_file = 'x.json'
    assert differences(cfg, other)[0].key == 'train data'
    other = Config(cfg.to_dict())
    other.train_cfg = dict(type='IterBasedTrainLoop', max_iters=40)
    assert str(differences(cfg, other)[0]) == 'another schedule: train_cfg.max_epochs is missing there, 12 here'


def test_a_linked_folder_is_the_same_data(cfg, tmp_path):
    (tmp_path / 'data').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'data')
    other = Config(cfg.to_dict())
    cfg.train_dataloader.dataset.data_root = f'{tmp_path}/data/'
    other.train_dataloader.dataset.data_root = f'{tmp_path}/link/'
    assert differences(cfg, other) == []


def test_the_repetitions_of_a_set_are_part_of_the_schedule():
    cfg, other = (row_config('retinanet_r50_fpn_smooth-l1-1x_voc0712', 'iou_balanced/voc') for _ in range(2))
    other.train_dataloader.dataset.times = 1
    (found,) = differences(cfg, other)
    assert str(found) == 'another schedule: train data set.times is 1 there, 3 here'


def test_every_set_of_several_has_a_pipeline_of_its_own():
    cfg, other = (row_config('retinanet_r50_fpn_smooth-l1-1x_voc0712', 'iou_balanced/voc') for _ in range(2))
    second = other.train_dataloader.dataset.dataset.datasets[1]
    second.pipeline = [dict(transform) for transform in second.pipeline]
    second.pipeline[-2]['prob'] = 0.0
    assert {found.kind for found in differences(cfg, other)} == {'input'}


@pytest.mark.parametrize(
    ('key', 'of_training', 'of_test'),
    [
        ('train_cfg.max_epochs', True, False),
        ('model.backbone.frozen_stages', True, False),
        ('model.train_cfg.allowed_border', True, False),
        ('model.test_cfg.max_per_img', False, True),
        ('test_evaluator.metric', False, True),
        ('model.bbox_head.loss_cls.eta', True, True),
    ],
)
def test_training_and_test_each_depend_on_their_own(cfg, key, of_training, of_test):
    other = Config(cfg.to_dict())
    other.merge_from_dict({key: 9})
    assert bool(differences(cfg, other, values_of_training)) is of_training
    assert bool(differences(cfg, other, values_of_test)) is of_test
