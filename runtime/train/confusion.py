"""The confusion matrix of evaluation during training, for trackers."""

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
"""The matrix has classes² numbers on every rank; with more classes there is none."""


def make_counting_step(config: Config, model: keras.Model) -> EvalStep:
    """The evaluation step of training: a `CountingStep` where trackers will show its matrix. The
    same kind on every rank.
    """
    counts = tracker_names(config) and model.output_shape[-1] <= MOST_CLASSES
    return (CountingStep if counts else EvalStep)(model, config.use_xla)


def show_counts(step: Callable, trackers: Trackers, name: str, number: int) -> None:
    """Hands the trackers the matrix of the evaluation that has just ended, if it was counted, as a
    picture of a step number. For every rank.
    """
    if not isinstance(step, CountingStep):
        return
    matrix = step.matrix()
    if ranks.rank() == 0:
        trackers.image(name, heat_map(matrix), number)


class CountingStep(EvalStep):
    """An evaluation step that also counts what was taken for what."""

    def begin(self) -> None:
        super().begin()
        self._matrix = np.zeros((self.classes, self.classes), np.int64)

    def count(self, labels: np.ndarray, answers: np.ndarray) -> None:
        super().count(labels, answers)
        known = answers < self.classes
        np.add.at(self._matrix, (labels[known], answers[known]), 1)

    def matrix(self) -> np.ndarray:
        """The counts since `begin`, over all ranks: int64 `(classes, classes)`, rows the true
        classes. For every rank.
        """
        return ranks.all_sum(self._matrix)


def heat_map(matrix: np.ndarray) -> np.ndarray:
    """A confusion matrix as a picture, uint8 `(H, W, 3)`: rows are true classes, columns answers,
    white for none and dark for all of a row; the diagonal blue, mistakes red.
    """
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    right = np.eye(len(matrix), dtype=bool)[..., None]
    dark = np.where(right, (20, 60, 150), (170, 20, 10))
    # The root, so that rare mistakes show.
    pixels = 255 + (dark - 255) * np.where(right, share[..., None], np.sqrt(share)[..., None])
    times = max(1, -(-LEAST_PIXELS // len(matrix)))
    return pixels.round().astype(np.uint8).repeat(times, axis=0).repeat(times, axis=1)
