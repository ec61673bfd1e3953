#!/usr/bin/env bash
# One TFDS data set has other shapes and colours through as_data_source than through as_dataset, and which ones depends
# on whether OpenCV is installed.
#
# Versions: tensorflow-datasets 4.9.10, array-record 0.8.6, tensorflow-cpu 2.21.0, opencv-python-headless 5.0.0.93,
#   pillow 13.0.0, numpy 2.4.6; Python 3.11, Linux x86-64.
# Most expect: a feature tfds.features.Image(shape=(None, None, 3)) gives three channels of RGB, whichever way the records
#   are read; tfds.data_source (for PyTorch, JAX and Grain) is the same data without TensorFlow.
# Seen on 2026-12-01: as_dataset decodes with TensorFlow to three channels. as_data_source takes what the file holds:
#   a PNG with transparency has four channels, and without OpenCV so has a CMYK JPEG (inks, not colours), and a PNG
#   with a palette gives the palette's numbers in three equal channels. With OpenCV the last two are right. JPEGs
#   differ by up to 3 levels in any case. So `pip install opencv-python` changes a training set that nobody touched.
# What to do: decode yourself (tfds.decode.SkipDecoding) and convert to RGB, or check shapes before training.
# Output: at the end. Exits with 1 if it changes.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" install -q tensorflow-datasets==4.9.10 array-record==0.8.6 tensorflow-cpu==2.21.0 pillow==13.0.0 \
  numpy==2.4.6 importlib_resources==7.1.0
cat > "$place/read.py" <<'PY'
import logging
import sys

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

logging.disable(logging.WARNING)
place = sys.argv[1]
rng = np.random.default_rng(0)
coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
photo = coarse.resize((80, 60), Image.Resampling.BICUBIC)
pictures = {
    "colour.jpg": photo,
    "grey.jpg": photo.convert("L"),
    "cmyk.jpg": photo.convert("CMYK"),
    "palette.png": photo.convert("P"),
    "alpha.png": photo.convert("RGBA"),
}
for name, picture in pictures.items():
    picture.save(f"{place}/{name}")


class Few(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {"image": tfds.features.Image(shape=(None, None, 3)), "name": tfds.features.Text()}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for name in pictures:
            yield name, {"image": f"{place}/{name}", "name": name}


def prepared(kind):
    builder = Few(data_dir=f"{place}/{kind}", file_format=kind)
    builder.download_and_prepare()
    return builder


dataset = prepared("tfrecord").as_dataset(split="train")
loaded = {e["name"].numpy().decode(): e["image"].numpy() for e in dataset}
source = prepared("array_record").as_data_source(split="train")
for example in sorted((source[i] for i in range(len(source))), key=lambda e: e["name"]):
    name = example["name"] if isinstance(example["name"], str) else example["name"].decode()
    ours, theirs = loaded[name], example["image"]
    gap = ""
    if ours.shape == theirs.shape:
        gap = f"differ by up to {np.abs(ours.astype(int) - theirs).max()} levels"
    print(f"{name:12} as_dataset {ours.shape}  as_data_source {theirs.shape}  {gap}".rstrip())
PY
run() {
  mkdir -p "$place/$1"
  TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES=-1 "$place/venv/bin/python" "$place/read.py" "$place/$1" 2>"$place/$1/log" \
    | grep as_dataset || { tail -n 3 "$place/$1/log" >&2; return 1; }
}
without=$(run without)
"$place/venv/bin/pip" install -q --no-deps opencv-python-headless==5.0.0.93
with=$(run with)
printf 'without OpenCV:\n%s\nwith OpenCV:\n%s\n' "$without" "$with"
[[ "$without" =~ cmyk.*\ 80,\ 4 ]] && [[ "$without" =~ palette.*240 ]] && [[ ! "$with" =~ cmyk.*\ 80,\ 4 ]] \
  && [[ "$with" =~ alpha.*\ 80,\ 4 ]]
# without OpenCV:
# alpha.png    as_dataset (60, 80, 3)  as_data_source (60, 80, 4)
# cmyk.jpg     as_dataset (60, 80, 3)  as_data_source (60, 80, 4)
# colour.jpg   as_dataset (60, 80, 3)  as_data_source (60, 80, 3)  differ by up to 3 levels
# grey.jpg     as_dataset (60, 80, 3)  as_data_source (60, 80, 3)  differ by up to 2 levels
# palette.png  as_dataset (60, 80, 3)  as_data_source (60, 80, 3)  differ by up to 240 levels
# with OpenCV:
# alpha.png    as_dataset (60, 80, 3)  as_data_source (60, 80, 4)
# cmyk.jpg     as_dataset (60, 80, 3)  as_data_source (60, 80, 3)  differ by up to 3 levels
# colour.jpg   as_dataset (60, 80, 3)  as_data_source (60, 80, 3)  differ by up to 3 levels
# grey.jpg     as_dataset (60, 80, 3)  as_data_source (60, 80, 3)  differ by up to 2 levels
# palette.png  as_dataset (60, 80, 3)  as_data_source (60, 80, 3)  differ by up to 0 levels
