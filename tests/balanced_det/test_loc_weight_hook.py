"""The hook that sets w_loc in the first iteration: values, restraint, resume, several processes."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner, set_random_seed
from reference.iou_balanced import localisation
from torch import nn
from torch.utils.data import DataLoader

from balanced_det.calibration import from_first_batches
from balanced_det.datasets import make_digit_scenes
from balanced_det.hooks import LocWeightCalibrationHook, loc_weight
from iou_balanced.losses import IoUBalancedSmoothL1Loss

ROOT = Path(__file__).parents[2]
CONFIG_WEIGHT = 9.0  # what the config says: a value that no calibration gives


class Toy(BaseModel):
    """Regresses deltas from four numbers; everything in it that a second forward pass could disturb is there."""

    def __init__(self, first=(), second=None):
        super().__init__()
        self.norm, self.drop, self.layer = nn.BatchNorm1d(4), nn.Dropout(0.3), nn.Linear(4, 4)
        self.first = IoUBalancedSmoothL1Loss(**{'beta': 0.2, 'loss_weight': CONFIG_WEIGHT, **dict(first)})
        self.second = IoUBalancedSmoothL1Loss(**second) if second else None
        self.history = []

    def data_preprocessor(self, data, training=False):
        for row in data['inputs']:
            row.mul_(2)  # as batch augmentations do, in place
        return data

    def forward(self, inputs, data_samples, mode='loss'):
        noise = torch.rand(()) + random.random() + float(np.random.rand())
        inputs, targets = torch.stack(list(inputs)), torch.stack(list(data_samples))
        pred = 0.3 * self.layer(self.drop(self.norm(inputs.float()))) + 0.01 * noise
        self.history.append(len(self.history))
        weight = (targets != 0).any(dim=1, keepdim=True).expand(-1, 4).float()  # a target of zeros: no positive
        losses = {'loss_first': self.first(pred, targets, weight, avg_factor=1.0)}
        if self.second is not None:
            losses['loss_second'] = self.second(pred + 0.5, targets, weight, avg_factor=1.0)
        return losses


class Recorder(Hook):
    """What each training step really used and gave."""

    priority = 'LOWEST'

    def __init__(self):
        self.weights, self.losses, self.samples = [], [], []

    def before_train(self, runner):
        model = getattr(runner.model, 'module', runner.model)
        model.first.register_forward_hook(self.record)

    def record(self, loss, args, output):
        pred, target, weight = args
        keep = weight[:, 0] > 0
        self.weights.append(loss.loss_weight)
        self.losses.append(output.item())
        self.samples.append((pred[keep].tolist(), target[keep].tolist()))


def examples(num, empty=(), seed=3):
    generator = torch.Generator().manual_seed(seed)
    inputs, targets = torch.randn(num, 4, generator=generator), 0.4 * torch.randn(num, 4, generator=generator)
    targets[list(empty)] = 0
    return [dict(inputs=row, data_samples=target) for row, target in zip(inputs, targets)]


def collate(rows):
    return dict(inputs=[row['inputs'].clone() for row in rows], data_samples=[row['data_samples'] for row in rows])


def train(work_dir, *hooks, model=None, iters=3, data=None, loop='EpochBasedTrainLoop', optim=None, **kwargs):
    """A training of batch size 4 on one pass over 24 examples; returns its model, record and log."""
    set_random_seed(0)
    recorder, model = Recorder(), model or Toy()
    data = data or examples(24)
    limit = dict(max_iters=iters) if loop == 'IterBasedTrainLoop' else dict(max_epochs=1)
    if loop == 'EpochBasedTrainLoop':
        data = data[: 4 * iters]
    runner = Runner(
        model,
        str(work_dir),
        train_dataloader=DataLoader(data, batch_size=4, collate_fn=collate),
        train_cfg=dict(type=loop, **limit),
        optim_wrapper=optim or dict(optimizer=dict(type='SGD', lr=0.01)),
        custom_hooks=[*hooks, recorder],
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1, by_epoch=False)),
        experiment_name=f'toy{random.SystemRandom().random()}',
        randomness=dict(seed=0),
        **kwargs,
    )
    runner.train()
    return runner, recorder, '\n'.join(path.read_text() for path in work_dir.rglob('*.log'))


def sums(samples, lambda_, beta=0.2):
    """Of the unweighted and of the weighted loss, by hand."""
    return localisation(*samples, beta, 0.0), localisation(*samples, beta, lambda_)


def ratio(*batches, lambda_=1.5):
    plain, weighted = zip(*(sums(samples, lambda_) for samples in batches))
    return sum(plain) / sum(weighted)


def test_first_step_keeps_the_sum_of_the_unweighted_loss(tmp_path):
    runner, record, log = train(tmp_path, LocWeightCalibrationHook())
    expected = ratio(record.samples[0])
    assert expected > 1.1
    assert record.weights == pytest.approx([expected] * 3, rel=1e-5)
    assert record.losses[0] == pytest.approx(sums(record.samples[0], 1.5)[0], rel=1e-5)
    plain, weighted = sums(record.samples[0], 1.5)
    assert (
        f'first: w_loc {expected:.4f} = sum L {plain:.5g} / sum iou^1.5 L {weighted:.5g} (4 positives, final); '
        f'loss_weight 9.0000 -> {expected:.4f}'
    ) in log
    assert runner.model.state_dict().keys() == Toy().state_dict().keys()


def test_each_loss_gets_a_weight_of_its_own(tmp_path):
    model = Toy(dict(lambda_=0.5), second=dict(lambda_=2.0, beta=0.2))
    _, record, _ = train(tmp_path, LocWeightCalibrationHook(), model=model, iters=1)
    pred, target = record.samples[0]
    assert model.first.loss_weight == pytest.approx(ratio((pred, target), lambda_=0.5), rel=1e-5)
    shifted = [[value + 0.5 for value in row] for row in pred]
    assert model.second.loss_weight == pytest.approx(ratio((shifted, target), lambda_=2.0), rel=1e-5)


@pytest.mark.parametrize('base_weight', [10.0, {'first': 10.0}], ids=['number', 'by name'])
def test_base_weight(tmp_path, base_weight):
    model = Toy(second=dict(beta=0.2))
    _, record, _ = train(tmp_path, LocWeightCalibrationHook(base_weight=base_weight), model=model, iters=1)
    assert model.first.loss_weight == pytest.approx(10 * ratio(record.samples[0]), rel=1e-5)
    pred, target = record.samples[0]
    second = ratio(([[value + 0.5 for value in row] for row in pred], target))
    assert model.second.loss_weight == pytest.approx(second * (10 if base_weight == 10 else 1), rel=1e-5)


def test_a_loss_that_keeps_its_sum_by_itself_is_left_alone(tmp_path):
    model = Toy(second=dict(normalize=True, loss_weight=0.7))
    train(tmp_path, LocWeightCalibrationHook(), model=model, iters=1)
    assert model.second.loss_weight == 0.7


def test_several_batches(tmp_path):
    _, record, log = train(tmp_path, LocWeightCalibrationHook(num_iters=2), iters=4)
    assert ('1 batches to come' in log, log.count('final')) == (True, 1)
    expected = [ratio(record.samples[0])] + [ratio(*record.samples[:2])] * 3
    assert record.weights == pytest.approx(expected, rel=1e-5)
    assert expected[0] != pytest.approx(expected[1], rel=1e-2)


def test_a_batch_without_positives_does_not_count(tmp_path):
    data = examples(24, empty=[*range(4), *range(8, 12)])  # batches 0 and 2
    _, record, log = train(tmp_path, LocWeightCalibrationHook(num_iters=2), iters=5, data=data)
    both = ratio(record.samples[1], record.samples[3])
    expected = [CONFIG_WEIGHT, *[ratio(record.samples[1])] * 2, both, both]
    assert record.weights == pytest.approx(expected, rel=1e-5)
    assert log.count('first: no positive overlaps its box, w_loc waits for the next batch') == 2


def test_positives_without_overlap_do_not_count(tmp_path):
    model = Toy(second=dict(beta=0.2))
    model.forward = lambda inputs, data_samples, mode: {
        'loss': model.first(
            model.layer(torch.stack(inputs)) * 0, torch.full((4, 4), 30.0), torch.ones(4, 4), avg_factor=1.0
        )
    }
    train(tmp_path, LocWeightCalibrationHook(), model=model, iters=2)
    assert model.first.loss_weight == CONFIG_WEIGHT


def test_it_does_not_wait_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(loc_weight, 'MAX_WAITS', 3)
    _, record, log = train(tmp_path, LocWeightCalibrationHook(), iters=5, data=examples(24, empty=range(16)))
    assert record.weights == [CONFIG_WEIGHT] * 5
    assert log.count('waits for the next batch') == 2
    assert 'first: no positive in 3 batches, w_loc is given up: loss_weight stays 9.0' in log


def test_only_batches_in_a_row_end_the_waiting(tmp_path, monkeypatch):
    monkeypatch.setattr(loc_weight, 'MAX_WAITS', 2)
    data = examples(24, empty=[*range(4), *range(8, 12)])  # batches 0 and 2
    _, record, log = train(tmp_path, LocWeightCalibrationHook(num_iters=2), iters=4, data=data)
    assert record.weights[3] == pytest.approx(ratio(record.samples[1], record.samples[3]), rel=1e-5)
    assert 'given up' not in log


def state_of(runner):
    """Everything that a second forward pass could have changed."""
    states = torch.get_rng_state(), torch.tensor(np.random.get_state()[1].astype(np.int64))
    return dict(runner.model.state_dict(), torch=states[0], numpy=states[1]), random.getstate(), runner.model.history


@pytest.mark.filterwarnings('ignore:.*use_reentrant', 'ignore:None of the inputs have requires_grad')
@pytest.mark.parametrize('checkpointed', [False, True], ids=['', 'activation checkpointing'])
def test_dry_run_changes_nothing(tmp_path, checkpointed):
    cfg = dict(cfg=dict(activation_checkpointing=['norm'])) if checkpointed else {}
    plain, plain_record, _ = train(tmp_path / 'plain', **cfg)
    expected = state_of(plain)
    dry, record, log = train(tmp_path / 'dry', LocWeightCalibrationHook(num_iters=2, dry_run=True), **cfg)
    tensors, python, history = state_of(dry)
    assert all(torch.equal(tensors[name], value) for name, value in expected[0].items())
    assert (python, history) == expected[1:]
    assert record.losses == plain_record.losses
    assert record.samples == plain_record.samples
    assert log.count('dry run, loss_weight stays 9.0000') == 2


def test_the_step_sees_the_same_random_numbers(tmp_path):
    _, plain, _ = train(tmp_path / 'plain')
    _, record, _ = train(tmp_path / 'hook', LocWeightCalibrationHook())
    assert record.samples[0] == plain.samples[0]
    assert record.samples[1] != plain.samples[1]  # the first step differed by its weight


@pytest.mark.parametrize(
    'kwargs',
    [
        dict(loop='IterBasedTrainLoop'),
        dict(optim=dict(optimizer=dict(type='SGD', lr=0.01), accumulative_counts=2)),
    ],
    ids=['by iteration', 'gradient accumulation'],
)
def test_other_trainings(tmp_path, kwargs):
    _, record, _ = train(tmp_path, LocWeightCalibrationHook(), **kwargs)
    assert record.weights == pytest.approx([ratio(record.samples[0])] * 3, rel=1e-5)


class BFloat16OptimWrapper(OptimWrapper):
    """What ``--amp`` does on a GPU; mmengine's own wrapper refuses a CPU."""

    @contextlib.contextmanager
    def optim_context(self, model):
        with super().optim_context(model), torch.autocast('cpu', dtype=torch.bfloat16):
            yield


