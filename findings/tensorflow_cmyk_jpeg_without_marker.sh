#!/usr/bin/env bash
# The same CMYK JPEG is white paper to Pillow and OpenCV and black to TensorFlow, if it lacks Adobe's marker.
#
# Versions: tensorflow-cpu 2.18.1, Pillow 13.0.0, opencv-python-headless 4.12.0.88, numpy 2.0.2; Python 3.11, Linux.
# Most expect: decoders agree on a picture up to a level or two. A JPEG of four components does not say whether 0 or
#   255 is full ink; Adobe's marker (APP14) implies that values are inverted, and tools that strip metadata remove it.
# Seen on 2026-11-30: with the marker all three agree. Without it Pillow and OpenCV go on taking the values for
#   inverted, and TensorFlow takes them as they are: paper, (255, 255, 255), becomes (0, 0, 0), and cyan black.
#   A model that was trained by one library and is served by another sees a negative, and nothing says so.
# What to do: decode CMYK by one library everywhere, or turn such files into RGB once.
# Output: at the end. Exits with 1 if the decoders have come to agree.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q tensorflow-cpu==2.18.1 pillow==13.0.0 numpy==2.0.2 opencv-python-headless==4.12.0.88
TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES=-1 "$place/venv/bin/python" - <<'PY'
import io
import sys

import cv2
import numpy as np
import tensorflow as tf
from PIL import Image


def without_app14(data):
    """The file without its Adobe segment: all others stay as they are."""
    kept, at = bytearray(data[:2]), 2
    while data[at + 1] != 0xDA:  # until the scan begins
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] != 0xEE:
            kept += data[at:end]
        at = end
    return bytes(kept + data[at:])


differ = {}
for name, ink in (("paper", (0, 0, 0, 0)), ("cyan", (200, 0, 0, 0))):
    stream = io.BytesIO()
    Image.new("CMYK", (16, 16), ink).save(stream, "JPEG", quality=95)
    for marker, data in (("with", stream.getvalue()), ("without", without_app14(stream.getvalue()))):
        pillow = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))[8, 8].tolist()
        opencv = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[8, 8, ::-1].tolist()
        tensorflow = tf.io.decode_jpeg(data, channels=3).numpy()[8, 8].tolist()
        print(f"{name:5} {marker:7} Pillow {pillow}  OpenCV {opencv}  TensorFlow {tensorflow}")
        differ[name, marker] = max(abs(a - b) for a, b in zip(pillow, tensorflow))
as_seen = all(gap > 50 if marker == "without" else gap < 3 for (_, marker), gap in differ.items())
sys.exit(0 if as_seen else 1)
PY
# paper with    Pillow [255, 255, 255]  OpenCV [255, 255, 255]  TensorFlow [255, 255, 255]
# paper without Pillow [255, 255, 255]  OpenCV [255, 255, 255]  TensorFlow [0, 0, 0]
# cyan  with    Pillow [55, 255, 255]  OpenCV [56, 255, 255]  TensorFlow [55, 255, 255]
# cyan  without Pillow [55, 255, 255]  OpenCV [56, 255, 255]  TensorFlow [0, 0, 0]
