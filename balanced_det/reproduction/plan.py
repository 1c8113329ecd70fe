"""From the rows that were asked for to the jobs that are to run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mmengine.config import Config

from balanced_det import papers
from balanced_det.datasets.whole_files import write_text
from balanced_det.papers import Row
from balanced_det.reproduction.jobs import ROOT, Job, JobError, gpus_needed, ordered
from balanced_det.reproduction.trial import Trial, apply, config_text
from balanced_det.reproduction.trial_data import TrialError, find_splits

NO_TRIAL = Trial()


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
    """Jobs, and what has to be written before they run.

    Attributes:
        jobs: In an order in which those that others need come first.
        quoted: Rows that the papers quote from others: nothing to run.
        files: Text of the files that a trial needs.
    """

    jobs: list[Job]
    quoted: list[Row]
    files: dict[Path, str]

    def write(self) -> None:
        """Write the files of the trials."""
        for path, text in self.files.items():
            write_text(path, text)


def make_plan(rows: Sequence[Row], options: Options) -> Plan:
    """Plan one job for each config of some rows.

    Args:
        rows: Rows of the papers.
        options: How to run them.

    Returns:
        The plan. Nothing has been written or started.

    Raises:
        JobError: A config is not there, a work directory holds something else, or another row has to be trained first.
        TrialError: A trial cannot be made of a row.
        ResultError: A work directory has a broken file.
    """
    planner = _Planner(options)
    for row in rows:
        if not row.quoted:
            planner.add(row)
    jobs = ordered(list(planner.jobs.values()))
    for job in jobs:
        job.check_folder()
        needed = job.needs
        if needed and not needed.is_trained and not any(other.folder == needed.folder for other in jobs):
            raise JobError(
                f'{job.name} begins from the checkpoint of {needed.config.stem}, which is not trained: first run '
                f'python tools/reproduce.py {needed.rows[0]}, or name both rows in one command'
            )
    return Plan(jobs, [row for row in rows if row.quoted], planner.files)


class _Planner:
    """Makes each job once, with the one it depends on."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.jobs: dict[str, Job] = {}
        self.files: dict[Path, str] = {}

    def add(self, row: Row) -> None:
        name = str(row.config)
        job = self.jobs.get(name) or self.make(name, row.key)
        test_dev = job.test_dev or (self.options.test_dev and row.split == 'test-dev')
        self.jobs[name] = replace(job, rows=tuple(dict.fromkeys([*job.rows, row.key])), test_dev=test_dev)

    def make(self, name: str, key: str) -> Job:
        config = ROOT / name
        if not config.is_file():
            raise JobError(f'{key}: no config {config}')
        cfg = Config.fromfile(config, import_custom_modules=False)
        folder = self.options.work_dirs / config.stem
        if self.options.trial:
            config, cfg = self.make_trial(key, config, cfg, folder)
        return Job((key,), config, cfg, folder, gpus=self.options.gpus_for(cfg), needs=self.needed(name, cfg))

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

    def make_trial(self, key: str, config: Path, cfg: Config, folder: Path) -> tuple[Path, Config]:
        """The config of a trial, and the files that it needs."""
        trial, place = self.options.trial, folder / 'trial'
        try:
            splits = find_splits(trial.data_root, place) if trial.data_root else None
            settings = trial.settings(cfg, splits)
        except TrialError as error:
            raise TrialError(f'{key} ({config.stem}): {error}') from error
        path = place / config.name
        self.files[path] = config_text(config, settings)
        if splits:
            converted = {
                file: splits.contents[part] for part, file in splits.annotations.items() if file.parent == place
            }
            self.files.update({file: json.dumps(content) for file, content in converted.items()})
        return path, apply(cfg, settings)
