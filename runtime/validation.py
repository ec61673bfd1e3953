"""Evaluation within training: of the weights and of their moving average, and which was best."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from convoy.runtime.confusion import show_counts
from convoy.runtime.evaluate import evaluate
from convoy.runtime.state import better_weights
from convoy.runtime.step import TrainState
from convoy.runtime.trackers import Trackers


def evaluate_state(
    state: TrainState,
    eval_step: Callable,
    batches: Callable[[], Iterable[Any]],
    batch_size: int,
    trackers: Trackers,
) -> dict[str, float]:
    """Evaluates the weights and, where there is one, their average; notes in `state.best` if either
    is better than all before.

    Args:
        eval_step: see `runtime.evaluate.make_eval_step`; counts for the trackers' confusion matrix
            where it can.
        batches: gives one pass over the validation split.
        batch_size: images in a batch of one rank.

    Returns:
        `runtime.evaluate.UNITS`' names, again as `eval_ema_…` for the average, and `val.loss`,
        `val.top1`, `val.top5` of the weights.
    """
    values = evaluate(eval_step, batches(), batch_size)
    show_counts(eval_step, trackers, "confusion_matrix", state.step)
    if state.ema is not None:
        with state.ema.swap():
            averaged = evaluate(eval_step, batches(), batch_size)
        show_counts(eval_step, trackers, "confusion_matrix_ema", state.step)
        values |= {
            name.replace("eval_", "eval_ema_", 1): value
            for name, value in averaged.items()
            if name.startswith("eval_")
        }
    if better_top1(values) > state.best.get("value", -1.0):
        state.best = {
            "metric": "eval_accuracy_top_1",
            "value": better_top1(values),
            "epoch": state.epoch,
            "step": state.step,
            "weights": better_weights(values),
        }
    return values | {
        "val.loss": values["eval_loss"],
        "val.top1": values["eval_accuracy_top_1"],
        "val.top5": values["eval_accuracy_top_5"],
    }


def better_top1(values: dict[str, float]) -> float:
    """The top-1 of the weights or of their average, as a fraction, whichever is greater."""
    raw = values["eval_accuracy_top_1"]
    return max(raw, values.get("eval_ema_accuracy_top_1", raw))


def epoch_line(values: dict[str, float], state: TrainState, max_epochs: int) -> str:
    """What is printed of an epoch's evaluation."""
    text = f"epoch {state.epoch}/{max_epochs}  eval loss {values['eval_loss']:.3f}"
    text += f"  top-1 {100 * values['eval_accuracy_top_1']:.2f}%"
    if state.ema is not None:
        text += f"  ema {100 * values['eval_ema_accuracy_top_1']:.2f}%"
    return f"{text}  best {100 * state.best['value']:.2f}%"
