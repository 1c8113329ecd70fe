"""The AIC and the harmonic factors in the log of trainings that must stay what they are."""

from __future__ import annotations

import copy
import json
import math
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from head_cases import RETINA, RPN, SSD, C, build, metas
from mmengine.hooks import Hook
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner, set_random_seed
from mmengine.structures import InstanceData
from torch import nn
from torch.utils.data import DataLoader

import harmonic  # noqa: F401  registers the heads
from balanced_det.datasets import make_digit_scenes
from balanced_det.evaluation import PositivesRecorder, summarize
from balanced_det.hooks import ConsistencyHook, LocWeightCalibrationHook, consistency

ROOT = Path(__file__).parents[2]
BALANCED_FOCAL = dict(type='IoUBalancedFocalLoss', use_sigmoid=True, eta=1.5)
BALANCED_L1 = dict(type='IoUBalancedSmoothL1Loss', beta=0.111, loss_weight=3.049)


def spread(cfg, **changes):
    """A head whose scores and boxes differ from sample to sample; the same for the same shapes."""
    head = build(cfg, **changes)
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    return head


class Tiny(BaseModel):
    """A detector of one convolution and the heads that are given to it."""

    def __init__(self, **heads):
        super().__init__()
        torch.manual_seed(6)
        self.stem, self.names = nn.Conv2d(3, 8, 3, padding=1), list(heads)
        for name, cfg in heads.items():
            self.add_module(name, spread(cfg))

    def forward(self, inputs, data_samples, mode='loss'):
        images, losses = torch.stack(list(inputs)), {}
        feats = [self.stem(F.avg_pool2d(images, stride)) for stride in (8, 16)]
        for name in self.names:
            head = self.get_submodule(name)
            found = head.loss_by_feat(*head(feats), data_samples, metas(data_samples))
            losses.update({f'{name}.{key}': value for key, value in found.items() if 'loss' in key})
        return losses


class Losses(Hook):
    """The loss of each iteration, and how many listeners the loss modules have after it."""

    priority = 'LOWEST'

    def __init__(self):
        self.losses, self.listeners = [], []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(outputs['loss'].item())
        self.listeners.append(sum(len(module._forward_pre_hooks) for module in runner.model.modules()))


class BFloat16OptimWrapper(OptimWrapper):
    """Autocast, which mmengine's AmpOptimWrapper has for GPUs alone."""

    def optim_context(self, model):
        return torch.autocast('cpu', dtype=torch.bfloat16)


def images(num=12):
    generator = torch.Generator().manual_seed(7)
    rows = []
    for index in range(num):
        corner = torch.rand(2, 2, generator=generator) * 30
        boxes = torch.cat([corner, corner + 14 + 18 * torch.rand(2, 2, generator=generator)], dim=1)
        gts = InstanceData(bboxes=boxes, labels=torch.tensor([index % C, (index + 1) % C]))
        rows.append((torch.rand(3, 64, 64, generator=generator), gts))
    return rows


def collate(rows):
    inputs, gts = zip(*rows)
    return dict(inputs=list(inputs), data_samples=list(gts))


def train(work_dir, *hooks, model=None, loop='IterBasedTrainLoop', iters=6, log_interval=2, num=12, optim=None, **cfg):
    """A training of batch size 2; returns its runner, its losses, the logged scalars by step, and the log."""
    set_random_seed(0)
    record, model = Losses(), model or Tiny(bbox_head=RETINA)
    limit = dict(max_iters=iters) if loop == 'IterBasedTrainLoop' else dict(max_epochs=2)
    runner = Runner(
        model,
        str(work_dir),
        train_dataloader=DataLoader(images(num), batch_size=2, collate_fn=collate),
        train_cfg=dict(type=loop, **limit),
        optim_wrapper=optim or dict(optimizer=dict(type='SGD', lr=0.01)),
        custom_hooks=[*hooks, record],
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=log_interval), checkpoint=dict(type='CheckpointHook', interval=100)
        ),
        log_processor=dict(by_epoch=loop != 'IterBasedTrainLoop'),
        experiment_name=f'tiny{random.SystemRandom().random()}',
        randomness=dict(seed=0),
        default_scope='mmdet',
        **cfg,
    )
    runner.train()
    (file,) = work_dir.rglob('scalars.json')
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    scalars = {row['step']: {k: v for k, v in row.items() if k.startswith('consistency/')} for row in lines}
    return runner, record, scalars, '\n'.join(path.read_text() for path in work_dir.rglob('*.log'))


