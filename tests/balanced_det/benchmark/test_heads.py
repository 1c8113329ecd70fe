"""The loss steps of the heads: their sizes, and the same inputs whatever the losses."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config

import harmonic  # noqa: F401  registers the heads
import iou_balanced  # noqa: F401
from balanced_det.benchmark.detectors import LOSSES, MODELS_OF, detector, without_weights
from balanced_det.benchmark.heads import HeadCase, head_step, measure_heads, output_shapes

CPU = torch.device('cpu')


@pytest.mark.parametrize(
    ('name', 'size', 'columns', 'anchors'),
    [
        ('SSD300', 300, 81, 8732),
        ('SSD512', 512, 81, 24564),
        ('FoveaBox', 320, 80, 40**2 + 20**2 + 10**2 + 5**2 + 3**2),
        ('RetinaNet', 320, 80, 9 * (40**2 + 20**2 + 10**2 + 5**2 + 3**2)),
    ],
)
def test_heads_have_their_number_of_anchors(name, size, columns, anchors):
    scores, boxes = output_shapes(detector(name, 'stock').model, size, 2)
    assert sum(shape.numel() for shape in scores) == 2 * anchors * columns
    assert sum(shape.numel() for shape in boxes) == 2 * anchors * 4


@pytest.mark.parametrize('losses', LOSSES)
@pytest.mark.parametrize('name', MODELS_OF)
def test_no_weights_are_to_be_loaded(name, losses):
    assert 'Pretrained' not in str(detector(name, losses).model)


def test_other_initialisations_of_a_list_are_kept():
    kaiming, pretrained = dict(type='Kaiming'), dict(type='Pretrained', checkpoint='a.pth')
    cfg = Config(dict(model=dict(backbone=dict(init_cfg=[kaiming, pretrained]), neck=dict(init_cfg=kaiming))))
    assert without_weights(cfg).model == dict(backbone=dict(init_cfg=[kaiming]), neck=dict(init_cfg=kaiming))


def test_the_roi_head_gets_512_rois_a_quarter_of_them_positive():
    scores, deltas = head_step(HeadCase('Faster R-CNN', 200, 1), 'stock', 2, CPU)()
    assert scores.shape == (2 * 512, 81)
    assert (deltas.abs().sum(dim=1) > 0).sum() == 2 * 128


@pytest.mark.parametrize('losses', LOSSES[1:])
def test_negatives_have_the_gradient_of_the_stock_losses(losses):
    """Positives alone differ, so outputs, boxes and sampling are the same."""
    stock, mine = (head_step(HeadCase('Faster R-CNN', 200, 1), name, 1, CPU)()[0] for name in ('stock', losses))
    same = torch.isclose(mine, stock, rtol=1e-4, atol=1e-9).all(dim=1)
    assert same.sum() == 512 - 128


def test_rows_of_a_smoke_run():
    rows = list(measure_heads(CPU, rounds=1, quick=True))
    assert [row['case'] for row in rows] == 3 * list(LOSSES)
    for row in rows:
        assert len(row['seconds']) == 1
        assert row['syncs'] == sum(row['waits'].values()) > 0
