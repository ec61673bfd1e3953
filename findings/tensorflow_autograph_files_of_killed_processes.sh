#!/usr/bin/env bash
# A process that traces tf.functions, and is killed, leaves a file of Python for each function that it converted.
#
# Versions: tensorflow-cpu 2.18.1, numpy 2.0.2; Python 3.11, Linux x86-64.
# Most expect: tracing a function leaves nothing on the disk; or that AutoGraph's sources are in memory.
# Seen on 2026-11-30: AutoGraph writes each converted function, and those that it calls, to
#   __autograph_generated_file*.py in the folder of temporary files, and takes them away when Python ends. A process
#   that ends by SIGKILL (out of memory, a scheduler's last word), or by os._exit, never comes there. Jobs that are
#   preempted often fill /tmp with thousands of small files: a data pipeline and a training step have some forty.
# What to do: tf.function(autograph=False), and tf.autograph.experimental.do_not_convert for what Dataset.map takes,
#   wherever branches on tensors are written as tf.cond; that also saves the time of converting.
# Output: at the end. Exits with 1 if files are left no more, or also without AutoGraph.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q tensorflow-cpu==2.18.1 numpy==2.0.2
cat > "$place/trace.py" <<'PY'
import os
import signal
import sys

import tensorflow as tf


def half(x):
    return x / 2


def scale(x):
    return half(x) + 1


autograph = sys.argv[1] == "on"
tf.function(scale, autograph=autograph)(tf.constant(2.0))
mapped = scale if autograph else tf.autograph.experimental.do_not_convert(scale)
list(tf.data.Dataset.from_tensors(2.0).map(mapped))
if sys.argv[2] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "os._exit":
    os._exit(0)
PY
declare -A left
for autograph in on off; do
  for end in usual killed os._exit; do
    mkdir -p "$place/$autograph-$end"
    {
      TMPDIR="$place/$autograph-$end" TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES=-1 \
        "$place/venv/bin/python" "$place/trace.py" $autograph $end || true
    } 2>/dev/null
    left[$autograph-$end]=$(find "$place/$autograph-$end" -name '__autograph_generated_file*.py' | wc -l)
    printf 'AutoGraph %-3s  end %-8s  files left: %s\n' $autograph $end "${left[$autograph-$end]}"
  done
done
[ "${left[on-usual]}" = 0 ] && [ "${left[on-killed]}" -gt 0 ] && [ "${left[on-os._exit]}" -gt 0 ] \
  && [ "${left[off-killed]}" = 0 ] && [ "${left[off-os._exit]}" = 0 ]
# AutoGraph on   end usual     files left: 0
# AutoGraph on   end killed    files left: 3
# AutoGraph on   end os._exit  files left: 3
# AutoGraph off  end usual     files left: 0
# AutoGraph off  end killed    files left: 0
# AutoGraph off  end os._exit  files left: 0
