"""What was measured of a config, and in what that differs from what the paper did."""

from __future__ import annotations

import math
import os.path as osp
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from balanced_det.papers import Row
from balanced_det.preflight import leaf_datasets
from balanced_det.reproduction.difference import (
    Difference,
    differences,
    one_of_each_kind,
    values_of_test,
    values_of_training,
    with_tta,
)
from balanced_det.reproduction.jobs import ROOT, TTA
from balanced_det.reproduction.results import Session, WorkDir, final_checkpoint, training_length

#: Images of the training and of the test sets: a set in another place with so many is taken for the same.
TRAINING_IMAGES = {'coco': 118287, 'voc0712': 16551, 'cityscapes': 2975}
TEST_IMAGES = {'coco': 5000, 'voc0712': 4952, 'cityscapes': 500}
UNITS = {'epoch': 'epochs', 'iter': 'iterations'}
#: Differences that leave a result comparable with the paper's.
HARMLESS = ('precision',)
#: Kinds of differences in the order of their weight. The batch size has a mark of its own.
MARKED = (
    'config',
    'data set',
    'schedule',
    'input',
    'initial weights',
    'learning rate',
    'hooks',
    'evaluator',
    'score threshold',
    'precision',
)


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


@dataclass(frozen=True)
class Reading:
    """What was found in a work directory.

    Attributes:
        measurement: What was measured, None if nothing.
        remark: If so, why.
        problems: What is wrong with files in it.
    """

    measurement: Measurement | None
    remark: str
    problems: tuple[str, ...]


def measure(row: Row, work_dirs: Path) -> Reading:
    """Read what was measured of a row's config.

    Args:
        row: A row that is not quoted.
        work_dirs: The folder with a folder for each config. A multi-scale test has a folder of its own, beside that of
            the training.

    Returns:
        The measurement, or why there is none.
    """
    folder, home = (work_dirs / Path(str(name)).stem for name in (row.config, row.train_config))
    work_dir, problems = WorkDir(folder).readable()
    trained, more = (work_dir, []) if home == folder else WorkDir(home).readable()
    problems += more
    since = trained.trainings[-1].time if trained.trainings else ''
    tests = [test for test in work_dir.tests() if test.time > since]
    if not trained.trainings and not tests:
        return Reading(None, f'left out: {problems[0]}' if problems else 'not trained', tuple(problems))
    found = _Found(row, home, trained.trainings, tests)
    foreign = found.foreign()
    if foreign:
        text = f'holds the results of {foreign}'
        return Reading(None, f'left out: {text}', (*problems, f'{home if trained.trainings else folder} {text}'))
    measurement = found.measurement()
    return Reading(measurement, '' if measurement else how_far(trained), tuple(problems))


class _Found:
    """The starts that tell of a row, beside its configs."""

    def __init__(self, row: Row, home: Path, trainings: Sequence[Session], tests: Sequence[Session]) -> None:
        self.row, self.trainings = row, trainings
        self.tta = TTA in Path(str(row.config)).stem
        self.cfg, self.train_cfg = (
            Config.fromfile(ROOT / str(name), import_custom_modules=False) for name in (row.config, row.train_config)
        )
        self.run = (trainings or tests)[-1].config
        self.checkpoint = home / final_checkpoint(self.run)
        self.test = max(tests, key=self.worth) if tests else None

    def worth(self, test: Session) -> tuple[bool, bool, str]:
        """What a test tells: most one of the last checkpoint, then one of an earlier one, then the last."""
        same = test.checkpoint.parent.name == self.checkpoint.parent.name and test.is_augmented == self.tta
        return test.is_of(self.checkpoint, self.tta), same, test.time

    def foreign(self) -> Difference | None:
        """In what the training, if there is none the test, is one of another config."""
        changes = [found for run in self.trainings for found in self.training_changes(run)]
        if not self.trainings and self.test:
            changes = self.test_changes(self.test)
        return next((found for found in changes if found.kind == 'config'), None)

    def training_changes(self, training: Session) -> list[Difference]:
        """In what a training differs from the config. Data are known by the number of the images."""
        changes = differences(self.train_cfg, training.config, values_of_training)
        if training is self.trainings[0]:  # one that resumes begins from its own checkpoint
            here, there = initial_checkpoint(self.train_cfg), initial_checkpoint(training.config)
            if here != there:
                changes.append(Difference('initial weights', 'load_from', here, there))
        same_data = training.training_images == TRAINING_IMAGES[self.row.data]
        return [found for found in changes if not (same_data and found.key == 'train data')]

    def test_changes(self, test: Session) -> list[Difference]:
        """In what a test differs from the config. Data are known by their names and the number of the images."""
        if self.tta and test.is_augmented:
            changes = differences(with_tta(self.cfg), test.config, values_of_test)
        else:
            changes = differences(self.cfg, test.plain_config, values_of_test)
        images = TEST_IMAGES[self.row.data]
        return [found for found in changes if not (found.key == 'test data' and is_moved(found, test, images))]

    def measurement(self) -> Measurement | None:
        """The metrics that tell most, with their marks."""
        values, note = self.values()
        if values is None:
            return None
        marks: dict[str, str] = {}
        for training in reversed(self.trainings):
            marks = {**describe(self.training_changes(training), self.train_cfg, training.config, 'train'), **marks}
        last = self.test or self.trainings[-1]
        for kind, text in describe(self.test_changes(last), self.cfg, last.plain_config, 'test').items():
            marks.setdefault(kind, f'tested with {text}')
        fits, batch = batch_mark(self.train_cfg, self.trainings)
        changed = [marks[kind] for kind in MARKED if kind in marks and kind not in HARMLESS]
        harmless = [marks[kind] for kind in HARMLESS if kind in marks]
        said = tuple(filter(None, [*changed, note, batch, *harmless]))
        return Measurement(values, said, fits and not changed and not note)

    def values(self) -> tuple[dict[str, float] | None, str]:
        """The metrics of the test, else of the last validation, and what is to be said of them."""
        if self.test:
            values = self.test.test_metrics()
            return values, self.test_note(self.test) or ('' if values else 'tested, no box detected')
        validations = self.trainings[-1].validations()
        if self.tta or not validations:
            return None, ''
        unit, length = training_length(self.run)
        step, values = validations[-1]
        return values, f'last validation, after {step} of {length} {UNITS[unit]}: no test'

    def test_note(self, test: Session) -> str:
        """Whether a test is one of another checkpoint, or with another kind of test."""
        notes = []
        if test.checkpoint.parent.name != self.checkpoint.parent.name:
            notes.append(f'test of {Path(*test.checkpoint.parts[-2:])}')
        elif test.checkpoint.name != self.checkpoint.name:
            unit, length = training_length(self.run)
            notes.append(f'test of {test.checkpoint.name}, of {length} {UNITS[unit]}')
        if test.is_augmented != self.tta:
            notes.append(f'tested with{"out" if self.tta else ""} test-time augmentation')
        return '; '.join(notes)


