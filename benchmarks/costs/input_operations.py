"""Measures Convoy's input operations beside TensorFlow's: CPU time per image, images per second.

    python -m benchmarks.costs.input_operations [--rounds 5] [--images 640] [--threads 1 2]
        [--only WORD …]

All rows take turns after each batch, so that other load on the machine affects all equally. Prints
medians over the rounds (minimum and maximum in brackets) as a Markdown table, then all measurements
as JSON.

64 photographs (contenders/photographs.py) stay in memory and become uint8 batches of 224 × 224
pixels. All rows decode the same crop of the same photograph: Convoy's pipeline draws the crop, the
baselines receive it. Reading, shuffling and prefetching are not included: the rows input-* of
`python -m benchmarks` compare whole loaders.
"""

from __future__ import annotations

import argparse
import functools
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf

from benchmarks.contenders import float_autoaugment
from benchmarks.contenders.photographs import photographs
from convoy.dataloader import native
from convoy.dataloader.augment.augmenter import make_augmenter
from convoy.dataloader.augment.device_plan import Planner
from convoy.dataloader.images.crops import UNIFORMS, crop_window, random_crop_decode
from convoy.utils import strict_json

SIZE, BATCH, AREA, RATIO = 224, 64, (0.05, 1.0), (0.75, 1.333)
PLAIN, FLOAT = "plain: decode_and_crop_jpeg + resize", "plain + float32 AutoAugment"
OURS, PURE = "ours, {}, native", "ours, {}, TensorFlow only"
DEVICE = "ours, {}, for the device to apply"


# ---- examples ------------------------------------------------------------------------------------


