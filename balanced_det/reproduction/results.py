"""What a work directory holds: mmengine's own files, read with whatever started the training.

Each start of mmdet's ``train.py`` or ``test.py`` makes a folder named by its time (``20261121_155718``):

* ``<time>/vis_data/config.py`` the whole config, ``<time>/<time>.log`` the log,
* ``<time>/vis_data/scalars.json`` of a training: one line for every logged iteration and every validation,
* ``<time>/<time>.json`` of a test: its metrics. mmengine writes no metric when no box was detected.

``last_checkpoint`` names the last checkpoint that was written completely.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from mmengine.config import Config

#: Names of the metrics in the papers' tables, by what follows ``bbox_`` in the evaluators' keys.
METRICS = {
    'mAP': 'AP',
    **{f'mAP_{threshold}': f'AP{threshold}' for threshold in (50, 60, 70, 75, 80, 90)},
    **{f'mAP_{size}': f'AP{size}' for size in 'sml'},
}
SESSION = re.compile(r'\d{8}_\d{6}')


class ResultError(ValueError):
    """A file that cannot be read as what mmengine writes there; the message names it."""


@dataclass(frozen=True)
class Session:
    """One start of mmdet's train.py or test.py.

    Attributes:
        folder: Named by the time of the start.
    """

    folder: Path

    @property
    def time(self) -> str:
        """When it began, ``20261121_155718``; sorts as text."""
        return self.folder.name

    @property
    def is_test(self) -> bool:
        """Whether it is a test that has ended."""
        return (self.folder / f'{self.time}.json').is_file()

    @property
    def has_trained(self) -> bool:
        """Whether it has logged an iteration of training."""
        return any('loss' in line for line in self.scalars)

    @property
    def remedy(self) -> str:
        """What to do about a file that a killed process has left unfinished."""
        return f'delete the folder {self.folder}; the same command {"tests again" if self.is_test else "goes on"}'

    @cached_property
    def config(self) -> Config:
        """The config as it ran, with the options of the command line."""
        path = self.folder / 'vis_data' / 'config.py'
        try:
            return Config.fromfile(path, import_custom_modules=False)
        except Exception as error:  # whatever a half-written Python file raises
            raise ResultError(f'{path} is not a config: {type(error).__name__}: {error}; {self.remedy}') from error

    @cached_property
    def scalars(self) -> list[dict]:
        """The lines of ``scalars.json``; a last line that a killed process left unfinished is dropped."""
        path = self.folder / 'vis_data' / 'scalars.json'
        lines = path.read_text().splitlines() if path.is_file() else []
        parsed = []
        for number, line in enumerate(lines, 1):
            try:
                parsed.append(json.loads(line))
            except ValueError as error:
                if number < len(lines):
                    raise ResultError(f'{path}, line {number} is not JSON: {error}; delete that line') from error
        return parsed

    def test_metrics(self) -> dict[str, float]:
        """The metrics of a test in percent; empty if no box was detected.

        Raises:
            ResultError: The file is broken.
        """
        path = self.folder / f'{self.time}.json'
        try:
            content = json.loads(path.read_text())
        except ValueError as error:
            raise ResultError(f'{path} is not JSON: {error}; {self.remedy}') from error
        if not isinstance(content, dict):
            kind = type(content).__name__
            raise ResultError(f'{path} holds {kind}, where a test writes an object of metrics; {self.remedy}')
        return in_percent(content)

    @property
    def has_result(self) -> bool:
        """Whether it is a test that has ended and whose result can be read."""
        try:
            return self.is_test and self.test_metrics() is not None
        except ResultError:
            return False

    @property
    def plain_config(self) -> Config:
        """The config as it was before mmdet's ``--tta`` wrapped the model of a test."""
        if not self.is_augmented:
            return self.config
        cfg = deepcopy(self.config)
        cfg.model = cfg.model.module
        cfg.test_dataloader.dataset.pipeline = cfg.test_pipeline
        return cfg

    @property
    def is_augmented(self) -> bool:
        """Whether it is a test with ``--tta``, for which mmdet wraps the model."""
        return 'tta_cfg' in self.config.model

    @property
    def checkpoint(self) -> Path:
        """The checkpoint that a test has evaluated, as it was named at the time."""
        return Path(self.config.get('load_from') or '')

    def is_of(self, checkpoint: Path, tta: bool) -> bool:
        """Whether it is a test of a checkpoint, by its name and its folder's, with ``--tta`` exactly if said."""
        return self.checkpoint.parts[-2:] == checkpoint.parts[-2:] and self.is_augmented == tta

    def validations(self) -> list[tuple[int, dict[str, float]]]:
        """Step (epoch, or iteration of a training that counts these) and metrics in percent of each validation."""
        found = [(line.get('step', 0), in_percent(line)) for line in self.scalars]
        return [(step, metrics) for step, metrics in found if metrics]

    def check(self) -> None:
        """Read everything.

        Raises:
            ResultError: A file is broken.
        """
        if 'train_cfg' not in self.config or 'model' not in self.config:
            path = self.folder / 'vis_data' / 'config.py'
            raise ResultError(f'{path} is no config of a detector; {self.remedy}')
        if self.is_test:
            self.test_metrics()
        self.validations()

    @cached_property
    def log_head(self) -> str:
        """The log up to the first iteration."""
        path = self.folder / f'{self.time}.log'
        return ''.join(_until_first_iteration(path)) if path.is_file() else ''

    @property
    def processes(self) -> int | None:
        """How many processes, one for each GPU, it ran with, from its log."""
        found = re.search(r'GPU number: (\d+)', self.log_head)
        return int(found[1]) if found else None

    @property
    def training_images(self) -> int | None:
        """Images of the training set, as ``DataCheckHook`` has counted them, from its log."""
        counts = re.findall(r': (\d+) images, \d+ without boxes', self.log_head)
        return sum(map(int, counts)) if counts else None

    @property
    def tested_batches(self) -> int | None:
        """Batches of the test set in each process, from the log of a test."""
        path = self.folder / f'{self.time}.log'
        counts = re.findall(r'\(test\)\s*\[\s*\d+/(\d+)\]', path.read_text(errors='replace')) if path.is_file() else []
        return int(counts[-1]) if counts else None


