#!/usr/bin/env bash
# TensorFlow decodes a BMP with a palette to the numbers of the palette's entries, without a word.
#
# Versions: tensorflow-cpu 2.18.1, Pillow 13.0.0, numpy 2.0.2; Python 3.11, Linux x86-64.
# Most expect: tf.io.decode_image(data, channels=3) gives the picture's colours, as it does of a PNG or GIF with
#   a palette, and as every viewer shows them; or an error, as for BMPs of 16 bits.
# Seen on 2026-11-30: an 8-bit BMP of one red, one green, one blue and one white pixel comes out as four nearly
#   black ones, (0, 0, 0), (1, 1, 1), (2, 2, 2), (3, 3, 3). Scanners and Windows programs write such files, so a
#   data set of drawings trains on noise in which classes can still be told apart, and the loss falls.
# What to do: read the colour table (biBitCount 8 or less), or decode BMPs with another library.
# Output: at the end. Exits with 1 if TensorFlow has come to decode the colours, or to refuse the file.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q tensorflow-cpu==2.18.1 pillow==13.0.0 numpy==2.0.2
TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES=-1 "$place/venv/bin/python" - <<'PY'
import io
import sys

import numpy as np
import tensorflow as tf
from PIL import Image

colours = [255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255]
picture = Image.new("P", (4, 1))
picture.putpalette(colours + [0] * (768 - len(colours)))
picture.putdata([0, 1, 2, 3])
files = {}
for kind in ("PNG", "GIF", "BMP"):
    stream = io.BytesIO()
    picture.save(stream, kind)
    files[kind] = stream.getvalue()

found = {}
for kind, data in files.items():
    pillow = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))[0].tolist()
    found[kind] = tf.io.decode_image(data, channels=3, expand_animations=False).numpy()[0].tolist()
    print(f"{kind}  Pillow     {pillow}\n     TensorFlow {found[kind]}")
as_seen = found["BMP"] == [[i] * 3 for i in range(4)] and found["PNG"] == found["GIF"] != found["BMP"]
sys.exit(0 if as_seen else 1)
PY
# PNG  Pillow     [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]
#      TensorFlow [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]
# GIF  Pillow     [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]
#      TensorFlow [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]
# BMP  Pillow     [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]
#      TensorFlow [[0, 0, 0], [1, 1, 1], [2, 2, 2], [3, 3, 3]]
