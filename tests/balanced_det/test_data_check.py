"""What the hook counts, reports and refuses."""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace

import pytest
import torch
from mmdet.datasets import CocoDataset, XMLDataset
from mmdet.registry import MODELS
from mmengine.dataset import ConcatDataset, RepeatDataset

import iou_balanced
from balanced_det.hooks import DataCheckHook
from balanced_det.hooks.data_check import BoxCounts, base_datasets, count_boxes


@pytest.fixture
def coco(tmp_path):
    """Three images of 100 x 50: one good and one zero-size box; one box outside; none (a crowd does not count)."""
    boxes = [(1, [5, 5, 20, 20], 0), (1, [30, 5, 0, 20], 0), (2, [120, 5, 20, 20], 0), (3, [0, 0, 9, 9], 1)]
    content = dict(
        images=[dict(id=i, file_name=f'{i}.png', width=100, height=50) for i in (1, 2, 3)],
        annotations=[
            dict(id=n, image_id=image, category_id=1, bbox=box, area=box[2] * box[3], iscrowd=crowd)
            for n, (image, box, crowd) in enumerate(boxes, start=1)
        ],
        categories=[dict(id=1, name='digit'), dict(id=2, name='letter')],
    )
    (tmp_path / 'a.json').write_text(json.dumps(content))
    return CocoDataset(
        ann_file=str(tmp_path / 'a.json'), data_prefix=dict(img=''), metainfo=dict(classes=('digit',)), pipeline=[]
    )


EXPECTED = BoxCounts(images=3, without_boxes=1, boxes=3, zero_size=1, outside=1)


def test_counts_of_a_coco_set(coco):
    assert count_boxes(coco) == EXPECTED


def test_counts_of_a_voc_set(tmp_path):
    (tmp_path / 'Annotations').mkdir()
    (tmp_path / 'list.txt').write_text('a\nb\n')
    box = '<object><name>x</name><bndbox><xmin>{}</xmin><ymin>5</ymin><xmax>{}</xmax><ymax>9</ymax></bndbox></object>'
    size = '<size><width>100</width><height>50</height></size>'
    (tmp_path / 'Annotations' / 'a.xml').write_text(f'<a>{size}{box.format(3, 3)}{box.format(5, 30)}</a>')
    (tmp_path / 'Annotations' / 'b.xml').write_text(f'<a>{size}</a>')
    dataset = XMLDataset(
        ann_file='list.txt',
        data_root=str(tmp_path),
        data_prefix=dict(sub_data_root=''),
        metainfo=dict(classes=('x',)),
        pipeline=[],
    )
    assert count_boxes(dataset) == BoxCounts(images=2, without_boxes=1, boxes=2, zero_size=1, outside=0)


def test_bccd_has_two_boxes_of_zero_size(shared_data):
    # Images 00338 and 00343, found by reading the files; 4888 boxes in all.
    total = BoxCounts()
    for split in ('train', 'val', 'test'):
        counts = count_boxes(
            XMLDataset(
                ann_file=f'ImageSets/Main/{split}.txt',
                data_root=str(shared_data / 'bccd'),
                data_prefix=dict(sub_data_root=''),
                metainfo=dict(classes=('RBC', 'WBC', 'Platelets')),
                pipeline=[],
            )
        )
        total.boxes += counts.boxes
        total.zero_size += counts.zero_size
    assert (total.boxes, total.zero_size) == (4888, 2)


def test_data_sets_inside_wrappers(coco):
    assert list(base_datasets(ConcatDataset([coco, coco]))) == [coco, coco]
    assert list(base_datasets(RepeatDataset(coco, 2))) == [coco]


def runner(model, dataset):
    logger = logging.getLogger('test_data_check')
    logger.setLevel(logging.INFO)
    return SimpleNamespace(model=model, logger=logger, train_dataloader=SimpleNamespace(dataset=dataset), iter=499)


def test_reports_the_counts_once(coco, caplog):
    DataCheckHook().before_train(runner(torch.nn.Identity(), coco))
    assert '3 images, 1 without boxes; 3 boxes, of which 1 of zero size and 1 outside' in caplog.text


def test_set_without_a_box_of_the_classes(coco):
    coco._metainfo['classes'] = ('letter',)
    with pytest.raises(ValueError, match=r"holds no box of the classes \('letter',\).*metainfo=dict\(classes"):
        DataCheckHook().before_train(runner(torch.nn.Identity(), coco))


def test_counting_never_stops_a_training(coco, caplog):
    coco.ann_file = 'nowhere.json'
    DataCheckHook().before_train(runner(torch.nn.Identity(), coco))
    assert 'nowhere.json: boxes not counted, FileNotFoundError' in caplog.text


def test_only_the_first_process_counts(coco, caplog, monkeypatch):
    monkeypatch.setattr('balanced_det.hooks.data_check.is_main_process', lambda: False)
    DataCheckHook().before_train(runner(torch.nn.Identity(), coco))
    assert caplog.text == ''


def test_refuses_a_head_without_deltas(coco):
    head = MODELS.build(
        dict(
            type='FCOSHead',
            num_classes=1,
            in_channels=4,
            feat_channels=4,
            norm_cfg=None,
            loss_bbox=dict(type='IoUBalancedSmoothL1Loss'),
        )
    )
    with pytest.raises(ValueError, match='takes encoded deltas, which FCOSHead does not regress'):
        DataCheckHook().before_train(runner(head, coco))


def test_refuses_a_stock_head_with_other_stds(coco):
    head = MODELS.build(
        dict(
            type='RetinaHead',
            num_classes=1,
            in_channels=4,
            feat_channels=4,
            loss_bbox=dict(type='IoUBalancedSmoothL1Loss', target_stds=(0.1, 0.1, 0.2, 0.2)),
        )
    )
    with pytest.raises(ValueError, match=r'set loss_bbox.target_stds=\(1.0, 1.0, 1.0, 1.0\)'):
        DataCheckHook().before_train(runner(head, coco))


def test_reports_samples_left_out_and_starts_anew(caplog):
    loss = iou_balanced.IoUBalancedSmoothL1Loss()
    loss(torch.zeros(3, 4), torch.tensor([[0.0] * 4, [torch.inf] * 4, [torch.nan] * 4]))
    model = torch.nn.ModuleDict(dict(loss_bbox=loss))
    hook = DataCheckHook(interval=500)
    hook.after_train_iter(runner(model, None), batch_idx=499)
    assert 'loss_bbox left out 2 samples' in caplog.text
    caplog.clear()
    hook.after_train_epoch(runner(model, None))
    assert caplog.text == ''
