"""Implements batch norm with statistics over the batches of all processes together."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from convoy.model import replay
from convoy.model.layers import FusedBatchNorm
from convoy.utils.distributed import ranks


@keras.saving.register_keras_serializable(package="convoy")
class SyncBatchNorm(FusedBatchNorm):
    """`FusedBatchNorm` over the joined batch of all ranks: forward, gradients, statistics.

    Every rank must call it with the same number of values per channel, as with the trainer's equal
    batches. Outside training, and with one rank, it is `FusedBatchNorm`.

    Each rank sends two numbers per channel forward and two backward, in float32 for any compute
    dtype: the means of `x - s` and `(x - s)²`. The shift `s` is the running mean, equal on all
    ranks; it keeps the variance from being a small difference of two large numbers. The backward
    formula is from Ioffe & Szegedy 2015 (arXiv:1502.03167), section 3, with its two batch means
    taken over all ranks.
    """

    def normalize(self, inputs: Any, training: bool | None, mask: Any) -> Any:
        """Normalises with the statistics of all processes' batches in training."""
        if not (training and self.trainable) or ranks.size() == 1:
            return super().normalize(inputs, training, mask)
        return self._normalize_jointly(tf.cast(inputs, tf.float32))

    def _native_operations(self) -> Any:
        return super()._native_operations() if ranks.size() == 1 else None

    def _normalize_jointly(self, x: tf.Tensor) -> tf.Tensor:
        axis = self.axis % x.shape.rank
        axes = [i for i in range(x.shape.rank) if i != axis]
        gamma, beta = self._scale_and_shift(x)
        shift = tf.convert_to_tensor(self.moving_mean)
        outputs, mean, variance = _normalize(x, gamma, beta, shift, axes, self.epsilon, self.name)

        values = tf.cast(tf.size(x) // x.shape[axis] * ranks.size(), tf.float32)
        self.move_statistics(mean, variance * values / tf.maximum(values - 1.0, 1.0))
        return tf.cast(outputs, self.compute_dtype)


def _normalize(
    x: tf.Tensor,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    shift: tf.Tensor,
    axes: list[int],
    epsilon: float,
    name: str,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the normalised batch, and the joined batch's mean and biased variance (channels,)."""

    def along(values: tf.Tensor) -> tf.Tensor:
        """Reshapes one number per channel to broadcast with x."""
        return tf.reshape(values, [1 if i in axes else -1 for i in range(x.shape.rank)])

    @tf.custom_gradient
    def forward(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor) -> Any:
        shifted = x - along(shift)
        joined = replay.recall()
        if joined is None:
            moments = tf.stack([tf.reduce_mean(shifted, axes), tf.reduce_mean(shifted**2, axes)])
            joined = replay.remember(ranks.mean_over_ranks(moments, f"{name}_forward"))
        first, second = tf.unstack(joined)
        variance = tf.maximum(second - first**2, 0.0)
        mean = shift + first
        scale = tf.math.rsqrt(variance + epsilon)
        normal = (shifted - along(first)) * along(scale)

        def backward(dy: tf.Tensor, *_: Any) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            # The gradients of gamma and beta stay local sums: the trainer reduces all gradients
            # itself.
            dbeta, dgamma = tf.reduce_sum(dy, axes), tf.reduce_sum(dy * normal, axes)
            sums = tf.stack([tf.reduce_mean(dy, axes), tf.reduce_mean(dy * normal, axes)])
            means = ranks.mean_over_ranks(sums, f"{name}_backward")
            dy_mean, dy_normal_mean = tf.unstack(means)
            dx = along(gamma * scale) * (dy - along(dy_mean) - normal * along(dy_normal_mean))
            return dx, dgamma, dbeta

        return (normal * along(gamma) + along(beta), mean, variance), backward

    return forward(x, gamma, beta)
