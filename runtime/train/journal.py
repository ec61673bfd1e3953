"""Reports a training run to the JSON log, trackers and the terminal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from convoy.runtime.run_folder.history import RANK_TIMES
from convoy.runtime.settings.config import Config
from convoy.runtime.trackers.workers import Trackers
from convoy.runtime.train.figures import Figures
from convoy.utils.logging import RunLog
from convoy.utils.progress import Progress
from convoy.utils.watchdog import watchdog

if TYPE_CHECKING:  # imports TensorFlow; reports need only the names below
    from convoy.runtime.train.after_step import FinishedStep
    from convoy.runtime.train.step import TrainState


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

    def epoch(self, state: TrainState, values: dict[str, Any]) -> None:
        """Logs a finished epoch (not one in which `--prof` ended)."""
        if not state.offset:
            self.metrics((state.epoch,), values, state.step)

    def close(self) -> None:
        """Restores the terminal. Whoever opened the JSON log and the trackers closes them."""
        if self.progress is not None:
            self.progress.close()


class StepLog:
    """Shows steps on the terminal, and writes logged ones to the JSON log and the trackers.

    A logged step stands for all steps since the one before: its window.

    Args:
        journal: receives the figures.
        figures: has the window, and already counts the step.
        state: is that after the step.
        place: returns the last step's number, counted in steps of this launch's size even if
            earlier ones ran on more or fewer processes.
    """

    def __init__(
        self, journal: Journal, figures: Figures, state: TrainState, place: Callable[[], int]
    ) -> None:
        self._journal, self._figures, self._state, self._place = journal, figures, state, place

    def after_step(self, done: FinishedStep) -> None:
        """Reports a step. All ranks must call it: a logged step exchanges its means."""
        # The log's disk may be slow.
        watchdog.mark(f"reporting step {done.number}", 10.0, done.compute_seconds)
        journal, window, place = self._journal, self._figures.window, self._place()
        if journal.progress is not None and journal.progress.due(place):
            mean = window.shared.result()
            journal.progress.update(
                place,
                loss=mean["loss"],
                top1=mean["top1"],
                lr=done.lr,
                images_per_second=window.speed()["train.total_ips"],
            )
        if done.logged:
            values: dict[str, Any] = window.means() | {"train.lr": done.lr} | window.speed()
            values["train.grad_norm"] = done.result.gradient_norm
            journal.metrics((self._state.epoch + 1, done.number), values, done.number)
            self._figures.begin_window()
