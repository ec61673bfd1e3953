#!/usr/bin/env bash
# With oneDNN, TensorFlow keeps tensors on CPUs in a pool of its own, as on GPUs: freed memory never goes back to the
# system, and memory that is reserved and never written still takes 1/32 of its size.
#
# Versions: tensorflow-cpu 2.21.0, numpy 2.4.6; Python 3.11, Linux x86-64 with glibc 2.36.
# Most expect: a pool that grows and never shrinks is the GPUs' affair (the guide speaks of GPUs only, and so does the
#   page of get_memory_info: "GPU and TPU"). On a CPU, tensors come from malloc: large ones go back to the system when
#   they are freed, malloc_trim returns the rest, and glibc's tunables and other allocators (jemalloc) change it.
# Seen on 2026-12-02: that is so without oneDNN. With it (the default on many processors, or TF_ENABLE_ONEDNN_OPTS=1),
#   512 MiB of tensors of 16 MiB stay in the process after they are freed, and malloc_trim finds nothing of them. A
#   tensor of 4 GiB that is made by tf.raw_ops.Empty, never written and freed costs 128 MiB for ever: the pool's index
#   has 8 bytes for each 256 of a region. get_memory_info("CPU:0") works then, and only then.
# What to do: count the largest need of a process as what it takes until it ends; run work with large peaks in a
#   process of its own.
# Output: at the end. Exits with 1 if it changes.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q tensorflow-cpu==2.21.0 numpy==2.4.6
cat > "$place/free.py" <<'PY'
import ctypes
import gc

import tensorflow as tf


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) / 256  # pages of 4 KiB, in MiB


def stays(before):
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return round((resident() - before) / 64) * 64


tf.fill((2, 2**20), 1.0)  # starts TensorFlow
before = resident()
tensors = [tf.fill((4, 2**20), float(n)) for n in range(32)]
whole = stays(before)
del tensors
freed = stays(before)
before = resident()
tf.raw_ops.Empty(shape=(2**10, 2**20), dtype=tf.float32, init=False)
reserved = stays(before)
try:
    tf.config.experimental.get_memory_info("CPU:0")
    known = "answers"
except ValueError:
    known = "raises ValueError"
print(f"made: {whole} MiB  freed: {freed} MiB  4 GiB never written: {reserved} MiB  memory info: {known}")
PY
run() {
  CUDA_VISIBLE_DEVICES=-1 TF_ENABLE_ONEDNN_OPTS=$1 "$place/venv/bin/python" "$place/free.py" 2>/dev/null
}
without=$(run 0)
with=$(run 1)
printf 'without oneDNN   %s\nwith it          %s\n' "$without" "$with"
made="made: 512 MiB"
[ "$without" = "$made  freed: 0 MiB  4 GiB never written: 0 MiB  memory info: raises ValueError" ] \
  && [ "$with" = "$made  freed: 512 MiB  4 GiB never written: 128 MiB  memory info: answers" ]
# without oneDNN   made: 512 MiB  freed: 0 MiB  4 GiB never written: 0 MiB  memory info: raises ValueError
# with it          made: 512 MiB  freed: 512 MiB  4 GiB never written: 128 MiB  memory info: answers
