"""What is said of the results in a work directory; the folders have the form of mmengine's."""

from __future__ import annotations

import pytest
from work_dir_cases import A2, METRICS, add_test, add_training, row_config

from balanced_det.reproduction.measurement import Measurement, measure
from balanced_det.reproduction.trial import Trial, apply
from balanced_det.reproduction.trial_data import Splits

VALUES = {'AP': 35.0, 'AP50': 54.5, 'AP75': 37.2, 'APm': 39.0, 'APl': 48.1}  # METRICS, -1 and AP85 left out


@pytest.fixture
def cfg():
    return row_config(A2['A2.4'])


@pytest.fixture
def run(cfg):
    """The config as it ran: a copy, with what mmdet's train.py adds."""
    copied = row_config(A2['A2.4'])
    copied.auto_scale_lr.enable = True
    return copied


def test_a_full_training_with_its_test(tmp_path, cfg, run):
    add_training(tmp_path, run)
    add_test(tmp_path, run)
    assert measure(tmp_path, cfg, 'coco') == (Measurement(VALUES, ('batch 2 x 6',), True), [])


def test_no_training(tmp_path, cfg):
    assert measure(tmp_path, cfg, 'coco') == (None, [])


@pytest.mark.parametrize(
    ('gpus', 'said'), [(1, 'batch 1 x 6 in place of 12, lr x 0.5'), (8, 'batch 8 x 6 in place of 12, lr x 4')]
)
def test_other_numbers_of_gpus(tmp_path, cfg, run, gpus, said):
    add_training(tmp_path, run, gpus=gpus)
    add_test(tmp_path, run)
    assert measure(tmp_path, cfg, 'coco')[0] == Measurement(VALUES, (said,), True)
    run.auto_scale_lr.enable = False
    for path in tmp_path.glob('*/vis_data/config.py'):
        path.write_text(path.read_text().replace("'enable': True", "'enable': False"))
    found, _ = measure(tmp_path, cfg, 'coco')
    assert found.marks[0].endswith('in place of 12, lr not scaled')
    assert not found.comparable


def test_the_last_validation_where_there_is_no_test(tmp_path, cfg, run):
    add_training(tmp_path, run, epochs=5)
    found, _ = measure(tmp_path, cfg, 'coco')
    assert found.values == {'AP': 5.0, 'AP50': 30.0}
    assert found.marks[0] == 'last validation, after 5 of 12 epochs: no test'
    assert not found.comparable


def test_a_test_of_another_checkpoint(tmp_path, cfg, run):
    add_training(tmp_path, run, epochs=8)
    add_test(tmp_path, run, 'epoch_8.pth')
    found, _ = measure(tmp_path, cfg, 'coco')
    assert found.marks[0] == 'test of epoch_8.pth, of 12 epochs'
    assert not found.comparable


def test_a_test_that_found_no_box(tmp_path, cfg, run):
    add_training(tmp_path, run)
    add_test(tmp_path, run, metrics={})
    found, _ = measure(tmp_path, cfg, 'coco')
    assert (found.values, found.marks[0], found.comparable) == ({}, 'tested, no box detected', False)


def test_a_training_without_any_result(tmp_path, cfg, run):
    add_training(tmp_path, run, epochs=1)
    scalars = tmp_path / '20261121_155718' / 'vis_data' / 'scalars.json'
    scalars.write_text(scalars.read_text().splitlines()[0] + '\n')
    assert measure(tmp_path, cfg, 'coco') == (
        None,
        [f'{tmp_path}: trained up to epoch_1, neither tested nor validated'],
    )


def test_a_trial_is_marked_in_full(tmp_path, cfg, run):
    splits = Splits(
        tmp_path / 'bccd',
        dict.fromkeys(('train', 'val', 'test'), tmp_path / 'x.json'),
        {'train': dict(images=[{}] * 205, categories=[dict(id=0, name='RBC')], annotations=[])},
        dict.fromkeys(('train', 'val', 'test'), tmp_path / 'bccd'),
    )
    trial = Trial(tmp_path / 'bccd', max_epochs=2, scale=(320, 240), batch_size=2, from_scratch=True)
    run = apply(run, trial.settings(run, splits))
    add_training(tmp_path, run, epochs=2, gpus=1, images=205)
    add_test(tmp_path, run, 'epoch_2.pth')
    assert measure(tmp_path, cfg, 'coco')[0] == Measurement(
        VALUES,
        (
            'another data set: bccd',
            'shortened: 2 of 12 epochs',
            'input 320 x 240',
            'from scratch',
            'batch 1 x 2 in place of 12, lr x 0.167',
        ),
        False,
    )