class Expected(Hook):
    """What a copy of the model gives for the batch, before the step changes it."""

    def __init__(self, names=('bbox_head',)):
        self.names, self.summaries = names, []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        model = copy.deepcopy(runner.model)
        recorders = {name: PositivesRecorder(model.get_submodule(name)) for name in self.names}
        for recorder in recorders.values():
            recorder.start()
        with torch.no_grad(), runner.optim_wrapper.optim_context(model):
            model(**data_batch)
        self.summaries.append({name: summarize(recorder.stop()) for name, recorder in recorders.items()})


NAMES = ['aic', 'positives', *(f'beta_{x}_{what}' for x in 'rc' for what in ('mean', 'p10', 'p50', 'p90'))]


def keyed(summary, prefix=''):
    return pytest.approx({f'consistency/{prefix}{key}': value for key, value in summary.items()}, rel=1e-5)


def test_the_log_has_every_interval(tmp_path):
    expected = Expected()
    runner, record, scalars, log = train(tmp_path, expected, ConsistencyHook(interval=2))
    assert list(scalars) == [2, 4, 6]
    assert len(runner.message_hub.get_scalar('train/consistency/aic').data[0]) == 3
    for step, values in scalars.items():
        assert values == keyed(expected.summaries[step - 1]['bbox_head'])
        assert set(values) == {f'consistency/{name}' for name in NAMES}
    assert len({values['consistency/aic'] for values in scalars.values()}) == 3
    assert f'consistency/aic: {scalars[4]["consistency/aic"]:.4f}' in log
    assert record.listeners == [0] * 6


def test_it_listens_only_when_it_measures(tmp_path):
    listening = []

    class Watch(Hook):
        priority = 'VERY_LOW'

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            listening.append(sum(len(module._forward_pre_hooks) for module in runner.model.modules()))

    train(tmp_path, Watch(), ConsistencyHook(interval=3))
    assert listening == [0, 0, 2, 0, 0, 2]


@pytest.mark.parametrize(
    'cfg',
    [
        dict(),
        dict(loop='EpochBasedTrainLoop'),
        dict(optim=dict(optimizer=dict(type='SGD', lr=0.01), accumulative_counts=2)),
        dict(optim=dict(type=BFloat16OptimWrapper, optimizer=dict(type='SGD', lr=0.01))),
        dict(head=dict(RETINA, type='IoUBalancedRetinaHead', loss_cls=BALANCED_FOCAL, loss_bbox=BALANCED_L1)),
        dict(head=dict(RETINA, type='HarmonicRetinaHead')),
    ],
    ids=['by iteration', 'by epoch', 'accumulation', 'bfloat16', 'IoU-balanced', 'HarmonicDet'],
)
def test_the_training_stays_what_it_is(tmp_path, cfg):
    cfg = dict(cfg)
    head = cfg.pop('head', RETINA)
    plain, plain_record, _, _ = train(tmp_path / 'plain', model=Tiny(bbox_head=head), **cfg)
    runner, record, scalars, _ = train(
        tmp_path / 'hook', ConsistencyHook(interval=1), model=Tiny(bbox_head=head), log_interval=1, **cfg
    )
    assert record.losses == plain_record.losses
    state = plain.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in runner.model.state_dict().items())
    assert len(set(record.losses)) == len(scalars) == len(record.losses)
    assert all(len(values) == len(NAMES) for values in scalars.values())


