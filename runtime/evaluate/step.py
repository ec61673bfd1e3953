"""Runs the steps of evaluations, which also count answers by class."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from convoy.utils.classification import totals
from convoy.utils.distributed import ranks
from convoy.utils.machine import xla
from convoy.utils.metrics import batch_sums


class CountingByClass:
    """The counts that every evaluation step keeps beside its sums.

    Attributes:
        classes: number of classes.
        gathered: the last result of `totals`.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.begin()

    def __call__(self, images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
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


class EvalStep(CountingByClass):
    """Converts a batch to float64 `(4,)`: sums of loss, top-1, top-5 and weight.

    The loss is plain cross-entropy: label smoothing belongs to training.

    Args:
        model: from images to logits.
        use_xla: compile the step with XLA.
    """

    def __init__(self, model: keras.Model, use_xla: bool = False) -> None:
        classes = model.output_shape[-1]

        def step(
            images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor]:
            logits = model(images, training=False)
            answers = tf.argmax(logits, axis=-1, output_type=tf.int32)
            # Not a class, because `batch_sums` counts NaN as wrong for any label.
            broken = tf.reduce_any(tf.math.is_nan(logits), axis=-1)
            return batch_sums(logits, labels, weights), tf.where(broken, classes, answers)

        self._step = xla.function(step, use_xla)
        super().__init__(classes)

    def __call__(self, images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """Evaluates a batch, counts its answers by class, and returns its sums."""
        sums, answers = self._step(images, labels, weights)
        counts = weights.numpy() > 0
        self.count(labels.numpy()[counts], answers.numpy()[counts])
        return sums
