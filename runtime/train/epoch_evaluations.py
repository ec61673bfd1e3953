"""Evaluates within training: the weights and their moving average, and which was best."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from convoy.dataloader.data_loader import DataLoader
from convoy.dataloader.errors import DataError
from convoy.runtime.builders.inputs import build_loader
from convoy.runtime.data.class_matching import numbered_like
from convoy.runtime.evaluate.evaluate import evaluate_data
from convoy.runtime.evaluate.step import EvalStep
from convoy.runtime.run_folder.checkpoint import Checkpoint
from convoy.runtime.settings.config import Config
from convoy.runtime.trackers.workers import Trackers
from convoy.runtime.train.best import best_text, judge
from convoy.runtime.train.confusion import make_counting_step, show_counts
from convoy.runtime.train.earlier_best import images_of
from convoy.runtime.train.journal import Journal
from convoy.runtime.train.step import TrainState
from convoy.utils.optional import known
from convoy.utils.text import counted


class Evaluations:
    """The evaluations of a run; none in `--mode train`.

    If broken images make one impossible, this is reported and counted, and training continues: the
    weights are saved, and the images may be repaired meanwhile. Each evaluation tries all images
    again.

    Args:
        state: the state to evaluate.
        train_data: the training loader, whose classes the validation split shares.
        asked: returns whether this rank was asked to stop.
        evaluated: whether the state was evaluated in the previous launch.

    Attributes:
        data: the validation loader; None in `--mode train`.
        images: what identifies its images (`earlier_best.images_of`).
        epoch: the last evaluated epoch, whose figures are the run's; None: none was evaluated.
        answers: for that epoch, by the better of the weights and their average: correct answers,
            examples and answers of each class, int64 `(3, classes)`; None before the first.
        failures: reasons of this launch's failed evaluations.
    """

    def __init__(
        self,
        config: Config,
        state: TrainState,
        train_data: DataLoader,
        journal: Journal,
        asked: Callable[[], bool],
        evaluated: bool = False,
    ) -> None:
        self._config, self._state, self._journal, self._asked = config, state, journal, asked
        self.failures: list[str] = []
        self.epoch = state.epoch if evaluated else None
        self.answers: np.ndarray | None = None
        self.data = self._step = self.images = None
        if config.mode == "train_and_eval":
            adapt = numbered_like(train_data, f"--data_dir {config.data_dir}")
            self.data = build_loader(config, "validation", train_data, adapt=adapt)
            self.images = images_of(self.data, config)
            self._step = make_counting_step(config, state.model)

    def due(self, last_epoch: int) -> bool:
        """Returns whether to evaluate: at the interval's epochs, and after the last one."""
        state, every = self._state, self._config.num_epochs_between_eval
        if self.data is None or state.offset or not state.epoch:
            return False
        return state.epoch >= last_epoch or state.epoch % every == 0

    def missing(self, saved: Checkpoint | None, last_epoch: int) -> bool:
        """Returns whether a launch resumes from a state whose evaluation is missing.

        The run was stopped or killed before it, or it failed.
        """
        return saved is not None and saved.state.get("score") is None and self.due(last_epoch)

    def make(self, report: dict[str, float]) -> tuple[dict[str, Any], bool] | None:
        """Evaluates the state, and reports the result.

        Args:
            report: the run's latest figures; this evaluation's are added to it.

        Returns:
            The facts for the state's checkpoint, and whether it is the best so far, from `judge`;
            None if the evaluation failed.

        Raises:
            Abandoned: a rank was asked to stop.
        """
        config, state, journal = self._config, self._state, self._journal
        step, data = known(self._step), known(self.data)
        answers: dict[str, np.ndarray] = {}
        try:
            values = evaluate_state(
                state, step, data, config, journal.trackers, self._asked, answers
            )
        except DataError as error:
            text, epoch = str(error), f"WARNING: epoch {state.epoch} was not evaluated"
            again = "the same images cannot be read"
            journal.line(f"{epoch}: {again if text in self.failures else text}")
            self.failures.append(text)
            return None
        self.epoch = state.epoch
        report |= {k: v for k, v in values.items() if not k.startswith("val.")}
        found = judge(state, values, report, config.best_metric, self.images)
        self.answers = answers[found[0]["better_weights"]]
        journal.metrics((state.epoch,), values, state.step)
        journal.line(epoch_line(values, state, config.max_epochs))
        if self.exhausted:
            journal.line(
                f"stopping early: {counted(state.waited, 'evaluation')} did not improve"
                f" {config.best_metric}; the best so far is epoch {state.best['epoch']}"
                f" ({best_text(state.best)})"
            )
        return found

    @property
    def exhausted(self) -> bool:
        """Returns whether to end the run, as too many evaluations brought no improvement."""
        patience = self._config.early_stopping
        return patience is not None and bool(self._state.best) and self._state.waited >= patience


def evaluate_state(
    state: TrainState,
    eval_step: EvalStep,
    data: DataLoader,
    config: Config,
    trackers: Trackers,
    asked: Callable[[], bool],
    answers: dict[str, np.ndarray],
) -> dict[str, float]:
    """Evaluates the weights and, if there is one, their average. Changes nothing.

    Args:
        state: the weights, and their average if there is one.
        eval_step: an `EvalStep`; counts the trackers' confusion matrix if it can.
        data: the validation loader.
        config: the flags.
        trackers: receive the confusion matrix.
        asked: returns whether this rank was asked to stop.
        answers: receives the totals by class for the weights, "raw", and their average, "ema".

    Returns:
        `runtime.evaluate.evaluate.UNITS`' names, the same as `eval_ema_…` for the average, and
        `val.loss`, `val.top1`, `val.top5` for the weights.

    Raises:
        Abandoned, DataError: see `runtime.evaluate.evaluate.evaluate_data`; raised on every rank.
    """
    data.look_again()
    values = evaluate_data(eval_step, data, config, asked=asked)
    answers["raw"] = eval_step.gathered
    show_counts(eval_step, trackers, "confusion_matrix", state.step)
    if state.ema is not None:
        with state.ema.swap():
            averaged = evaluate_data(eval_step, data, config, asked=asked)
        answers["ema"] = eval_step.gathered
        show_counts(eval_step, trackers, "confusion_matrix_ema", state.step)
        values |= {
            name.replace("eval_", "eval_ema_", 1): value
            for name, value in averaged.items()
            if name.startswith("eval_")
        }
    return values | {
        "val.loss": values["eval_loss"],
        "val.top1": values["eval_accuracy_top_1"],
        "val.top5": values["eval_accuracy_top_5"],
    }


def epoch_line(values: dict[str, float], state: TrainState, max_epochs: int) -> str:
    """Formats the line about an epoch's evaluation."""
    text = f"epoch {state.epoch}/{max_epochs}  eval loss {values['eval_loss']:.3f}"
    text += f"  top-1 {100 * values['eval_accuracy_top_1']:.2f}%"
    if state.ema is not None:
        text += f"  ema {100 * values['eval_ema_accuracy_top_1']:.2f}%"
    if "eval_unreadable" in values:
        text += f"  without {values['eval_unreadable']:.0f} unreadable images"
    return f"{text}  best {best_text(state.best)}" if state.best else text
