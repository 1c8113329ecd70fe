"""Trials: what is set in a row's config for other data and a short schedule."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mmengine.config import Config
from work_dir_cases import A2, ROOT, row_config

from balanced_det.preflight import walk
from balanced_det.reproduction.difference import differences
from balanced_det.reproduction.trial import Trial, apply, config_text
from balanced_det.reproduction.trial_data import TrialError, find_splits

CONFIGS = ROOT / 'configs'


@pytest.fixture
def cfg():
    return row_config(A2['A2.4'])


@pytest.fixture
def coco_set(tmp_path) -> Path:
    """Three images for training and one to validate, of the classes b and a, in the layout of COCO."""
    root = tmp_path / 'mine'
    (root / 'annotations').mkdir(parents=True)
    categories = [dict(id=2, name='a'), dict(id=1, name='b')]
    for part, count in (('train', 3), ('val', 1)):
        images = [dict(id=i, file_name=f'{i}.jpg', width=64, height=48) for i in range(count)]
        annotations = [dict(id=1, image_id=0, category_id=1, bbox=[1, 2, 30, 20], area=600, iscrowd=0)]
        (root / f'{part}2017').mkdir()
        (root / f'{part}2017' / '0.jpg').touch()
        content = dict(images=images, annotations=annotations, categories=categories)
        (root / 'annotations' / f'instances_{part}2017.json').write_text(json.dumps(content))
    return root


def test_nothing_asked_changes_nothing(cfg):
    assert not Trial()
    assert Trial().settings(cfg, None) == {'trial': {}}


def test_the_file_of_a_trial_says_the_same_as_the_settings(cfg, coco_set, tmp_path):
    base = CONFIGS / 'iou_balanced' / 'coco' / f'{A2["A2.4"]}.py'
    trial = Trial(coco_set, max_iters=40, scale=(320, 240), batch_size=2, from_scratch=True)
    settings = trial.settings(cfg, find_splits(coco_set, tmp_path))
    path = tmp_path / 'trial.py'
    path.write_text(config_text(base, settings))
    written = Config.fromfile(path, import_custom_modules=False)
    assert differences(apply(cfg, settings), written) == []
    assert written.trial == dict(
        data_root=str(coco_set), data='mine', max_iters=40, scale=(320, 240), batch_size=2, from_scratch=True
    )
    assert written.model.bbox_head.loss_cls.eta == 1.5  # the row's
    assert written.model.bbox_head.num_classes == 2
    assert written.train_dataloader.dataset.metainfo.classes == ('b', 'a')  # in the order of the ids
    assert written.train_dataloader.dataset.ann_file == f'{coco_set}/annotations/instances_train2017.json'
    assert written.test_dataloader.dataset.data_prefix.img == f'{coco_set}/val2017/'
    assert written.test_evaluator.ann_file == f'{coco_set}/annotations/instances_val2017.json'
    assert written.train_dataloader.dataset.pipeline[2].scale == (320, 240)
    assert written.train_dataloader.batch_size == 2
    assert written.model.backbone.init_cfg is None
    assert (written.model.backbone.frozen_stages, written.model.backbone.norm_eval) == (-1, False)
    assert written.model.test_cfg.score_thr == 0.001


def test_fewer_epochs_keep_the_shape_of_the_schedule(cfg):
    """Twelve epochs with steps after 8 and 11; of six images in batches of two there are three iterations an epoch."""
    cfg.train_dataloader.batch_size = 2
    settings = Trial(max_epochs=3).schedule(cfg, images=6)
    assert settings['train_cfg.max_epochs'] == 3
    warm_up, steps = settings['param_scheduler']
    assert (steps['milestones'], steps['end']) == ([2, 3], 3)
    assert warm_up['end'] == 1  # a tenth of nine iterations, at least one
    assert settings['default_hooks.logger.interval'] == 1


def test_the_warm_up_is_a_tenth_of_the_iterations_of_all_processes(cfg):
    """A hundred images in four batches of six at a time: 4 iterations an epoch, 12 in all."""
    assert Trial(max_epochs=3).schedule(cfg, images=100, processes=4)['param_scheduler'][0]['end'] == 1
    assert Trial(max_epochs=3).schedule(cfg, images=1000, processes=1)['param_scheduler'][0]['end'] == 49


def test_the_warm_up_on_the_data_of_the_row_keeps_its_share(cfg):
    """500 iterations of twelve epochs: 125 of three."""
    warm_up, _ = Trial(max_epochs=3).schedule(cfg, images=None)['param_scheduler']
    assert (warm_up['end'], warm_up['by_epoch']) == (125, False)


def test_iterations_in_place_of_epochs(cfg):
    short = apply(cfg, Trial(max_iters=120).settings(cfg, None))
    assert short.train_cfg == dict(type='IterBasedTrainLoop', max_iters=120, val_begin=121)
    warm_up, steps = short.param_scheduler
    assert (warm_up['end'], warm_up['by_epoch']) == (12, False)
    assert (steps['milestones'], steps['end'], steps['by_epoch']) == ([80, 110], 120, False)
    assert short.default_hooks.checkpoint.interval == 24
    assert short.default_hooks.checkpoint.max_keep_ckpts == 2
    assert not short.log_processor.by_epoch


def test_epochs_of_a_config_that_counts_iterations():
    cfg = Config(dict(train_cfg=dict(max_iters=80000), param_scheduler=[]))
    with pytest.raises(TrialError, match=r'counts iterations \(80000\): give --max-iters'):
        Trial(max_epochs=1).schedule(cfg, None)


def test_an_iteration_schedule_is_shortened_in_proportion():
    scheduler = [
        dict(type='LinearLR', by_epoch=False, begin=0, end=500),
        dict(type='MultiStepLR', by_epoch=False, begin=0, end=80000, milestones=[60000, 70000]),
    ]
    cfg = Config(dict(train_cfg=dict(max_iters=80000), param_scheduler=scheduler))
    short = Trial(max_iters=80).schedule(cfg, None)['param_scheduler']
    assert short[0]['end'] == 8
    assert (short[1]['milestones'], short[1]['end']) == ([60, 70], 80)


def test_another_input_for_a_fixed_one_is_refused():
    cfg = row_config('ssd300_coco')
    with pytest.raises(TrialError, match=r'fixed, 300 x 300 pixels; its anchors belong to that size'):
        Trial(scale=(320, 240)).settings(cfg, None)


def test_from_scratch_drops_every_pretrained_weight_and_the_checkpoint():
    cfg = row_config('retinanet_r50_fpn_iou-balanced-1x_cityscapes', 'iou_balanced/cityscapes')
    assert cfg.load_from
    cfg = apply(cfg, Trial(from_scratch=True).settings(cfg, None))
    assert cfg.load_from is None
    assert not [key for key, node in walk(cfg.model, 'model') if node.get('type') == 'Pretrained']


def test_repeated_voc_data_stay_repeated(coco_set, tmp_path):
    cfg = row_config('retinanet_r50_fpn_iou-balanced-1x_voc0712', 'iou_balanced/voc')
    times = cfg.train_dataloader.dataset.times
    cfg = apply(cfg, Trial(coco_set).settings(cfg, find_splits(coco_set, tmp_path)))
    assert times > 1
    assert (cfg.train_dataloader.dataset.type, cfg.train_dataloader.dataset.times) == ('RepeatDataset', times)
    assert cfg.train_dataloader.dataset.dataset.type == 'CocoDataset'
    assert cfg.test_evaluator.type == 'LocalizationCocoMetric'


def test_classes_of_both_heads_of_a_mask_rcnn_but_not_of_the_proposals(coco_set, tmp_path):
    cfg = row_config('mask-rcnn_r50_fpn_harmonic-1x_coco', 'harmonic/coco')
    splits = find_splits(coco_set, tmp_path)
    with pytest.raises(TrialError, match=f'learns masks, and {coco_set} has none'):
        Trial(coco_set).settings(cfg, splits)
    for annotation in splits.contents['train']['annotations']:
        annotation['segmentation'] = [[1, 2, 31, 2, 31, 22]]
    cfg = apply(cfg, Trial(coco_set).settings(cfg, splits))
    counts = {key: node.num_classes for key, node in walk(cfg.model, 'model') if 'num_classes' in node}
    assert counts == {'model.roi_head.bbox_head': 2, 'model.roi_head.mask_head': 2}
    assert cfg.test_evaluator.metric == ['bbox', 'segm']


def test_one_class_of_objects_stays_one(coco_set, tmp_path):
    """RefineDet's first stage tells objects from background."""
    cfg = row_config('refinedet320_r101_harmonic_coco', 'harmonic/coco')
    cfg = apply(cfg, Trial(coco_set).settings(cfg, find_splits(coco_set, tmp_path)))
    counts = [node.num_classes for _, node in walk(cfg.model, 'model') if 'num_classes' in node]
    assert sorted(counts) == [1, 2]


