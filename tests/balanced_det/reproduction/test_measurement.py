"""What is said of the results in a work directory; the folders have the form of mmengine's."""

from __future__ import annotations

import pytest
from mmengine.config import Config
from work_dir_cases import A2, METRICS, add_test, add_training, as_tested_with_tta, row_config

from balanced_det import papers
from balanced_det.reproduction.measurement import Measurement, Reading, measure
from balanced_det.reproduction.trial import Trial, apply
from balanced_det.reproduction.trial_data import Splits

VALUES = {'AP': 35.0, 'AP50': 54.5, 'AP75': 37.2, 'APm': 39.0, 'APl': 48.1}  # METRICS, -1 and AP85 left out


(ROW,) = papers.find(['A2.4'])


@pytest.fixture
def folder(tmp_path):
    """The work directory of the row."""
    return tmp_path / A2['A2.4']


@pytest.fixture
def read(tmp_path):
    """What is read of the row."""
    return lambda: measure(ROW, tmp_path)


@pytest.fixture
def run():
    """The config as it ran: a copy, with what mmdet's train.py adds."""
    copied = row_config(A2['A2.4'])
    copied.auto_scale_lr.enable = True
    return copied


def test_a_full_training_with_its_test(folder, read, run):
    add_training(folder, run)
    add_test(folder, run)
    assert read() == Reading(Measurement(VALUES, ('batch 2 x 6',), True), '', ())


def test_no_training(read):
    assert read() == Reading(None, 'not trained', ())


@pytest.mark.parametrize(
    ('gpus', 'said'), [(1, 'batch 1 x 6 in place of 12, lr x 0.5'), (8, 'batch 8 x 6 in place of 12, lr x 4')]
)
def test_other_numbers_of_gpus(folder, read, run, gpus, said):
    add_training(folder, run, gpus=gpus)
    add_test(folder, run)
    assert read().measurement == Measurement(VALUES, (said,), True)
    run.auto_scale_lr.enable = False
    for path in folder.glob('*/vis_data/config.py'):
        path.write_text(path.read_text().replace("'enable': True", "'enable': False"))
    found = read().measurement
    assert found.marks[0].endswith('in place of 12, lr not scaled')
    assert not found.comparable


def test_the_last_validation_where_there_is_no_test(folder, read, run):
    add_training(folder, run, epochs=5)
    found = read().measurement
    assert found.values == {'AP': 5.0, 'AP50': 30.0}
    assert found.marks[0] == 'last validation, after 5 of 12 epochs: no test'
    assert not found.comparable


def test_a_test_of_another_checkpoint(folder, read, run):
    add_training(folder, run, epochs=8)
    add_test(folder, run, 'epoch_8.pth')
    found = read().measurement
    assert found.marks[0] == 'test of epoch_8.pth, of 12 epochs'
    assert not found.comparable


def test_a_test_that_found_no_box(folder, read, run):
    add_training(folder, run)
    add_test(folder, run, metrics={})
    found = read().measurement
    assert (found.values, found.marks[0], found.comparable) == ({}, 'tested, no box detected', False)


@pytest.mark.parametrize(
    ('epochs', 'remark'),
    [(0, 'training begun, no checkpoint'), (1, 'trained up to epoch_1, not tested'), (12, 'trained, not tested')],
)
def test_a_training_without_any_result(folder, read, run, epochs, remark):
    add_training(folder, run, epochs=epochs)
    scalars = folder / '20261121_155718' / 'vis_data' / 'scalars.json'
    scalars.write_text('{"loss": 1.78, "step": 50}\n')
    assert read() == Reading(None, remark, ())


def test_a_trial_is_marked_in_full(tmp_path, folder, read, run):
    splits = Splits(
        tmp_path / 'bccd',
        dict.fromkeys(('train', 'val', 'test'), tmp_path / 'x.json'),
        {'train': dict(images=[{}] * 205, categories=[dict(id=0, name='RBC')], annotations=[])},
        dict.fromkeys(('train', 'val', 'test'), tmp_path / 'bccd'),
    )
    trial = Trial(tmp_path / 'bccd', max_epochs=2, scale=(320, 240), batch_size=2, from_scratch=True)
    run = apply(run, trial.settings(run, splits))
    add_training(folder, run, epochs=2, gpus=1, images=205)
    add_test(folder, run, 'epoch_2.pth')
    assert read().measurement == Measurement(
        VALUES,
        (
            'another data set: bccd',
            'shortened: 2 of 12 epochs',
            'input 320 x 240',
            'from scratch',
            'tested with scores from 0.001',
            'batch 1 x 2 in place of 12, lr x 0.167',
        ),
        False,
    )


