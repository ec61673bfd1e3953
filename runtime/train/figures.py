"""Computes the figures of training steps: means, times and throughput, for epochs and log lines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from convoy.runtime.run_folder.history import RANK_TIMES
from convoy.runtime.train.sums import Sums
from convoy.utils.distributed import ranks
from convoy.utils.metrics import MeanAccumulator, Throughput

if TYPE_CHECKING:  # imports TensorFlow; reports need only the names
    from convoy.runtime.train.after_step import FinishedStep


class Window:
    """Collects sums and times of this rank's steps since its creation.

    Attributes:
        mean: means of the metrics over this rank's examples.
        shared: means over all ranks' examples, from the steps' exchanges: in float32.
    """

    def __init__(self, images_per_step: int) -> None:
        self.images_per_step = images_per_step
        self.mean, self.shared = MeanAccumulator(), MeanAccumulator()
        self.steps, self.data, self.compute = 0, 0.0, 0.0
        self.own: list[float] = []

    def add(self, done: FinishedStep) -> None:
        """Adds a step."""
        result = done.result
        self.mean.update(result.sums)
        self.shared.update(result.shared)
        if result.own_seconds is not None:
            self.own.append(result.own_seconds)
        self.steps += 1
        self.data += done.data_seconds
        self.compute += done.compute_seconds

    def speed(self) -> dict[str, float]:
        """Returns throughput in images/s over all ranks, and seconds per step."""
        steps, images = max(self.steps, 1), self.images_per_step * self.steps
        return {
            "train.total_ips": images / max(self.data + self.compute, 1e-9),
            "train.compute_ips": images / max(self.compute, 1e-9),
            "train.data_time": self.data / steps,
            "train.compute_time": self.compute / steps,
        }

    def means(self) -> dict[str, float]:
        """Returns the metrics over all ranks' examples. All ranks must call it."""
        sums = ranks.all_sum(self.mean.as_array())
        means = MeanAccumulator.from_array(sums).result()
        return {f"train.{name}": value for name, value in means.items()}

    def rank_times(self) -> np.ndarray:
        """Returns this rank's `RANK_TIMES`, float64 `(1, 3)`; NaN if nothing was measured."""
        steps = max(self.steps, 1)
        own = np.mean(self.own) if self.own else np.nan
        return np.array([[self.data / steps, self.compute / steps, own]])


class Figures:
    """Collects the figures of a run's steps.

    Args:
        images_per_step: over all ranks.
        throughput: receives every step of the run.

    Attributes:
        epoch: the current epoch's steps.
        window: the steps since the last log line.
    """

    def __init__(self, images_per_step: int, throughput: Throughput) -> None:
        self.images_per_step, self.throughput = images_per_step, throughput
        self.begin_epoch(Sums.none())

    def begin_epoch(self, sums: Sums) -> None:
        """Starts both windows with an unfinished epoch's sums. All ranks must call it."""
        self.epoch, self.window = Window(self.images_per_step), Window(self.images_per_step)
        self.epoch.mean.update(sums.epoch)
        self.window.mean.update(sums.window)
        self.window.shared.update(ranks.all_sum(sums.window) / ranks.size())

    def begin_window(self) -> None:
        """Empties the log window."""
        self.window = Window(self.images_per_step)

    def after_step(self, done: FinishedStep) -> None:
        """Adds a step everywhere."""
        self.throughput.add(self.images_per_step, done.data_seconds, done.compute_seconds)
        self.epoch.add(done)
        self.window.add(done)

    def sums(self) -> Sums:
        """Returns the metric sums of the epoch and of the log window, for a checkpoint."""
        return Sums(self.epoch.mean.as_array(), self.window.mean.as_array())

    def of_epoch(self, lr: float) -> dict[str, Any]:
        """Returns the epoch's means, learning rate, throughput and `RANK_TIMES`.

        All ranks must call it.
        """
        times = ranks.all_gather(self.epoch.rank_times()).T.round(6).tolist()
        values = self.epoch.means() | {"train.lr": lr} | self.epoch.speed()
        return values | dict(zip(RANK_TIMES, times, strict=True))


def of_a_run(images_per_second: float, evaluations_failed: int) -> dict[str, float]:
    """Returns the run's figures in the summary, beside those of an epoch and an evaluation."""
    found: dict[str, float] = {
        "avg_exp_per_second_training": images_per_second,
        "avg_exp_per_second_training_per_GPU": images_per_second / ranks.size(),
    }
    return found | ({"evaluations_failed": evaluations_failed} if evaluations_failed else {})


def of_training(values: dict[str, Any]) -> dict[str, float]:
    """Returns an epoch's figures for the run's summary."""
    return {
        "training_loss": values["train.loss"],
        "training_accuracy_top_1": values["train.top1"],
        "training_accuracy_top_5": values["train.top5"],
    }