def test_short_epochs_are_measured_at_their_end(tmp_path):
    """As LoggerHook logs them: 3 iterations in an epoch, every 5."""
    expected = Expected()
    hook = ConsistencyHook(interval=5)
    _, _, scalars, _ = train(tmp_path, expected, hook, loop='EpochBasedTrainLoop', num=6, log_interval=5)
    assert {step: values for step, values in scalars.items() if values}.keys() == {3, 6}
    assert scalars[6] == keyed(expected.summaries[5]['bbox_head'])


def test_each_head_has_its_name_and_the_rpn_is_left_out(tmp_path):
    model = dict(rpn_head=RPN, bbox_head=RETINA, other_head=dict(RETINA, type='HarmonicRetinaHead'))
    expected = Expected(['bbox_head', 'other_head'])
    hook = ConsistencyHook(interval=2)
    _, _, scalars, _ = train(tmp_path / 'without', expected, hook, model=Tiny(**model), iters=2)
    for name, summary in expected.summaries[1].items():
        of_head = {key: value for key, value in scalars[2].items() if f'/{name}/' in key}
        assert of_head == keyed(summary, f'{name}/')
    assert len(scalars[2]) == 2 * len(NAMES)
    hook = ConsistencyHook(interval=2, rpn=True)
    _, _, scalars, _ = train(tmp_path / 'with', hook, model=Tiny(rpn_head=RPN, bbox_head=RETINA), iters=2)
    assert {key.split('/')[1] for key in scalars[2]} == {'rpn_head', 'bbox_head'}


def test_a_head_that_cannot_be_measured_is_named_once(tmp_path):
    model = Tiny(bbox_head=dict(SSD, in_channels=(8, 8)), odd_head=RETINA)
    odd = model.odd_head

    def dense_targets(cls_score, bbox_pred, anchors, labels, *_, avg_factor):
        one_hot = F.one_hot(labels.reshape(-1), C + 1)[:, :C]
        scores = cls_score.permute(0, 2, 3, 1).reshape(-1, C)
        return odd.loss_cls(scores, one_hot, avg_factor=avg_factor), bbox_pred.sum() * 0

    odd.loss_by_feat_single = dense_targets
    hook = ConsistencyHook(interval=1)
    _, record, scalars, log = train(tmp_path, hook, model=model, log_interval=1)
    assert not hook.recorders  # mmengine drops a warning that is repeated, so the log alone would not tell
    assert all(math.isfinite(loss) for loss in record.losses)
    assert not any(scalars.values())
    assert log.count('ConsistencyHook: bbox_head (SSDHead) cannot be measured: it has no module loss_cls') == 1
    assert log.count('ConsistencyHook: odd_head (RetinaHead) cannot be measured: loss_cls gets scores of shape') == 1
    assert log.count('ConsistencyHook: ') == 2
    assert record.listeners == [0] * 6


def test_a_batch_without_positives_gives_no_value(tmp_path, monkeypatch):
    data = images()
    for index in (2, 3):
        data[index] = (data[index][0], InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long)))
    monkeypatch.setitem(globals(), 'images', lambda num: data)
    runner, _, _, log = train(tmp_path, ConsistencyHook(interval=1), iters=3, log_interval=1)
    history, _ = runner.message_hub.get_scalar('train/consistency/aic').data
    assert len(history) == 2  # of three iterations
    assert 'cannot be measured' not in log


def test_only_the_first_gpu_measures(tmp_path, monkeypatch):
    monkeypatch.setattr(consistency, 'is_main_process', lambda: False)
    _, _, scalars, _ = train(tmp_path, ConsistencyHook(interval=1))
    assert not any(scalars.values())


def test_model_wrapped_for_several_gpus(tmp_path):
    _, _, alone, _ = train(tmp_path / 'alone', ConsistencyHook(interval=2))
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    try:
        model = MMDistributedDataParallel(Tiny(bbox_head=RETINA))
        _, _, wrapped, _ = train(tmp_path / 'wrapped', ConsistencyHook(interval=2), model=model)
    finally:
        torch.distributed.destroy_process_group()
    assert wrapped == alone


