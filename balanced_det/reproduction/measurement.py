"""What was measured of a config, and in what that differs from what the paper did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from balanced_det.reproduction.difference import Difference, differences, one_of_each_kind
from balanced_det.reproduction.jobs import session_config
from balanced_det.reproduction.results import Session, WorkDir, final_checkpoint, tested_checkpoint, training_length

#: Images of the training sets: a set in another place with so many is taken for the same.
TRAINING_IMAGES = {'coco': 118287, 'voc0712': 16551, 'cityscapes': 2975}
UNITS = {'epoch': 'epochs', 'iter': 'iterations'}
#: Differences that leave a result comparable with the paper's.
HARMLESS = ('batch size', 'precision')


@dataclass(frozen=True)
class Measurement:
    """What a work directory tells of a config.

    Attributes:
        values: Metrics in percent; empty if the detector found nothing.
        marks: In what the training or the test differ from the config's, and on what it ran.
        comparable: A test of the last checkpoint, of the config's data set and schedule.
    """

    values: dict[str, float]
    marks: tuple[str, ...]
    comparable: bool


def measure(folder: Path, cfg: Config, data: str) -> tuple[Measurement | None, list[str]]:
    """Read what was measured of a config.

    Args:
        folder: The work directory of the config.
        cfg: The config.
        data: Its data set, a key of :data:`TRAINING_IMAGES`.

    Returns:
        The measurement, None if there is none, and what is wrong with files in the folder.
    """
    work_dir, problems = WorkDir(folder).readable()
    tests = work_dir.tests()
    training = work_dir.training or training_elsewhere(folder, tests)
    if training is None and not tests:
        return None, problems
    run = session_config(training or tests[-1])
    found = differences(cfg, run)
    if found and found[0].kind == 'config':
        return None, [*problems, f'{folder} holds the results of {found[0]}']
    result = best_result(work_dir, tests, run)
    if result is None:
        return None, [*problems, f'{folder}: trained up to {last_name(work_dir)}, neither tested nor validated']
    values, note = result
    scaled, batch = batch_mark(cfg, run, training) if training else (False, 'trained elsewhere')
    changes = [difference for difference in found if difference.kind not in HARMLESS]
    if training and training.training_images == TRAINING_IMAGES[data]:
        changes = [difference for difference in changes if difference.key not in ('train data', 'test data')]
    marks = [*describe(changes, cfg, run), *filter(None, [note, batch])]
    if any(difference.kind == 'precision' for difference in found):
        marks.append('mixed precision')
    return Measurement(values, tuple(marks), not changes and not note and scaled), problems


def training_elsewhere(folder: Path, tests: Sequence[Session]) -> Session | None:
    """The training of a checkpoint that a folder beside this one holds, as for a multi-scale test."""
    names = {Path(test.config.get('load_from') or '').parent.name for test in tests} - {''}
    trained = [WorkDir(folder.parent / name).readable()[0].training for name in sorted(names)]
    return next((training for training in trained if training), None)


def best_result(work_dir: WorkDir, tests: Sequence[Session], run: Config) -> tuple[dict[str, float], str] | None:
    """The metrics that tell most, and what to say of them: a test of the last checkpoint, a test, a validation."""
    unit, length = training_length(run)
    final = work_dir.test_of(final_checkpoint(run))
    if final:
        values = final.test_metrics()
        return values, '' if values else 'tested, no box detected'
    if tests:
        return tests[-1].test_metrics(), f'test of {tested_checkpoint(tests[-1])}, of {length} {UNITS[unit]}'
    validations = work_dir.training.validations() if work_dir.training else []
    if validations:
        step, values = validations[-1]
        return values, f'last validation, after {step} of {length} {UNITS[unit]}: no test'
    return None


def last_name(work_dir: WorkDir) -> str:
    """The last checkpoint, for a message."""
    return work_dir.last_checkpoint.stem if work_dir.last_checkpoint else 'before the first checkpoint'


def batch_mark(cfg: Config, run: Config, session: Session) -> tuple[bool, str]:
    """Whether the learning rate fits the batch, and both in words."""
    base = cfg.get('auto_scale_lr', {}).get('base_batch_size')
    processes, images = session.processes, run.train_dataloader.batch_size
    if not processes or not base:
        return True, ''
    text = f'batch {processes} x {images}'
    if processes * images == base:
        return True, text
    if run.get('auto_scale_lr', {}).get('enable'):
        return True, f'{text} in place of {base}, lr x {processes * images / base:.3g}'
    return False, f'{text} in place of {base}, lr not scaled'


def describe(changes: Sequence[Difference], cfg: Config, run: Config) -> Iterator[str]:
    """One mark for each kind of difference, the weightiest first."""
    first = one_of_each_kind(changes)
    for kind in ('data set', 'schedule', 'input', 'initial weights', 'learning rate'):
        if kind in first:
            yield mark(first[kind], cfg, run)


def mark(difference: Difference, cfg: Config, run: Config) -> str:
    """A difference in a few words."""
    if difference.kind == 'data set':
        return f'another data set: {data_name(run)}'
    if difference.kind == 'initial weights':
        return 'from scratch' if run.model.backbone.get('init_cfg') is None else 'other initial weights'
    if difference.kind == 'input' and test_scale(cfg) != test_scale(run):
        return f'input {" x ".join(map(str, test_scale(run)))}'
    if difference.kind == 'schedule' and training_length(cfg) != training_length(run):
        (unit, full), (run_unit, length) = training_length(cfg), training_length(run)
        if unit != run_unit:
            return f'shortened: {length} {UNITS[run_unit]} in place of {full} {UNITS[unit]}'
        return f'{"shortened" if length < full else "lengthened"}: {length} of {full} {UNITS[unit]}'
    return str(difference)


def data_name(run: Config) -> str:
    """The name of the data set of a training."""
    dataset: Any = run.train_dataloader.dataset
    while 'dataset' in dataset or 'datasets' in dataset:
        dataset = dataset.get('dataset') or dataset.datasets[0]
    root = run.get('trial', {}).get('data') or (dataset.get('data_root') or '').rstrip('/')
    return Path(root or dataset.get('ann_file', 'unknown')).name


def test_scale(cfg: Config) -> tuple[int, ...]:
    """Width and height of the test images, of a plain test."""
    dataset = cfg.test_dataloader.dataset
    scales = [transform.scale for transform in dataset.get('pipeline', []) if 'scale' in transform]
    return tuple(scales[0]) if scales else ()
