#!/usr/bin/env bash
# Creates .venv with the pinned packages and a Horovod built against the TensorFlow installed there.
# `make setup` calls it; a second call with nothing changed returns at once.
#   PYTHON=python3.12   which interpreter to use      CONVOY_CACHE=DIR   where built Horovod wheels are kept
#   VENV=.venv-dali     another folder to make        EXTRAS=dali        extras of pyproject.toml to install besides
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
venv=${VENV:-.venv}
cache=${CONVOY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/convoy}
say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

command -v "$python" >/dev/null || die "no $python found: install Python 3.10, 3.11 or 3.12, or name one with PYTHON=…"
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
case $version in 3.10|3.11|3.12) ;; *) die "$python is Python $version; Convoy needs 3.10, 3.11 or 3.12: name one with PYTHON=…" ;; esac
"$python" -c 'import venv, ensurepip' 2>/dev/null || die "this Python cannot make virtual environments: install the package python$version-venv"
"$python" -c 'import os, sysconfig, sys; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' \
  || die "Python's headers are missing, which Horovod needs: install the package python$version-dev"

have() { command -v "$1" >/dev/null 2>&1; }
compiler=${CXX:-g++}
have "$compiler" || die "no C++ compiler ($compiler), which Horovod needs: install the package g++ (Debian, Ubuntu: apt-get install g++; Fedora: dnf install gcc-c++)"
gpu=no; { [ -e /proc/driver/nvidia/version ] || { have nvidia-smi && nvidia-smi -L >/dev/null 2>&1; }; } && gpu=yes
nccl=no; [ $gpu = yes ] && have nvcc && nccl=yes
mpi=no; have mpicc && mpi=yes
patched=no; have patch && patched=yes

# The C++ of input and training: half a minute, and nothing when its sources are unchanged. It only makes training faster.
native() {
  local log; log=$(mktemp)
  PYTHON=$venv/bin/python CXX=$compiler scripts/build_native.sh >"$log" 2>&1 || {
    grep -m5 -E 'error|Error' "$log" >&2 || tail -5 "$log" >&2
    say "WARNING: the native operations did not build (above); TensorFlow's own are used, at more CPU time"
  }
  rm -f "$log"
}

# Everything the finished environment depends on, the folder included (scripts in .venv/bin name it).
stamp="$venv/.convoy-setup"
want=$({ cat constraints.txt pyproject.toml scripts/setup.sh scripts/horovod.patch; pwd; echo "$venv ${EXTRAS:-}"; "$python" -VV; "$compiler" --version
         echo "$gpu $nccl $mpi $patched"; [ $mpi = no ] || mpicc --version; [ $nccl = no ] || nvcc --version; } | sha256sum | cut -d' ' -f1)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$want" ]; then native; exit 0; fi

if [ ! -x "$venv/bin/python" ] || [ "$("$venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" != "$version" ]; then
  say "creating $venv with Python $version"
  rm -rf "$venv" && "$python" -m venv "$venv"
fi
rm -f "$stamp"
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }
say "installing pinned packages (TensorFlow for $([ $gpu = yes ] && echo 'NVIDIA GPUs' || echo 'CPU'))"
pip install -qq -c constraints.txt pip setuptools wheel
pip install -qq -c constraints.txt --no-build-isolation cmake packaging cloudpickle psutil -e ".[dev,demo,$([ $gpu = yes ] && echo gpu || echo cpu)${EXTRAS:+,$EXTRAS}]"
# The checkout's own folders, so that `python -m dataloader.prepare` works anywhere; the code itself imports `convoy.…`.
"$venv/bin/python" -c 'import pathlib, sysconfig; pathlib.Path(sysconfig.get_path("purelib"), "convoy-checkout.pth").write_text(str(pathlib.Path.cwd()) + "\n")'
native & native_job=$!  # beside Horovod

