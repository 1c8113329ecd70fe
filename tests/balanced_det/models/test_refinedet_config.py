"""A RefineDet's config in the tools that read configs: the check before a training, and w_loc from the anchors."""

from __future__ import annotations

import json

import pytest
from mmengine.config import Config
from reference import iou_balanced as balanced_reference
from reference import refinedet as reference
from reference.ssd import encode, match
from refinedet_cases import BALANCED_ARM, BALANCED_ODM, BETA, BOXES, LABELS, SIZE, SIZES, C, config

from balanced_det.calibration import from_anchors
from balanced_det.preflight import ConfigProblem, check_num_classes

LAMBDAS = (0.5, 1.5)
CLASSES = ('a', 'b', 'c')


def test_the_refinement_knows_one_class_whatever_the_data():
    dataset = Config(dict(block=dict(type='CocoDataset', metainfo=dict(classes=CLASSES)))).block
    check_num_classes('train_dataloader.dataset', dataset, config(**BALANCED_ODM, **BALANCED_ARM))
    wrong = config(bbox_head=dict(BALANCED_ODM['bbox_head'], num_classes=C + 1), **BALANCED_ARM)
    with pytest.raises(ConfigProblem, match=r'model.bbox_head.num_classes=4, .* set model.bbox_head.num_classes=3'):
        check_num_classes('train_dataloader.dataset', dataset, wrong)


def annotations(tmp_path):
    """The images of the cases in COCO's format; w_loc from the anchors reads no image files."""
    rows = [(n, box, label) for n, pair in enumerate(zip(BOXES, LABELS)) for box, label in zip(*pair)]
    content = dict(
        images=[dict(id=n, file_name=f'{n}.png', height=SIZE[0], width=SIZE[1]) for n in range(len(BOXES))],
        categories=[dict(id=k, name=name) for k, name in enumerate(CLASSES)],
        annotations=[
            dict(id=k, image_id=n, category_id=label, iscrowd=0, bbox=[x1, y1, x2 - x1, y2 - y1], area=1000)
            for k, (n, (x1, y1, x2, y2), label) in enumerate(rows)
        ],
    )
    path = tmp_path / 'train.json'
    path.write_text(json.dumps(content))
    return str(path)


def naive_sums():
    """Positives and sums of iou^lambda L with each anchor as the prediction, over both images."""
    priors, targets = reference.anchors(SIZES), []
    for boxes in BOXES:
        owners = match(priors, boxes)
        targets += [encode(priors[i], boxes[number]) for i, number in enumerate(owners) if number is not None]
    deltas = [[0.0] * 4] * len(targets)
    return len(targets), *(
        balanced_reference.localisation(deltas, targets, beta=BETA, lambda_=value, stds=reference.STDS)
        for value in (0.0, *LAMBDAS)
    )


def test_w_loc_from_the_anchors(tmp_path):
    """No anchor has moved, so both heads see the same: three classes, of which the refinement makes one."""
    dataset = dict(
        type='CocoDataset',
        ann_file=annotations(tmp_path),
        data_prefix=dict(img=''),
        metainfo=dict(classes=CLASSES),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', with_bbox=True),
            dict(type='Resize', scale=SIZE, keep_ratio=False),
            dict(type='PackDetInputs'),
        ],
    )
    loader = dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False), dataset=dataset)
    cfg = Config(dict(default_scope='mmdet', model=config(**BALANCED_ODM, **BALANCED_ARM), train_dataloader=loader))
    sums = from_anchors(cfg, LAMBDAS)
    expected = naive_sums()
    assert (sums.images, expected[0]) == (2, 17)
    assert sums.rows.keys() == {'arm_head.loss_bbox', 'bbox_head.loss_bbox'}
    for row in sums.rows.values():
        assert row == pytest.approx(expected, rel=1e-4)
