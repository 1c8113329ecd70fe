"""What is said of a multi-scale test, which has a config and a folder beside those of its training."""

from __future__ import annotations

import pytest
from work_dir_cases import add_test, add_training, as_tested_with_tta, row_config

from balanced_det import papers
from balanced_det.reproduction.measurement import Measurement, Reading, measure

VALUES = {'AP': 35.0, 'AP50': 54.5, 'AP75': 37.2, 'APm': 39.0, 'APl': 48.1}  # METRICS, -1 and AP85 left out
TTA = 'mask-rcnn_x101-32x8d_fpn_harmonic-1x-tta_coco'
PLAIN = TTA.replace('-tta', '')


@pytest.fixture
def read_tta(tmp_path):
    (row,) = papers.find(['B2.24'])
    return lambda: measure(row, tmp_path)


@pytest.fixture
def tta_run():
    return as_tested_with_tta(row_config(TTA, 'harmonic/coco'))


@pytest.mark.parametrize(('trained', 'batch'), [(True, 'batch 8 x 2'), (False, 'trained elsewhere')])
def test_a_multi_scale_test_in_a_folder_of_its_own(tmp_path, read_tta, tta_run, trained, batch):
    add_test(tmp_path / TTA, tta_run, of=PLAIN)
    if trained:
        add_training(tmp_path / PLAIN, row_config(PLAIN, 'harmonic/coco'), gpus=8)
    assert read_tta() == Reading(Measurement(VALUES, (batch,), trained), '', ())


def test_a_multi_scale_test_with_other_scales_or_none(tmp_path, read_tta, tta_run):
    add_training(tmp_path / PLAIN, row_config(PLAIN, 'harmonic/coco'), gpus=8)
    add_test(tmp_path / TTA, row_config(TTA, 'harmonic/coco'), of=PLAIN)  # without --tta
    assert read_tta().measurement == Measurement(
        VALUES, ('tested without test-time augmentation', 'batch 8 x 2'), False
    )
    del tta_run.test_dataloader.dataset.pipeline[-1].transforms[0][1:]  # one scale of three
    add_test(tmp_path / TTA, tta_run, of=PLAIN, time='20261122_110000')
    found = read_tta().measurement
    assert found.marks[0].startswith('tested with another input: test pipeline.0.1.transforms.0')
    assert not found.comparable


def test_a_multi_scale_test_of_what_was_trained_otherwise_or_anew(tmp_path, read_tta, tta_run):
    plain = row_config(PLAIN, 'harmonic/coco')
    add_test(tmp_path / TTA, tta_run, of=PLAIN)
    add_training(tmp_path / PLAIN, plain, gpus=8, time='20261123_080000')
    assert read_tta() == Reading(None, 'trained, not tested', ())
    plain.model.roi_head.mask_head.num_convs = 1
    add_training(tmp_path / PLAIN, plain, gpus=8, time='20261124_080000')
    assert read_tta().remark.startswith('left out: holds the results of another config: model.roi_head.mask_head')
