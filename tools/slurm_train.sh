#!/usr/bin/env bash
# Trains on a Slurm cluster.
set -euo pipefail

TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
    cat <<'END'
Usage: bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG [WORK_DIR] [arguments of tools/train.py ...]

Without WORK_DIR the outputs go to work_dirs/<name of the config>.

Environment: GPUS (8, in all), GPUS_PER_NODE (8), CPUS_PER_TASK (5), SRUN_ARGS ('', more options of srun)
Without GPUs: SRUN_ARGS=--gres=none, and GPUS is the number of processes on CPU (backend gloo).
Example: GPUS=16 SRUN_ARGS='--time=12:00:00' bash tools/slurm_train.sh gpu retina CONFIG work_dirs/retina --amp
END
}

case ${1:-} in -h | --help) usage && exit ;; esac
if (($# < 3)); then usage >&2 && exit 2; fi

partition=$1 job_name=$2 config=$3
shift 3
work_dir=()
if (($#)) && [[ $1 != -* ]]; then
    work_dir=(--work-dir "$1")
    shift
fi
gpus=${GPUS:-8} gpus_per_node=${GPUS_PER_NODE:-8}

root=$(dirname "$TOOLS")
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
set -x
# shellcheck disable=SC2086  # SRUN_ARGS is a list of options
exec srun -p "$partition" \
    --job-name="$job_name" \
    --gres=gpu:"$gpus_per_node" \
    --ntasks="$gpus" \
    --ntasks-per-node="$gpus_per_node" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 \
    ${SRUN_ARGS:-} \
    python -u "$TOOLS/train.py" "$config" ${work_dir[@]+"${work_dir[@]}"} --launcher slurm "$@"
