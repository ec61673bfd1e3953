"""Measures what a training step waits for, besides the computation itself.

    python -m benchmarks.costs.step_waits [--arch efficientnet-b0] [--image_size 224] [--batch 16]
        [--steps 10] [--rounds 5] [--use_xla] [--dtype float32|bfloat16|float16]

Four ways to train on the same synthetic batch take turns in one process, each doing more than the
one before:

1. The compiled functions alone, on a batch in the device's memory. Results are read after the last
   step, so the device never waits for the host.
2. The same on a batch in the host's memory, which each step copies to the device.
3. Whole steps. Each reads its results before the next begins.
4. The trainer's loop, with what follows each step. It gets its batches from the input pipeline.

The difference between 2 and 1 is what a copy ahead of time could save, and between 3 and 2 what
reading results one step late could. On CPUs the functions only return when they have finished.
Prints a Markdown table: medians over the rounds (minimum and maximum in brackets).
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf

from benchmarks.contenders.training import on_device, set_up
from benchmarks.costs.input_operations import machine
from convoy.runtime.settings.config import Config
from convoy.runtime.train.step import Step
from convoy.runtime.train.trainer import Trainer
from convoy.utils.logging import make_json_logger

RATE = 1e-4
Turn = Callable[[], object]


def _trainer(asked: argparse.Namespace, folder: str) -> Trainer:
    config = Config(
        arch=asked.arch,
        image_size=asked.image_size,
        data_backend="synthetic",
        num_classes=1000,
        train_batch_size=asked.batch,
        steps_per_epoch=asked.steps,
        max_epochs=1,
        lr_init=RATE,
        warmup_epochs=0.0,
        use_xla=asked.use_xla,
        no_checkpoints=True,
        model_dir=folder,
    )
    return Trainer(config, make_json_logger(None))


def turns(trainer: Trainer, steps: int) -> dict[str, Turn]:
    """Returns the four ways to train `steps` steps."""
    step, state = trainer.step, trainer.state
    host = next(trainer.train_data.batches(0))
    device = on_device(host)

    def whole() -> None:
        for _ in range(steps):
            step([host], RATE)

    def loop() -> None:
        state.epoch, state.offset = 0, 0
        trainer.last = trainer.last._replace(step=state.step + steps)
        trainer._train_epoch()

    return {
        "functions alone, batch on the device": lambda: _functions(step, device, steps),
        "functions alone, batch on the host": lambda: _functions(step, host, steps),
        "whole steps": whole,
        "the trainer's loop": loop,
    }


def _functions(step: Step, batch: Any, steps: int) -> None:
    """Runs a step's functions without reading a result before the last step's."""
    rate, observe = tf.constant(RATE), tf.constant(False)
    finite = tf.constant(True)
    for number in range(steps):
        gradients, weight, sums = step.forward_backward(*batch)
        gradients, weight, _ = step.reduce(gradients, weight, tf.cast(sums, tf.float32))
        count = tf.constant(step.state.step + number, tf.int64)
        finite, _ = step.update(gradients, weight, rate, count, observe)
    bool(finite)


def measure(trainer: Trainer, steps: int, rounds: int) -> dict[str, list[float]]:
    """Returns the seconds of a step, by round."""
    trainer.step.seed_randomness()
    ways = turns(trainer, steps)
    found: dict[str, list[float]] = {name: [] for name in ways}
    for turn in ways.values():
        turn()  # compiles
    for _ in range(rounds):
        for name, turn in ways.items():
            start = time.perf_counter()
            turn()
            found[name].append((time.perf_counter() - start) / steps)
    return found


def table(found: dict[str, list[float]]) -> Iterator[str]:
    """Yields the lines of the table: milliseconds of a step, and their ratio to the first way."""
    first = next(iter(found.values()))
    yield "| | ms a step | ÷ the first |"
    yield "|---|---|---|"
    for name, seconds in found.items():
        ratios = [mine / its for mine, its in zip(seconds, first, strict=True)]
        yield f"| {name} | {_spread([1e3 * s for s in seconds])} | {_spread(ratios)} |"


def _spread(values: list[float]) -> str:
    digits = 1 if max(values) >= 10 else 3
    middle, least, most = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({least:.{digits}f}–{most:.{digits}f})"


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="efficientnet-b0")
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=10, help="in a turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--use_xla", action="store_true")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    asked = parser.parse_args()
    set_up(asked.dtype, need_gpu=False)
    with tempfile.TemporaryDirectory() as folder:
        trainer = _trainer(asked, folder)
        found = measure(trainer, asked.steps, asked.rounds)
    print(machine())
    print(f"{asked.arch}, {asked.image_size} px, batch {asked.batch}, {asked.dtype}")
    print()
    print("\n".join(table(found)))


if __name__ == "__main__":
    main()
