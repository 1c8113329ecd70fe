#!/usr/bin/env bash
# Makes the Python environment of this checkout. `-h` has the details.
set -euo pipefail

readonly DEFAULT_TORCH='torch==2.13.0'
readonly PYTHON_RANGE='3.10 to 3.13'
readonly ENV_GIB=5
readonly BUILD_GIB=3

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly ROOT
readonly SELF="$ROOT/tools/setup_env.sh"

usage() {
    cat <<END
Usage: bash tools/setup_env.sh [--line onedl|openmmlab] [--here] [--torch SPEC] [--extras LIST]

Installs torch, one line of mmdet and this package (editable). Run it again at any time: a finished
environment is left as it is, which takes seconds.

  --line onedl       maintained mmdet line (default), into .venv
  --line openmmlab   original mmdet line, into .venv-openmmlab; the two lines cannot share an environment
  --here             install into the active environment in place of a venv
  --torch SPEC       what to install when torch is missing (default: $DEFAULT_TORCH, or TORCH_SPEC);
                     an installed torch is kept
  --extras LIST      extras of this package, comma separated (default: tests,plots; '' for none)
  --print-python     print the path of the environment's Python, and do nothing else
  -h, --help         this text

Environment:
  PYTHON             the Python to use, for example PYTHON=python3.11 (supported: $PYTHON_RANGE)
  PIP_*, *_proxy     kept as they are. On Linux the package index holds torch with CUDA, some gigabytes. For the
                     CPU build: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
  PIP_FIND_LINKS     a folder with a wheel of mmcv that was built for your torch spares the source build
  MAX_JOBS           parallel compilers in a source build of mmcv (default: what cores and memory allow)

Time, without downloads: 2 minutes, and 11 more on 2 cores where mmcv must be built from source.
END
}

main() {
    parse_arguments "$@"
    choose_environment
    if [[ $print_python == yes ]]; then
        echo "$PY"
        return
    fi
    take_lock
    trap 'report_failure $?' EXIT
    if is_up_to_date; then
        echo "Environment is up to date: $(environment_name), $line line."
        return
    fi
    echo "Setting up $(environment_name) for the $line line of mmdet."
    make_environment
    refuse_other_line
    install_torch
    install_mim
    install_mmcv
    install_package
    install_headless_opencv
    verify
    write_stamp
    summary
}

# ---------------------------------------------------------------------------------------------- arguments and paths

parse_arguments() {
    line=onedl here=no extras=tests,plots print_python=no torch_spec=${TORCH_SPEC:-$DEFAULT_TORCH}
    while (($#)); do
        case $1 in
            --line) line=${2:?--line needs onedl or openmmlab} && shift ;;
            --line=*) line=${1#*=} ;;
            --here) here=yes ;;
            --torch) torch_spec=${2:?--torch needs a requirement such as torch==2.13.0} && shift ;;
            --torch=*) torch_spec=${1#*=} ;;
            --extras) extras=${2?--extras needs a list such as tests,plots} && shift ;;
            --extras=*) extras=${1#*=} ;;
            --print-python) print_python=yes ;;
            -h | --help) usage && exit ;;
            *) echo "Unknown argument: $1 (see -h)" >&2 && exit 2 ;;
        esac
        shift
    done
    case $line in
        onedl)
            mim=onedl-mim mmcv=onedl-mmcv mmcv_version=2.3.6 setuptools='setuptools>=80,<82'
            venv="$ROOT/.venv"
            ;;
        openmmlab)
            mim=openmim mmcv=mmcv mmcv_version=2.1.0 setuptools='setuptools>=77.0.3,<82'
            venv="$ROOT/.venv-openmmlab"
            ;;
        *) echo "--line is '$line'; it must be onedl or openmmlab." >&2 && exit 2 ;;
    esac
}

choose_environment() {
    step='finding Python' log='' constraints='' heartbeat=''
    if [[ $here == yes ]]; then
        PY=$(command -v "${PYTHON:-python}" || command -v python3) || die "No Python on PATH."
        prefix=$("$PY" -c 'import sys; print(sys.prefix)')
    else
        PY="$venv/bin/python"
        prefix=$venv
    fi
    stamp="$prefix/.mmdet-balanced-setup"
}

environment_name() {
    if [[ $here == yes ]]; then echo "the environment $prefix"; else echo "${prefix#"$ROOT"/}"; fi
}