def test_the_sizes_of_a_multi_scale_test_are_scaled():
    cfg = row_config('mask-rcnn_x101-32x8d_fpn_harmonic-1x-tta_coco', 'harmonic/coco')
    before = [node.scale for _, node in walk(cfg.tta_pipeline, '') if node.get('type') == 'Resize']
    cfg = apply(cfg, Trial(scale=(667, 400)).settings(cfg, None))
    after = [node.scale for _, node in walk(cfg.tta_pipeline, '') if node.get('type') == 'Resize']
    assert len(before) > 1
    assert after == [(round(w * 667 / 1333), round(h / 2)) for w, h in before]


def test_voc_layout_is_converted(shared_data, tmp_path):
    splits = find_splits(shared_data / 'bccd', tmp_path)
    assert splits.classes == ('Platelets', 'RBC', 'WBC')
    assert {part: len(content['images']) for part, content in splits.contents.items()} == {
        part: len((shared_data / 'bccd' / 'ImageSets' / 'Main' / f'{part}.txt').read_text().split())
        for part in ('train', 'val', 'test')
    }
    assert splits.annotations['test'] == tmp_path / 'test.json'
    first = splits.contents['train']['images'][0]['file_name']
    assert (splits.images['train'] / first).is_file()
    assert not list(tmp_path.iterdir())


