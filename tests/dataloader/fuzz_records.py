"""Feeds mutated records to the reader, the parser, the decoder, verify and the whole pipeline.

    python tests/dataloader/fuzz_records.py --count 10000 --seed 0

It runs in its own process, so that a crash is an exit status and a hang a timeout. It prints one
JSON object of counts. Any exception that the contracts do not name ends it with a traceback.
"""

import argparse
import itertools
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

from convoy.dataloader.bad_images.culprits import what_is_wrong
from convoy.dataloader.errors import DataError
from convoy.dataloader.images.crops import random_crop_decode
from convoy.dataloader.loader import Loader
from convoy.dataloader.options import InputOptions
from convoy.dataloader.prepare.verify import bad_examples
from convoy.dataloader.sources.find import find_source
from convoy.dataloader.tfrecord.crc import masked
from convoy.dataloader.tfrecord.example import decode_example, encode_example
from tests.dataloader.mutations import images, mutate

CLASSES = 10
PER_FILE = 250
SEED = tf.constant([3, 4])


def frame(payload):
    length = len(payload).to_bytes(8, "little")
    checks = [masked(part).to_bytes(4, "little") for part in (length, payload)]
    return length + checks[0] + payload + checks[1]


def by_hand(path, count, rng):
    """Writes mutated payloads with correct checksums, which therefore reach parser and decoder."""
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
    """Each record alone decodes to the right shape or has a reason."""
    source = find_source(folder, "train", tell=None)
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


def check_verify(folder, outcomes):
    """`prepare verify` gives a one-line reason for each record that it cannot decode completely."""
    source = find_source(folder, "train", tell=None)
    found = bad_examples(source, CLASSES)
    for bad in found:
        if not bad.reason or "\n" in bad.reason:
            raise AssertionError(f"record {bad.key}: reason {bad.reason!r}")
    outcomes["verified"] += source.num_examples
    outcomes["bad to verify"] += len(found)


def starts(content):
    """Returns the offsets of an undamaged file's records, and its length."""
    places = [0]
    while places[-1] < len(content):
        length = int.from_bytes(content[places[-1] : places[-1] + 8], "little")
        places.append(places[-1] + 16 + length)
    return places


def harmed(content, rng):
    """Flips bits, half of them in headers, and cuts the file somewhere in its second half."""
    places = starts(content)[:-1]
    content = bytearray(content)
    for i in range(6):
        place = int(rng.choice(places) + rng.integers(12)) if i % 2 else rng.integers(len(content))
        content[place] ^= 1 << int(rng.integers(8))
    return bytes(content[: int(rng.integers(len(content) // 2, len(content)))])


def check_nothing_is_lost(source, before, content, outcomes):
    """Each byte belongs to a record or a counted hole, and no hole contains an undamaged record."""
    spans = [source.span(i)[1:] for i in range(source.num_examples)]
    if sum(size for _, size in spans) != len(content):
        raise AssertionError(f"{spans} of {len(content)} bytes")
    found = {start for i, (start, _) in enumerate(spans) if i not in source.damage}
    places = starts(before)
    for place, end in itertools.pairwise(places):
        if content[place:end] == before[place:end] and place not in found:
            raise AssertionError(f"the record at byte {place} is whole, and lost")
    outcomes["holes"] += len(source.damage)


def check_pipeline(folder, rng, outcomes):
    """Mutates a file as a whole, then reads it through tf.data in training and evaluation."""
    path = Path(folder) / "train-00000-of-00001"
    before = path.read_bytes()
    content = harmed(before, rng)
    path.write_bytes(content)
    bounds = {"num_classes": 2**31 - 1, "max_bad_examples": 1e6, "max_bad_eval_examples": 1e6}
    options = InputOptions(image_size=8, batch_size=25, num_workers=2, **bounds)
    for training in (True, False):
        source = find_source(folder, "train", tell=None)
        check_nothing_is_lost(source, before, content, outcomes)
        loader = Loader(source, options, training=training)
        try:
            weights = sum(float(weights.numpy().sum()) for _, _, weights in loader.batches(0))
        except DataError as error:  # a mutated label: the error names it and ends the run
            if "image/class/label is " not in str(error):
                raise
            outcomes["ended by a label"] += source.num_examples
            continue
        bad = loader.bad_examples
        if weights + len(bad) != source.num_examples:
            raise AssertionError(f"{weights} + {len(bad)} != {source.num_examples}")
        kind = "training" if training else "evaluation"
        outcomes[f"through {kind}"] += source.num_examples
        outcomes[f"left out by {kind}"] += len(bad)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pipeline_every", type=int, default=1, help="files between two epochs")
    options = parser.parse_args()
    outcomes, start = Counter(), time.monotonic()
    for number, first in enumerate(range(0, options.count, PER_FILE)):
        rng = np.random.default_rng([options.seed, number])
        with tempfile.TemporaryDirectory() as folder:
            os.environ["XDG_CACHE_HOME"] = folder
            count = min(PER_FILE, options.count - first)
            by_hand(Path(folder) / "train-00000-of-00001", count, rng)
            check_each(folder, rng, outcomes)
            check_verify(folder, outcomes)
            outcomes["records"] += count
            if number % options.pipeline_every == 0:
                check_pipeline(folder, rng, outcomes)
    print(json.dumps(dict(outcomes) | {"seconds": round(time.monotonic() - start, 1)}))


if __name__ == "__main__":
    main()
