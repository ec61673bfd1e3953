"""Counts the confusion matrix of evaluations during training, for trackers."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np

from convoy.runtime.evaluate.step import EvalStep
from convoy.runtime.settings.config import Config
from convoy.runtime.trackers.workers import Trackers, tracker_names
from convoy.utils.distributed import ranks

LEAST_PIXELS = 320
MOST_CLASSES = 1024
"""Every rank stores classes² numbers; with more classes there is no matrix."""


def make_counting_step(config: Config, model: keras.Model) -> EvalStep:
    """Makes training's evaluation step, on every rank alike.

    It is a `CountingStep` if trackers will show its matrix.
    """
    counts = tracker_names(config) and model.output_shape[-1] <= MOST_CLASSES
    return (CountingStep if counts else EvalStep)(model, config.use_xla)


def show_counts(step: Callable, trackers: Trackers, name: str, number: int) -> None:
    """Sends the last evaluation's matrix, if it was counted, to the trackers as a picture.

    All ranks must call it.
    """
    if not isinstance(step, CountingStep):
        return
    matrix = step.matrix()
    if ranks.rank() == 0:
        trackers.image(name, heat_map(matrix), number)


class CountingStep(EvalStep):
    """An evaluation step that also counts the confusion matrix."""

    def begin(self) -> None:
        """Starts an evaluation with an empty matrix."""
        super().begin()
        self._matrix = np.zeros((self.classes, self.classes), np.int64)

    def count(self, labels: np.ndarray, answers: np.ndarray) -> None:
        """Adds labels and answers to the matrix, except answers outside the range of classes."""
        super().count(labels, answers)
        known = answers < self.classes
        np.add.at(self._matrix, (labels[known], answers[known]), 1)

    def matrix(self) -> np.ndarray:
        """Returns the counts since `begin`, over all ranks. All ranks must call it.

        They are int64 `(classes, classes)`; rows are the true classes.
        """
        return ranks.all_sum(self._matrix)


def heat_map(matrix: np.ndarray) -> np.ndarray:
    """Draws a confusion matrix, uint8 `(H, W, 3)`: rows are true classes, columns answers.

    White is none and dark a whole row; the diagonal is blue, mistakes are red.
    """
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    right = np.eye(len(matrix), dtype=bool)[..., None]
    dark = np.where(right, (20, 60, 150), (170, 20, 10))
    # Square root, so that rare mistakes show.
    pixels = 255 + (dark - 255) * np.where(right, share[..., None], np.sqrt(share)[..., None])
    times = max(1, -(-LEAST_PIXELS // len(matrix)))
    return pixels.round().astype(np.uint8).repeat(times, axis=0).repeat(times, axis=1)