def _windows(jpegs: list[bytes], seeds: np.ndarray) -> np.ndarray:
    """Returns the windows that `random_crop_decode` decodes, int32 `(examples, 4)`."""
    shapes = [tf.io.extract_jpeg_shape(jpeg)[:2] for jpeg in jpegs]

    @tf.function(input_signature=[tf.TensorSpec([2], tf.int32), tf.TensorSpec([2], tf.int32)])
    def window(shape: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        uniforms = tf.random.stateless_uniform([UNIFORMS], seed, alg="philox")
        return crop_window(shape, uniforms, AREA, RATIO)

    return np.stack([window(shapes[i % len(jpegs)], seed) for i, seed in enumerate(seeds)])


# ---- the rows ------------------------------------------------------------------------------------


def _plain(encoded: tf.Tensor, seed: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    image = tf.image.decode_and_crop_jpeg(encoded, window, channels=3)
    return tf.cast(tf.image.resize(image, [SIZE, SIZE]), tf.uint8)


def _plain_float_autoaugment(encoded: tf.Tensor, seed: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    image = tf.image.decode_and_crop_jpeg(encoded, window, channels=3)
    image = tf.image.resize(image, [SIZE, SIZE])
    return tf.cast(float_autoaugment.autoaugment(image, seed), tf.uint8)


def _ours(name: str) -> Callable:
    augment = make_augmenter(name)

    def example(encoded: tf.Tensor, seed: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
        image = random_crop_decode(encoded, seed, SIZE, area=AREA, ratio=RATIO)
        return image if augment is None else augment(image, seed)

    return example


class Examples:
    """Photographs, seeds and crop windows; makes data sets from them."""

    def __init__(self, count: int = 2048):
        self.jpegs = photographs()
        rng = np.random.default_rng(1)
        self.seeds = rng.integers(0, 2**31 - 1, (count, 2), dtype=np.int32)
        self.windows = _windows(self.jpegs, self.seeds)

    def mapped(self, function: Callable, threads: int, finish: Callable | None = None) -> Iterator:
        """Yields endless batches of `function(encoded, seed, window)`, passed through `finish`."""
        encoded = tf.constant([self.jpegs[i % len(self.jpegs)] for i in range(len(self.seeds))])
        dataset = tf.data.Dataset.from_tensor_slices((encoded, self.seeds, self.windows)).repeat()
        dataset = dataset.map(function, num_parallel_calls=threads, deterministic=True)
        options = tf.data.Options()
        options.threading.private_threadpool_size = threads
        # Prefetch at most one image per thread: it would happen in other rows' turns.
        options.autotune.enabled = False
        options.experimental_optimization.apply_default_optimizations = False
        options.experimental_optimization.inject_prefetch = False
        dataset = dataset.batch(BATCH, drop_remainder=True)
        if finish is not None:
            dataset = dataset.map(finish)
        return iter(dataset.with_options(options))


def _for_device(examples: Examples, name: str, threads: int) -> Iterator:
    """Yields the host's batches for `--augment_on device` endlessly: crops and random draws."""
    planner = Planner(make_augmenter(name, image_size=SIZE), None, SIZE)
    labels, weights = tf.zeros([BATCH], tf.int32), tf.ones([BATCH])

    def example(encoded: tf.Tensor, seed: tf.Tensor, window: tf.Tensor) -> tuple[tf.Tensor, Any]:
        image = random_crop_decode(encoded, seed, SIZE, area=AREA, ratio=RATIO)
        return image, planner.draw(seed, seed)

    def plan(images: tf.Tensor, draws: Any) -> tuple[tf.Tensor, Any]:
        return images, planner.plan(draws, labels, weights)[0]

    return examples.mapped(example, threads, plan)


def rows(examples: Examples) -> dict[str, Callable[[int], Iterator]]:
    """Returns the rows by name: functions that take the number of threads and return batches."""

    def mapped(function: Callable) -> Callable[[int], Iterator]:
        return lambda threads: examples.mapped(function, threads)

    def pure(name: str) -> Callable[[int], Iterator]:
        def start(threads: int) -> Iterator:
            with native.disabled():
                return examples.mapped(_ours(name), threads)

        return start

    table = {
        PLAIN: mapped(_plain),
        FLOAT: mapped(_plain_float_autoaugment),
    }
    for name in ("none", "autoaugment", "randaugment"):
        if native.load():
            table[OURS.format(name)] = mapped(_ours(name))
            if name != "none":
                table[DEVICE.format(name)] = functools.partial(_for_device, examples, name)
        table[PURE.format(name)] = pure(name)
    return table


# ---- measuring -----------------------------------------------------------------------------------


def _next(batches: Iterator) -> tuple[float, float]:
    """Takes a batch. Returns the seconds of this process's CPU time, and the seconds elapsed."""
    cpu, wall = time.process_time(), time.perf_counter()
    next(batches)
    wall = time.perf_counter() - wall
    time.sleep(0.01)  # lets the threads prefetch an image or two in this row's turn
    return time.process_time() - cpu, wall


def _round(running: dict[str, Iterator], batches: int) -> dict[str, tuple[float, float]]:
    """Returns CPU ms per image and images/s of each row. Rows take turns after each batch."""
    sums = {name: np.zeros(2) for name in running}
    for _ in range(batches):
        for name in running:
            sums[name] += _next(running[name])
    images = batches * BATCH
    return {name: (1e3 * cpu / images, images / wall) for name, (cpu, wall) in sums.items()}


def measure(table: dict[str, Callable], threads: list[int], rounds: int, images: int) -> list[dict]:
    """Returns one dictionary per row and number of threads, with the figures of every round."""
    results = []
    for number in threads:
        running = {name: start(number) for name, start in table.items()}
        _round(running, 2)  # warm up
        found = [_round(running, max(1, images // BATCH)) for _ in range(rounds)]
        for name in running:
            cpu, speed = zip(*(figures[name] for figures in found), strict=True)
            results.append({"row": name, "threads": number, "cpu_ms": cpu, "images_per_s": speed})
    return results


def _median(result: dict, key: str) -> float:
    return statistics.median(result[key])


def _spread(result: dict, key: str, digits: int) -> str:
    values = result[key]
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def markdown(results: list[dict]) -> str:
    """Returns the Markdown table, with CPU time also as a multiple of the plain baseline's."""
    lines = ["| row | threads | CPU ms/image | images/s | CPU × plain |", "|---|---|---|---|---|"]
    plain = {r["threads"]: _median(r, "cpu_ms") for r in results if r["row"] == PLAIN}
    for result in results:
        base = plain.get(result["threads"])
        ratio = f"{_median(result, 'cpu_ms') / base:.2f}" if base else ""
        cpu, speed = _spread(result, "cpu_ms", 3), _spread(result, "images_per_s", 0)
        lines.append(f"| {result['row']} | {result['threads']} | {cpu} | {speed} | {ratio} |")
    return "\n".join(lines)


def goals(results: list[dict]) -> dict[str, float]:
    """Returns the ratios that have goals, for the smallest number of threads."""
    threads = min(result["threads"] for result in results)
    by_name = {result["row"]: result for result in results if result["threads"] == threads}

    def ratio(key: str, first: str, second: str) -> float | None:
        if first not in by_name or second not in by_name:
            return None
        return round(_median(by_name[first], key) / _median(by_name[second], key), 3)

    ours, pure = OURS.format("autoaugment"), PURE.format("autoaugment")
    found = {
        "AutoAugment: CPU, native / plain (goal ≤ 1.3)": ratio("cpu_ms", ours, PLAIN),
        "AutoAugment: images/s, native / float32 (goal ≥ 2.2)": ratio("images_per_s", ours, FLOAT),
        "AutoAugment: CPU, TensorFlow only / native (goal ≤ 2)": ratio("cpu_ms", pure, ours),
        "AutoAugment: CPU, TensorFlow only / plain": ratio("cpu_ms", pure, PLAIN),
    }
    return {name: value for name, value in found.items() if value is not None}


def machine() -> dict[str, object]:
    """Returns the properties of machine and build that affect the measurements."""
    names = Path("/proc/cpuinfo").read_text().splitlines() if os.name == "posix" else []
    model = next((line.split(": ")[1] for line in names if line.startswith("model name")), "")
    return {
        "cpu": model or platform.processor(),
        "cores": os.cpu_count(),
        "tensorflow": tf.__version__,
        "native": native.status(),
        "load before": round(os.getloadavg()[0], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=640, help="per row and round")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--only", nargs="+", help="rows with this in their name")
    arguments = parser.parse_args()
    about = machine()
    examples = Examples()
    about["bytes per JPEG"] = round(float(np.mean([len(jpeg) for jpeg in examples.jpegs])))
    table = rows(examples)
    if arguments.only:
        table = {n: f for n, f in table.items() if any(word in n for word in arguments.only)}
    results = measure(table, arguments.threads, arguments.rounds, arguments.images)
    about["load after"] = round(os.getloadavg()[0], 2)
    print(markdown(results), end="\n\n")
    for name, value in goals(results).items():
        print(f"- {name}: {value}")
    print()
    print(strict_json.dumps({"machine": about, "results": results, "goals": goals(results)}))


if __name__ == "__main__":
    main()
