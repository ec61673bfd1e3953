"""Measures one cell of `--mode training_benchmark`: a few steps with the real trainer."""

from __future__ import annotations

import math
from itertools import islice
from typing import Any

import keras

from convoy.runtime.benchmark.plan import DEFAULT_ITERATIONS
from convoy.runtime.settings.config import Config
from convoy.runtime.train.trainer import Trainer
from convoy.utils.distributed import ranks
from convoy.utils.errors import ConfigError
from convoy.utils.logging import RunLog
from convoy.utils.machine.resources import Energy, out_of_memory
from convoy.utils.metrics import Throughput


def train(config: Config, run_log: RunLog) -> dict[str, Any]:
    """Trains `--benchmark_warmup` and then `--prof` steps, without evaluation or checkpoints.

    A run that `--max_epochs` ends earlier has fewer of both.

    Returns:
        `data` and `compute`, this rank's seconds of each timed step; `images_per_iteration` of all
        ranks; `warmup_iterations`; `energy` of the timed steps in J, or None.

    Raises:
        ConfigError: `--max_epochs` leaves no step to time.
    """
    steps, warmup = config.prof or DEFAULT_ITERATIONS, config.benchmark_warmup
    config = config.with_(no_checkpoints=True, prof=steps + warmup)
    meter = _Meter()
    trainer = Trainer(config, run_log, callbacks=[meter])
    if ranks.size() > 1:
        _try_out(trainer)
    at = trainer.state  # with --resume_checkpoint, not at the beginning
    there = (trainer.last.epoch - at.epoch) * trainer.sizes.steps_per_epoch
    there -= math.ceil(at.offset / trainer.sizes.images_per_step)
    meter.left = warmup = max(1, min(warmup, max(there - steps, there // 2)))
    trainer.figures.throughput = times = Throughput(warmup)
    trainer.run()
    if not len(times.compute_times):
        raise ConfigError(
            f"the {there} step(s) to the last epoch leave nothing to time after warm-up: raise"
            " --max_epochs"
        )
    return {
        "data": times.data_times,
        "compute": times.compute_times,
        "warmup_iterations": warmup,
        "images_per_iteration": trainer.sizes.images_per_step,
        "passes_per_update": trainer.sizes.micro_steps,
        "energy": meter.joules,
    }


def _try_out(trainer: Trainer) -> None:
    """Does one forward and backward pass, after which all ranks know whether any ran out of memory.

    In the middle of training, a rank that stops would leave the others waiting in an exchange.

    Raises:
        MemoryError: a rank ran out of memory.
    """
    problem = None
    batches = trainer.train_data.batches(0)
    try:
        for batch in islice(batches, 1):
            trainer.step.forward_backward(*batch)[2].numpy()
    except Exception as error:
        if not out_of_memory(error):
            raise
        problem = "out of memory"
    batches.close()
    if any(ranks.all_gather_object(problem)):
        raise MemoryError("out of memory")


class _Meter(keras.callbacks.Callback):
    """Measures the energy of the steps after the next `left`, in J; None if it cannot be read."""

    def __init__(self) -> None:
        super().__init__()
        self.left = 1
        self.joules: float | None = None
        self._energy: Energy | None = None

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.left -= 1
        if self._energy is not None:
            self.joules = self._energy.read()
        elif self.left <= 0:
            self._energy = Energy()