# Two set-ups of one environment at a time (say, from demo.sh and test.sh) would trip over each other.
take_lock() {
    command -v flock >/dev/null || return 0
    exec 9>"${TMPDIR:-/tmp}/mmdet-balanced-$(id -u)-$(echo "$prefix" | cksum | tr -d ' ').lock"
    flock --nonblock 9 || { echo "Waiting for another set-up of $(environment_name) ..." && flock 9; }
}

# ------------------------------------------------------------------------------------------------ a finished set-up

fingerprint() {
    cat "$ROOT/pyproject.toml" "$ROOT/setup.py" "$SELF" <(echo "$ROOT $line $extras") | cksum
}

is_up_to_date() {
    [[ -x $PY && -f $stamp && $(cat "$stamp") == "$(fingerprint)" ]] && imports_work 2>/dev/null
}

write_stamp() { fingerprint >"$stamp"; }

imports_work() {
    # From /, so that it is the installed package that is found; it must be this checkout, not a copy of it.
    (cd / && "$PY" -W ignore -c '
import pathlib, sys
import cv2, torch, mmcv, mmengine, mmdet
import mmcv._ext
import balanced_det, iou_balanced, harmonic
found = pathlib.Path(balanced_det.__file__).resolve().parents[1]
sys.exit(f"balanced_det comes from {found}" if found != pathlib.Path(sys.argv[1]).resolve() else 0)
' "$ROOT" >/dev/null)
}

# ------------------------------------------------------------------------------------------------------ saying things

die() {
    printf '\nError: %s\n' "$*" >&2
    step=''
    exit 1
}

report_failure() {
    local status=$1
    stop_heartbeat
    if ((status == 0)) || [[ -z $step ]]; then exit "$status"; fi
    {
        printf '\nSet-up stopped at: %s\n' "$step"
        if [[ -s $log ]]; then
            printf 'Last lines of %s:\n' "$log"
            tail -n 12 "$log" | sed 's/^/    /'
        fi
        echo "What to do: $(advice)"
        echo 'Then run the same command again; what is done already is kept.'
    } >&2
    exit "$status"
}

advice() {
    if [[ -z $log || ! -s $log ]]; then
        echo 'see the message above.'
    elif grep -q 'Operation cancelled by user' "$log"; then
        echo 'nothing, it was interrupted.'
    elif grep -q 'No space left on device' "$log"; then
        echo "free disk space, or point TMPDIR and PIP_CACHE_DIR to a disk with room (needed: $ENV_GIB GiB)."
    elif grep -qE 'NewConnectionError|ConnectTimeout|ReadTimeout|Temporary failure|ProxyError|SSLError' "$log"; then
        echo 'the package index was not reached. Check the network, PIP_INDEX_URL and the proxy variables.'
    elif grep -q 'No matching distribution' "$log"; then
        echo "the package index has no version for this Python ($("$PY" --version 2>&1)); try PYTHON=python3.11."
    elif grep -qE 'Killed signal|internal compiler error' "$log"; then
        echo 'the compiler ran out of memory. Run again with MAX_JOBS=1.'
    elif grep -q 'externally-managed-environment' "$log"; then
        echo 'this is the system Python. Leave --here out, or activate a virtual or conda environment first.'
    else
        echo 'read the log named above.'
    fi
}

# run_step DESCRIPTION COMMAND...: runs it into the log, tells how long it took, and each minute that it is alive.
run_step() {
    local started=$SECONDS
    step=$1
    shift
    echo "- $step"
    printf '\n### %s: %s\n' "$step" "$*" >>"$log"
    (
        # Its own sleep would otherwise outlive it and hold on to a pipe that this script writes to.
        trap 'kill $! && exit' TERM
        for ((minutes = 1; ; minutes++)); do sleep 60 & wait $! && echo "  ... $minutes min"; done
    ) &
    heartbeat=$!
    local status=0
    "$@" >>"$log" 2>&1 || status=$?
    stop_heartbeat
    if ((status == 0)); then echo "  done in $((SECONDS - started)) s"; fi
    return "$status"
}

stop_heartbeat() {
    if [[ -n $heartbeat ]]; then
        kill "$heartbeat" 2>/dev/null || true
        wait "$heartbeat" 2>/dev/null || true
        heartbeat=''
    fi
}

free_gib() { df -Pk "$1" | awk 'NR == 2 { printf "%d", $4 / 1048576 }'; }

need_disk() {
    local folder=$1 needed=$2 purpose=$3 found
    found=$(free_gib "$folder")
    if ((found < needed)); then
        die "$purpose needs $needed GiB on the disk of $folder; $found GiB are free." \
            "Free some, or (for temporary files) set TMPDIR to a folder on another disk."
    fi
}

# -------------------------------------------------------------------------------------------------- Python and venv

python_is_supported() {
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

find_python() {
    local candidate
    if [[ -n ${PYTHON:-} ]]; then
        command -v "$PYTHON" >/dev/null || die "PYTHON=$PYTHON is not on PATH."
        python_is_supported "$PYTHON" || die "$(wrong_python "PYTHON=$PYTHON is $("$PYTHON" --version 2>&1)")"
        command -v "$PYTHON"
        return
    fi
    for candidate in python3 python python3.11 python3.12 python3.10 python3.13; do
        if command -v "$candidate" >/dev/null && python_is_supported "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    die "$(wrong_python "no suitable Python on PATH (python3 is $(python3 --version 2>&1 || echo missing))")"
}

wrong_python() {
    echo "$1; supported is $PYTHON_RANGE (what torch 2.13 and mmcv have)." \
        "Install one (Debian and Ubuntu: apt-get install python3.11 python3.11-venv;" \
        "or conda create -n mm python=3.11) and select it: PYTHON=python3.11 bash tools/setup_env.sh"
}

make_environment() {
    if [[ $here == yes ]]; then
        python_is_supported "$PY" || die "$(wrong_python "$PY is $("$PY" --version 2>&1)")"
        "$PY" -m pip --version >/dev/null 2>&1 || die "$PY has no pip: run $PY -m ensurepip"
    else
        make_venv
    fi
    log="$prefix/setup.log"
    : >"$log" || die "$prefix cannot be written. Leave --here out, or activate an environment of your own."
    # Torch brings its own gigabytes; without it the rest is small.
    if ! has torch; then need_disk "$prefix" "$ENV_GIB" "The environment (12 GiB with a CUDA build of torch)"; fi
    constraints="$prefix/setup-constraints.txt"
    echo "$setuptools" >"$constraints"
}

make_venv() {
    local python
    if [[ -x $PY ]] && "$PY" -m pip --version >/dev/null 2>&1; then
        if [[ -n ${PYTHON:-} ]] && ! same_version "$PYTHON" "$PY"; then
            die "$(environment_name) was made with $("$PY" --version), not with PYTHON=$PYTHON." \
                "Remove it: rm -r $venv"
        fi
        python_is_supported "$PY" || die "$(wrong_python "$PY is $("$PY" --version 2>&1)") after rm -r $venv"
        return
    fi
    python=$(find_python) || { step='' && exit 1; }
    need_disk "$ROOT" "$ENV_GIB" "The environment (12 GiB with a CUDA build of torch)"
    echo "- virtual environment $(environment_name), $("$python" --version)"
    if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
        die "$python has no venv module. Debian and Ubuntu: apt-get install python3-venv. Or use your own" \
            "environment: activate it and add --here."
    fi
    "$python" -m venv --clear "$venv" || die "$python -m venv $venv failed; see above."
}

same_version() {
    [[ $("$1" --version 2>&1) == "$("$2" --version 2>&1)" ]]
}

# ------------------------------------------------------------------------------------------------------ installing

pip_install() {
    "$PY" -m pip install --disable-pip-version-check --no-input --constraint "$constraints" "$@"
}

has() { version_of "$1" >/dev/null 2>&1; }

version_of() {
    "$PY" -c 'import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))' "$1" 2>/dev/null
}

refuse_other_line() {
    local other found=''
    for other in onedl-mmdetection onedl-mmengine onedl-mmcv mmdet mmengine mmcv mmcv-full mmcv-lite; do
        case $line/$other in onedl/onedl-* | openmmlab/mmdet | openmmlab/mmengine | openmmlab/mmcv) continue ;; esac
        if has "$other"; then found+=" $other"; fi
    done
    if [[ -n $found ]]; then
        die "$(environment_name) has$found, which share their folders with the $line line." \
            "Use another environment, another --line, or remove them: $PY -m pip uninstall$found"
    fi
}

install_torch() {
    if has torch; then
        "$PY" -W ignore -c 'import torch' >>"$log" 2>&1 ||
            die "torch $(version_of torch) is there but cannot be imported (see $log)." \
                "Remove it and run this again: $PY -m pip uninstall -y torch"
        echo "- torch $(version_of torch) is there and is kept"
    else
        run_step "$torch_spec (about 1 minute, and the download: 0.2 GB for CPU, 3 GB with CUDA)" \
            pip_install "$torch_spec" "$setuptools"
    fi
    if [[ $line == onedl ]] && ! "$PY" -c '
import sys
sys.exit(tuple(int(part) for part in sys.argv[1].split(".")[:2]) < (2, 4))' "$(version_of torch)"; then
        die "torch $(version_of torch) is there; the onedl line needs 2.4 or later." \
            "Use another environment, or --line openmmlab."
    fi
    # Nothing installed later may replace it.
    echo "torch==$(version_of torch)" >>"$constraints"
}

# openmim's dependency openxlab pins setuptools 60, which torch and mmcv do not take. The constraint makes pip choose
# an older openxlab without that pin; naming setuptools mends an environment where it was installed otherwise.
install_mim() {
    if has "$mim" && "$PY" -W ignore -c 'import mim.commands' >/dev/null 2>&1; then return; fi
    run_step "$mim (about half a minute)" pip_install "$mim" "$setuptools"
}

# A wheel's name says nothing of the torch it was built for, so only loading its operators tells whether it fits.
mmcv_fits() {
    "$PY" -W ignore -c '
import importlib.metadata, importlib.util, sys, torch
files = importlib.metadata.files(sys.argv[1]) or []
path = next(f.locate() for f in files if f.name.startswith("_ext.") and f.parent.name == "mmcv")
spec = importlib.util.spec_from_file_location("mmcv._ext", path)
spec.loader.exec_module(importlib.util.module_from_spec(spec))' "$mmcv"
}

install_mmcv() {
    local index
    step="checking $mmcv"
    if has "$mmcv"; then
        if mmcv_fits >>"$log" 2>&1; then return; fi
        echo "- $mmcv $(version_of "$mmcv") was built for another torch and is replaced"
        "$PY" -m pip uninstall -y "$mmcv" >>"$log" 2>&1
    fi
    try_mmcv_wheel "a wheel of $mmcv $mmcv_version from pip's sources" && return
    # Only an offer: where that host cannot be reached, this fails within seconds and the build follows.
    index=$(mim_index) && try_mmcv_wheel "one in the index that mim uses ($index)" \
        --find-links "$index" --retries 0 --timeout 10 && return
    check_compiler
    if run_step "$(build_message)" build_mmcv && mmcv_fits >>"$log" 2>&1; then return; fi
    # pip may have taken its own cached build, made for another torch.
    if has "$mmcv"; then
        "$PY" -m pip uninstall -y "$mmcv" >>"$log" 2>&1
        run_step "once more without pip's cache" build_mmcv --no-cache-dir
        mmcv_fits >>"$log" 2>&1 && return
    fi
    return 1
}

# The page with wheels for the installed torch, as `mim install` finds it. Not `mim install` itself: where it finds no
# wheel it goes on with a source build of its own, without our checks.
mim_index() {
    "$PY" -W ignore -c '
import importlib
install = importlib.import_module("mim.commands.install")  # mim.commands has a function of this name
print(install.get_mmcv_full_find_link(install.DEFAULT_MMCV_BASE_URL))' 2>>"$log"
}

try_mmcv_wheel() {
    local source=$1
    shift
    echo "- looking for $source"
    # --no-deps: what mmcv needs comes with the package, from the user's own index.
    if pip_install --only-binary :all: --no-deps "$@" "$mmcv==$mmcv_version" >>"$log" 2>&1; then
        if mmcv_fits >>"$log" 2>&1; then
            echo '  found'
            return
        fi
        echo '  found one, but it was built for another torch'
        "$PY" -m pip uninstall -y "$mmcv" >>"$log" 2>&1
    else
        echo '  none'
    fi
    return 1
}

check_compiler() {
    step='checking what the source build of mmcv needs'
    if ! command -v "${CXX:-g++}" >/dev/null; then
        die "No ready wheel of $mmcv fits this Python and torch, and there is no C++ compiler (${CXX:-g++})" \
            "to build one. Debian and Ubuntu: apt-get install build-essential;" \
            "conda: conda install -c conda-forge gxx." \
            "Or put a wheel of $mmcv $mmcv_version into a folder and set PIP_FIND_LINKS to it."
    fi
    "$PY" -c 'import pathlib, sys, sysconfig
sys.exit(not pathlib.Path(sysconfig.get_paths()["include"], "Python.h").is_file())' ||
        die "No ready wheel of $mmcv fits, and the headers of Python (Python.h) to build one are missing." \
            "Debian and Ubuntu: apt-get install python3-dev (or python3.11-dev, as your Python is called)."
    "$PY" -W ignore 2>>"$log" -c 'import torch, sys
from torch.utils.cpp_extension import CUDA_HOME
sys.exit(torch.cuda.is_available() and CUDA_HOME is None)' ||
        die "No ready wheel of $mmcv fits, and building one for your GPU needs the CUDA compiler (nvcc) of torch's" \
            "CUDA version, $("$PY" -c 'import torch; print(torch.version.cuda)'). Install that toolkit or set" \
            "CUDA_HOME."
    need_disk "${TMPDIR:-/tmp}" "$BUILD_GIB" "The build of $mmcv"
}

cores() { nproc 2>/dev/null || getconf _NPROCESSORS_ONLN; }

# One compiler takes up to 2 GiB.
build_jobs() {
    local jobs memory
    jobs=$(cores)
    memory=$(awk '/MemAvailable/ { printf "%d", $2 / 2097152 }' /proc/meminfo 2>/dev/null || echo "$jobs")
    if ((memory < jobs)); then jobs=$memory; fi
    if ((jobs < 1)); then jobs=1; fi
    echo "${MAX_JOBS:-$jobs}"
}

build_message() {
    echo "$mmcv $mmcv_version from source, $(build_jobs) compilers at a time" \
        "(about 11 minutes on 2 cores, longer with CUDA)"
}

build_mmcv() {
    # Without ninja torch compiles one file after the other. mmcv 2.1.0 does not build with setuptools 80.
    local builder='setuptools>=77.0.3,<80'
    if [[ $line == onedl ]]; then builder=$setuptools; fi
    pip_install ninja wheel "$builder" &&
        MAX_JOBS=$(build_jobs) MMCV_WITH_OPS=1 \
        pip_install --no-build-isolation --no-deps --no-binary "$mmcv" "$@" "$mmcv==$mmcv_version"
}

install_package() {
    run_step "mmdet and this package, editable (about 1 minute)" \
        pip_install --no-build-isolation --editable "${ROOT}[$line${extras:+,$extras}]" "$setuptools"
}

# mmcv and mmengine ask for opencv-python, whose windows need libGL, which servers lack. opencv-python-headless is the
# same module without windows. In our own venv it always replaces the other, so that every machine gets the same; an
# environment that is not ours is touched only if `import cv2` fails there. Both wheels write to cv2/, so both
# have to go before one is installed.
install_headless_opencv() {
    local version
    version=$(version_of opencv-python) || return 0
    if [[ $here == yes ]] && "$PY" -c 'import cv2' 2>>"$log"; then return; fi
    run_step "opencv-python-headless $version in place of opencv-python, which needs libGL" replace_opencv "$version"
}

replace_opencv() {
    "$PY" -m pip uninstall -y opencv-python opencv-python-headless
    pip_install --no-deps "opencv-python-headless==$1" || pip_install --no-deps opencv-python-headless
}

# ---------------------------------------------------------------------------------------------------------- the end

verify() {
    step='checking that everything can be imported'
    echo "- $step"
    imports_work 2>>"$log" && return
    if ! "$PY" -c 'import cv2' >>"$log" 2>&1; then
        echo "'import cv2' fails; see the log. If a library is missing: apt-get install libglib2.0-0 libgl1" >&2
    fi
    return 1
}

summary() {
    local name
    echo
    echo "Ready after $SECONDS s: $line line of mmdet, $("$PY" --version)"
    for name in torch numpy opencv-python-headless $(line_distributions) mmdet-balanced; do
        printf '  %-24s %s\n' "$name" "$(version_of "$name" || echo -)"
    done
    if [[ $here == no ]]; then echo "Activate it: source ${prefix#"$ROOT"/}/bin/activate"; fi
}

line_distributions() {
    if [[ $line == onedl ]]; then
        echo onedl-mmdetection onedl-mmengine onedl-mmcv onedl-mim
    else
        echo mmdet mmengine mmcv openmim
    fi
}

main "$@"
