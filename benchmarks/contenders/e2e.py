"""Trains with the whole `Trainer`, as users do: on JPEGs in TFRecords, or on synthetic images.

The trainer measures how long each step waits for its batch, as for its logs and for `--mode
training_benchmark` (docs/benchmark.md).
"""

from __future__ import annotations

import threading
from typing import Any

import keras

from benchmarks.contenders.photographs import prepared
from benchmarks.harness.contender import Contender
from convoy.runtime.builders.precision import precision
from convoy.runtime.settings.config import Config
from convoy.runtime.train.trainer import Trainer
from convoy.utils.distributed import ranks
from convoy.utils.logging import make_json_logger
from convoy.utils.machine import device
from convoy.utils.metrics import Throughput

ENDLESS, CLASSES = 10**6, 1000


class _Turns(keras.callbacks.Callback):
    """Lets the trainer do the granted number of steps, and then blocks it."""

    def __init__(self) -> None:
        super().__init__()
        self.granted, self.done = threading.Semaphore(0), threading.Semaphore(0)

    def on_train_begin(self, logs: Any = None) -> None:
        self.granted.acquire()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.done.release()
        self.granted.acquire()


def trainer(
    arch: str, size: int, batch: int, augmenter: str | None = None, **flags: Any
) -> Contender:
    """Returns the trainer as a contender. Each turn continues the same run.

    Args:
        augmenter: `--augmenter_name` for real images; None trains on synthetic images.
        flags: further fields of `Config`.
    """
    ranks.init()
    device.setup(local_rank=0, intraop_threads=None, interop_threads=None, tf32=True)
    real = {"data_dir": str(prepared() / "records"), "augmenter_name": augmenter}
    config = Config(
        mode="training_benchmark",
        arch=arch,
        image_size=size,
        train_batch_size=batch,
        num_classes=CLASSES,
        steps_per_epoch=ENDLESS,
        no_checkpoints=True,
        **(real if augmenter else {"data_backend": "synthetic"}),
        **flags,
    )
    turns, times, failures = _Turns(), Throughput(), []

    def train() -> None:
        try:
            keras.config.set_dtype_policy(
                precision(config).policy
            )  # each thread has its own policy
            made = Trainer(config, make_json_logger(None), callbacks=[turns])
            made.figures.throughput = times
            made.run()
        except BaseException as error:
            failures.append(error)
            turns.done.release()
            raise

    # A thread, so that the run keeps its state and prefetched batches between turns.
    threading.Thread(target=train, daemon=True).start()

    def turn(count: int) -> None:
        times.reset()
        for _ in range(count):
            turns.granted.release()
        for _ in range(count):
            turns.done.acquire()
            if failures:
                raise failures[0]

    def measures() -> dict[str, float]:
        waited, computed = times.data_times.sum(), times.compute_times.sum()
        return {"wait": float(100 * waited / (waited + computed))}

    turn(5)
    return Contender(turn, items=batch, facts={"keras": keras.__version__}, measures=measures)
