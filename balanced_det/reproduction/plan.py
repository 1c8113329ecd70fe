"""From the rows that were asked for to the jobs that are to run."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mmengine.config import Config, ConfigDict

from balanced_det import papers
from balanced_det.papers import Row
from balanced_det.preflight import ConfigProblem, check_files, leaf_datasets
from balanced_det.reproduction.folder import check_folder
from balanced_det.reproduction.jobs import ROOT, Job, JobError, gpus_needed, ordered
from balanced_det.reproduction.trial import Trial, apply, config_text
from balanced_det.reproduction.trial_data import TrialError, find_splits

NO_TRIAL = Trial()
#: mmengine's --cfg-options drops spaces and takes the rest for lists; Slurm replaces % in the name of a log.
AWKWARD = re.compile(r"""[\s,()\[\]'"%\\]""")


@dataclass(frozen=True)
class Options:
    """How rows are run.

    Attributes:
        work_dirs: The folder that gets one folder for each config.
        launcher: 'none', 'pytorch' or 'slurm'.
        gpus: GPUs at hand; None: as many as are asked for, which a cluster may queue.
        gpus_per_row: GPUs of each row; None: those that the batch of its config needs, if there are so many.
        trial: What a trial changes.
        test_dev: Write COCO's submission files too.
    """

    work_dirs: Path
    launcher: str = 'none'
    gpus: int | None = 1
    gpus_per_row: int | None = None
    trial: Trial = NO_TRIAL
    test_dev: bool = False

    def gpus_for(self, cfg: Config) -> int:
        """GPUs of a config's job."""
        if self.launcher == 'none':
            return 1
        wanted = self.gpus_per_row or gpus_needed(cfg)
        return min(wanted, self.gpus) if self.gpus else wanted


@dataclass(frozen=True)
class Plan:
    """What is to be run.

    Attributes:
        jobs: In an order in which those that others need come first.
        quoted: Rows that the papers quote from others: nothing to run.
    """

    jobs: list[Job]
    quoted: list[Row]

    def check_data(self) -> None:
        """See that the data of what is left to do are there, each data set once.

        Raises:
            JobError: An annotation file or an image folder is missing.
        """
        seen = set()
        for job in self.jobs:
            for key, dataset in (found for step in job.steps() for found in datasets_of(job, step.name)):
                place = repr([dataset.get(name) for name in ('data_root', 'ann_file', 'data_prefix')])
                if place in seen:
                    continue
                seen.add(place)
                try:
                    check_files(key, dataset)
                except ConfigProblem as problem:
                    raise JobError(
                        f'{job.name}: {problem}. This tool has no --cfg-options: link the data, see docs/data.md'
                    ) from problem


def datasets_of(job: Job, step: str) -> list[tuple[str, ConfigDict]]:
    """The data sets that a step of a job reads, with their keys."""
    cfg = job.test_dev_cfg if step == 'test-dev' else job.cfg
    loaders = ('train_dataloader', 'val_dataloader') if step == 'train' else ('test_dataloader',)
    return [found for loader in loaders for found in leaf_datasets(cfg[loader].dataset, f'{loader}.dataset')]


def make_plan(rows: Sequence[Row], options: Options) -> Plan:
    """Plan one job for each config of some rows.

    Args:
        rows: Rows of the papers.
        options: How to run them.

    Returns:
        The plan. Nothing has been written or started.

    Raises:
        JobError: A config is not there, a work directory cannot be used or holds something else, or another row has to
            be trained first.
        TrialError: A trial cannot be made of a row.
        ResultError: A work directory has a broken file.
    """
    check_place(options.work_dirs)
    planner = _Planner(options)
    for row in rows:
        if not row.quoted:
            planner.add(row)
    jobs = ordered(planner.linked())
    for job in jobs:
        check_folder(job)
        needed = job.needs
        if needed and not needed.is_trained and not any(other.folder == needed.folder for other in jobs):
            raise JobError(
                f'{job.name} begins from the checkpoint of {needed.config.stem}, which is not trained: first run '
                f'python tools/reproduce.py {needed.rows[0]}, or name both rows in one command'
            )
    return Plan(jobs, [row for row in rows if row.quoted])


def check_place(work_dirs: Path) -> None:
    """Refuse a place for work directories that cannot be one."""
    awkward = AWKWARD.search(str(work_dirs))
    if awkward:
        raise JobError(f'--work-dirs {work_dirs}: {awkward[0]!r} in a path is not understood by mmengine or by Slurm')
    if work_dirs.exists() and not work_dirs.is_dir():
        raise JobError(f'--work-dirs {work_dirs} is no folder')


class _Planner:
    """Makes each job once, with the one it depends on."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.jobs: dict[str, Job] = {}

    def add(self, row: Row) -> None:
        name = str(row.config)
        job = self.jobs.get(name) or self.make(name, row.key)
        test_dev = job.test_dev or (self.options.test_dev and row.split == 'test-dev')
        self.jobs[name] = replace(job, rows=tuple(dict.fromkeys([*job.rows, row.key])), test_dev=test_dev)

    def linked(self) -> list[Job]:
        """The jobs, each with that of these which it needs, if it is one of these."""
        here = {job.folder: job for job in self.jobs.values()}
        return [replace(job, needs=job.needs and here.get(job.needs.folder, job.needs)) for job in here.values()]

    def make(self, name: str, key: str) -> Job:
        config = ROOT / name
        if not config.is_file():
            raise JobError(f'{key}: no config {config}')
        cfg = Config.fromfile(config, import_custom_modules=False)
        folder = self.options.work_dirs / config.stem
        files: dict[Path, str] = {}
        if self.options.trial:
            config, cfg, files = self.make_trial(key, config, cfg, folder)
        return Job(
            (key,), config, cfg, folder, gpus=self.options.gpus_for(cfg), needs=self.needed(name, cfg), files=files
        )

    def needed(self, name: str, cfg: Config) -> Job | None:
        """The job whose checkpoint a config begins from, or tests with augmentation."""
        if '-tta' in name:
            return self.find(Path(name).stem.replace('-tta', ''))
        if cfg.get('load_from') and '://' not in cfg.load_from:
            return self.find(Path(cfg.load_from).parent.name)
        return None

    def find(self, stem: str) -> Job:
        row = next((row for row in papers.rows() if row.config and Path(row.config).stem == stem), None)
        if row is None:
            raise JobError(f'no row of the papers trains {stem}')
        return self.make(str(row.config), row.key)

    def make_trial(self, key: str, config: Path, cfg: Config, folder: Path) -> tuple[Path, Config, dict[Path, str]]:
        """The config of a trial as a file and as values, and the text of the files that it needs."""
        trial, place = self.options.trial, folder / 'trial'
        cfg.train_dataloader.batch_size = trial.batch_size or cfg.train_dataloader.batch_size
        try:
            splits = find_splits(trial.data_root, place) if trial.data_root else None
            settings = trial.settings(cfg, splits, self.options.gpus_for(cfg))
        except TrialError as error:
            raise TrialError(f'{key} ({config.stem}): {error}') from error
        path = place / config.name
        files = {path: config_text(config, settings)}
        if splits:
            converted = {part: file for part, file in splits.annotations.items() if file.parent == place}
            files.update({file: json.dumps(splits.contents[part]) for part, file in converted.items()})
        return path, apply(cfg, settings), files