# Horovod: compiled from the registry's source, kept as a wheel under a key of all that the binary depends on.
key=$({ grep -E '^(horovod|tensorflow|tensorflow-cpu|numpy|cmake)==' constraints.txt | LC_ALL=C sort
        "$venv/bin/python" -c 'import sys, sysconfig; print(sys.version, sysconfig.get_platform())'
        "$venv/bin/python" -m pip list --format=freeze 2>/dev/null | grep -E '^(tensorflow|tensorflow[-_]cpu|nvidia-nccl-cu12)==' | LC_ALL=C sort
        uname -m; "$compiler" --version; grep -m1 -E '^flags' /proc/cpuinfo 2>/dev/null | tr ' ' '\n' | grep -xE 'f16c|avx|fma'
        echo "$gpu $nccl $mpi ${HOROVOD_BUILD_CUDA_CC_LIST:-}"; [ $patched = no ] || cat scripts/horovod.patch
        [ $mpi = no ] || mpicc --version; [ $nccl = no ] || nvcc --version; } | sha256sum | cut -c1-20)
wheels=$cache/wheels/$key
if ! ls "$wheels"/horovod-*.whl >/dev/null 2>&1; then
  say "building Horovod against TensorFlow (Gloo$([ $mpi = yes ] && echo ', MPI')$([ $nccl = yes ] && echo ', NCCL')): about 5 minutes, once"
  build=$(mktemp -d); trap 'rm -rf "$build"' EXIT
  site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  # CMake 4 refuses the old minimum version that Horovod's gloo declares, unless told; newer compilers need two headers named.
  flags=(HOROVOD_WITH_TENSORFLOW=1 HOROVOD_WITHOUT_PYTORCH=1 HOROVOD_WITHOUT_MXNET=1 HOROVOD_WITH_GLOO=1
         CMAKE_POLICY_VERSION_MINIMUM=3.5 "CXXFLAGS=${CXXFLAGS:-} -include stdexcept -include string")
  [ $patched = yes ] || say "WARNING: there is no \`patch\`, so Horovod is built without scripts/horovod.patch: processes on CPUs exchange more slowly"
  if [ $mpi = yes ]; then flags+=(HOROVOD_WITH_MPI=1); else flags+=(HOROVOD_WITHOUT_MPI=1); fi
  if [ $nccl = yes ]; then
    ln -sf libnccl.so.2 "$site/nvidia/nccl/lib/libnccl.so"  # the wheel ships only the versioned name
    flags+=(HOROVOD_GPU_OPERATIONS=NCCL "HOROVOD_NCCL_HOME=$site/nvidia/nccl"
            "HOROVOD_BUILD_CUDA_CC_LIST=${HOROVOD_BUILD_CUDA_CC_LIST:-70,80,90}")
  elif [ $gpu = yes ]; then
    say "nvcc is not installed, so Horovod is built without NCCL: gradients of several GPUs will travel through the host"
  fi
  if ! { pip download --no-build-isolation --no-deps --no-cache-dir --no-binary horovod -c constraints.txt -d "$build" horovod &&
         mkdir "$build/source" && tar -xzf "$build"/horovod-*.tar.gz -C "$build/source" --strip-components 1 --no-same-owner &&
         { [ $patched = no ] || patch -d "$build/source" -p1 <scripts/horovod.patch; } &&
         PATH="$PWD/$venv/bin:$PATH" env "${flags[@]}" "$PWD/$venv/bin/python" -m pip --disable-pip-version-check wheel -q -v \
           --no-build-isolation --no-deps --no-cache-dir -w "$build" "$build/source"; } >"$build/log" 2>&1; then
    mkdir -p "$cache" && cp "$build/log" "$cache/horovod-build.log"
    grep -E 'error:|Error:|CMake Error' "$build/log" | head -20 >&2 || true
    die "Horovod did not build; the whole log is $cache/horovod-build.log"
  fi
  mkdir -p "$wheels" && mv "$build"/horovod-*.whl "$wheels/"
fi
wait "$native_job"
pip install -qq --no-deps --force-reinstall "$wheels"/horovod-*.whl
pip check >/dev/null || { pip check >&2; die "the installed packages disagree (above)"; }
echo "$want" > "$stamp"
say "done: $venv/bin/python main.py --help"