def test_mixed_precision(tmp_path):
    torch.manual_seed(0)
    model = Toy()
    optim = BFloat16OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01))
    _, record, _ = train(tmp_path / 'amp', LocWeightCalibrationHook(), model=model, optim=optim)
    assert all(value == float(torch.tensor(value).bfloat16()) for value in record.samples[0][0][0])
    assert record.losses[0] == pytest.approx(sums(record.samples[0], 1.5)[0], rel=1e-5)


def resume(work_dir, at, *hooks, **kwargs):
    """Go on from the checkpoint of an iteration, with the examples that were to come."""
    path = work_dir / f'iter_{at}.pth'
    assert path.is_file()
    return train(work_dir / 'resumed', *hooks, load_from=str(path), resume=True, loop='IterBasedTrainLoop', **kwargs)


def test_resume_sets_the_value_of_the_checkpoint(tmp_path):
    _, first, _ = train(tmp_path, LocWeightCalibrationHook(), loop='IterBasedTrainLoop', iters=2)
    # num_iters of the resumed training does not matter: the value is final.
    _, record, log = resume(tmp_path, 2, LocWeightCalibrationHook(num_iters=3), iters=4)
    assert record.weights == [first.weights[0]] * 2
    assert 'positives' not in log
    assert f'(from the checkpoint); loss_weight 9.0000 -> {first.weights[0]:.4f}' in log


