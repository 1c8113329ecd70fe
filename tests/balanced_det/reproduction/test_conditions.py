"""What a row asks for beside its losses: the checkpoint to begin from, the images of an iteration."""

from __future__ import annotations

import pytest
from work_dir_cases import add_checkpoint, add_test, add_training, row_config

from balanced_det import papers
from balanced_det.reproduction.measurement import measure

STEM = 'retinanet_r50_fpn_iou-balanced-1x_cityscapes'
COCO = 'retinanet_r50_fpn_iou-balanced-1x_coco'
(ROW,) = papers.find(['A6.3'])


@pytest.mark.parametrize(
    ('load_from', 'mark'),
    [
        (f'/elsewhere/work_dirs/{COCO}/epoch_12.pth', ''),
        (f'work_dirs/{COCO}/epoch_11.pth', 'other initial weights'),
        ('work_dirs/retinanet_r50_fpn_smooth-l1-1x_coco/epoch_12.pth', 'other initial weights'),
        (None, 'from scratch'),
    ],
)
def test_the_checkpoint_that_a_training_began_from(tmp_path, load_from, mark):
    run = row_config(STEM, 'iou_balanced/cityscapes')
    run.load_from = load_from
    add_training(tmp_path / STEM, run, epochs=5, gpus=8, images=2975)
    run.update(resume=True, load_from=None)  # mmdet drops it where it resumes
    add_training(tmp_path / STEM, run, time='20261121_200000', epochs=8, gpus=8, images=2975)
    add_test(tmp_path / STEM, run, 'epoch_8.pth', images=500)
    found = measure(ROW, tmp_path).measurement
    assert found.marks == tuple(filter(None, [mark, 'batch 8 x 1']))
    assert found.comparable == (not mark)


@pytest.mark.parametrize(
    ('gpus', 'mark'), [(4, 'batch 4 x 8'), (8, 'batch 8 x 8 in place of 32: 2 times the images')], ids=['4', '8']
)
def test_a_schedule_in_iterations_is_for_its_batch(tmp_path, gpus, mark):
    stem = 'refinedet320_r50_voc0712'
    run = row_config(stem, 'harmonic/voc')
    run.auto_scale_lr.enable = True
    add_training(tmp_path / stem, run, gpus=gpus, images=16551)
    add_checkpoint(tmp_path / stem, 'iter_120000.pth')
    add_test(tmp_path / stem, run, 'iter_120000.pth', prefix='pascal_voc', images=4952)
    found = measure(papers.find(['B1.9'])[0], tmp_path).measurement
    assert found.marks == (mark,)
    assert found.comparable == (gpus == 4)
