"""The confusion matrix of evaluation during training, for trackers."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from convoy.runtime.config import Config
from convoy.runtime.evaluate import make_eval_step
from convoy.runtime.trackers import Trackers, tracker_names
from convoy.utils import distributed, xla
from convoy.utils.metrics import batch_sums

LEAST_PIXELS = 320
MOST_CLASSES = 1024
"""The matrix has classes² numbers on every rank; with more classes there is none."""


def make_counting_step(config: Config, model: keras.Model) -> Callable:
    """The evaluation step of training: a `CountingStep` where trackers will show its matrix. The
    same kind on every rank.
    """
    counts = tracker_names(config) and model.output_shape[-1] <= MOST_CLASSES
    return (CountingStep if counts else make_eval_step)(model, config.use_xla)


def show_counts(step: Callable, trackers: Trackers, name: str, number: int) -> None:
    """Hands the trackers the matrix of the evaluation that has just ended, if it was counted, as a
    picture of a step number. For every rank.
    """
    if not isinstance(step, CountingStep):
        return
    matrix = step.take()
    if distributed.rank() == 0:
        trackers.image(name, heat_map(matrix), number)


def forget_counts(step: Callable) -> None:
    """Begins to count anew, after a pass that was given up."""
    if isinstance(step, CountingStep):
        step.forget()


class CountingStep:
    """`runtime.evaluate.make_eval_step`'s function, which also counts what was taken for what."""

    def __init__(self, model: keras.Model, use_xla: bool = False) -> None:
        def step(
            images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor]:
            logits = model(images, training=False)
            return batch_sums(logits, labels, weights), tf.argmax(logits, axis=-1)

        self._step = xla.function(step, use_xla)
        classes = model.output_shape[-1]
        self._matrix = np.zeros((classes, classes), np.int64)

    def __call__(self, images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """float64 `(4,)`: sums of loss, top-1, top-5 and weight."""
        sums, answers = self._step(images, labels, weights)
        counts = weights.numpy() > 0
        np.add.at(self._matrix, (labels.numpy()[counts], answers.numpy()[counts]), 1)
        return sums

    def forget(self) -> None:
        """Begins to count anew, after a pass that was given up."""
        self._matrix = np.zeros_like(self._matrix)

    def take(self) -> np.ndarray:
        """The counts since the last call, over all ranks: int64 `(classes, classes)`, rows the true
        classes. For every rank.
        """
        matrix, self._matrix = self._matrix, np.zeros_like(self._matrix)
        return distributed.all_sum(matrix)


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