def test_dry_run_changes_nothing_on_resume(tmp_path):
    train(tmp_path, LocWeightCalibrationHook(), loop='IterBasedTrainLoop', iters=1)
    _, record, log = resume(tmp_path, 1, LocWeightCalibrationHook(dry_run=True), iters=2)
    assert record.weights == [CONFIG_WEIGHT]
    assert 'first: ' not in log


def test_resume_in_the_middle_of_the_batches(tmp_path):
    hook = dict(num_iters=3)
    _, whole, _ = train(tmp_path, LocWeightCalibrationHook(**hook), loop='IterBasedTrainLoop', iters=5)
    _, record, _ = resume(tmp_path, 2, LocWeightCalibrationHook(**hook), iters=5)
    # Batch and weights are the same, dropout is not; so compare with the record's own samples.
    expected = ratio(*whole.samples[:2], record.samples[0])
    assert record.weights == pytest.approx([expected] * 3, rel=1e-5)


def test_resume_while_it_waits(tmp_path):
    data = examples(24, empty=range(8))
    train(tmp_path, LocWeightCalibrationHook(), loop='IterBasedTrainLoop', iters=2, data=data)
    _, record, _ = resume(tmp_path, 2, LocWeightCalibrationHook(), iters=4, data=data)
    assert record.weights == pytest.approx([ratio(record.samples[0])] * 2, rel=1e-5)


