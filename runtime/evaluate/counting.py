"""Counts the answers of an evaluation by class. Imports no TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np

from convoy.utils.classification import totals
from convoy.utils.distributed import ranks


class CountingByClass:
    """The counts that every evaluation step keeps beside its sums.

    Attributes:
        classes: number of classes.
        gathered: the last result of `totals`.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.begin()

    def __call__(self, images: Any, labels: Any, weights: Any) -> Any:
        """Returns the sums of a batch, and counts its answers."""
        raise NotImplementedError

    def begin(self) -> None:
        """Resets the counts at the start of a pass."""
        self._totals = np.zeros((3, self.classes), np.int64)

    def count(self, labels: np.ndarray, answers: np.ndarray) -> None:
        """Adds examples that count: int32 `(N,)`; an answer may be outside the classes."""
        self._totals += totals(labels, answers, self.classes)

    def totals(self) -> np.ndarray:
        """Returns each class's correct answers, examples and answers since `begin`, over all ranks.

        All ranks must call it. The result is int64 `(3, classes)`.
        """
        self.gathered = ranks.all_sum(self._totals)
        return self.gathered
