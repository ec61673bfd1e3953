"""Holds the result of one evaluation, example by example."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from convoy.dataloader.images.eval_crop import EvalCrop
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
    """The result of one evaluation.

    Attributes:
        name: name that distinguishes it from the others of a report; "" for a single one.
        text: describes the weights.
        image_size: side in pixels.
        crop: how images were cropped.
        figures: the figures that `--mode eval` prints.
        class_names: one per class.
        index: int64 `(N,)`, the examples' numbers in the validation split, in rising order.
        label, predicted: int64 `(N,)`. If several labels are correct, the one that the model finds
            most likely.
        confidence: float64 `(N,)`, the softmax probability of the answer.
        stored: top-1 with the data's own labels if others were given; otherwise None.
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
        """Returns bool `(N,)`: whether the answer is the label."""
        return self.label == self.predicted

    @cached_property
    def confusion(self) -> Confusion:
        """Returns the confusion matrix."""
        return confusion(self.label, self.predicted, len(self.class_names))

    @cached_property
    def by_class(self) -> ByClass:
        """Returns precision, recall, F1 and support."""
        return by_class(self.confusion)

    @cached_property
    def calibration(self) -> Calibration:
        """Returns the reliability diagram and the ECE."""
        return calibration(self.confidence, self.right)
