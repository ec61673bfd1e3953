"""Runs the steps of evaluations in TensorFlow."""

from __future__ import annotations

import keras
import tensorflow as tf

from convoy.runtime.evaluate.counting import CountingByClass
from convoy.utils.machine import xla
from convoy.utils.metrics import batch_sums


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
