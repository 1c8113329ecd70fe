"""Whole training steps: the same weights whatever the losses, and the weights move."""

from __future__ import annotations

import copy

import pytest
import torch
from mmengine.config import Config

import harmonic  # noqa: F401  registers the heads
import iou_balanced  # noqa: F401
from balanced_det.benchmark.detectors import FOLDER, LOSSES
from balanced_det.benchmark.steps import Step, measure_steps
from balanced_det.swap import swap_config


@pytest.fixture(scope='module')
def steps():
    """A small RetinaNet with each method's losses."""
    stock = Config.fromfile(FOLDER / 'retinanet_r18_small.py')
    configs = {losses: stock if losses == 'stock' else swap_config(stock, losses) for losses in LOSSES}
    return {losses: Step(cfg, 64, 2, 3, torch.device('cpu')) for losses, cfg in configs.items()}


def test_weights_are_the_same_whatever_the_losses(steps):
    stock, *others = (dict(step.model.named_parameters()) for step in steps.values())
    for other in others:
        assert other.keys() == stock.keys()
        assert all(torch.equal(value, stock[name]) for name, value in other.items())


@pytest.mark.parametrize('losses', LOSSES)
def test_a_step_moves_the_weights(steps, losses):
    step = steps[losses]
    before = copy.deepcopy(step.model.state_dict())
    loss = step.run()
    assert loss.isfinite()
    assert loss > 0
    moved = [name for name, value in step.model.named_parameters() if not torch.equal(value, before[name])]
    assert {name.split('.')[0] for name in moved} == {'backbone', 'neck', 'bbox_head'}


def test_rows_of_a_smoke_run():
    rows = list(measure_steps(torch.device('cpu'), rounds=1, quick=True))
    assert [row['group'] for row in rows] == ['Faster R-CNN, 64 px, 1 image'] * len(LOSSES)
    assert [row['case'] for row in rows] == list(LOSSES)
    assert all(len(row['seconds']) == 1 for row in rows)
