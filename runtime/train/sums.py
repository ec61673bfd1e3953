"""Defines the metric sums of an unfinished epoch, which checkpoints store."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Sums(NamedTuple):
    """One rank's metric sums of the current epoch and of the log window within it.

    Attributes:
        epoch, window: float64 `(4,)`: loss, top-1, top-5 and weight, summed over examples.
    """

    epoch: np.ndarray
    window: np.ndarray

    @classmethod
    def none(cls) -> Sums:
        """Returns the sums of an epoch that has not begun."""
        return cls(np.zeros(4), np.zeros(4))

    @classmethod
    def from_array(cls, array: np.ndarray) -> Sums:
        """Splits the result of `as_array`."""
        epoch, window = np.split(array, 2)
        return cls(epoch, window)

    def as_array(self) -> np.ndarray:
        """Joins both, float64 `(8,)`, as checkpoints store them."""
        return np.concatenate(self)