@dataclass(frozen=True)
class WorkDir:
    """A folder that trainings and tests of one config have written to.

    Attributes:
        folder: The folder; it need not exist.
        left_out: Names of the starts that are not looked at.
    """

    folder: Path
    left_out: frozenset[str] = frozenset()

    @cached_property
    def sessions(self) -> list[Session]:
        """All starts, the oldest first."""
        configs = self.folder.glob('*/vis_data/config.py')
        folders = sorted(path.parents[1] for path in configs)
        return [Session(path) for path in folders if SESSION.fullmatch(path.name) and path.name not in self.left_out]

    def readable(self) -> tuple[WorkDir, list[str]]:
        """The same without the starts that have a broken file, and what is wrong with each of these."""
        broken = {}
        for session in self.sessions:
            try:
                session.check()
            except ResultError as error:
                broken[session.time] = str(error)
        return replace(self, left_out=self.left_out | broken.keys()), list(broken.values())

    @cached_property
    def training(self) -> Session | None:
        """The last start that has trained."""
        return next((session for session in reversed(self.sessions) if session.has_trained), None)

    @cached_property
    def trainings(self) -> list[Session]:
        """The starts of the last training, the oldest first: one, and those that have resumed it."""
        found: list[Session] = []
        for session in reversed([session for session in self.sessions if session.has_trained]):
            found.insert(0, session)
            if not session.config.get('resume'):
                break
        return found

    @property
    def last_checkpoint(self) -> Path | None:
        """The last complete checkpoint, wherever the folder was when it was written."""
        pointer = self.folder / 'last_checkpoint'
        if not pointer.is_file() or not pointer.read_text().strip():
            return None
        checkpoint = self.folder / Path(pointer.read_text().strip()).name
        return checkpoint if checkpoint.is_file() else None

    def is_trained(self, cfg: Config) -> bool:
        """Whether the last checkpoint is that of the end of a config's schedule."""
        return self.last_checkpoint is not None and self.last_checkpoint.name == final_checkpoint(cfg)

    def tests(self) -> list[Session]:
        """The tests of what was trained last, the oldest first."""
        since = self.training.time if self.training else ''
        return [session for session in self.sessions if session.is_test and session.time > since]

    def test_of(self, checkpoint: Path, *, tta: bool = False) -> Session | None:
        """The last test of a checkpoint that was made after the training and whose result can be read.

        Args:
            checkpoint: The checkpoint. Its name and its folder's have to agree: the folders may have been moved.
            tta: Look for a test with ``--tta`` in place of a plain one.

        Raises:
            ResultError: A config file is broken.
        """
        return next((test for test in reversed(self.tests()) if test.is_of(checkpoint, tta) and test.has_result), None)


def in_percent(content: dict) -> dict[str, float]:
    """The papers' metrics from what an evaluator has logged.

    Args:
        content: Keys such as ``coco/bbox_mAP_50`` with values from 0 to 1, among others. -1 means that there is no
            box of that size.

    Returns:
        Keys such as ``AP50``; values in percent, to a tenth, the precision of the papers and of the evaluators.
    """
    metrics = {}
    for key, value in content.items():
        found = re.fullmatch(r'(?:coco|pascal_voc)/bbox_(\w+)', key)
        if found and found[1] in METRICS and isinstance(value, (int, float)) and value >= 0:
            metrics[METRICS[found[1]]] = round(100 * value, 1)
    return metrics


def final_checkpoint(cfg: Config) -> str:
    """The name that mmengine gives the last checkpoint of a config."""
    unit, length = training_length(cfg)
    return f'{unit}_{length}.pth'


def training_length(cfg: Config) -> tuple[str, int]:
    """The unit that a config counts in, ``'epoch'`` or ``'iter'``, and how many it trains."""
    unit = 'iter' if 'max_iters' in cfg.train_cfg else 'epoch'
    return unit, cfg.train_cfg[f'max_{unit}s']


def _until_first_iteration(path: Path) -> Iterator[str]:
    with path.open(errors='replace') as stream:
        for line in stream:
            if re.search(r'(?:Epoch|Iter)\(\w+\)', line):
                return
            yield line
