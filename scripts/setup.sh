#!/usr/bin/env bash
# Creates .venv with the pinned packages and a Horovod built against the TensorFlow installed there.
# `make setup` calls it; a second call with nothing changed returns at once.
#   PYTHON=python3.12   which interpreter to use      CONVOY_CACHE=DIR   where built Horovod wheels are kept
#   VENV=.venv-dali     another folder to make        EXTRAS=dali        extras of pyproject.toml to install besides
#   TENSORFLOW=2.18     the older TensorFlow, of constraints-2.18.txt, which needs Python 3.10 to 3.12
set -euo pipefail
cd "$(dirname "$0")/.."

venv=${VENV:-.venv}
cache=${CONVOY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/convoy}
say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true; }

case ${TENSORFLOW:=2.21} in
  2.21) pins=constraints.txt pythons="3.13 3.12 3.11 3.10" ;;
  2.18) pins=constraints-2.18.txt pythons="3.12 3.11 3.10" ;;
  *) die "TENSORFLOW=$TENSORFLOW: versions are pinned for 2.21 (the default) and 2.18" ;;
esac
fits() { case " $pythons " in *" $1 "*) ;; *) return 1 ;; esac; }

# Names a Python that would do, for one that does not.
other_python() {
  local version
  for version in $pythons; do
    if [ "$(version_of "python$version")" = "$version" ]; then echo "PYTHON=python$version make setup uses the one that is installed here"; return; fi
  done
  version=${pythons%% *}
  echo "install Python $version (Debian, Ubuntu: apt-get install python$version-venv python$version-dev; Fedora: dnf install" \
    "python$version-devel; any Linux: uv python install $version), and name it: PYTHON=python$version make setup"
}

python=${PYTHON:-python3}
have "$python" || die "no $python found: $(other_python)"
version=$(version_of "$python")
[ -n "$version" ] || die "$python does not run: $(other_python)"
fits "$version" || die "$python is Python $version, and TensorFlow $TENSORFLOW needs one of ${pythons// /, }: $(other_python)"
"$python" -c 'import venv, ensurepip' 2>/dev/null || die "this Python cannot make virtual environments: install the package python$version-venv"
"$python" -c 'import os, sysconfig, sys; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' \
  || die "Python's headers are missing, which Horovod needs: install the package python$version-dev"

compiler=${CXX:-g++}
have "$compiler" || die "no C++ compiler ($compiler), which Horovod needs: install the package g++ (Debian, Ubuntu: apt-get install g++; Fedora: dnf install gcc-c++)"
have make || die "no program \`make\`, which the build of Horovod needs: install the package make"
have patch || die "no program \`patch\`, which the build of Horovod needs: install the package patch"
gpu=no; { [ -e /proc/driver/nvidia/version ] || { have nvidia-smi && nvidia-smi -L >/dev/null 2>&1; }; } && gpu=yes
if [ $gpu = yes ] && have nvidia-smi; then
  driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -1) || true
  oldest=$(sed -n 's/^OLDEST_DRIVER = //p' utils/machine/device.py)
  case ${driver%%.*} in '' | *[!0-9]*) ;; *)
    [ "${driver%%.*}" -ge "$oldest" ] || say "WARNING: NVIDIA's driver $driver is too old for TensorFlow's CUDA 12, so that" \
      "training will use the CPU: install driver $oldest or newer" ;;
  esac
fi
mpi=no; have mpicc && mpi=yes
tools=$("$compiler" --version; [ $mpi = no ] || mpicc --version; echo "$gpu $mpi")

# The C++ of input and training: half a minute, and nothing when its sources are unchanged. It only makes training faster.
native() {
  local log; log=$(mktemp)
  PYTHON=$venv/bin/python CXX=$compiler scripts/build_native.sh >"$log" 2>&1 || {
    grep -m5 -E 'error|Error' "$log" >&2 || tail -5 "$log" >&2
    say "WARNING: the native operations did not build (above); TensorFlow's own are used, at more CPU time"
  }
  rm -f "$log"
}

# Prints what is missing, in part or of another version in the environment; returns 1 if pip can mend it, 2 if not.
extras=dev,demo,$([ $gpu = yes ] && echo gpu || echo cpu)${EXTRAS:+,$EXTRAS}
wanted=("$pins" "convoy[$extras]" setuptools wheel cmake packaging cloudpickle psutil)
faults() { "$venv/bin/python" -m convoy.utils.installed "$@" "${wanted[@]}" horovod; }

