#!/usr/bin/env bash
# A tf.function divides by a constant otherwise than the same line does outside: it multiplies by the reciprocal.
#
# Versions: tensorflow-cpu 2.18.1 and 2.21.0, numpy 2.0.2; Python 3.11, Linux x86-64.
# Most expect: IEEE division is exact to the last bit, so x / 24 is the same number in a tf.function, outside one and in
#   NumPy; and if the divisor is an argument of the function instead of a constant, nothing changes.
# Seen on 2026-12-01: TensorFlow's graph optimiser (constant folding) replaces x / c by x * (1 / c), in float32 and
#   float64; the reciprocal is rounded, so a third of the quotients by 24 differ in the last bit. Where an index is cut
#   off a quotient, another element is taken: int(i * (80 / 24)) names other pixels of a picture that is resized. A
#   function that is exact in tests, where the divisor is passed as a tensor, is not when that is a constant. It happens
#   on CPUs without XLA, too.
# What to do: divide integers as integers, or use tf.math.divide_no_nan, which is left alone.
# Output: at the end. Exits with 1 if it changes.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
cat > "$place/divide.py" <<'PY'
import sys

import numpy as np
import tensorflow as tf

x = np.arange(1, 1001)
as_seen = True
print(tf.__version__)
for kind in (tf.float32, tf.float64):
    values, divisor = tf.cast(x, kind), tf.constant(24, kind)
    want = x.astype(kind.as_numpy_dtype) / kind.as_numpy_dtype(24)

    def by_constant(a):
        return a / tf.constant(24, a.dtype)

    def share(found):
        return np.mean(found.numpy() != want)

    spec = tf.TensorSpec([None], kind)
    found = {
        "outside a function": share(by_constant(values)),
        "constant, traced": share(tf.function(by_constant, input_signature=[spec])(values)),
        "argument, traced": share(tf.function(lambda a, b: a / b)(values, divisor)),
        "divide_no_nan": share(
            tf.function(lambda a: tf.math.divide_no_nan(a, tf.constant(24, a.dtype)))(values)
        ),
    }
    for name, differ in found.items():
        print(f"{kind.name} {name:18} differ {differ:5.1%}")
        as_seen &= (differ > 0.05) == (name == "constant, traced")
sys.exit(0 if as_seen else 1)
PY
for version in 2.18.1 2.21.0; do
  python3 -m venv "$place/$version"
  "$place/$version/bin/pip" install -q "tensorflow-cpu==$version" numpy==2.0.2
  TF_CPP_MIN_LOG_LEVEL=3 "$place/$version/bin/python" "$place/divide.py" 2>"$place/errors" || { status=$?; cat "$place/errors"; exit $status; }
done
# 2.18.1
# float32 outside a function differ  0.0%
# float32 constant, traced   differ 33.2%
# float32 argument, traced   differ  0.0%
# float32 divide_no_nan      differ  0.0%
# float64 outside a function differ  0.0%
# float64 constant, traced   differ 33.2%
# float64 argument, traced   differ  0.0%
# float64 divide_no_nan      differ  0.0%
# 2.21.0
# float32 outside a function differ  0.0%
# float32 constant, traced   differ 33.2%
# float32 argument, traced   differ  0.0%
# float32 divide_no_nan      differ  0.0%
# float64 outside a function differ  0.0%
# float64 constant, traced   differ 33.2%
# float64 argument, traced   differ  0.0%
# float64 divide_no_nan      differ  0.0%