def test_iterations_in_place_of_epochs(tmp_path, cfg, run):
    run = apply(run, Trial(max_iters=40).settings(run, None))
    add_training(tmp_path, run, epochs=40)
    add_test(tmp_path, run, 'iter_40.pth')
    assert 'shortened: 40 iterations in place of 12 epochs' in measure(tmp_path, cfg, 'coco')[0].marks


def test_data_in_another_place_are_known_by_their_number(tmp_path, cfg, run):
    """A training started with --cfg-options train_dataloader.dataset.data_root=/ssd/coco/ ..."""
    for loader in (run.train_dataloader, run.val_dataloader, run.test_dataloader):
        loader.dataset.data_root = '/ssd/coco/'
    add_training(tmp_path / 'a', run)
    add_test(tmp_path / 'a', run)
    assert measure(tmp_path / 'a', cfg, 'coco')[0] == Measurement(VALUES, ('batch 2 x 6',), True)
    for number, images in enumerate((80, 2975)):  # COCO-tiny, and as many as Cityscapes has
        add_training(tmp_path / str(number), run, images=images)
        add_test(tmp_path / str(number), run)
        found, _ = measure(tmp_path / str(number), cfg, 'coco')
        assert found.marks[0] == 'another data set: coco'
        assert not found.comparable


def test_results_of_another_config_are_named_and_left_out(tmp_path, cfg):
    other = row_config(A2['A2.2'])
    add_training(tmp_path, other)
    add_test(tmp_path, other)
    found, problems = measure(tmp_path, cfg, 'coco')
    assert found is None
    assert len(problems) == 1
    assert problems[0].startswith(f'{tmp_path} holds the results of another config: model.bbox_head.loss_bbox.')


def test_mixed_precision_is_said_and_harmless(tmp_path, cfg, run):
    run.optim_wrapper.type, run.optim_wrapper.loss_scale = 'AmpOptimWrapper', 'dynamic'
    add_training(tmp_path, run)
    add_test(tmp_path, run)
    assert measure(tmp_path, cfg, 'coco')[0] == Measurement(VALUES, ('batch 2 x 6', 'mixed precision'), True)


def test_a_broken_result_does_not_hide_an_older_one(tmp_path, cfg, run):
    add_training(tmp_path, run)
    add_test(tmp_path, run, time='20261122_090000', metrics=dict(METRICS, mAP=0.1))
    add_test(tmp_path, run, time='20261122_100000')
    (tmp_path / '20261122_100000' / '20261122_100000.json').write_text('{')
    found, problems = measure(tmp_path, cfg, 'coco')
    assert found.values['AP'] == 10.0
    assert [problem.split(' is')[0] for problem in problems] == [f'{tmp_path}/20261122_100000/20261122_100000.json']


@pytest.mark.parametrize('trained', [True, False])
def test_a_multi_scale_test_in_a_folder_of_its_own(tmp_path, trained):
    stem = 'mask-rcnn_x101-32x8d_fpn_harmonic-1x-tta_coco'
    cfg, run, plain = (row_config(stem, 'harmonic/coco') for _ in range(3))
    # What mmdet's test.py --tta does.
    run.model = dict(type='DetTTAModel', tta_cfg=dict(max_per_img=100), module=run.model)
    run.test_dataloader.dataset.pipeline = run.tta_pipeline
    add_test(tmp_path / stem, run, of='plain')
    if trained:
        add_training(tmp_path / 'plain', plain, gpus=8)
    batch = 'batch 8 x 2' if trained else 'trained elsewhere'
    assert measure(tmp_path / stem, cfg, 'coco') == (Measurement(VALUES, (batch,), trained), [])
