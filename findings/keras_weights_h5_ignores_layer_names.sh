#!/usr/bin/env bash
# Keras 3 loads a .weights.h5 by the order of layers of a kind, and not by their names.
#
# Versions: keras 3.15.1 and 3.5.0, tensorflow-cpu 2.21.0 and 2.18.1, h5py 3.14.0 and 3.12.1; Python 3.11, Linux x86-64.
# Most expect: layers have names so that weights find them: a layer called "head" gets the weights of "head", and a file
#   whose names do not fit is refused. Keras 2's .h5 files could be loaded by name, and so are PyTorch's.
# Seen on 2026-12-01: the places in the file are dense, dense_1, …: the kind of layer, numbered in the order in which the
#   model lists them. 3.15.1 writes the layers' names as attributes of `vars`, 3.5.0 does not; neither reads them. A
#   model with other names loads without a word; one in which two branches are handed to Concatenate in the other order,
#   and that has the same names and shapes, loads each branch's weights into the other, and answers otherwise.
#   by_name=True is refused for this format.
# What to do: build the model with the code that saved it; to load into another, read these attributes.
# Output: at the end. Exits with 1 if it changes.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
cat > "$place/load.py" <<'PY'
import sys

import h5py
import keras
import numpy as np
import tensorflow as tf

print("keras", keras.__version__, "tensorflow", tf.__version__, "h5py", h5py.__version__)
file, images = f"{sys.argv[1]}/saved.weights.h5", np.ones((1, 4), np.float32)


def model(first, names=("left", "right")):
    """Two branches of the same shape, joined in one order or the other."""
    entry = keras.Input((4,), name="entry")
    branches = {name: keras.layers.Dense(3, name=name)(entry) for name in names}
    joined = keras.layers.Concatenate(name="join")([branches[name] for name in first])
    return keras.Model(entry, keras.layers.Dense(2, name="head")(joined))


def kernel(of, name):
    return keras.ops.convert_to_numpy(of.get_layer(name).kernel)


keras.utils.set_random_seed(0)
saved = model(("left", "right"))
saved.save_weights(file)
with h5py.File(file) as content:
    groups = {name: group.attrs.get("name") for name, group in content["layers"].items()}
    stored = {name: content[f"layers/{name}/vars"].attrs.get("name") for name in groups}
print("groups:", ", ".join(groups) + "; names:", sorted({*groups.values(), *stored.values()} - {None}))
renamed = model(("one", "other"), ("one", "other"))
renamed.load_weights(file)
as_seen = np.array_equal(kernel(renamed, "one"), kernel(saved, "left"))
print("other names: loaded without a word:", as_seen)
swapped = model(("right", "left"))
swapped.load_weights(file)
by_place = np.array_equal(kernel(swapped, "right"), kernel(saved, "left"))
print("branches in the other order: left's weights are now right's:", by_place)
try:
    swapped.load_weights(file, by_name=True)
    refused = False
except (ValueError, TypeError) as error:
    refused = True
    print("by_name=True:", type(error).__name__)
sys.exit(0 if as_seen and by_place and refused else 1)
PY
for versions in "2.18.1 3.5.0 3.12.1" "2.21.0 3.15.1 3.14.0"; do
  read -r tensorflow keras h5py <<<"$versions"
  python3 -m venv "$place/$keras"
  "$place/$keras/bin/pip" install -q "tensorflow-cpu==$tensorflow" "keras==$keras" "h5py==$h5py"
  TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES=-1 "$place/$keras/bin/python" "$place/load.py" "$place" 2>"$place/errors" \
    || { status=$?; cat "$place/errors"; exit $status; }
done
# keras 3.5.0 tensorflow 2.18.1 h5py 3.12.1
# groups: concatenate, dense, dense_1, dense_2, input_layer; names: []
# other names: loaded without a word: True
# branches in the other order: left's weights are now right's: True
# by_name=True: ValueError
# keras 3.15.1 tensorflow 2.21.0 h5py 3.14.0
# groups: concatenate, dense, dense_1, dense_2, input_layer; names: ['entry', 'head', 'join', 'left', 'right']
# other names: loaded without a word: True
# branches in the other order: left's weights are now right's: True
# by_name=True: ValueError
