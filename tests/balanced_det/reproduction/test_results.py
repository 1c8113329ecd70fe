"""What mmengine's files say, read from folders in their form."""

from __future__ import annotations

import pytest
from mmengine.config import Config
from work_dir_cases import A2, add_checkpoint, add_test, add_training, as_tested_with_tta, row_config

from balanced_det.reproduction.results import ResultError, WorkDir, final_checkpoint, in_percent


@pytest.fixture
def cfg():
    return row_config(A2['A2.1'])


def test_metrics_are_in_percent_with_the_names_of_the_papers():
    content = {
        'coco/bbox_mAP': 0.344,
        'coco/bbox_mAP_60': 0.492,
        'coco/bbox_mAP_85': 0.2,  # in no table
        'coco/bbox_mAP_s': -1.0,  # no small box in the set
        'coco/segm_mAP': 0.3,  # of masks
        'time': 0.3,
    }
    assert in_percent(content) == {'AP': 34.4, 'AP60': 49.2}
    assert in_percent({'pascal_voc/bbox_mAP_l': 0.048}) == {'APl': 4.8}


def test_an_empty_and_a_missing_folder(tmp_path):
    for folder in (tmp_path, tmp_path / 'none'):
        work_dir = WorkDir(folder)
        assert work_dir.sessions == work_dir.tests() == []
        assert work_dir.training is None
        assert work_dir.last_checkpoint is None


def test_a_finished_training_and_its_test(tmp_path, cfg):
    add_training(tmp_path, cfg, gpus=4)
    add_test(tmp_path, cfg)
    work_dir = WorkDir(tmp_path)
    assert work_dir.is_trained(cfg)
    assert (work_dir.training.processes, work_dir.training.training_images) == (4, 118287)
    assert work_dir.training.validations()[-1] == (12, {'AP': 12.0, 'AP50': 30.0})
    test = work_dir.test_of(tmp_path / 'epoch_12.pth')
    assert test.test_metrics() == {'AP': 35.0, 'AP50': 54.5, 'AP75': 37.2, 'APm': 39.0, 'APl': 48.1}
    assert work_dir.test_of(tmp_path / 'epoch_11.pth') is None


def test_a_test_does_not_count_for_what_was_trained_after_it(tmp_path, cfg):
    add_training(tmp_path, cfg, time='20261121_155718')
    add_test(tmp_path, cfg, time='20261122_100000')
    add_training(tmp_path, cfg, time='20261123_080000')
    assert WorkDir(tmp_path).test_of(tmp_path / 'epoch_12.pth') is None


def test_a_test_belongs_to_a_checkpoint_by_its_folder_and_by_its_kind(tmp_path, cfg):
    cfg.tta_model, cfg.tta_pipeline = dict(tta_cfg=dict(max_per_img=100)), []
    add_test(tmp_path, cfg, time='20261122_090000')
    add_test(tmp_path, as_tested_with_tta(cfg), time='20261122_100000', metrics={'mAP': 0.4})
    add_test(tmp_path, cfg, time='20261122_110000', of='elsewhere', metrics={'mAP': 0.5})
    work_dir, name = WorkDir(tmp_path), 'epoch_12.pth'
    assert work_dir.test_of(tmp_path / name).time == '20261122_090000'
    assert work_dir.test_of(tmp_path / name, tta=True).time == '20261122_100000'
    assert work_dir.test_of(tmp_path / 'elsewhere' / name).time == '20261122_110000'
    assert work_dir.test_of(tmp_path / 'elsewhere' / name, tta=True) is None


@pytest.mark.parametrize('content', ['', '{"coco/bbox', '[]'])
def test_a_test_whose_result_was_cut_off_is_none(tmp_path, cfg, content):
    add_training(tmp_path, cfg)
    add_test(tmp_path, cfg)
    (tmp_path / '20261122_100000' / '20261122_100000.json').write_text(content)
    assert WorkDir(tmp_path).test_of(tmp_path / 'epoch_12.pth') is None


