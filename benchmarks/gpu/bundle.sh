#!/usr/bin/env bash
# Packs an environment for GPUs into pieces, for a GPU machine with a driver, Python 3.12 and no network.
#   benchmarks/gpu/bundle.sh DIR       writes DIR/part-000, part-001, … and DIR/zstandard-*.whl
#   PYTHON=python3.12                  the interpreter, of the version that the GPU machine has
#   PIECE=60M                          the size of a piece
#   LEAVE_OUT="cudnn nccl"             folders of nvidia/ that the GPU machine has in its own Python: 1 GB less. Untried
# There, once all pieces are in a folder DIR beside this checkout:
#   python3 -m pip install -q --no-index --no-deps --target /tmp/zstd DIR/zstandard-*.whl
#   cat DIR/part-* | PYTHONPATH=/tmp/zstd python3 -c 'import sys, zstandard as z
#   z.ZstdDecompressor(max_window_size=2**30).copy_stream(sys.stdin.buffer, sys.stdout.buffer)' | tar -x -C /tmp
#   benchmarks/gpu/check.sh /tmp/site
# Packing needs 10 GB of disk and takes about 20 minutes on 2 cores; do it before the GPU machine is started.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:?usage: bundle.sh DIR}
mkdir -p "$out"; out=$(cd "$out" && pwd)
python=${PYTHON:-python3.12} venv=.venv-bundle
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')

# `make setup` as on a machine with a GPU: a program that answers like NVIDIA's makes it build Horovod with NCCL.
driver=$(mktemp -d); trap 'rm -rf "$driver"' EXIT
printf '#!/bin/sh\necho 580.0\n' >"$driver/nvidia-smi" && chmod +x "$driver/nvidia-smi"
PATH="$driver:$PATH" PYTHON=$python VENV=$venv scripts/setup.sh
"$venv/bin/python" -m pip download -q --no-deps -d "$out" zstandard
lib=$venv/lib/python$version
nvidia=$lib/site-packages/nvidia

# .pth files count only in site folders. This makes the unpacked folder one: setuptools' distutils needs it.
printf 'import os, site\nsite.addsitedir(os.path.dirname(__file__))\n' >"$lib/site-packages/sitecustomize.py"
# Training never calls these libraries, but TensorFlow wants to open them: empty ones of the same names are enough for that.
mkdir -p "$nvidia/empty/lib"
for file in "$nvidia"/{cufft,curand,cusolver,cusparse}/lib/*.so.* "$nvidia"/cudnn/lib/libcudnn_adv.so.*; do
  name=${file##*/}
  gcc -shared -o "$nvidia/empty/lib/$name" -Wl,-soname,"$name" -x c /dev/null
done

read -ra leave <<<"cufft curand cusolver cusparse ${LEAVE_OUT:-}"
exclude=(--exclude=__pycache__ --exclude=tensorflow/include --exclude='nvidia/*/include' --exclude='libcudnn_adv*' --exclude='libnvblas*')
exclude+=("${leave[@]/#/--exclude=nvidia/}")
# What checks and measurements do not need, and this checkout, which travels by itself.
for name in pip ruff mypy mypyc matplotlib mpl_toolkits cmake importlinter grimp pytest _pytest fontTools __editable__* convoy-checkout.pth; do
  exclude+=("--exclude=site-packages/$name")
done
tar -C "$lib" "${exclude[@]}" --transform 's,^site-packages,site,' -cf - site-packages |
  zstd -q -T0 -12 --long=30 -c | split -b "${PIECE:-60M}" -d -a 3 - "$out/part-"
ls -la "$out"
