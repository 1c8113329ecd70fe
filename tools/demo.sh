#!/usr/bin/env bash
# Sets the environment up where needed and runs the demo (tools/demo.py). `-h` has the details.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"

usage() {
    cat <<'END'
Usage: bash tools/demo.sh [--line onedl|openmmlab] [--here] [demo arguments ...]

Sets the environment up (see tools/setup_env.sh -h), then trains a small RetinaNet with mmdet's losses, with IoU-balanced
losses and with HarmonicDet on a set it makes itself, prints one table and writes two pictures to work_dirs/demo.

  --quick            half the iterations
  --seeds N          train each method N times: mean and standard error of the differences
  --methods LIST     of baseline,iou-balanced,harmonic,harmonic-detached; default: the first three
  --line, --here     as in tools/setup_env.sh
  -h, --help         this text

Stopped by Ctrl-C or killed: the same command goes on from the last checkpoint.
END
}

setup_args=() demo_args=()
while (($#)); do
    case $1 in
        --here | --line=*) setup_args+=("$1") ;;
        --line) setup_args+=("$1" "${2:?--line needs onedl or openmmlab}") && shift ;;
        -h | --help) usage && exit ;;
        *) demo_args+=("$1") ;;
    esac
    shift
done

bash tools/setup_env.sh ${setup_args[@]+"${setup_args[@]}"}
python=$(bash tools/setup_env.sh --print-python ${setup_args[@]+"${setup_args[@]}"})
exec "$python" tools/demo.py ${demo_args[@]+"${demo_args[@]}"}
