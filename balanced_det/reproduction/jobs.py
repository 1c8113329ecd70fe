"""Rows of the papers' tables as work: which config to train and test, where, on how many GPUs, what is left to do."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mmengine.config import Config

from balanced_det.analysis.runs import TOOLS
from balanced_det.reproduction.results import WorkDir, final_checkpoint, training_length

ROOT = TOOLS.parent
TTA = '-tta'
TEST_DEV = '_test-dev'
UNFINISHED = 'unfinished'  # prefix of what is being written for COCO's server
RESULT = '.bbox.json'  # what mmdet adds to the prefix


class JobError(ValueError):
    """A row that cannot be run; the message says why and what to do."""


@dataclass(frozen=True)
class Step:
    """One process, or one group of processes, of a job.

    Attributes:
        name: 'train', 'test' or 'test-dev'.
        tool: 'train' or 'test', as in ``tools/train.py`` and ``tools/dist_train.sh``.
        arguments: Of the tool: the config, for a test the checkpoint.
        options: Those that follow.
        log: The file that its output is appended to.
    """

    name: str
    tool: str
    arguments: tuple[str, ...]
    options: tuple[str, ...]
    log: Path

    def command(self, launcher: str, gpus: int) -> list[str]:
        """The command line.

        Args:
            launcher: 'none', 'pytorch' or 'slurm', for processes that srun has started already.
            gpus: Number of processes of the 'pytorch' launcher.
        """
        if launcher == 'pytorch':
            script = TOOLS / f'dist_{self.tool}.sh'
            return ['bash', str(script), *self.arguments, str(gpus), *self.options]
        command = [sys.executable, str(TOOLS / f'{self.tool}.py'), *self.arguments]
        return [*command, *(('--launcher', launcher) if launcher != 'none' else ()), *self.options]


@dataclass(frozen=True)
class Job:
    """One config to train and to test, for one or more rows.

    Attributes:
        rows: Keys such as 'A2.1'.
        config: The config file that is run: the row's, or a trial's that inherits from it.
        cfg: What it holds.
        folder: The work directory.
        gpus: GPUs (without a launcher and on a machine without GPUs: processes) that it runs on.
        needs: The job whose last checkpoint it begins from (Cityscapes) or tests (multi-scale test).
        test_dev: Write the submission file of COCO's test-dev too.
        files: Text of the files that a trial needs, by their place in the folder.
    """

    rows: tuple[str, ...]
    config: Path
    cfg: Config = field(compare=False, repr=False)
    folder: Path
    gpus: int = 1
    needs: Job | None = field(default=None, compare=False, repr=False)
    test_dev: bool = False
    files: Mapping[Path, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def name(self) -> str:
        """The rows, for messages."""
        return ', '.join(self.rows)

    @property
    def work_dir(self) -> WorkDir:
        """What is in the folder now."""
        return WorkDir(self.folder)

    @property
    def only_tests(self) -> bool:
        """Whether it tests the checkpoint of another job, with augmentation."""
        return TTA in self.config.stem

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint of the finished training."""
        if self.only_tests and self.needs:
            return self.needs.checkpoint
        return self.folder / final_checkpoint(self.cfg)

    @property
    def is_trained(self) -> bool:
        """Whether the training has ended."""
        if self.only_tests:
            return self.needs is not None and self.needs.is_trained
        return self.work_dir.is_trained(self.cfg)

    @property
    def is_tested(self) -> bool:
        """Whether the last checkpoint has been tested."""
        return self.is_trained and self.work_dir.test_of(self.checkpoint, tta=self.only_tests) is not None

    @property
    def submission(self) -> Path:
        """The file for COCO's server."""
        prefix = self.test_dev_cfg.test_evaluator.outfile_prefix
        return self.folder / 'test-dev' / f'{Path(prefix).name}{RESULT}'

    @property
    def is_submittable(self) -> bool:
        """Whether the file for COCO's server is that of the last checkpoint."""
        files = (self.submission, self.checkpoint)
        return all(path.is_file() for path in files) and files[0].stat().st_mtime > files[1].stat().st_mtime

    @property
    def test_options(self) -> tuple[str, ...]:
        """Of tools/test.py."""
        return ('--tta',) if self.only_tests else ()

    @cached_property
    def test_dev_config(self) -> Path:
        """The variant of the config that writes the submission file."""
        return self.config.with_name(f'{self.config.stem}{TEST_DEV}.py')

    @cached_property
    def test_dev_cfg(self) -> Config:
        """What it holds."""
        return Config.fromfile(self.test_dev_config, import_custom_modules=False)

    def steps(self) -> list[Step]:
        """What is left to do; empty if everything is done."""
        steps = []
        if not self.is_trained and not self.only_tests:
            steps.append(self.train_step())
        if not self.is_tested:
            steps.append(self.test_step())
        if self.test_dev and not (self.is_trained and self.is_submittable):
            steps.append(self.test_dev_step())
        return steps

    def train_step(self) -> Step:
        """Trains, or goes on from the last checkpoint in the folder."""
        options = ['--work-dir', str(self.folder), '--auto-scale-lr']
        last = self.work_dir.last_checkpoint
        if last:  # by its path: without one mmengine looks for it where it was written, also in a folder that was moved
            options += ['--resume', str(last)]
        elif self.needs:  # mmdet's --resume would drop load_from
            options += ['--cfg-options', f'load_from={self.needs.checkpoint}']
        return Step('train', 'train', (str(self.config),), tuple(options), self.folder / 'train.log')

    def test_step(self) -> Step:
        """Tests the last checkpoint."""
        options = ('--work-dir', str(self.folder), *self.test_options)
        arguments = (str(self.config), str(self.checkpoint))
        return Step('test', 'test', arguments, options, self.folder / 'test.log')

    def test_dev_step(self) -> Step:
        """Writes the submission file, in a folder of its own: it is no test with a result."""
        place = self.submission.parent
        options = ('--work-dir', str(place), *self.test_options)
        prefix = ('--cfg-options', f'test_evaluator.outfile_prefix={place / UNFINISHED}')
        arguments = (str(self.test_dev_config), str(self.checkpoint))
        return Step('test-dev', 'test', arguments, (*options, *prefix), self.folder / 'test-dev.log')

    def keep_submission(self) -> None:
        """Give what the step test-dev has written its name; to be called when it has ended well."""
        place, name = self.submission.parent, self.submission.name.removesuffix(RESULT)
        for path in place.glob(f'{UNFINISHED}.*.json'):  # boxes, and masks if the detector has them
            path.replace(place / path.name.replace(UNFINISHED, name, 1))

    def state(self) -> str:
        """What is done, in words."""
        if not self.steps():
            return 'done'
        if self.is_tested:
            return 'tested'
        if self.is_trained:
            return 'trained, not tested'
        needed = self.needs
        first = f', {needed.name} has to be trained first' if needed and not needed.is_trained else ''
        if self.only_tests:
            return f'not tested{first}'
        last = self.work_dir.last_checkpoint
        if last:
            unit, length = training_length(self.cfg)
            return f'resumes after {unit} {last.stem.rpartition("_")[2]} of {length}'
        return f'not trained{first}'


def gpus_needed(cfg: Config) -> int:
    """GPUs for which a config's batch is the one its learning rate is stated for.

    Raises:
        JobError: The config does not tell.
    """
    base = cfg.get('auto_scale_lr', {}).get('base_batch_size')
    if not base:
        raise JobError('the config has no auto_scale_lr.base_batch_size')
    return max(1, base // cfg.train_dataloader.batch_size)


def ordered(jobs: Sequence[Job]) -> list[Job]:
    """Jobs whose checkpoint another needs come before that one; else the order stays."""
    done: list[Job] = []

    def add(job: Job) -> None:
        if job in done:
            return
        needed = next((other for other in jobs if job.needs and other.folder == job.needs.folder), None)
        if needed:
            add(needed)
        done.append(job)

    for job in jobs:
        add(job)
    return done
