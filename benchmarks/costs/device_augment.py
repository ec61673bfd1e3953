"""Measures the device's time per image for `--augment_on device`, with and without XLA.

    python -m benchmarks.costs.device_augment [--rounds 5] [--batch 32] [--only WORD …]

All rows take turns in one process. Each result is first compared with the host's augmentation, byte
by byte: run this before you trust the flag on a new kind of device. Rows use the GPU if there is
one (without XLA, TensorFlow runs integer operations on the host). input_operations.py measures the
host's share of the work.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.contenders.photographs import photographs
from benchmarks.costs.input_operations import SIZE, machine
from convoy.dataloader.augment.augmenter import make_augmenter
from convoy.dataloader.augment.device_plan import Planned, Planner
from convoy.dataloader.augment.mixing import make_mixer
from convoy.dataloader.augment.on_device import make_prepare
from convoy.utils import strict_json

CLASSES = 10
POLICIES: dict[str, dict[str, Any]] = {
    "AutoAugment": {"name": "autoaugment"},
    "RandAugment": {"name": "randaugment"},
    "TrivialAugment": {"name": "trivialaugment"},
    "jitter with hue": {"name": "none", "color_jitter": (0.4, 0.4, 0.4, 0.1)},
    "erasing": {"name": "none", "random_erasing": 0.25},
}
MIXING = "mixup and CutMix"


def _images(batch: int) -> tf.Tensor:
    """Returns the centres of photographs, uint8 `(batch, SIZE, SIZE, 3)`."""
    decoded = [tf.io.decode_jpeg(jpeg, channels=3) for jpeg in photographs(min(batch, 64))]
    square = [tf.image.resize_with_crop_or_pad(image, SIZE, SIZE) for image in decoded]
    return tf.stack([square[i % len(square)] for i in range(batch)])


def _case(name: str, images: tf.Tensor) -> tuple[Planner, Planned, np.ndarray]:
    """Returns a row's planner, the images with their plan, and the host's result."""
    batch = len(images)
    augmenter = make_augmenter(image_size=SIZE, **POLICIES[name]) if name in POLICIES else None
    mixer = make_mixer(0.2, 1.0, CLASSES) if name == MIXING else None
    planner = Planner(augmenter, mixer, SIZE)
    seeds = tf.random.stateless_uniform([batch, 2], (1, 2), None, None, tf.int32)
    labels, weights = tf.range(batch) % CLASSES, tf.ones([batch])
    draws = tf.map_fn(
        lambda seed: planner.draw(seed, seed),
        seeds,
        fn_output_signature=tf.nest.map_structure(
            lambda part: tf.TensorSpec(part.shape, part.dtype), planner.draw(seeds[0], seeds[0])
        ),
    )
    with tf.device("CPU:0"):
        wanted = images
        if augmenter is not None:
            both = (images, seeds)
            wanted = tf.map_fn(lambda pair: augmenter(*pair), both, fn_output_signature=tf.uint8)
        if mixer is not None:
            wanted = mixer(wanted, labels, weights, seeds)[0]
    return planner, Planned(images, planner.plan(draws, labels, weights)[0]), wanted.numpy()


def rows(batch: int, only: list[str] | None) -> dict[str, tuple[Callable, Planned, dict]]:
    """Returns the rows by name: function, argument, and results of the first call.

    The results are the seconds of the call (with compilation) and the number of images that differ
    from the host's.
    """
    images, table = _images(batch), {}
    for name in (*POLICIES, MIXING):
        for how, compiled in (("TensorFlow's operations", False), ("XLA", True)):
            title = f"{name}, {how}"
            if only and not any(word in title for word in only):
                continue
            planner, planned, wanted = _case(name, images)
            prepare = make_prepare(planner.recipe, planner.mixing, compiled=compiled)
            start = time.perf_counter()
            got = prepare(planned).numpy()
            seconds = time.perf_counter() - start
            different = int((got != wanted).any(axis=(1, 2, 3)).sum())
            table[title] = prepare, planned, {"compile_s": seconds, "images_different": different}
    return table


def measure(table: dict, rounds: int) -> list[dict]:
    """Returns one dictionary per row: results of the first call, (CPU) ms per image by round."""
    results = [
        {"row": name, **found, "cpu_ms": [], "ms": []} for name, (*_, found) in table.items()
    ]
    for _ in range(rounds):
        for result in results:
            prepare, planned, _ = table[result["row"]]
            cpu, wall = time.process_time(), time.perf_counter()
            _ = prepare(planned)[
                0, 0, 0, 0
            ].numpy()  # waits for the result, but copies only one number
            images = len(planned.images)
            result["ms"].append(1e3 * (time.perf_counter() - wall) / images)
            result["cpu_ms"].append(1e3 * (time.process_time() - cpu) / images)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--only", nargs="+", help="rows with this in their name")
    arguments = parser.parse_args()
    gpus = [gpu.name for gpu in tf.config.list_physical_devices("GPU")]
    about = machine() | {"gpus": gpus, "batch": arguments.batch}
    results = measure(rows(arguments.batch, arguments.only), arguments.rounds)
    print("| row | CPU ms/image | ms/image | first call, s | images not equal |")
    print("|---|---|---|---|---|")
    for result in results:
        cpu, wall = (statistics.median(result[key]) for key in ("cpu_ms", "ms"))
        first, different = result["compile_s"], result["images_different"]
        print(f"| {result['row']} | {cpu:.2f} | {wall:.2f} | {first:.1f} | {different} |")
    print(strict_json.dumps({"machine": about, "results": results}))


if __name__ == "__main__":
    main()
