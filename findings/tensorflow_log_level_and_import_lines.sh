#!/usr/bin/env bash
# TF_CPP_MIN_LOG_LEVEL=3 silences TensorFlow 2.18's import, and not 2.21's.
#
# Versions: tensorflow-cpu 2.18.1 with numpy 2.0.2, tensorflow-cpu 2.21.0 with numpy 2.4.6; Python 3.11, Linux x86-64,
#   with oneDNN on, which is the default on newer processors and is set here.
# Most expect: the variable sets the least level that TensorFlow's C++ code prints, 3 is "fatal errors only", and a
#   program that sets it before the import has a quiet standard error.
# Seen on 2026-12-01: oneDNN's notice is written by absl before its logging is set up, which knows nothing of the
#   variable: a line of warning about that, and the notice, both twice. Each process of a job prints them. Only
#   TF_ENABLE_ONEDNN_OPTS=0 ends it, which makes convolutions slower.
# What to do: point file descriptor 2 elsewhere during the import, and pass on the lines that are none of these.
# Output: at the end. Exits with 1 if it changes.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
lines() {  # VERSION NUMPY: how many lines the import prints on standard error
  python3 -m venv "$place/$1"
  "$place/$1/bin/pip" install -q "tensorflow-cpu==$1" "numpy==$2"
  TF_ENABLE_ONEDNN_OPTS=1 TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES=-1 \
    "$place/$1/bin/python" -c 'import tensorflow' 2>&1 | wc -l
}
old=$(lines 2.18.1 2.0.2) new=$(lines 2.21.0 2.4.6)
printf 'lines at the import with TF_CPP_MIN_LOG_LEVEL=3:  2.18.1: %s  2.21.0: %s\n' "$old" "$new"
[ "$old" = 0 ] && [ "$new" = 4 ]
# lines at the import with TF_CPP_MIN_LOG_LEVEL=3:  2.18.1: 0  2.21.0: 4
