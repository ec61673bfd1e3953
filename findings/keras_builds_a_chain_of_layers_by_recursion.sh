#!/usr/bin/env bash
# Keras 3 walks a functional model's graph by recursion: a chain of about a thousand layers cannot be built.
#
# Versions: keras 3.15.1 and 3.5.0, tensorflow-cpu 2.21.0 and 2.18.1; Python 3.11, Linux x86-64.
# Most expect: a model's depth is bounded by memory. A deep residual network has one or two thousand layers in a row once
#   normalisation, activation and addition are layers of their own (ResNet-RS 420: 2,100).
# Seen on 2026-12-02: keras.Model(inputs, outputs) raises RecursionError for 1,000 layers one after the other, and
#   Sequential does too when it is built; one Python call is spent on each layer. A file that was saved under a higher
#   limit does not load under the usual one.
# What to do: sys.setrecursionlimit before such a model is built or loaded.
# Output: at the end. Exits with 1 if it changes.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
cat > "$place/chain.py" <<'PY'
import sys

import keras
import tensorflow as tf

print("keras", keras.__version__, "tensorflow", tf.__version__, "limit", sys.getrecursionlimit())


def chain(layers):
    entry = x = keras.Input((4,))
    for _ in range(layers):
        x = keras.layers.Activation("relu")(x)
    return keras.Model(entry, x)


def sequential(layers):
    return keras.Sequential([keras.Input((4,)), *(keras.layers.Activation("relu") for _ in range(layers))])


def outcome(what, *arguments):
    try:
        what(*arguments)
    except RecursionError as error:
        return type(error).__name__
    return "works"


found = [outcome(chain, 500), outcome(chain, 1000), outcome(sequential, 1000)]
print("a chain of 500:", found[0])
print("a chain of 1,000:", found[1])
print("a Sequential of 1,000:", found[2])
file, usual = f"{sys.argv[1]}/deep.keras", sys.getrecursionlimit()
sys.setrecursionlimit(10_000)
found.append(outcome(lambda: chain(1000).save(file)))
print("built and saved under a limit of 10,000:", found[3])
sys.setrecursionlimit(usual)
found.append(outcome(keras.models.load_model, file))
print("loaded under the usual one:", found[4])
sys.exit(0 if found == ["works", "RecursionError", "RecursionError", "works", "RecursionError"] else 1)
PY
for versions in "2.18.1 3.5.0" "2.21.0 3.15.1"; do
  read -r tensorflow keras <<<"$versions"
  python3 -m venv "$place/$keras"
  "$place/$keras/bin/pip" install -q "tensorflow-cpu==$tensorflow" "keras==$keras"
  TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES=-1 "$place/$keras/bin/python" "$place/chain.py" "$place" 2>"$place/errors" \
    || { status=$?; cat "$place/errors"; exit $status; }
done
# keras 3.5.0 tensorflow 2.18.1 limit 1000
# a chain of 500: works
# a chain of 1,000: RecursionError
# a Sequential of 1,000: RecursionError
# built and saved under a limit of 10,000: works
# loaded under the usual one: RecursionError
# keras 3.15.1 tensorflow 2.21.0 limit 1000
# a chain of 500: works
# a chain of 1,000: RecursionError
# a Sequential of 1,000: RecursionError
# built and saved under a limit of 10,000: works
# loaded under the usual one: RecursionError
