#!/usr/bin/env bash
# Evaluates a checkpoint on several GPUs of one or more machines, or in several processes on CPU, through torchrun.
set -euo pipefail

TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

usage() {
    cat <<'END'
Usage: bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of tools/test.py ...]

GPUS is the number on this machine; without a GPU, that of processes on CPU (backend gloo).
Arguments of tools/test.py are, among others, --work-dir DIR, --out FILE.pkl, --tta and
--cfg-options KEY=VALUE ...

Environment: NNODES (1), NODE_RANK (0), MASTER_ADDR (127.0.0.1), PORT (29500)
END
}

case ${1:-} in -h | --help) usage && exit ;; esac
if (($# < 3)); then usage >&2 && exit 2; fi

PYTHONPATH="$(dirname "$TOOLS")${PYTHONPATH:+:$PYTHONPATH}" \
    exec python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$3" \
    "$TOOLS/test.py" "$1" "$2" --launcher pytorch "${@:4}"