@pytest.mark.parametrize(
    ('before', 'after'),
    [((), {}), ((LocWeightCalibrationHook(dry_run=True),), {}), ((LocWeightCalibrationHook(),), dict(lambda_=1.0))],
    ids=['hook added', 'dry run before', 'another lambda'],
)
def test_resume_without_a_value_keeps_the_weight_of_the_config(tmp_path, before, after):
    train(tmp_path, *before, loop='IterBasedTrainLoop', iters=1)
    _, record, log = resume(tmp_path, 1, LocWeightCalibrationHook(), iters=2, model=Toy(after))
    assert record.weights == [CONFIG_WEIGHT]
    lambda_ = after.get('lambda_', 1.5)
    assert re.search(rf'WARNING - first: the checkpoint holds no w_loc for lambda {lambda_:g}, .* stays 9.0', log)


def test_fine_tuning_is_calibrated_anew(tmp_path):
    train(tmp_path, LocWeightCalibrationHook(), loop='IterBasedTrainLoop', iters=1)
    _, record, _ = train(
        tmp_path / 'tuned',
        LocWeightCalibrationHook(),
        load_from=str(tmp_path / 'iter_1.pth'),
        data=examples(24, seed=8),
    )
    assert record.weights == pytest.approx([ratio(record.samples[0])] * 3, rel=1e-5)


