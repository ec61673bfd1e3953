"""The result of one evaluation, example by example."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from convoy.dataloader.images.crops import EvalCrop
from convoy.utils.classification import (
    ByClass,
    Calibration,
    Confusion,
    by_class,
    calibration,
    confusion,
)


@dataclass
class Result:
    """One evaluation.

    Attributes:
        name: what sets it apart from the others of a report; "" for a single one.
        text: which weights.
        image_size: pixels a side.
        crop: how images were cut.
        figures: what `--mode eval` prints.
        class_names: one a class.
        index: int64 `(N,)`, the examples' numbers in the validation split, rising.
        label, predicted: int64 `(N,)`. Of several labels that count as right, the one that the
            model finds likeliest.
        confidence: float64 `(N,)`, the softmax probability of the answer.
        stored: float, top-1 by the labels in the data where others were given; else None.
    """

    name: str
    text: str
    image_size: int
    crop: EvalCrop
    figures: dict[str, float]
    class_names: list[str]
    index: np.ndarray
    label: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    stored: float | None

    @cached_property
    def right(self) -> np.ndarray:
        """bool `(N,)`: whether the answer is the label."""
        return self.label == self.predicted

    @cached_property
    def confusion(self) -> Confusion:
        """What was taken for what."""
        return confusion(self.label, self.predicted, len(self.class_names))

    @cached_property
    def by_class(self) -> ByClass:
        """Precision, recall, F1 and support."""
        return by_class(self.confusion)

    @cached_property
    def calibration(self) -> Calibration:
        """The reliability diagram and the ECE."""
        return calibration(self.confidence, self.right)
