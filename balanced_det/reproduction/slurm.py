"""Runs jobs on a Slurm cluster: one job array for all that need equally many GPUs, one task for each config.

Every task looks at its work directory when it begins, so that a requeued or a resubmitted one goes on where it stopped.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from balanced_det.datasets.whole_files import write_text
from balanced_det.reproduction.folder import LOCK, locked, unwritten, write_files
from balanced_det.reproduction.jobs import RESULT, ROOT, UNFINISHED, Job, JobError

SCRIPT = """\
#!/usr/bin/env bash
# Written by tools/reproduce.py; may be submitted again: it skips what is trained and resumes what is not.
{directives}
set -euo pipefail

names=({names})
configs=({configs})
folders=({folders})
finals=({finals})
needs=({needs})
test_options=({test_options})
test_devs=({test_devs})

task=$SLURM_ARRAY_TASK_ID
folder=${{folders[task]}} config=${{configs[task]}} final=${{finals[task]}} needed=${{needs[task]}}
options=${{test_options[task]}} test_dev=${{test_devs[task]}}
mkdir -p "$folder"
exec 9>>"$folder/{lock}"
flock -n 9 || {{ echo "another process is at work in $folder" >&2; exit 1; }}
export PYTHONPATH={root}${{PYTHONPATH:+:$PYTHONPATH}}
export MASTER_PORT=$((20000 + SLURM_JOB_ID % 40000))  # two tasks may share a node
echo "${{names[task]}}: $config"

run() {{  # srun does not take over the cores of a task by itself
    srun --kill-on-bad-exit=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" {python} -u {tools}/"$@"
}}

if [[ -n $needed && ! -f $needed ]]; then
    echo "$needed is not there: the training that makes it has failed" >&2
    exit 1
fi
checkpoint=$folder/$final
last=
if [[ -f $folder/last_checkpoint ]]; then
    last=$folder/$(basename "$(<"$folder/last_checkpoint")")  # wherever the folder was then
fi
if [[ $options == --tta ]]; then
    checkpoint=$needed
elif [[ $last != "$checkpoint" || ! -f $checkpoint ]]; then
    begin=()
    if [[ -f $last ]]; then
        begin=(--resume "$last")
    elif [[ -n $needed ]]; then
        begin=(--cfg-options "load_from=$needed")  # --resume would drop it
    fi
    run train.py "$config" --work-dir "$folder" --launcher slurm --auto-scale-lr ${{begin[@]+"${{begin[@]}}"}}
fi
test=(--launcher slurm ${{options:+"$options"}})
run test.py "$config" "$checkpoint" --work-dir "$folder" "${{test[@]}}"
if [[ -n $test_dev && ! $test_dev{result} -nt $checkpoint ]]; then
    place=$(dirname "$test_dev")
    run test.py "${{config%.py}}_test-dev.py" "$checkpoint" --work-dir "$place" "${{test[@]}}" \\
        --cfg-options "test_evaluator.outfile_prefix=$place/{unfinished}"
    for file in "$place"/{unfinished}.*.json; do
        mv "$file" "$test_dev.${{file#"$place"/{unfinished}.}}"
    done
fi
"""


@dataclass(frozen=True)
class Cluster:
    """How jobs are submitted.

    Attributes:
        name: Of the arrays, and of their scripts.
        partition: Of the cluster; None: its default.
        gpus_per_node: GPUs that a node has.
        cpus_per_task: Cores for each GPU.
        at_a_time: GPUs to occupy at a time, by one array after the other; None: no limit.
        arguments: More options of sbatch.
    """

    name: str
    partition: str | None = None
    gpus_per_node: int = 8
    cpus_per_task: int = 5
    at_a_time: int | None = None
    arguments: tuple[str, ...] = ()

    def directives(self, jobs: Sequence[Job], logs: str) -> str:
        """The ``#SBATCH`` lines of an array."""
        gpus = jobs[0].gpus
        on_node = min(gpus, self.gpus_per_node)
        if gpus % on_node:
            fitting = max(number for number in range(1, on_node) if gpus % number == 0)
            raise JobError(
                f'{jobs[0].name}: {gpus} GPUs cannot be shared out evenly to nodes of {on_node}: give --gpus-per-row '
                f'{gpus // on_node * on_node}, or --gpus-per-node {fitting}'
            )
        limit = f'%{max(1, self.at_a_time // gpus)}' if self.at_a_time else ''
        options = [
            f'--job-name={self.name}',
            f'--array=0-{len(jobs) - 1}{limit}',
            *([f'--partition={self.partition}'] if self.partition else []),
            f'--ntasks={gpus}',
            f'--ntasks-per-node={on_node}',
            f'--gres=gpu:{on_node}',
            f'--cpus-per-task={self.cpus_per_task}',
            '--requeue',
            '--open-mode=append',
            f'--output={logs}',
            *self.arguments,
        ]
        spaced = next((option for option in options if re.search(r'\s', option)), None)
        if spaced:
            raise JobError(f'sbatch reads no option with a space from a script: {spaced}')
        return '\n'.join(f'#SBATCH {option}' for option in options)


