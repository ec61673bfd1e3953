"""Orders evaluations by `--best_metric`: for training, for kept checkpoints and for reports.

Imports no TensorFlow.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

WORST = -sys.float_info.max
"""Score of a figure that is missing or not finite, which JSON cannot represent."""

Rank = tuple[float, float]
"""A score, and the loss's, which decides between equal scores. The larger rank is the better."""


@dataclass(frozen=True)
class Metric:
    """A figure for comparing evaluations.

    Attributes:
        name: name in the log, for the weights.
        sign: 1 if more is better, -1 if less is.
        form: print format.
    """

    name: str
    sign: int
    form: str

    def of(self, values: Mapping[str, float], averaged: bool) -> float | None:
        """Returns the figure for the weights or their average; None if it is missing."""
        return values.get(self.name.replace("eval_", "eval_ema_", 1) if averaged else self.name)

    def score(self, values: Mapping[str, float], weights: str) -> float:
        """Returns the figure of "raw" or "ema" as a number of which more is better."""
        figure = self.of(values, weights == "ema")
        return WORST if figure is None or not np.isfinite(figure) else self.sign * figure

    def rank(self, values: Mapping[str, float], weights: str) -> Rank:
        """Returns an evaluation's place in the order.

        On few images, many epochs have the same accuracy, and the first of them would hardly be
        trained.
        """
        return self.score(values, weights), LOSS.score(values, weights)


LOSS = Metric("eval_loss", -1, "loss {:.4f}")
METRICS = {
    "top1": Metric("eval_accuracy_top_1", 1, "{:.2%}"),
    "loss": LOSS,
    "macro_f1": Metric("eval_macro_f1", 1, "macro F1 {:.2%}"),
}
"""By value of `--best_metric`."""