def test_beside_the_calibration_of_w_loc(tmp_path):
    """Which runs a copy of the model on the first batch, in between."""
    cfg = dict(RETINA, type='IoUBalancedRetinaHead', loss_cls=BALANCED_FOCAL, loss_bbox=BALANCED_L1)
    hooks = [LocWeightCalibrationHook(), ConsistencyHook(interval=1)]
    kwargs = dict(iters=1, log_interval=1)
    _, _, both, log = train(tmp_path / 'both', *hooks, model=Tiny(bbox_head=cfg), **kwargs)
    _, _, alone, _ = train(tmp_path / 'alone', hooks[1], model=Tiny(bbox_head=cfg), **kwargs)
    assert both == alone
    assert 'w_loc' in log


def test_tensorboard_shows_it(tmp_path):
    pytest.importorskip('tensorboard', reason='tensorboard is not installed')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    backends = [dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')]
    visualizer = dict(type='Visualizer', vis_backends=backends, name=f'v{random.SystemRandom().random()}')
    _, _, scalars, _ = train(tmp_path, ConsistencyHook(interval=2), visualizer=visualizer)
    (file,) = tmp_path.rglob('events.out.tfevents.*')
    events = EventAccumulator(str(file))
    events.Reload()
    assert {f'consistency/{name}' for name in NAMES} <= set(events.Tags()['scalars'])
    shown = {event.step: event.value for event in events.Scalars('consistency/aic')}
    assert shown == pytest.approx({step: values['consistency/aic'] for step, values in scalars.items()})


def test_interval_must_be_positive():
    with pytest.raises(ValueError, match=r'ConsistencyHook\.interval=0 must be at least 1'):
        ConsistencyHook(interval=0)


# ------------------------------------------------------------------------------- as a user runs it, in processes

CONFIG = """
_base_ = '{base}'
train_cfg = dict(max_iters=4, val_interval=4)
param_scheduler = []
train_dataloader = dict(batch_size=2, dataset=dict(data_root='{data}/'))
val_dataloader = dict(dataset=dict(data_root='{data}/'))
test_dataloader = val_dataloader
model = dict(test_cfg=dict(score_thr=0.0))
default_hooks = dict(logger=dict(interval=2), checkpoint=dict(interval=100))
randomness = dict(seed=0)
val_evaluator = [dict(_base_.val_evaluator, ann_file='{data}/annotations/val.json'), *{metrics}]
test_evaluator = val_evaluator
custom_hooks = [*_base_.custom_hooks, *{hooks}]
"""


@pytest.fixture(scope='module')
def digits(tmp_path_factory):
    return make_digit_scenes(tmp_path_factory.mktemp('digits'), num_train=8, num_val=4)


@pytest.mark.slow  # each training is a process that imports mmdet
def test_demo_training_with_hook_and_metric(digits, tmp_path):
    def tool(name, metrics, hooks):
        base = ROOT / 'configs' / 'demo' / 'retinanet_r18_fpn_digit-scenes.py'
        (tmp_path / f'{name}.py').write_text(CONFIG.format(base=base, data=digits, metrics=metrics, hooks=hooks))
        command = [sys.executable, ROOT / 'tools' / 'train.py', tmp_path / f'{name}.py', '--work-dir', tmp_path / name]
        env = dict(os.environ, OMP_NUM_THREADS='1')
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=env, timeout=600, check=False)
        log = done.stdout + done.stderr
        assert done.returncode == 0, log
        return log

    plain = tool('plain', [], [])
    log = tool('measured', [dict(type='ConsistencyMetric')], [dict(type='ConsistencyHook', interval=2)])
    for pattern in (r' loss: (\S+)', r' grad_norm: (\S+)', r'(coco/bbox_\S+: \S+)'):
        values = re.findall(pattern, plain)
        assert re.findall(pattern, log) == values
        assert len(values) >= 2 or 'grad_norm' in pattern
    factors = [float(value) for value in re.findall(r'consistency/(?:aic|beta_._mean): (\S+)', log)]
    assert len(factors) == 6
    assert all(0 < value < 1 for value in factors)
    assert re.search(r'consistency/detections: [1-9]\d*  consistency/found: \d+  consistency/mean_gap: ', log)
    assert 'consistency/' not in plain
