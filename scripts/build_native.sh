#!/usr/bin/env bash
# Compiles dataloader/native/ and model/native/ into TensorFlow libraries beside their sources; takes half a minute.
# `make setup` calls it; call it again after changing the C++. Nothing is done where nothing changed.
#   CXX=g++   the compiler; CXXFLAGS   more flags; PYTHON=.venv/bin/python   whose TensorFlow
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-.venv/bin/python}
compiler=${CXX:-g++}
# A library's name is a hash of sources and TensorFlow; the compiler is noted in a file beside it.
{ read -r tensorflow; read -r data_library; read -r model_library; } < <("$python" -c '
from convoy.dataloader import native as data
from convoy.model import native as model
from convoy.utils.native import tensorflow_folder
print(tensorflow_folder(), data.library_path(), model.library_path(), sep="\n")')
made_by="$("$compiler" --version | head -1) $(uname -m) ${CXXFLAGS:-}"

build=$(mktemp -d "${TMPDIR:-/tmp}/convoy-native.XXXXXX")
trap 'rm -rf "$build"' EXIT

compile() {  # FILE OBJECT FLAG…
  # shellcheck disable=SC2086
  "$compiler" -std=c++17 -O3 -fno-math-errno -fno-trapping-math -fPIC -fvisibility=hidden -Wall -Wextra \
    ${CXXFLAGS:-} -I. -isystem "$tensorflow/include" "${@:3}" -c "$1" -o "$2"
}

is_built() { [ -f "$1" ] && [ "$(cat "${1%.so}.txt" 2>/dev/null)" = "$made_by" ]; }

finish() {  # LIBRARY OBJECT…
  local library=$1 folder; folder=$(dirname "$1"); shift
  local fresh; fresh=$(mktemp "$folder/build.XXXXXX")
  "$compiler" -shared "$@" -o "$fresh" -L"$tensorflow" -l:libtensorflow_framework.so.2 -pthread
  chmod 755 "$fresh"; mv -f "$fresh" "$library"  # at once: a process that starts now sees none or all of it
  echo "$made_by" > "${library%.so}.txt"
  for old in "$folder"/convoy-*; do
    case $old in *"$(basename "${library%.so}")"*) ;; *) rm -f "$old" ;; esac
  done
}

build_data() {
  is_built "$data_library" && return
  local source objects=()
  for source in dataloader/native/*.cc; do
    # Contracting a * b + c would round once less than TensorFlow does, and change bytes.
    objects+=("$build/$(basename "$source").data.o")
    compile "$source" "${objects[-1]}" -ffp-contract=off
  done
  finish "$data_library" "${objects[@]}"
}

# The kernels once for each level of instructions; which runs is chosen when the library is loaded.
build_model() {
  is_built "$model_library" && return
  local levels=(baseline) level source objects=() running=()
  if [ "$(uname -m)" = x86_64 ]; then levels+=(v3 v4 v4bf16); fi
  for source in ops pool levels; do
    objects+=("$build/$source.o")
    compile "model/native/$source.cc" "$build/$source.o"
  done
  for level in "${levels[@]}"; do
    local flags=(-DCONVOY_LEVEL="$level" -Wno-psabi)
    if [ "$level" != baseline ]; then flags+=(-march=x86-64-"${level%bf16}" -mprefer-vector-width=512); fi
    if [ "$level" = v4bf16 ]; then flags+=(-mavx512bf16); fi
    # The baseline stays in front: of what several objects hold, say a function of std::vector, the first is taken.
    objects+=("$build/$level.o")
    compile model/native/level.cc "$build/$level.o" "${flags[@]}" & running+=($!)
  done
  for job in "${running[@]}"; do wait "$job"; done
  finish "$model_library" "${objects[@]}"
}

build_data & data_job=$!
build_model
wait "$data_job"