def test_checkpoint_holds_plain_numbers(tmp_path):
    train(tmp_path, LocWeightCalibrationHook(), loop='IterBasedTrainLoop', iters=1)
    info = torch.load(tmp_path / 'iter_1.pth', weights_only=True)['message_hub']['runtime_info'][loc_weight.INFO]
    assert info['first']['lambda_'] == 1.5
    assert [type(value) for value in info['first']['sums']] == [float, float]


@pytest.mark.parametrize(
    ('kwargs', 'message'),
    [
        (dict(num_iters=0), 'num_iters=0 must be a whole number of at least 1'),
        (dict(num_iters=1.5), r'num_iters=1\.5 must be a whole number'),
        (dict(base_weight=0.0), r'base_weight=0\.0 must be finite and above 0'),
        (dict(base_weight={'first': -1.0}), r"base_weight=\{'first': -1\.0\} must be"),
        (dict(base_weight=float('nan')), 'base_weight=nan must be'),
    ],
)
def test_wrong_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        LocWeightCalibrationHook(**kwargs)


class Nested(Toy):
    """A student that trains, and a frozen teacher whose loss is never called."""

    def __init__(self):
        super().__init__()
        self.student, self.teacher = nn.Linear(1, 1), nn.Linear(1, 1).requires_grad_(False)
        self.student.loss_bbox = self._modules.pop('first')
        self.teacher.loss_bbox = IoUBalancedSmoothL1Loss(loss_weight=CONFIG_WEIGHT)

    @property
    def first(self):
        return self.student.loss_bbox


def test_a_frozen_head_is_left_out_and_names_may_be_ends(tmp_path):
    hook = LocWeightCalibrationHook(base_weight={'loss_bbox': 10.0})
    runner, _, log = train(tmp_path, hook, model=Nested(), iters=1)
    assert list(hook.losses) == ['student.loss_bbox']
    assert runner.model.teacher.loss_bbox.loss_weight == CONFIG_WEIGHT
    weight = runner.model.student.loss_bbox.loss_weight
    value = float(re.search(r'student.loss_bbox: w_loc (\S+)', log).group(1))
    assert weight == pytest.approx(10 * value, rel=1e-4)


def test_base_weight_of_a_loss_that_is_not_there(tmp_path):
    message = r"base_weight names \['bbox_head\.loss_bbox'\]; the losses that can be calibrated are \['first'\]"
    with pytest.raises(ValueError, match=message):
        train(tmp_path, LocWeightCalibrationHook(base_weight={'bbox_head.loss_bbox': 2.0}))


def test_model_without_a_lambda(tmp_path):
    model = Toy()
    model.first = nn.SmoothL1Loss()
    with pytest.raises(ValueError, match=r'none of the losses of this model has a lambda.*set loss_bbox to an IoU-bal'):
        train(tmp_path, LocWeightCalibrationHook(), model=model)


def test_model_whose_losses_normalize(tmp_path):
    with pytest.raises(ValueError, match='first: with normalize=True a loss keeps its sum by itself'):
        train(tmp_path, LocWeightCalibrationHook(), model=Toy(dict(normalize=True)))


@pytest.fixture(scope='module')
def digits(tmp_path_factory) -> Path:
    return make_digit_scenes(tmp_path_factory.mktemp('digits'), num_train=8, num_val=1)


def retinanet(digits, **loss):
    cfg = Config.fromfile(ROOT / 'configs' / 'demo' / 'retinanet_r18_fpn_iou-balanced_digit-scenes.py')
    cfg.model.bbox_head.loss_bbox.update(loss)
    cfg.train_dataloader.update(batch_size=2)
    cfg.train_dataloader.dataset.data_root = f'{digits}/'
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=2, val_interval=10)
    cfg.update(
        val_cfg=None, val_dataloader=None, val_evaluator=None, test_cfg=None, test_dataloader=None, test_evaluator=None
    )
    cfg.default_hooks = dict(logger=dict(type='LoggerHook', interval=1), checkpoint=None)
    cfg.randomness = dict(seed=1)
    return cfg