def test_the_starts_of_one_training(tmp_path, cfg):
    """One was given up; one was interrupted and resumed twice, the last time without an iteration."""
    resumed = Config(dict(cfg, resume=True))
    add_training(tmp_path, cfg, time='20261120_080000', epochs=2)
    add_training(tmp_path, cfg, time='20261121_080000', epochs=4)
    add_training(tmp_path, resumed, time='20261122_080000', epochs=12)
    add_training(tmp_path, resumed, time='20261123_080000', epochs=0)
    assert [start.time for start in WorkDir(tmp_path).trainings] == ['20261121_080000', '20261122_080000']


@pytest.mark.parametrize(
    ('name', 'content', 'remedy'),
    [
        ('20261122_100000.json', '{', 'delete the folder {}/20261122_100000; the same command tests again'),
        ('vis_data/config.py', 'model = dict(', 'delete the folder {}/20261122_100000; the same command tests again'),
    ],
)
def test_a_broken_file_says_what_to_do(tmp_path, cfg, name, content, remedy):
    add_test(tmp_path, cfg)
    (tmp_path / '20261122_100000' / name).write_text(content)
    (problem,) = WorkDir(tmp_path).readable()[1]
    assert problem.endswith(remedy.format(tmp_path))


def test_a_start_that_trained_nothing_does_not_make_a_test_old(tmp_path, cfg):
    """mmengine's train.py on a finished training resumes and ends at once."""
    add_training(tmp_path, cfg)
    add_test(tmp_path, cfg)
    add_training(tmp_path, cfg, time='20261123_080000', epochs=0)
    assert WorkDir(tmp_path).test_of(tmp_path / 'epoch_12.pth')


def test_the_checkpoint_has_to_be_complete(tmp_path, cfg):
    (tmp_path / 'epoch_12.pth').touch()  # begun: mmengine names it when it is written
    assert not WorkDir(tmp_path).is_trained(cfg)
    add_checkpoint(tmp_path, 'epoch_11.pth')
    assert not WorkDir(tmp_path).is_trained(cfg)
    add_checkpoint(tmp_path, 'epoch_12.pth')
    assert WorkDir(tmp_path).is_trained(cfg)
    (tmp_path / 'epoch_12.pth').unlink()
    assert not WorkDir(tmp_path).is_trained(cfg)


def test_the_last_line_of_a_killed_training_is_dropped_but_no_other(tmp_path, cfg):
    add_training(tmp_path, cfg, epochs=2)
    scalars = tmp_path / '20261121_155718' / 'vis_data' / 'scalars.json'
    whole = scalars.read_text()
    scalars.write_text(f'{whole}{{"lr": 0.0')
    assert WorkDir(tmp_path).training.validations()[-1][0] == 2
    scalars.write_text(f'{{"lr": 0.0\n{whole}')
    with pytest.raises(ResultError, match=r'scalars.json, line 1 is not JSON'):
        WorkDir(tmp_path).training  # noqa: B018


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('20261122_100000.json', '{"coco/bbox', 'is not JSON'),
        ('20261122_100000.json', '[1, 2]', 'holds list'),
        ('vis_data/config.py', 'model = dict(', 'is not a config'),
        ('vis_data/config.py', 'x = 1', 'is no config of a detector'),
    ],
)
def test_broken_files_are_named_and_the_rest_is_read(tmp_path, cfg, name, content, message):
    add_training(tmp_path, cfg)
    add_test(tmp_path, cfg)
    add_test(tmp_path, cfg, time='20261121_200000', metrics={'mAP': 0.1})
    path = tmp_path / '20261122_100000' / name
    path.write_text(content)
    work_dir, problems = WorkDir(tmp_path).readable()
    assert len(problems) == 1
    assert str(path) in problems[0]
    assert message in problems[0]
    assert work_dir.test_of(tmp_path / 'epoch_12.pth').test_metrics() == {'AP': 10.0}


def test_final_checkpoint_of_epochs_and_of_iterations(cfg):
    assert final_checkpoint(cfg) == 'epoch_12.pth'
    assert final_checkpoint(Config(dict(train_cfg=dict(max_iters=80000)))) == 'iter_80000.pth'