def test_folders_without_a_layout(tmp_path):
    (tmp_path / 'JPEGImages').mkdir()
    with pytest.raises(TrialError, match=r'neither the layout of COCO .* it has: JPEGImages'):
        find_splits(tmp_path, tmp_path)
    with pytest.raises(TrialError, match='no such folder'):
        find_splits(tmp_path / 'none', tmp_path)


@pytest.mark.parametrize(
    ('file', 'content', 'message'),
    [
        ('instances_train2017.json', '{', 'is not JSON'),
        ('instances_train2017.json', '{"images": []}', 'lacks annotations, categories'),
        ('instances_val2017.json', None, 'has no val set; it has: train'),
        ('instances_train2017.json', '{"images": [], "annotations": [], "categories": []}', 'names no image'),
    ],
)
def test_incomplete_coco_sets(coco_set, tmp_path, file, content, message):
    path = coco_set / 'annotations' / file
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(TrialError, match=message):
        find_splits(coco_set, tmp_path)


def test_images_that_are_nowhere(coco_set, tmp_path):
    (coco_set / 'val2017' / '0.jpg').unlink()
    (coco_set / 'train2017' / '0.jpg').unlink()
    with pytest.raises(TrialError, match=r'names the image 0\.jpg, which is in no folder'):
        find_splits(coco_set, tmp_path)
