#!/usr/bin/env bash
# TensorFlow 2.21 no longer brings TensorBoard, and a summary writer that is opened without it leaves event files
# with no figures in them.
#
# Versions: tensorflow-cpu 2.21.0, tensorboard 2.21.0, numpy 2.4.6; Python 3.11, Linux x86-64.
# Most expect: tf.summary.scalar is part of TensorFlow, as it was up to 2.20, which depended on TensorBoard; and where a
#   part is missing, its name is missing too, or the import or the opening of the writer fails.
# Seen on 2026-12-01: the names are there and callable, and create_file_writer makes its file. Only the first call of
#   tf.summary.scalar raises TBNotInstalledError. A program that treats logging as something that may fail goes on
#   without its figures, and finds an event file that TensorBoard opens and that has nothing in it.
# What to do: depend on tensorboard yourself.
# Output: at the end. Exits with 1 if it changes.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q tensorflow-cpu==2.21.0 numpy==2.4.6
cat > "$place/log.py" <<'PY'
import glob
import sys

import tensorflow as tf

writer = tf.summary.create_file_writer(sys.argv[1])
found = "written"
try:
    with writer.as_default():
        tf.summary.scalar("loss", 0.5, step=1)
except Exception as error:
    found = f"raises {type(error).__name__}"
writer.close()
(file,) = glob.glob(f"{sys.argv[1]}/events*")
values = sum(
    len(tf.compat.v1.Event.FromString(record.numpy()).summary.value)
    for record in tf.data.TFRecordDataset(file)
)
print(f"callable: {callable(tf.summary.scalar)}  scalar: {found}  values in the file: {values}")
PY
run() {
  CUDA_VISIBLE_DEVICES=-1 "$place/venv/bin/python" "$place/log.py" "$place/$1" 2>/dev/null
}
without=$(run without)
"$place/venv/bin/pip" install -q tensorboard==2.21.0
with=$(run with)
printf 'without tensorboard   %s\nwith it               %s\n' "$without" "$with"
[ "$without" = "callable: True  scalar: raises TBNotInstalledError  values in the file: 0" ] \
  && [ "$with" = "callable: True  scalar: written  values in the file: 1" ]
# without tensorboard   callable: True  scalar: raises TBNotInstalledError  values in the file: 0
# with it               callable: True  scalar: written  values in the file: 1
