"""Train and test rows of the papers' tables: everything of a table, or some rows of it.

One job for each config: rows with the same config share it. What is done is skipped, what was interrupted goes on where
it stopped when the same command is given again; one failing row does not stop the others. Logs, checkpoints and results
go to work_dirs/<name of the config>; tools/report.py compares them with the papers.

  python tools/reproduce.py A2 --gpus 8                     four rows, each on the two GPUs its batch needs
  python tools/reproduce.py A2 --rows 1 3 --dry-run         what would be done for A2.1 and A2.3
  python tools/reproduce.py B2.20 --gpus 4 --test-dev       one row, and its submission file for COCO's server
  python tools/reproduce.py B3 B5 --launcher slurm --partition gpu
  python tools/reproduce.py A2 --data-root data/bccd --max-iters 150 --scale 320 240 --batch-size 2 --from-scratch
                                                            a trial of the machinery, no reproduction
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

# In a checkout the package lies beside tools/; in an installed package (.mim/tools) there is nothing to add.
ROOT = Path(__file__).resolve().parents[1]
if (ROOT / 'balanced_det' / '__init__.py').is_file():
    sys.path.insert(0, str(ROOT))

import torch

from balanced_det import papers
from balanced_det.reproduction import local, slurm
from balanced_det.reproduction.jobs import Job, JobError
from balanced_det.reproduction.plan import Options, Plan, make_plan
from balanced_det.reproduction.results import ResultError
from balanced_det.reproduction.trial import Trial
from balanced_det.reproduction.trial_data import TrialError

LINE_EVERY = 60  # seconds, where the output is no terminal


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('keys', nargs='+', metavar='TABLE|ROW', help='A2, B3.2, ...; tools/papers.py list shows all')
    parser.add_argument('--rows', nargs='+', type=int, metavar='N', help='of the one table that is named')
    parser.add_argument('--work-dirs', type=Path, default=Path('work_dirs'), help='default: %(default)s')
    parser.add_argument('--dry-run', action='store_true', help='print what would be done; start and write nothing')
    parser.add_argument('--test-dev', action='store_true', help='write the submission files of rows of COCO test-dev')
    where = parser.add_argument_group('where')
    where.add_argument('--launcher', choices=('none', 'pytorch', 'slurm'), help=(
        'none: one process for each row; pytorch: one for each GPU (default where there are GPUs); slurm: job arrays'
    ))  # fmt: skip
    where.add_argument('--gpus', type=int, metavar='N', help=(
        'at a time, for all rows (default: those of this machine; without GPUs 1: processes of one thread; '
        'with slurm no limit, and with one the arrays run one after the other)'
    ))  # fmt: skip
    where.add_argument('--gpus-per-row', type=int, metavar='N', help=(
        'default: those that the batch of the config needs; with others the learning rate is scaled'
    ))  # fmt: skip
    cluster = parser.add_argument_group('with --launcher slurm')
    cluster.add_argument('--partition')
    cluster.add_argument('--gpus-per-node', type=int, default=8, metavar='N', help='default: %(default)s')
    cluster.add_argument('--cpus-per-task', type=int, default=5, metavar='N', help='default: %(default)s')
    cluster.add_argument('--sbatch-args', type=shlex.split, default=[], help="more options: '--time=2-0 --mem=64G'")
    trial = parser.add_argument_group('a trial on other data or with a short schedule, which the report marks')
    trial.add_argument('--data-root', type=Path, metavar='PATH', help='a data set in the layout of COCO or VOC')
    length = trial.add_mutually_exclusive_group()
    length.add_argument('--max-epochs', type=int, metavar='N')
    length.add_argument('--max-iters', type=int, metavar='N')
    trial.add_argument('--scale', type=int, nargs=2, metavar=('W', 'H'), help='input in pixels')
    trial.add_argument('--batch-size', type=int, metavar='N', help='images of each process')
    trial.add_argument('--from-scratch', action='store_true', help='without pretrained weights')
    args = parser.parse_args()
    check_numbers(parser, args)
    return args


def check_numbers(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    names = ('gpus', 'gpus_per_row', 'gpus_per_node', 'cpus_per_task', 'max_epochs', 'max_iters', 'batch_size')
    for name in names:
        if getattr(args, name) is not None and getattr(args, name) < 1:
            parser.error(f'--{name.replace("_", "-")} {getattr(args, name)}: at least 1')
    if args.scale and min(args.scale) < 1:
        parser.error(f'--scale {args.scale[0]} {args.scale[1]}: at least 1')
    if args.rows and len(args.keys) > 1:
        parser.error('--rows needs exactly one table')
    if args.rows:
        args.keys = [f'{args.keys[0]}.{number}' for number in args.rows]
    here = torch.cuda.device_count()
    args.launcher = args.launcher or ('pytorch' if here else 'none')
    if args.launcher == 'slurm':
        return
    args.gpus = args.gpus or here or 1
    if here and args.gpus > here:
        parser.error(f'--gpus {args.gpus}: this machine has {here}')
    if args.launcher == 'none' and (args.gpus_per_row or 1) > 1:
        parser.error(
            f'--gpus-per-row {args.gpus_per_row}: --launcher none runs one process for each row; use --launcher pytorch'
        )
    if (args.gpus_per_row or 1) > args.gpus:
        parser.error(f'--gpus-per-row {args.gpus_per_row}: --gpus {args.gpus} is all there is for all rows')


def make_options(args: argparse.Namespace) -> Options:
    trial = Trial(
        args.data_root.absolute() if args.data_root else None,
        args.max_epochs,
        args.max_iters,
        tuple(args.scale) if args.scale else None,
        args.batch_size,
        args.from_scratch,
    )
    if trial and args.test_dev:
        raise JobError('--test-dev: a trial has nothing to submit')
    return Options(
        args.work_dirs.absolute(), args.launcher, args.gpus, args.gpus_per_row, trial=trial, test_dev=args.test_dev
    )


def show(plan: Plan, args: argparse.Namespace) -> None:
    for row in plan.quoted:
        print(f'{row.key}: quoted by the paper from another one, nothing to train')
    for job in plan.jobs:
        print(f'{job.name}: {job.config.stem}, {job.gpus} GPU{"s"[: job.gpus > 1]}: {job.state()}')
        for step in job.steps() if args.dry_run and args.launcher != 'slurm' else ():
            print(f'    {shlex.join(step.command(args.launcher, job.gpus))}')


class Progress:
    """A line that tells where everything is; rewritten in a terminal, a line a minute elsewhere."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    def __call__(self, going: Sequence[local.Running]) -> None:
        """Print the line, if it is time to."""
        if sys.stdout.isatty():
            print(f'\r\033[K{local.describe(going)}', end='', flush=True)
        elif time.monotonic() - self.last >= LINE_EVERY:
            self.last = time.monotonic()
            print(local.describe(going), flush=True)


