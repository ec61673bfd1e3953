#!/usr/bin/env bash
# Builds a wheel of Horovod against the TensorFlow of $VENV, with the patches of this folder: build.sh FOLDER
# scripts/setup.sh calls it, and sets
#   VENV, PINS   the environment, and the constraints that it was made with     CACHE   where the log of a failed build is kept
#   GPU          yes: with NCCL, from the packages that TensorFlow brings       MPI     yes: with mpicc
set -euo pipefail
cd "$(dirname "$0")/../.."
wheels=$1 patches=$PWD/scripts/horovod
build=$(mktemp -d); trap 'rm -rf "$build"' EXIT
pip() { "$VENV/bin/python" -m pip --disable-pip-version-check "$@"; }
die() {
  mkdir -p "$CACHE" && cp "$build/log" "$CACHE/horovod-build.log"
  printf 'setup: %s; the whole log is %s\n' "$1" "$CACHE/horovod-build.log" >&2
  exit 1
}

{ pip download --no-build-isolation --no-deps --no-cache-dir --no-binary horovod -c "$PINS" -d "$build" horovod &&
  mkdir "$build/source" && tar -xzf "$build"/horovod-*.tar.gz -C "$build/source" --strip-components 1 --no-same-owner; } >"$build/log" 2>&1 \
  || die "Horovod's source could not be had from the package registry"
for file in "$patches"/*.patch; do
  patch -d "$build/source" -p1 <"$file" >>"$build/log" 2>&1 || die "scripts/horovod/${file##*/} does not apply to this release of Horovod"
done

# CMake 4 refuses the old minimum version that Horovod's gloo declares, unless told; newer compilers need headers named.
flags=(HOROVOD_WITH_TENSORFLOW=1 HOROVOD_WITHOUT_PYTORCH=1 HOROVOD_WITHOUT_MXNET=1 HOROVOD_WITH_GLOO=1
       CMAKE_POLICY_VERSION_MINIMUM=3.5 "CXXFLAGS=${CXXFLAGS:-} -include stdexcept -include string -include cstdint")
if [ "$MPI" = yes ]; then flags+=(HOROVOD_WITH_MPI=1); else flags+=(HOROVOD_WITHOUT_MPI=1); fi
if [ "$GPU" = yes ]; then
  nvidia=$("$VENV/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/nvidia
  ln -sf libnccl.so.2 "$nvidia/nccl/lib/libnccl.so"  # the wheel ships only the versioned name
  cp "$patches/cuda_kernels.cc" "$build/source/horovod/common/ops/cuda/"
  # A header that CUDA's own headers include, and which no package of TensorFlow brings.
  pip install -qq --no-deps --target "$build/cccl" -c "$PINS" nvidia-cuda-cccl-cu12 >>"$build/log" 2>&1 \
    || die "the package nvidia-cuda-cccl-cu12 could not be had from the package registry"
  flags+=("CPLUS_INCLUDE_PATH=$build/cccl/nvidia/cuda_cccl/include")
  flags+=(HOROVOD_GPU_OPERATIONS=NCCL "HOROVOD_NCCL_HOME=$nvidia/nccl" HOROVOD_NCCL_LINK=SHARED "HOROVOD_CUDA_PACKAGES=$nvidia")
fi
PATH="$PWD/$VENV/bin:$PATH" env "${flags[@]}" "$PWD/$VENV/bin/python" -m pip --disable-pip-version-check wheel -q -v \
  --no-build-isolation --no-deps --no-cache-dir -w "$build" "$build/source" >>"$build/log" 2>&1 || {
  grep -E 'error:|Error:|CMake Error' "$build/log" | head -20 >&2 || true
  die "Horovod did not build"
}
mkdir -p "$wheels" && mv "$build"/horovod-*.whl "$wheels/"
