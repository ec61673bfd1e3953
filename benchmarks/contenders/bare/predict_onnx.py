"""Labels a folder of JPEGs with an ONNX file: worker processes decode, ONNX Runtime computes.

rows/starts.py compares it with `--mode predict --engine onnx`. Crop and resizing are Pillow's.

    python benchmarks/contenders/bare/predict_onnx.py MODEL.onnx FOLDER LABELS.csv
"""

import csv
import os
import sys
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

SIZE, SHORT, BATCH = 224, 256, 16


def load(file: Path) -> np.ndarray:
    with Image.open(file) as opened:
        image = opened.convert("RGB")
        scale = SHORT / min(image.size)
        frame = round(image.width * scale), round(image.height * scale)
        left, top = (frame[0] - SIZE) / 2, (frame[1] - SIZE) / 2
        right, bottom = left + SIZE, top + SIZE
        box = (left / scale, top / scale, right / scale, bottom / scale)
        return np.asarray(image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box))


if __name__ == "__main__":
    files = sorted(Path(sys.argv[2]).iterdir())
    cores = len(os.sched_getaffinity(0))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores
    session = onnxruntime.InferenceSession(sys.argv[1], options)
    with Pool(cores) as pool, open(sys.argv[3], "w", newline="") as file:
        writer, images = csv.writer(file), pool.imap(load, files, chunksize=BATCH)
        for first in range(0, len(files), BATCH):
            part = files[first : first + BATCH]
            pixels = np.stack([next(images) for _ in part])
            (probabilities,) = session.run(["probabilities"], {"images": pixels})
            for name, row in zip(part, probabilities, strict=True):
                best = np.argsort(-row)[:5]
                writer.writerow([name, *(x for i in best for x in (i, row[i]))])