def say(line: str) -> None:
    print(f'\r\033[K{line}' if sys.stdout.isatty() else line, flush=True)


def run_here(plan: Plan, args: argparse.Namespace) -> None:
    here = torch.cuda.device_count()
    slots = local.visible_gpus(here)[: args.gpus] if here else [''] * args.gpus
    runner = local.Runner(local.Machine(slots, args.launcher), say, Progress())
    began = time.monotonic()
    runner.run(plan.jobs)
    print(f'\nAfter {(time.monotonic() - began) / 60:.1f} min:')
    for job in plan.jobs:
        print(f'  {job.name}: {"failed" if job.name in runner.failed else job.state()}, {job.folder}')
    print('The papers beside what was measured: python tools/report.py --work-dirs', args.work_dirs)
    if runner.failed:
        sys.exit(f'{len(runner.failed)} failed, see above. The same command goes on with what is left.')


def run_on_cluster(plan: Plan, args: argparse.Namespace) -> None:
    cluster = slurm.Cluster(
        '-'.join(args.keys).replace('/', ''),
        args.partition,
        args.gpus_per_node,
        args.cpus_per_task,
        args.gpus,
        tuple(args.sbatch_args),
    )
    left: list[Job] = [job for job in plan.jobs if job.steps()]
    arrays = slurm.arrays(left, cluster, args.work_dirs.absolute() / 'slurm')
    if args.dry_run:
        for array in arrays:
            waits = f' after {", ".join(path.name for path in array.after)}' if array.after else ''
            print(f'\n{array.script}{waits}:\n{array.text}')
        return
    for array, number in zip(arrays, slurm.submit(arrays)):
        print(f'array {number}: {"; ".join(job.name for job in array.jobs)}; {array.script}')


def main() -> None:
    args = parse_args()
    # An ended process must take its trainings with it: SystemExit runs what stops them.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        plan = make_plan(papers.find(args.keys), make_options(args))
        if not args.dry_run and not args.data_root:
            plan.check_data()
        show(plan, args)
        if args.launcher == 'slurm':
            run_on_cluster(plan, args)
        elif not args.dry_run:
            run_here(plan, args)
    except KeyboardInterrupt:
        sys.exit('\nStopped. The same command goes on from the last checkpoints.')
    except (papers.UnknownRowError, JobError, TrialError, ResultError, OSError) as error:
        sys.exit(f'error: {error}')


if __name__ == '__main__':
    main()
