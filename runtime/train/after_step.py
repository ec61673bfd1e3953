"""Defines what runs after each training step: objects with a method `after_step`."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from convoy.dataloader.data_loader import Batch
from convoy.runtime.train.step import StepResult


class FinishedStep(NamedTuple):
    """A training step that has finished on all ranks.

    Attributes:
        number: its number in the run, from 1.
        batches: the batches that this rank trained on.
        data_seconds, compute_seconds: time spent on waiting for the data, and on the step itself.
        logged: whether the step writes a line to the log (every `--log_steps` steps).
        ends_epoch: whether it is the epoch's last.
    """

    number: int
    result: StepResult
    batches: list[Batch]
    lr: float
    data_seconds: float
    compute_seconds: float
    logged: bool
    ends_epoch: bool


class AfterStep(Protocol):
    """Does one thing after each step, such as checking its loss or logging its figures."""

    def after_step(self, done: FinishedStep) -> None:
        """Receives each step, on every rank, in the order of the steps."""
