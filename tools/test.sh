#!/usr/bin/env bash
# Sets the environment up where needed and runs the tests. `-h` has the details.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"

usage() {
    cat <<'END'
Usage: bash tools/test.sh [--fast] [--line onedl|openmmlab] [--here] [pytest arguments ...]

Sets the environment up (see tools/setup_env.sh -h), then runs `ruff check` and pytest.

  --fast             leave out the tests marked slow
  --line, --here     as in tools/setup_env.sh
  -h, --help         this text

Everything else goes to pytest: bash tools/test.sh tests/iou_balanced -k focal
The exit status is that of pytest, or 1 where only ruff complains.
END
}

setup_args=() pytest_args=()
while (($#)); do
    case $1 in
        --fast) pytest_args+=(-m 'not slow') ;;
        --here | --line=*) setup_args+=("$1") ;;
        --line) setup_args+=("$1" "${2:?--line needs onedl or openmmlab}") && shift ;;
        -h | --help) usage && exit ;;
        *) pytest_args+=("$1") ;;
    esac
    shift
done

bash tools/setup_env.sh ${setup_args[@]+"${setup_args[@]}"}
python=$(bash tools/setup_env.sh --print-python ${setup_args[@]+"${setup_args[@]}"})

SECONDS=0
status=0 lint=0
"$python" -m ruff check . || lint=1
"$python" -m pytest ${pytest_args[@]+"${pytest_args[@]}"} || status=$?
echo "Tests took $((SECONDS / 60)) min $((SECONDS % 60)) s."
if ((lint)); then echo 'ruff check found something: see above the test output.'; fi
exit $((status ? status : lint))
