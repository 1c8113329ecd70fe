#!/usr/bin/env bash
# Trains on several GPUs of one or more machines, or in several processes on CPU, through torchrun.
set -euo pipefail

TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
    cat <<'END'
Usage: bash tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py ...]

GPUS is the number on this machine; without a GPU, that of processes on CPU (backend gloo).
Arguments of tools/train.py are, among others, --amp, --resume, --auto-scale-lr,
--work-dir DIR and --cfg-options KEY=VALUE ...

Environment: NNODES (1), NODE_RANK (0), MASTER_ADDR (127.0.0.1), PORT (29500)
Two machines:  NNODES=2 NODE_RANK=0 MASTER_ADDR=10.0.0.1 bash tools/dist_train.sh CONFIG 8
               NNODES=2 NODE_RANK=1 MASTER_ADDR=10.0.0.1 bash tools/dist_train.sh CONFIG 8
Two trainings on one machine need two values of PORT. More: docs/multi_gpu.md.
END
}

case ${1:-} in -h | --help) usage && exit ;; esac
if (($# < 2)); then usage >&2 && exit 2; fi

PYTHONPATH="$(dirname "$TOOLS")${PYTHONPATH:+:$PYTHONPATH}" \
    exec python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$2" \
    "$TOOLS/train.py" "$1" --launcher pytorch "${@:3}"
