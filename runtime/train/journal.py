"""Reports a training run to the JSON log, trackers and the terminal, and computes the figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from convoy.runtime.run_folder.history import RANK_TIMES
from convoy.runtime.settings.config import Config
from convoy.runtime.trackers.workers import Trackers
from convoy.runtime.train.sums import Sums
from convoy.utils.distributed import ranks
from convoy.utils.logging import RunLog
from convoy.utils.metrics import MeanAccumulator
from convoy.utils.progress import Progress

if TYPE_CHECKING:  # imports TensorFlow; reports need only the names below
    from convoy.runtime.train.step import Step, TrainState


# Metric -> (unit, format), for the log's METADATA lines and the printed summary.
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


@dataclass
class Journal:
    """Reports on rank 0; on other ranks every part does nothing."""

    log: RunLog
    trackers: Trackers
    progress: Progress | None = None

    def begin(self, shows: bool, config: Config, steps_per_epoch: int) -> None:
        """Writes each figure's unit and format to the JSON log.

        If this rank `shows` it, starts the progress display on the terminal.
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

    def metrics(self, step: tuple[int, ...], values: dict[str, Any], global_step: int) -> None:
        """Logs the values to the JSON log and, except for lists, to trackers.

        An epoch's JSON line also has the step at its end.
        """
        whole = len(step) == 1
        self.log.log(step, values | {"step": global_step} if whole else values)
        # Keep an epoch's means separate from those of log windows.
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
        """Shows a step on the terminal if one is due, and logs a window. All ranks must call it.

        Args:
            state: the state after the step.
            place: the step's number in this launch's steps, even if earlier ones ran on more or
                fewer processes.
            window: the window that ends with the step.
            lr: its learning rate.
            gradient_norm: its gradient's norm, if measured.
            logged: whether to log the window.
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
            values: dict[str, Any] = means(window) | {"train.lr": lr} | window.figures()
            values["train.grad_norm"] = gradient_norm
            self.metrics((state.epoch + 1, state.step), values, state.step)

    def epoch(self, state: TrainState, values: dict[str, Any]) -> None:
        """Logs a finished epoch (not one in which `--prof` ended)."""
        if not state.offset:
            self.metrics((state.epoch,), values, state.step)

    def close(self) -> None:
        """Restores the terminal. Whoever opened the JSON log and the trackers closes them."""
        if self.progress is not None:
            self.progress.close()


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

    def add(self, sums: np.ndarray, step: Step, data: float, compute: float) -> None:
        """Adds a step: its metric sums, and seconds of waiting for data and of computing."""
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
        """Returns throughput in images/s over all ranks, and seconds per step."""
        steps, images = max(self.steps, 1), self.images_per_step * self.steps
        return {
            "train.total_ips": images / max(self.data + self.compute, 1e-9),
            "train.compute_ips": images / max(self.compute, 1e-9),
            "train.data_time": self.data / steps,
            "train.compute_time": self.compute / steps,
        }

    def rank_times(self) -> np.ndarray:
        """Returns this rank's `RANK_TIMES`, float64 `(1, 3)`; NaN if nothing was measured."""
        steps = max(self.steps, 1)
        own = np.mean(self.own) if self.own else np.nan
        return np.array([[self.data / steps, self.compute / steps, own]])


def sums_of(epoch: Window, window: Window) -> Sums:
    """Returns the metric sums of an epoch and its log window, for a checkpoint."""
    return Sums(epoch.mean.as_array(), window.mean.as_array())


def means(window: Window) -> dict[str, float]:
    """Returns the window's metrics over all ranks' examples. All ranks must call it."""
    sums = ranks.all_sum(window.mean.as_array())
    means = MeanAccumulator.from_array(sums).result()
    return {f"train.{name}": value for name, value in means.items()}


def epoch_figures(epoch: Window, lr: float) -> dict[str, Any]:
    """Returns an epoch's means, learning rate, throughput and `RANK_TIMES`.

    All ranks must call it.
    """
    times = ranks.all_gather(epoch.rank_times()).T.round(6).tolist()
    values = means(epoch) | {"train.lr": lr} | epoch.figures()
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
