#!/usr/bin/env bash
# Compiles dataloader/native/ into a TensorFlow library beside the sources; takes a few seconds.
# `make setup` calls it; call it again after changing the C++. Nothing is done if nothing changed.
#   CXX=g++   the compiler; CXXFLAGS   more flags; PYTHON=.venv/bin/python   whose TensorFlow
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-.venv/bin/python}
compiler=${CXX:-g++}
# The library's name is a hash of sources and TensorFlow; the compiler is noted in a file beside it.
{ read -r library; read -r tensorflow; } < <("$python" -c '
from dataloader import native
print(native.library_path()); print(native.tensorflow_folder())')
made_by="$("$compiler" --version | head -1) $(uname -m) ${CXXFLAGS:-}"
if [ -f "$library" ] && [ "$(cat "${library%.so}.txt" 2>/dev/null)" = "$made_by" ]; then exit 0; fi

build=$(mktemp -d dataloader/native/build.XXXXXX)
trap 'rm -rf "$build"' EXIT
# Contracting a * b + c would round once less than TensorFlow does, and change bytes.
# shellcheck disable=SC2086
"$compiler" -std=c++17 -O3 -ffp-contract=off -fno-math-errno -fno-trapping-math \
  -shared -fPIC -fvisibility=hidden -Wall -Wextra ${CXXFLAGS:-} -isystem "$tensorflow/include" \
  dataloader/native/*.cc -o "$build/convoy.so" \
  -L"$tensorflow" -l:libtensorflow_framework.so.2
mv -f "$build/convoy.so" "$library"  # at once: a process that starts now sees none or all of it
echo "$made_by" > "${library%.so}.txt"
for old in dataloader/native/convoy-*; do
  case $old in *"$(basename "${library%.so}")"*) ;; *) rm -f "$old" ;; esac
done