# Everything the finished environment depends on, the folder included (scripts in .venv/bin name it).
stamp="$venv/.convoy-setup"
horovod() { cat "$venv"/lib/python*/site-packages/horovod-*.dist-info/RECORD 2>/dev/null | sha256sum | cut -d' ' -f1; }
want=$({ cat "$pins" pyproject.toml scripts/setup.sh scripts/horovod/*; pwd; echo "$venv ${EXTRAS:-}"; "$python" -VV; echo "$tools"; } | sha256sum | cut -d' ' -f1)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want $(horovod)" ]; then
  if wrong=$(faults 2>&1); then native; exit 0; fi
  say "$venv was changed after its set-up ($(head -1 <<<"$wrong")): installing again"
fi

state=2; [ "$(version_of "$venv/bin/python")" != "$version" ] || { state=0; faults --forget >/dev/null 2>&1 || state=$?; }
if [ $state = 2 ]; then
  say "creating $venv with Python $version"
  rm -rf "$venv" && "$python" -m venv "$venv"
fi
rm -f "$stamp"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }
say "installing pinned packages (TensorFlow $TENSORFLOW for $([ $gpu = yes ] && echo 'NVIDIA GPUs' || echo 'CPU'))"
pip install -qq --no-compile -c "$pins" pip setuptools wheel
# First what the builds below need; the rest is installed beside them. Python compiles a module when it is first imported.
pip install -qq --no-compile -c "$pins" cmake packaging cloudpickle psutil "$([ $gpu = yes ] && echo 'tensorflow[and-cuda]' || echo tensorflow-cpu)"
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
rest() {
  pip install -qq --no-compile --no-build-isolation -c "$pins" -e ".[$extras]" || return
  # The checkout's own folders, so that `python -m dataloader.prepare` works anywhere; the code itself imports `convoy.…`.
  pwd >"$site/convoy-checkout.pth"
  # Compiles what TensorFlow loads, a quarter of all modules, so that no start has to. Where Python may not write (a variable
  # of many containers and CI systems, or other users' folders), each start would otherwise take 10 s more.
  env -u PYTHONDONTWRITEBYTECODE -u PYTHONPYCACHEPREFIX "$venv/bin/python" -c 'import tensorflow' >/dev/null 2>&1 || true
}
set -m  # a process group each, so that nothing goes on installing after Ctrl-C or a failure
native & native_job=$!
rest & rest_job=$!
set +m
trap 'kill -- "-$native_job" "-$rest_job" 2>/dev/null || true' EXIT

# Horovod: compiled from the registry's source, kept as a wheel under a key of all that the binary depends on.
key=$({ cat scripts/horovod/*
        "$venv/bin/python" -c 'import sys, sysconfig; print(sys.version, sysconfig.get_platform())'
        pip list --format=freeze 2>/dev/null | grep -E '^(tensorflow|tensorflow[-_]cpu|numpy|cmake|nvidia-(nccl|cuda-runtime|cuda-nvrtc)-cu12)==' | LC_ALL=C sort
        uname -m; grep -m1 -E '^flags' /proc/cpuinfo 2>/dev/null | tr ' ' '\n' | grep -xE 'f16c|avx|fma'; echo "$tools"; } | sha256sum | cut -c1-20)
wheels=$cache/wheels/$key
if ! ls "$wheels"/horovod-*.whl >/dev/null 2>&1; then
  say "building Horovod against TensorFlow (Gloo$([ $mpi = yes ] && echo ', MPI')$([ $gpu = yes ] && echo ', NCCL')): some minutes, once"
  VENV=$venv PINS=$pins CACHE=$cache GPU=$gpu MPI=$mpi scripts/horovod/build.sh "$wheels.$$"
  mkdir -p "$wheels" && mv "$wheels.$$"/horovod-*.whl "$wheels/" && rmdir "$wheels.$$"  # within a file system, so that a wheel is whole
fi
wait "$native_job"
wait "$rest_job" || die "the packages could not be installed (above)"
pip install -qq --no-deps --force-reinstall "$wheels"/horovod-*.whl
# Three checks at once: all of Horovod's symbols are in the libraries that are there, which the linker does not check; the
# packages agree; none is missing.
LD_BIND_NOW=1 TF_CPP_MIN_LOG_LEVEL=3 "$venv/bin/python" -c 'import horovod.tensorflow' >"$stamp.loads" 2>&1 & loads=$!
pip check >"$stamp.agree" 2>&1 & agree=$!
faults >"$stamp.whole" 2>&1 & whole=$!
wait "$loads" || { tail -3 "$stamp.loads" >&2; die "Horovod was built, and does not load with this TensorFlow (above)"; }
wait "$agree" || { cat "$stamp.agree" >&2; die "the installed packages disagree (above)"; }
wait "$whole" || { cat "$stamp.whole" >&2; die "$venv is still not whole (above): remove it, and run make setup again"; }
rm -f "$stamp".*
echo "$want $(horovod)" > "$stamp"
say "done: $venv/bin/python main.py --help"