def train_retinanet(cfg, work_dir, *hooks):
    """Two steps of the demo's RetinaNet; returns the model and the values of its localisation loss."""
    cfg.custom_hooks = list(hooks)
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = f'retinanet{random.SystemRandom().random()}'
    runner = Runner.from_cfg(cfg)
    runner.train()
    return runner.model, runner.message_hub.get_scalar('train/loss_bbox')._log_history.tolist()


HOOK = dict(type='LocWeightCalibrationHook')


def test_dry_run_of_a_detector_changes_nothing(digits, tmp_path):
    plain, plain_losses = train_retinanet(retinanet(digits), tmp_path / 'plain')
    dry, losses = train_retinanet(retinanet(digits), tmp_path / 'dry', dict(HOOK, dry_run=True))
    expected, state = plain.state_dict(), dry.state_dict()
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[name], value) for name, value in expected.items())
    assert losses == plain_losses


def test_first_loss_of_a_detector_is_that_of_lambda_zero(digits, tmp_path):
    _, stock = train_retinanet(retinanet(digits, lambda_=0.0, loss_weight=1.0), tmp_path / 'stock')
    _, losses = train_retinanet(retinanet(digits, lambda_=1.5), tmp_path / 'hook', HOOK)
    assert losses[0] == pytest.approx(stock[0], rel=1e-5)
    assert losses[1] != pytest.approx(stock[1], rel=1e-5)


def test_the_value_can_be_known_before(digits, tmp_path):
    foretold = from_first_batches(retinanet(digits), [1.5, 0.5], seed=1)
    cfg = retinanet(digits)
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
    cfg.param_scheduler = []
    model, _ = train_retinanet(cfg, tmp_path, HOOK)
    assert model.bbox_head.loss_bbox.loss_weight == pytest.approx(foretold.w_loc('bbox_head.loss_bbox')[0], rel=1e-6)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(('127.0.0.1', 0))
        return listener.getsockname()[1]


@pytest.mark.slow
def test_processes_agree_on_one_weight(tmp_path):
    """The second process has no positives in its first batch."""
    env = dict(os.environ, WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free_port()), OMP_NUM_THREADS='1')
    env['PYTHONPATH'] = os.pathsep.join([str(ROOT), str(ROOT / 'tests')])
    processes = [
        subprocess.Popen([sys.executable, __file__, str(tmp_path)], env=dict(env, RANK=rank, LOCAL_RANK=rank))
        for rank in '01'
    ]
    try:
        assert [process.wait(timeout=300) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    one, two = (json.loads((tmp_path / f'{rank}.json').read_text()) for rank in '01')
    assert two['samples'][0] == [[], []]
    assert one['weights'] == two['weights']
    expected = ratio(one['samples'][0], one['samples'][1], two['samples'][1])
    assert one['weights'] == pytest.approx([ratio(one['samples'][0]), expected, expected], rel=1e-5)


def one_of_two_processes(folder: Path) -> None:
    torch.distributed.init_process_group('gloo')
    rank = torch.distributed.get_rank()
    torch.manual_seed(0)
    model = MMDistributedDataParallel(Toy(), broadcast_buffers=False)
    model.module.norm.group = torch.distributed.group.WORLD  # as mmcv's SyncBN has it; it cannot be copied
    data = examples(12, empty=range(4) if rank else (), seed=rank)
    hook = LocWeightCalibrationHook(num_iters=2)
    _, record, _ = train(folder / str(rank), hook, model=model, data=data, launcher='pytorch')
    content = dict(weights=record.weights, samples=record.samples)
    (folder / f'{rank}.json').write_text(json.dumps(content))
    torch.distributed.destroy_process_group()


if __name__ == '__main__':
    one_of_two_processes(Path(sys.argv[1]))
