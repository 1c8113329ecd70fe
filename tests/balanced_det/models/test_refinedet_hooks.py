"""The hooks in a training of RefineDet: w_loc of each balanced head, the AIC of the detections, the checks."""

from __future__ import annotations

import copy
import json
import random

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner, set_random_seed
from reference import iou_balanced as balanced_reference
from reference import refinedet as reference
from refinedet_cases import (
    BALANCED_ARM,
    BALANCED_ODM,
    BOXES,
    LABELS,
    METHODS,
    SIZE,
    build,
    images_of,
    samples,
)
from torch.utils.data import DataLoader

from balanced_det.heads import LossMismatchError
from balanced_det.hooks import ConsistencyHook, DataCheckHook, LocWeightCalibrationHook


class Watch(Hook):
    """What the model gives for the batch of each iteration before its step, as the reference takes it."""

    priority = 'VERY_HIGH'

    def __init__(self):
        self.images = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        model = copy.deepcopy(runner.model)
        data = model.data_preprocessor(copy.deepcopy(data_batch), True)
        with torch.no_grad():
            self.images.append(images_of(model._forward(data['inputs'])))


def train(work_dir, model, *hooks, iters=2, **cfg):
    """A training on two images; returns what was watched, the logged scalars of each step, and the log."""
    set_random_seed(0)
    generator, watch = torch.Generator().manual_seed(7), Watch()
    rows = [
        dict(inputs=(torch.rand(3, *SIZE, generator=generator) * 255).byte(), data_samples=sample)
        for sample in samples(BOXES, LABELS)
    ]
    Runner(
        model,
        str(work_dir),
        train_dataloader=DataLoader(rows, batch_size=2, collate_fn=collate),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=iters),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
        custom_hooks=[watch, *hooks],
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=1), checkpoint=dict(type='CheckpointHook', interval=iters)
        ),
        log_processor=dict(by_epoch=False),
        experiment_name=f'refinedet{random.SystemRandom().random()}',
        default_scope='mmdet',
        **cfg,
    ).train()
    (file,) = work_dir.rglob('scalars.json')
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return watch, {row['step']: row for row in lines}, '\n'.join(path.read_text() for path in work_dir.rglob('*.log'))


def collate(rows):
    return {key: [copy.deepcopy(row[key]) for row in rows] for key in rows[0]}


def sums(samples_of):
    """sum L, and sum iou^1.5 L."""
    _, _, deltas, targets = samples_of
    return [
        balanced_reference.localisation(deltas, targets, beta=1.0, lambda_=lambda_, stds=reference.STDS)
        for lambda_ in (0.0, 1.5)
    ]


@pytest.mark.parametrize(
    ('blocks', 'names'),
    [
        (BALANCED_ODM, ['bbox_head']),
        (BALANCED_ARM, ['arm_head']),
        ({**BALANCED_ODM, **BALANCED_ARM}, ['arm_head', 'bbox_head']),
    ],
    ids=['odm', 'arm', 'both'],
)
def test_each_balanced_head_gets_its_weight(tmp_path, blocks, names):
    model, hook = build(**blocks), LocWeightCalibrationHook()
    watch, scalars, log = train(tmp_path, model, hook)
    first = watch.images[0]
    plain, weighted = {}, {}
    for name, mine, samples_of in (
        ('arm_head', reference.mine_arm, reference.arm_samples),
        ('bbox_head', reference.mine_odm, reference.odm_samples),
    ):
        plain[name], weighted[name] = sums(samples_of(first, [mine(image) for image in first]))
    expected = {name: plain[name] / weighted[name] if name in names else 1.0 for name in plain}
    found = {name: model.get_submodule(name).loss_bbox.loss_weight for name in plain}
    assert found == pytest.approx(expected, rel=1e-4)
    assert expected['arm_head'] != pytest.approx(expected['bbox_head'], rel=0.05)
    assert sorted(hook.losses) == [f'{name}.loss_bbox' for name in names]
    # By the rule: the first iteration's localisation loss is what it would be without weights.
    factor = reference.divisor([reference.mine_odm(image) for image in first])
    assert scalars[1]['loss_bbox'] == pytest.approx(plain['bbox_head'] / factor, rel=1e-3)
    assert 'w_loc' in log


