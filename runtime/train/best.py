"""Which evaluation of a run is the best, by `--best_metric`, of the weights or of their average."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # which imports TensorFlow
    from convoy.runtime.train.step import TrainState


WORST = -sys.float_info.max
"""The score of a figure that is not finite, for which JSON has no number."""


@dataclass(frozen=True)
class Metric:
    """A figure by which evaluations are compared.

    Attributes:
        name: in the log, of the weights.
        sign: 1 where more is better, -1 where less is.
        form: how it is printed.
    """

    name: str
    sign: int
    form: str

    def of(self, values: Mapping[str, float], averaged: bool) -> float | None:
        """The figure of the weights or of their average; None if it is not there."""
        return values.get(self.name.replace("eval_", "eval_ema_", 1) if averaged else self.name)

    def score(self, values: Mapping[str, float], weights: str) -> float:
        """The figure as a number of which more is better."""
        figure = self.of(values, weights == "ema")
        return WORST if figure is None or not np.isfinite(figure) else self.sign * figure


METRICS = {
    "top1": Metric("eval_accuracy_top_1", 1, "{:.2%}"),
    "loss": Metric("eval_loss", -1, "loss {:.4f}"),
    "macro_f1": Metric("eval_macro_f1", 1, "macro F1 {:.2%}"),
}


def better_weights(values: Mapping[str, float], has_ema: bool, metric: str = "top1") -> str:
    """ "ema" when the moving average was the better at the last evaluation, or there was none yet,
    as it is there to be better; else "raw".
    """
    by = METRICS[metric]
    if not has_ema:
        return "raw"
    return "ema" if by.of(values, False) is None or _average_leads(by, values) else "raw"


def _average_leads(by: Metric, values: Mapping[str, float]) -> bool:
    if by.of(values, True) is None:
        return False
    return by.score(values, "ema") >= by.score(values, "raw")


def judge(
    state: TrainState, values: Mapping[str, float], metrics: Mapping[str, float], metric: str
) -> tuple[dict[str, Any], bool]:
    """Notes in `state.best` if the weights or their average are better than all before, and in
    `state.waited` how many evaluations ago that was.

    Args:
        values: from `runtime.train.evaluation.evaluate_state`.
        metrics: the run's latest figures, with those of this evaluation.
        metric: of `METRICS`.

    Returns:
        What the evaluation adds to the checkpoint of this state (`checkpoint.add_score`), and
        whether it is the best so far.
    """
    by, weights = METRICS[metric], better_weights(values, state.ema is not None, metric)
    score = by.score(values, weights)
    before = state.best if state.best.get("metric") == by.name else {}  # by another metric: none
    is_best = score > (by.sign * before["value"] if before else WORST)
    state.waited = 0 if is_best else state.waited + 1
    if is_best:
        state.best = {
            "metric": by.name,
            "value": by.of(values, weights == "ema"),
            "epoch": state.epoch,
            "step": state.step,
            "weights": weights,
        }
        top1 = METRICS["top1"].of(values, weights == "ema")
        state.best |= finite({"top1": top1} if top1 is not None else {})
    return {
        "score": score,
        "better_weights": weights,
        "best": state.best,
        "waited": state.waited,
        "metrics": finite(metrics),
    }, is_best


def best_text(best: Mapping[str, Any]) -> str:
    """The best so far, for people."""
    by = next(metric for metric in METRICS.values() if metric.name == best["metric"])
    return by.form.format(best["value"])


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """Those that JSON has a number for."""
    return {name: value for name, value in metrics.items() if np.isfinite(value)}
