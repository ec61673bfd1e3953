"""What a training run tells: the JSON log, trackers, the terminal, and the figures they show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from convoy.runtime.run_folder.history import RANK_TIMES
from convoy.runtime.settings.config import Config
from convoy.runtime.trackers.workers import Trackers
from convoy.utils.distributed import ranks
from convoy.utils.logging import RunLog
from convoy.utils.metrics import MeanAccumulator
from convoy.utils.progress import Progress

if TYPE_CHECKING:  # which imports TensorFlow; reports need the names below only
    from convoy.runtime.train.step import Step, TrainState


# Metric → (unit, format), for the log's METADATA lines and the printed summary.
UNITS = {
    "train.loss": ("nats", ":.4f"),
    "train.lr": (None, ":.6f"),
    "train.top1": (None, ":.4f"),
    "train.top5": (None, ":.4f"),
    "train.grad_norm": (None, ":.4f"),
    "train.total_ips": ("images/s", ":.1f"),
    "train.compute_ips": ("images/s", ":.1f"),
    "train.data_time": ("s", ":.5f"),
    "train.compute_time": ("s", ":.5f"),
    **dict.fromkeys(RANK_TIMES, ("s", ":.5f")),
    "val.loss": ("nats", ":.4f"),
    "val.top1": (None, ":.4f"),
    "val.top5": (None, ":.4f"),
    "training_loss": ("nats", ":.4f"),
    "training_accuracy_top_1": (None, ":.4f"),
    "training_accuracy_top_5": (None, ":.4f"),
    "avg_exp_per_second_training": ("images/s", ":.1f"),
    "avg_exp_per_second_training_per_GPU": ("images/s", ":.1f"),
}

COUNTERS = 8
"""Sums of an epoch and of a log window, in a row; see `sums_of`."""


@dataclass
class Journal:
    """Where rank 0 reports; on other ranks every part does nothing."""

    log: RunLog
    trackers: Trackers
    progress: Progress | None = None

    def begin(self, shows: bool, config: Config, steps_per_epoch: int) -> None:
        """Says in the JSON log what unit and form each figure has, and shows on the terminal how
        training goes, if this rank `shows` that.
        """
        for name, (unit, form) in UNITS.items():
            self.log.metadata(name, unit, form)
        if shows:
            self.progress = Progress(
                total_epochs=config.max_epochs,
                steps_per_epoch=steps_per_epoch,
                log_steps=config.log_steps,
            )

    def line(self, text: str) -> None:
        """Prints one line on rank 0."""
        if self.progress is not None:
            self.progress.console_line(text)

    def metrics(self, step: tuple[int, ...], values: dict[str, float], global_step: int) -> None:
        """Logs the values to the JSON log and, but for lists, to trackers. The JSON line of an
        epoch tells the step at its end too.
        """
        whole = len(step) == 1
        self.log.log(step, values | {"step": global_step} if whole else values)
        # An epoch's means must not stand between those of the log's windows.
        self.trackers.scalars(
            {
                name.replace("train.", "epoch.") if whole else name: value
                for name, value in values.items()
                if not isinstance(value, list)
            },
            global_step,
        )

    def step(
        self,
        state: TrainState,
        place: int,
        window: Window,
        lr: float,
        gradient_norm: float | None,
        logged: bool,
    ) -> None:
        """Shows a step on the terminal, where one is due there, and logs the window that ends with
        it if it is one that is `logged`; every rank comes here.

        Args:
            place: the step's number in steps of this launch, whatever was done before on more or
                fewer processes.
        """
        if self.progress is not None and self.progress.due(place):
            mean = window.shared.result()
            self.progress.update(
                place,
                loss=mean["loss"],
                top1=mean["top1"],
                lr=lr,
                images_per_second=window.figures()["train.total_ips"],
            )
        if logged:
            # The mean over ranks needs an exchange.
            values = means(window) | {"train.lr": lr} | window.figures()
            values["train.grad_norm"] = gradient_norm
            self.metrics((state.epoch + 1, state.step), values, state.step)

    def epoch(self, state: TrainState, values: dict[str, Any]) -> None:
        """Logs an epoch that has ended (not one that `--prof` ended within)."""
        if not state.offset:
            self.metrics((state.epoch,), values, state.step)

    def close(self) -> None:
        """Gives the terminal back. The JSON log and the trackers are their opener's to end."""
        if self.progress is not None:
            self.progress.close()


class Window:
    """Sums and times of this rank's steps since it was made.

    Attributes:
        mean: of the metrics, over this rank's examples.
        shared: the same over all ranks', as far as a step's exchange brings it: in float32.
    """

    def __init__(self, images_per_step: int) -> None:
        self.images_per_step = images_per_step
        self.mean, self.shared = MeanAccumulator(), MeanAccumulator()
        self.steps, self.data, self.compute = 0, 0.0, 0.0
        self.own: list[float] = []

    def add(self, sums: np.ndarray, step: Step, data: float, compute: float) -> None:
        """Counts a step that was just done: its metric sums, and seconds of waiting for data and of
        computing.
        """
        self.mean.update(sums)
        self.shared.update(step.shared)
        if step.own_seconds is not None:
            self.own.append(step.own_seconds)
        self.steps, self.data, self.compute = (
            self.steps + 1,
            self.data + data,
            self.compute + compute,
        )

    def figures(self) -> dict[str, float]:
        """Throughput in images/s over all ranks, and seconds per step."""
        steps, images = max(self.steps, 1), self.images_per_step * self.steps
        return {
            "train.total_ips": images / max(self.data + self.compute, 1e-9),
            "train.compute_ips": images / max(self.compute, 1e-9),
            "train.data_time": self.data / steps,
            "train.compute_time": self.compute / steps,
        }

    def rank_times(self) -> np.ndarray:
        """This rank's `RANK_TIMES`, float64 `(1, 3)`; NaN where nothing was measured."""
        steps = max(self.steps, 1)
        own = np.mean(self.own) if self.own else np.nan
        return np.array([[self.data / steps, self.compute / steps, own]])


def sums_of(*windows: Window) -> np.ndarray:
    """The metric sums of some windows in a row, float64: what a checkpoint keeps of them."""
    return np.concatenate([window.mean.as_array() for window in windows])


def means(window: Window) -> dict[str, float]:
    """The window's metrics over all ranks' examples; every rank has to come here."""
    sums = ranks.all_sum(window.mean.as_array())
    means = MeanAccumulator.from_array(sums).result()
    return {f"train.{name}": value for name, value in means.items()}


def epoch_figures(epoch: Window, lr: float) -> dict[str, Any]:
    """An epoch's means, learning rate, throughput and `RANK_TIMES`; every rank has to come here."""
    times = ranks.all_gather(epoch.rank_times()).T.round(6).tolist()
    values = means(epoch) | {"train.lr": lr} | epoch.figures()
    return values | dict(zip(RANK_TIMES, times, strict=True))


def of_a_run(images_per_second: float, evaluations_failed: int) -> dict[str, float]:
    """What the run's summary says beside an epoch's figures and an evaluation's."""
    found: dict[str, float] = {
        "avg_exp_per_second_training": images_per_second,
        "avg_exp_per_second_training_per_GPU": images_per_second / ranks.size(),
    }
    return found | ({"evaluations_failed": evaluations_failed} if evaluations_failed else {})


def of_training(values: dict[str, Any]) -> dict[str, float]:
    """What the run's summary says of an epoch's figures."""
    return {
        "training_loss": values["train.loss"],
        "training_accuracy_top_1": values["train.top1"],
        "training_accuracy_top_5": values["train.top5"],
    }