def test_iterations_in_place_of_epochs(folder, read, run):
    run = apply(run, Trial(max_iters=40).settings(run, None))
    add_training(folder, run, epochs=40)
    add_test(folder, run, 'iter_40.pth')
    assert 'shortened: 40 iterations in place of 12 epochs' in read().measurement.marks


def move_data(run, root):
    """What --cfg-options train_dataloader.dataset.data_root=/ssd/coco/ ... does."""
    for loader in (run.train_dataloader, run.val_dataloader, run.test_dataloader):
        loader.dataset.data_root = root


def test_data_in_another_place_are_known_by_their_number(folder, read, run):
    move_data(run, '/ssd/coco/')
    add_training(folder, run)
    add_test(folder, run)
    assert read().measurement == Measurement(VALUES, ('batch 2 x 6',), True)


@pytest.mark.parametrize('images', [80, 2975])  # COCO-tiny, and as many as Cityscapes has
def test_as_many_images_as_another_set_are_another_set(folder, read, run, images):
    move_data(run, '/ssd/coco/')
    add_training(folder, run, images=images)
    add_test(folder, run)
    found = read().measurement
    assert found.marks[0] == 'another data set: coco'
    assert not found.comparable


@pytest.mark.parametrize(('ann_file', 'images'), [('', 80), ('annotations/instances_other.json', 5000)])
def test_the_number_of_training_images_says_nothing_of_the_test(folder, read, run, ann_file, images):
    add_training(folder, run)
    run.test_dataloader.dataset.data_root = '/ssd/coco_tiny/'
    run.test_dataloader.dataset.ann_file = ann_file or run.test_dataloader.dataset.ann_file
    add_test(folder, run, images=images)
    assert read().measurement == Measurement(VALUES, ('tested with another data set: coco_tiny', 'batch 2 x 6'), False)


def test_results_of_another_config_are_named_and_left_out(folder, read):
    other = row_config(A2['A2.2'])
    add_training(folder, other)
    add_test(folder, other)
    found = read()
    said = 'holds the results of another config: model.bbox_head.loss_bbox.'
    assert found.measurement is None
    assert found.remark.startswith(f'left out: {said}')
    (problem,) = found.problems
    assert problem.startswith(f'{folder} {said}')


def test_mixed_precision_is_said_and_harmless(folder, read, run):
    run.optim_wrapper.type, run.optim_wrapper.loss_scale = 'AmpOptimWrapper', 'dynamic'
    add_training(folder, run)
    add_test(folder, run)
    assert read().measurement == Measurement(VALUES, ('batch 2 x 6', 'mixed precision'), True)


def test_a_broken_result_does_not_hide_an_older_one(folder, read, run):
    add_training(folder, run)
    add_test(folder, run, time='20261122_090000', metrics=dict(METRICS, mAP=0.1))
    add_test(folder, run, time='20261122_100000')
    (folder / '20261122_100000' / '20261122_100000.json').write_text('{')
    found = read()
    assert found.measurement.values['AP'] == 10.0
    (problem,) = found.problems
    assert problem.startswith(f'{folder}/20261122_100000/20261122_100000.json is not JSON')