@dataclass(frozen=True)
class Array:
    """A script to submit.

    Attributes:
        script: Where it is written.
        text: What it holds.
        jobs: One for each task.
        after: Scripts of the arrays that have to end first.
    """

    script: Path
    text: str
    jobs: tuple[Job, ...]
    after: tuple[Path, ...]


def arrays(jobs: Sequence[Job], cluster: Cluster, folder: Path) -> list[Array]:
    """Share jobs out to job arrays.

    Args:
        jobs: Those that are not done.
        cluster: How they are submitted.
        folder: Where scripts and logs are written.

    Returns:
        The arrays; those that others wait for come first.
    """
    here = {job.folder for job in jobs}
    groups: dict[tuple[bool, int], list[Job]] = {}
    for job in jobs:
        waits = job.needs is not None and job.needs.folder in here
        groups.setdefault((waits, job.gpus), []).append(job)
    found: list[Array] = []
    for number, ((waits, _), members) in enumerate(sorted(groups.items(), key=lambda item: item[0])):
        script = folder / f'{cluster.name}_{number}.sh'
        # All that wait need a job of some array before theirs; a row whose own training failed says so itself.
        # Slurm limits the tasks of each array on its own.
        before = found[-1:] if cluster.at_a_time else [array for array in found if waits and not array.after]
        logs = f'{script.with_suffix("")}_%a.log'
        found.append(
            Array(
                script,
                script_text(members, cluster.directives(members, logs)),
                tuple(members),
                tuple(array.script for array in before),
            )
        )
    return found


def script_text(jobs: Sequence[Job], directives: str) -> str:
    """The script of one array."""

    def listed(values: Sequence[object]) -> str:
        return ' '.join(shlex.quote(str(value)) for value in values)

    return SCRIPT.format(
        directives=directives,
        names=listed([job.name for job in jobs]),
        configs=listed([job.config.absolute() for job in jobs]),
        folders=listed([job.folder.absolute() for job in jobs]),
        finals=listed([job.checkpoint.name for job in jobs]),
        needs=listed([job.needs.checkpoint.absolute() if job.needs else '' for job in jobs]),
        test_options=listed([' '.join(job.test_options) for job in jobs]),
        test_devs=listed([str(job.submission.absolute()).removesuffix(RESULT) if job.test_dev else '' for job in jobs]),
        lock=LOCK,
        python=shlex.quote(sys.executable),
        result=RESULT,
        unfinished=UNFINISHED,
        root=shlex.quote(str(ROOT)),
        tools=shlex.quote(str(ROOT / 'tools')),
    )


def submit(found: Sequence[Array]) -> list[str]:
    """Write the scripts and the files of trials and submit the arrays, each after those it waits for.

    Args:
        found: The arrays, in order.

    Returns:
        The number of each array.

    Raises:
        JobError: sbatch is not there or refuses, or a work directory is in use.
        OSError: A work directory cannot be written to.
    """
    for job in (job for array in found for job in array.jobs if unwritten(job)):
        with locked(job.folder):
            write_files(job, waits=True)
    numbers: dict[Path, str] = {}
    for array in found:
        write_text(array.script, array.text)
        # afterany: a row that failed must not keep the others from running.
        after = ':'.join(numbers[script] for script in array.after)
        command = ['sbatch', '--parsable', *([f'--dependency=afterany:{after}'] if after else []), str(array.script)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise JobError('no sbatch on this machine: --launcher slurm is for the login node of a cluster') from error
        if done.returncode or not re.match(r'\d+', done.stdout):
            raise JobError(f'{shlex.join(command)} failed: {(done.stderr or done.stdout).strip()}')
        numbers[array.script] = done.stdout.strip().split(';')[0]
    return list(numbers.values())
