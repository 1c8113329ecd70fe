#!/usr/bin/env bash
# Sets the environment up where needed and runs the tests. `-h` has the details.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"

usage() {
    cat <<'END'
Usage: bash tools/test.sh [--fast] [-n WORKERS] [--line onedl|openmmlab] [--here] [pytest arguments ...]

Sets the environment up (see tools/setup_env.sh -h), then runs `ruff check` and pytest, in one process per core.

  --fast             leave out the tests marked slow
  -n WORKERS         processes (default: one per core); 0 runs all tests in pytest's own process
  --line, --here     as in tools/setup_env.sh
  -h, --help         this text

Everything else goes to pytest: bash tools/test.sh tests/iou_balanced -k focal
Several processes compute with one thread each, unless OMP_NUM_THREADS says otherwise.
The exit status is that of pytest, or 1 where only ruff complains.
END
}

setup_args=() pytest_args=() workers=auto
while (($#)); do
    case $1 in
        --fast) pytest_args+=(-m 'not slow') ;;
        --here | --line=*) setup_args+=("$1") ;;
        -n) workers=${2:?-n needs a number of processes} && shift ;;
        -n[0-9]*) workers=${1#-n} ;;
        --line) setup_args+=("$1" "${2:?--line needs onedl or openmmlab}") && shift ;;
        -h | --help) usage && exit ;;
        *) pytest_args+=("$1") ;;
    esac
    shift
done

bash tools/setup_env.sh ${setup_args[@]+"${setup_args[@]}"}
python=$(bash tools/setup_env.sh --print-python ${setup_args[@]+"${setup_args[@]}"})

# nproc would answer OMP_NUM_THREADS. More threads than cores would wait for each other.
export PYTEST_XDIST_AUTO_NUM_WORKERS=${PYTEST_XDIST_AUTO_NUM_WORKERS:-$(env -u OMP_NUM_THREADS nproc 2>/dev/null || echo 1)}
if [[ $workers != [01] ]]; then export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}; fi

SECONDS=0
status=0 lint=0
"$python" -m ruff check . || lint=1
# worksteal: a worker goes through whole files, whose configs it has read once, and takes over tests when it is done.
"$python" -m pytest -n "$workers" --dist worksteal ${pytest_args[@]+"${pytest_args[@]}"} || status=$?
echo "Tests took $((SECONDS / 60)) min $((SECONDS % 60)) s."
if ((lint)); then echo 'ruff check found something: see above the test output.'; fi
exit $((status ? status : lint))