# ---- the test's own config


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        ({'model.test_cfg.score_thr': 0.5}, 'scores from 0.5'),
        (
            {'model.test_cfg.nms.iou_threshold': 0.9},
            'another config: model.test_cfg.nms.iou_threshold is 0.9 there, 0.5 here',
        ),
        (
            {'model.bbox_head.loss_cls.eta': 9.0},
            'another config: model.bbox_head.loss_cls.eta is 9.0 there, 1.5 here',
        ),
        ({'test_dataloader.dataset.ann_file': 'annotations/x.json'}, 'another data set: coco'),
        ({'test_evaluator.ann_file': 'data/coco/annotations/x.json'}, 'another data set: coco'),
        ({'test_dataloader.dataset.indices': 10}, 'another data set: test data set.indices is 10 there, missing here'),
        ({'test_dataloader.dataset.pipeline.1.scale': (2000, 1200)}, 'input 2000 x 1200'),
        (
            {'test_evaluator.proposal_nums': (1, 10, 100)},
            'another evaluator: test_evaluator.proposal_nums is [1, 10, 100] there, missing here',
        ),
    ],
)
def test_a_test_with_other_settings_is_marked(folder, read, run, changes, said):
    add_training(folder, run)
    run.merge_from_dict(changes)
    add_test(folder, run)
    assert read().measurement == Measurement(VALUES, (f'tested with {said}', 'batch 2 x 6'), False)


def test_a_test_without_a_training_of_another_config_is_left_out(folder, read, run):
    run.model.bbox_head.loss_cls.eta = 9.0
    add_test(folder, run)
    found = read()
    assert found.measurement is None
    assert found.remark.startswith('left out: holds the results of another config: model.bbox_head.loss_cls.eta')


def test_a_checkpoint_of_another_folder(folder, read, run):
    add_training(folder, run)
    add_test(folder, run, of='elsewhere')
    assert read().measurement == Measurement(VALUES, ('test of elsewhere/epoch_12.pth', 'batch 2 x 6'), False)


def test_a_test_with_augmentation_of_a_row_without(folder, read, run):
    add_training(folder, run)
    run.tta_model = dict(type='DetTTAModel', tta_cfg=dict(max_per_img=100))
    run.tta_pipeline = []
    add_test(folder, as_tested_with_tta(run))
    marks = ('tested with test-time augmentation', 'batch 2 x 6')
    assert read().measurement == Measurement(VALUES, marks, False)
    add_test(folder, run, time='20261122_090000', metrics={'mAP': 0.3})  # a plain one counts, though it is older
    assert read().measurement == Measurement({'AP': 30.0}, ('batch 2 x 6',), True)


# ---- the training's


@pytest.mark.parametrize(
    ('changes', 'said'),
    [
        ({'custom_hooks': [dict(type='DataCheckHook'), dict(type='EMAHook')]}, 'other hooks: custom_hooks.1.type'),
        ({'train_dataloader.dataset.indices': 100}, 'another data set: train data set.indices is 100 there'),
        ({'train_dataloader.dataset.filter_cfg': None}, 'another data set: train data set.filter_cfg'),
        ({'train_dataloader.sampler.shuffle': False}, 'another schedule: train_dataloader.sampler.shuffle is False'),
        ({'auto_scale_lr.base_batch_size': 6}, 'another learning rate: auto_scale_lr.base_batch_size is 6 there'),
    ],
)
def test_a_training_with_other_settings_is_marked(folder, read, run, changes, said):
    whole = Config(run.to_dict())
    run.merge_from_dict(changes)
    add_training(folder, run)
    add_test(folder, whole)
    found = read().measurement
    assert found.marks[0].startswith(said)
    assert len(found.marks) == 2
    assert not found.comparable


def test_a_training_that_began_with_other_settings_is_marked(folder, read, run):
    first = Config(run.to_dict())
    first.train_dataloader.dataset.indices = 100
    add_training(folder, first, time='20261120_080000', epochs=2)
    add_training(folder, Config(dict(run, resume=True)))
    add_test(folder, run)
    assert read().measurement.marks[0].startswith('another data set: train data set.indices')


def test_a_training_resumed_on_other_gpus(folder, read, run):
    add_training(folder, run, time='20261120_080000', epochs=2, gpus=4)
    add_training(folder, Config(dict(run, resume=True)))
    add_test(folder, run)
    said = 'trained on different numbers of GPUs: batch 4 x 6, 2 x 6'
    assert read().measurement == Measurement(VALUES, (said,), False)


def test_a_log_that_does_not_name_the_gpus(folder, read, run):
    add_training(folder, run)
    add_test(folder, run)
    log = folder / '20261121_155718' / '20261121_155718.log'
    log.write_text(log.read_text().replace('GPU number: 2', ''))
    said = 'trained on an unknown number of GPUs, 6 images each'
    assert read().measurement == Measurement(VALUES, (said,), False)
