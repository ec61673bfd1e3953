"""The steps of evaluations, which also count answers by class."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from convoy.utils.classification import totals
from convoy.utils.distributed import ranks
from convoy.utils.machine import xla
from convoy.utils.metrics import batch_sums


class CountingByClass:
    """What every evaluation step keeps beside its sums.

    Attributes:
        classes: how many there are.
        gathered: what `totals` has given last.
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.begin()

    def begin(self) -> None:
        """Counts anew, for a pass that begins."""
        self._totals = np.zeros((3, self.classes), np.int64)

    def count(self, labels: np.ndarray, answers: np.ndarray) -> None:
        """Takes in examples that count: int32 `(N,)`; an answer may be none of the classes."""
        self._totals += totals(labels, answers, self.classes)

    def totals(self) -> np.ndarray:
        """Right answers, examples and answers of each class since `begin`, over all ranks: int64
        `(3, classes)`. For every rank.
        """
        self.gathered = ranks.all_sum(self._totals)
        return self.gathered


class EvalStep(CountingByClass):
    """From a batch to float64 `(4,)`: sums of loss, top-1, top-5 and weight.

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
            # No class, for `batch_sums` counts them as wrong whatever their label.
            broken = tf.reduce_any(tf.math.is_nan(logits), axis=-1)
            return batch_sums(logits, labels, weights), tf.where(broken, classes, answers)

        self._step = xla.function(step, use_xla)
        super().__init__(classes)

    def __call__(self, images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        sums, answers = self._step(images, labels, weights)
        counts = weights.numpy() > 0
        self.count(labels.numpy()[counts], answers.numpy()[counts])
        return sums
