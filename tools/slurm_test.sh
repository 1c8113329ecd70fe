#!/usr/bin/env bash
# Evaluates a checkpoint on a Slurm cluster.
set -euo pipefail

TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
    cat <<'END'
Usage: bash tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [arguments of tools/test.py ...]

Environment: GPUS (8, in all), GPUS_PER_NODE (8), CPUS_PER_TASK (5), SRUN_ARGS ('', more options of srun)
Without GPUs: SRUN_ARGS=--gres=none, and GPUS is the number of processes on CPU (backend gloo).
END
}

case ${1:-} in -h | --help) usage && exit ;; esac
if (($# < 4)); then usage >&2 && exit 2; fi

gpus=${GPUS:-8} gpus_per_node=${GPUS_PER_NODE:-8}

root=$(dirname "$TOOLS")
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
set -x
# shellcheck disable=SC2086  # SRUN_ARGS is a list of options
exec srun -p "$1" \
    --job-name="$2" \
    --gres=gpu:"$gpus_per_node" \
    --ntasks="$gpus" \
    --ntasks-per-node="$gpus_per_node" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 \
    ${SRUN_ARGS:-} \
    python -u "$TOOLS/test.py" "$3" "$4" --launcher slurm "${@:5}"
