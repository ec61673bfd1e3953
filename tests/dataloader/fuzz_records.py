"""Feeds mutated records to the reader, the parser, the decoder and the whole pipeline.

    python tests/dataloader/fuzz_records.py --count 10000 --seed 0

Run as a process of its own: a crash is then an exit status, and a hang a timeout. Prints one JSON
object of counts. Any exception other than those the contracts name ends it with a traceback.
"""

import argparse
import io
import json
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import tensorflow as tf
from PIL import Image

from convoy.dataloader.crc import masked
from convoy.dataloader.culprits import what_is_wrong
from convoy.dataloader.decode import random_crop_decode
from convoy.dataloader.errors import DataError
from convoy.dataloader.example import decode_example, encode_example
from convoy.dataloader.loader import Loader
from convoy.dataloader.options import InputOptions
from convoy.dataloader.sources import find_source

CLASSES = 10
PER_FILE = 250
SEED = tf.constant([3, 4])


def images(rng):
    """Small encoded images of every kind that may stand in a record."""
    small = Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8))
    photo = small.resize((28, 20), Image.Resampling.BICUBIC)
    kinds = [("JPEG", {}), ("JPEG", {"progressive": True}), ("JPEG", {"subsampling": 0})]
    kinds += [("PNG", {}), ("BMP", {}), ("GIF", {})]
    modes = [photo, photo.convert("L"), photo.convert("CMYK"), photo.convert("P")]
    found = []
    for image in modes:
        for kind, options in kinds:
            if (kind == "JPEG" and image.mode == "P") or (kind != "JPEG" and image.mode == "CMYK"):
                continue
            buffer = io.BytesIO()
            image.save(buffer, kind, **options)
            found.append(buffer.getvalue())
    return found


def mutate(data, rng):
    """A few random changes: bits, bytes, numbers at their extremes, cuts, repeats, insertions."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        if not data:
            return bytes(data)
        place = int(rng.integers(len(data)))
        if rng.random() < 0.5:
            place = min(place, int(rng.integers(1, 64)), len(data) - 1)  # headers are in front
        some = int(rng.integers(1, 17))
        match int(rng.integers(7)):
            case 0:
                data[place] ^= 1 << int(rng.integers(8))
            case 1:
                data[place] = int(rng.choice([0, 1, 127, 128, 254, 255]))
            case 2:
                data[place : place + some] = rng.bytes(some)
            case 3:
                data[place : place + some] = bytes([int(rng.choice([0, 255]))]) * some
            case 4:
                del data[place:]
            case 5:
                del data[place : place + some]
            case 6:
                data[place:place] = data[place : place + some]
    return bytes(data)


def frame(payload):
    length = len(payload).to_bytes(8, "little")
    checks = [masked(part).to_bytes(4, "little") for part in (length, payload)]
    return length + checks[0] + payload + checks[1]


def by_hand(path, count, rng):
    """Mutated payloads with right checksums, so that they get through to parser and decoder."""
    bases = images(rng)
    with open(path, "wb") as file:
        for _ in range(count):
            image, label = bases[rng.integers(len(bases))], int(rng.integers(CLASSES))
            if rng.random() < 0.7:
                image = mutate(image, rng)
            payload = encode_example({"image/encoded": image, "image/class/label": label + 1})
            if rng.random() < 0.3:
                payload = mutate(payload, rng)
            file.write(frame(payload))


def check_each(folder, rng, outcomes):
    """Every record by itself; what is decoded has the right shape, what is not has a reason."""
    source = find_source(folder, "train")
    for i in range(source.num_examples):
        shapes = []

        def decode(encoded, shapes=shapes):
            image = random_crop_decode(encoded, SEED, 8)
            shapes.append((image.shape, image.dtype))

        try:
            reason = what_is_wrong(source, i, CLASSES, decode)
        except DataError as error:
            reason = str(error)
        if reason is None:
            if shapes != [((8, 8, 3), tf.uint8)]:
                raise AssertionError(f"record {i}: decoded to {shapes}")
            outcomes["decoded"] += 1
        elif not reason or "\n" in reason:
            raise AssertionError(f"record {i}: reason {reason!r}")
        else:
            outcomes["refused"] += 1
        try:
            decode_example(source.read(np.array([i]))[0])
        except (ValueError, DataError):
            outcomes["not an Example"] += 1


def check_pipeline(folder, rng, outcomes):
    """Files mutated as files, then a whole epoch of what is left of them through tf.data."""
    path = Path(folder) / "train-00000-of-00001"
    content = bytearray(path.read_bytes())
    for _ in range(6):
        place = int(rng.integers(len(content)))
        content[place] ^= 1 << int(rng.integers(8))
    path.write_bytes(content[: int(rng.integers(len(content) // 2, len(content)))])
    bounds = {"num_classes": 2**31 - 1, "max_bad_examples": 1e6}
    options = InputOptions(image_size=8, batch_size=25, num_workers=2, **bounds)
    source = find_source(folder, "train")
    loader = Loader(source, options, training=True)
    try:
        weights = sum(float(weights.numpy().sum()) for _, _, weights in loader.batches(0))
    except DataError as error:  # a mutated label: refused by name, and that ends the run
        if "outside --num_classes" not in str(error):
            raise
        outcomes["ended by a label"] += source.num_examples
        return
    if weights + len(loader.bad_examples) != source.num_examples:
        raise AssertionError(f"{weights} + {len(loader.bad_examples)} != {source.num_examples}")
    outcomes["through the pipeline"] += source.num_examples
    outcomes["left out by the pipeline"] += len(loader.bad_examples)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pipeline_every", type=int, default=8, help="files between two epochs")
    options = parser.parse_args()
    outcomes, start = Counter(), time.monotonic()
    for number, first in enumerate(range(0, options.count, PER_FILE)):
        rng = np.random.default_rng([options.seed, number])
        with tempfile.TemporaryDirectory() as folder:
            os.environ["XDG_CACHE_HOME"] = folder
            count = min(PER_FILE, options.count - first)
            by_hand(Path(folder) / "train-00000-of-00001", count, rng)
            check_each(folder, rng, outcomes)
            outcomes["records"] += count
            if number % options.pipeline_every == 0:
                check_pipeline(folder, rng, outcomes)
    print(json.dumps(dict(outcomes) | {"seconds": round(time.monotonic() - start, 1)}))


if __name__ == "__main__":
    main()