def naive_consistency(images):
    """AIC and number of the detection head's positives."""
    gaps = []
    for image in images:
        for i, number in reference.mine_odm(image).owner.items():
            (target,) = reference.Mined({i: number}, []).targets(image.refined, image.boxes)
            iou = balanced_reference.delta_iou(image.deltas[i], target, reference.STDS)
            gaps.append(abs(reference.softmax(image.logits[i])[image.labels[number]] - iou))
    return sum(gaps) / len(gaps), len(gaps)


@pytest.mark.parametrize('method', METHODS)
def test_consistency_is_that_of_the_detections(tmp_path, method):
    watch, scalars, log = train(tmp_path, build(**METHODS[method]), ConsistencyHook(interval=1))
    for step, images in enumerate(watch.images, start=1):
        aic, positives = naive_consistency(images)
        assert scalars[step]['consistency/aic'] == pytest.approx(aic, abs=1e-4)
        assert scalars[step]['consistency/positives'] == positives
        assert positives != sum(len(reference.mine_arm(image).owner) for image in images)
    assert not any('arm_head' in key for row in scalars.values() for key in row)
    assert 'ConsistencyHook:' not in log


def test_consistency_of_the_refinement_if_asked_for(tmp_path):
    watch, scalars, _ = train(tmp_path, build(), ConsistencyHook(interval=1, rpn=True), iters=1)
    aic, positives = naive_consistency(watch.images[0])
    assert scalars[1]['consistency/bbox_head/aic'] == pytest.approx(aic, abs=1e-4)
    assert scalars[1]['consistency/bbox_head/positives'] == positives
    arm = [reference.mine_arm(image) for image in watch.images[0]]
    assert scalars[1]['consistency/arm_head/positives'] == sum(len(one.owner) for one in arm)


@pytest.mark.parametrize('method', ['stock', 'iou-balanced with arm', 'harmonic with arm'])
def test_the_hooks_leave_the_training_as_it_is(tmp_path, method):
    """Both listen to a step, one computes a step on a copy before it: the weights are what they are without."""
    models = [build(**METHODS[method]) for _ in range(2)]
    train(tmp_path / 'without', models[0])
    hooks = [ConsistencyHook(interval=1), DataCheckHook()]
    if method.startswith('iou'):
        hooks.append(LocWeightCalibrationHook(dry_run=True))
    train(tmp_path / 'with', models[1], *hooks)
    first, second = (model.state_dict() for model in models)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize('name', ['arm_head', 'bbox_head'])
def test_data_check_stops_a_loss_that_does_not_fit_its_head(tmp_path, name):
    model = build(**{**BALANCED_ODM, **BALANCED_ARM})
    model.get_submodule(name).loss_bbox.target_stds = (1.0,) * 4
    kind = {'arm_head': 'IoUBalancedDSSDHead', 'bbox_head': 'IoUBalancedRefineDetHead'}[name]
    with pytest.raises(LossMismatchError, match=rf'{kind}: loss_bbox.target_stds=\(1.0, 1.0, 1.0, 1.0\) differs'):
        train(tmp_path, model, DataCheckHook())


def test_data_check_reports_what_the_heads_left_out(tmp_path):
    model = build(**{**BALANCED_ODM, **BALANCED_ARM})
    model.arm_head.loss_bbox.num_left_out = 3
    _, _, log = train(tmp_path, model, DataCheckHook(interval=1))
    assert 'arm_head.loss_bbox left out 3 samples whose deltas are not finite' in log
    assert 'bbox_head.loss_bbox left out' not in log.replace('arm_head.loss_bbox', '')
