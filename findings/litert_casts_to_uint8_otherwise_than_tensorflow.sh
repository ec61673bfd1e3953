#!/usr/bin/env bash
# The same graph casts 256.0 to 0 in TensorFlow and ONNX Runtime, and to 255 in LiteRT.
#
# Versions: tensorflow-cpu 2.21.0, ai-edge-litert 2.3.0, tf2onnx 1.17.0, onnx 1.22.0, onnxruntime 1.32.0, numpy 2.4.6;
#   Python 3.11, Linux x86-64.
# Most expect: a converted model computes what TensorFlow computes, up to rounding; or that all saturate, as image
#   libraries do when they turn numbers into pixels.
# Seen on 2026-12-01: tf.cast to uint8 keeps the lowest eight bits in TensorFlow and in ONNX Runtime (256 becomes 0,
#   -1.5 becomes 255), and LiteRT saturates. Preprocessing inside a model meets this wherever a filter overshoots: a
#   bicubic resize of an edge from black to white and a cast give dark dots in the white half, and bright ones in the
#   black half, in two of the three runtimes. Comparisons on smooth test images do not notice.
# What to do: tf.clip_by_value to 0-255 before each cast (tf.saturate_cast), in what is exported too.
# Output: at the end. Exits with 1 if the runtimes have come to agree.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q tensorflow-cpu==2.21.0 onnx==1.22.0 onnxruntime==1.32.0 numpy==2.4.6
"$place/venv/bin/pip" install -q --no-deps ai-edge-litert==2.3.0 tf2onnx==1.17.0
cat > "$place/cast.py" <<'PY'
import sys
import warnings

warnings.simplefilter("ignore")
import numpy as np
import onnxruntime
import tensorflow as tf
import tf2onnx
from ai_edge_litert.interpreter import Interpreter

# What a bicubic resize makes of an edge, beside a few more numbers out of range.
edge = tf.image.resize(tf.constant([0, 0, 255, 255], tf.float32)[None, None, :, None], [1, 8], "bicubic")
given = np.concatenate([np.ravel(edge), [-1.5, 256.0, 300.0]]).astype(np.float32)[None]
spec = tf.TensorSpec([1, given.shape[1]], tf.float32, name="x")
cast = tf.function(lambda x: {"y": tf.cast(x, tf.uint8)}, input_signature=[spec])
found = {"TensorFlow": cast(tf.constant(given))["y"].numpy()[0]}
content = tf.lite.TFLiteConverter.from_concrete_functions([cast.get_concrete_function()], tf.Module()).convert()
interpreter = Interpreter(model_content=content)
interpreter.allocate_tensors()
interpreter.set_tensor(interpreter.get_input_details()[0]["index"], given)
interpreter.invoke()
found["LiteRT"] = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]
proto, _ = tf2onnx.convert.from_function(cast, input_signature=[spec], opset=17)
session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
found["ONNX Runtime"] = session.run(None, {session.get_inputs()[0].name: given})[0][0]
print(f"{'given':12} {' '.join(f'{value:6.1f}' for value in given[0])}")
for name, values in found.items():
    print(f"{name:12} {' '.join(f'{value:6}' for value in values)}")
same = np.array_equal(found["TensorFlow"], found["ONNX Runtime"])
sys.exit(0 if same and not np.array_equal(found["TensorFlow"], found["LiteRT"]) else 1)
PY
TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES=-1 "$place/venv/bin/python" "$place/cast.py" 2>/dev/null
# given           0.0   -5.6  -17.5   51.8  203.2  272.5  260.6  255.0   -1.5  256.0  300.0
# TensorFlow        0    251    239     51    203     16      4    255    255      0     44
# LiteRT            0      0      0     51    203    255    255    255      0    255    255
# ONNX Runtime      0    251    239     51    203     16      4    255    255      0     44