def is_moved(found: Difference, test: Session, images: int) -> bool:
    """Whether the test data are the same in another place, by their names and the number of images."""
    names = [[osp.basename(path) for path in paths] for paths in (found.expected, found.found)]
    if names[0] != names[1] or not test.processes:
        return False
    return test.tested_batches == math.ceil(images / test.processes / test.config.test_dataloader.batch_size)


def how_far(trained: WorkDir) -> str:
    """How far a training has come that was neither tested nor validated."""
    last = trained.last_checkpoint
    if last is None or last.name == final_checkpoint(trained.trainings[-1].config):
        return 'trained, not tested' if last else 'training begun, no checkpoint'
    return f'trained up to {last.stem}, not tested'


def batch_mark(cfg: Config, trainings: Sequence[Session]) -> tuple[bool, str]:
    """Whether the learning rate and the number of images seen fit the batch, and both in words."""
    if not trainings:
        return False, 'trained elsewhere'
    base = cfg.auto_scale_lr.base_batch_size
    sizes = list(dict.fromkeys((start.processes, start.config.train_dataloader.batch_size) for start in trainings))
    processes, images = sizes[-1]
    if any(number is None for number, _ in sizes):
        return False, f'trained on an unknown number of GPUs, {images} images each'
    if len(sizes) > 1:
        return False, f'trained on different numbers of GPUs: batch {", ".join(f"{one} x {two}" for one, two in sizes)}'
    text = f'batch {processes} x {images}'
    if processes * images == base:
        return True, text
    if training_length(cfg)[0] == 'iter':  # which no learning rate makes up for
        return False, f'{text} in place of {base}: {processes * images / base:.3g} times the images'
    if all(start.config.get('auto_scale_lr', {}).get('enable') for start in trainings):
        return True, f'{text} in place of {base}, lr x {processes * images / base:.3g}'
    return False, f'{text} in place of {base}, lr not scaled'


def describe(changes: Sequence[Difference], cfg: Config, run: Config, part: str) -> dict[str, str]:
    """One mark for each kind of difference."""
    return {
        kind: mark(found, cfg, run, part) for kind, found in one_of_each_kind(changes).items() if kind != 'batch size'
    }


def initial_checkpoint(cfg: Config) -> tuple[str, ...]:
    """Folder and file of the checkpoint that a training begins from; empty if it begins from a backbone's weights."""
    return Path(cfg.get('load_from') or '').parts[-2:]


def mark(difference: Difference, cfg: Config, run: Config, part: str) -> str:
    """A difference in a few words."""
    if difference.kind == 'precision':
        return 'mixed precision'
    if difference.key in ('train data', 'test data') or difference.key.endswith('num_classes'):
        return f'another data set: {data_name(run, part)}'
    if difference.kind == 'initial weights':
        bare = run.model.backbone.get('init_cfg') is None and not run.get('load_from')
        return 'from scratch' if bare else 'other initial weights'
    if difference.kind == 'score threshold':
        return f'scores from {difference.found}'
    if difference.kind == 'input' and test_scale(cfg) != test_scale(run):
        return f'input {" x ".join(map(str, test_scale(run)))}'
    if difference.kind == 'schedule' and training_length(cfg) != training_length(run):
        (unit, full), (run_unit, length) = training_length(cfg), training_length(run)
        if unit != run_unit:
            return f'shortened: {length} {UNITS[run_unit]} in place of {full} {UNITS[unit]}'
        return f'{"shortened" if length < full else "lengthened"}: {length} of {full} {UNITS[unit]}'
    return str(difference)


def data_name(run: Config, part: str) -> str:
    """The name of the data set of a training or of a test."""
    _, dataset = next(iter(leaf_datasets(run[f'{part}_dataloader'].dataset, '')))
    root: Any = run.get('trial', {}).get('data') or (dataset.get('data_root') or '').rstrip('/')
    return Path(root or dataset.get('ann_file', 'unknown')).name


def test_scale(cfg: Config) -> tuple[int, ...]:
    """Width and height of the test images, of a plain test."""
    dataset = cfg.test_dataloader.dataset
    scales = [transform.scale for transform in dataset.get('pipeline', []) if 'scale' in transform]
    return tuple(scales[0]) if scales else ()
