"""Implements LARS and LAMB, which set each weight's rate by its norm, for very large batches.

Both add weight decay to the update before taking the norm, so the optimizer does the decay and not
the training step. Weights that do not decay (biases, batch norm) are not rescaled either: their
norms do not measure scale. This is the convention of the MLPerf references and of timm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

Mask = Callable[[Sequence[Any]], list[bool]]


class _LayerWise(keras.optimizers.Optimizer):
    """The common part: which weights decay, and the ratio of two norms.

    Args:
        weight_decay: factor of w, in PyTorch's convention (`wd * w` joins the gradient).
        mask: returns for each trainable variable whether it decays, and so is rescaled.
    """

    def __init__(self, weight_decay: float, mask: Mask, **kwargs: Any) -> None:
        super().__init__(learning_rate=0.0, **kwargs)
        self._decay, self._mask_of = float(weight_decay), mask

    def build(self, variables: Sequence[Any]) -> None:
        """Creates the slots and determines which variables decay."""
        if self.built:
            return
        super().build(variables)
        self._mask = self._mask_of(variables)
        self._make_slots(variables)

    def _make_slots(self, variables: Sequence[Any]) -> None:
        raise TypeError(f"{type(self).__name__} does not make slots")

    def _scaled(self, weight: tf.Tensor, norm: tf.Tensor, factor: float = 1.0) -> tf.Tensor:
        """Returns `factor * |w| / norm`, or 1 if either norm is 0."""
        weight_norm = tf.norm(weight)
        ratio = factor * tf.math.divide_no_nan(weight_norm, norm)
        return tf.where((weight_norm > 0) & (norm > 0), ratio, 1.0)


class LARS(_LayerWise):
    """`r = η·|w| / (|g| + wd·|w|); m = momentum·m + lr·r·(g + wd·w); w -= m`.

    You et al. 2017, arXiv:1708.03888, algorithm 1. As in `momentum`, the buffer includes the rate.

    Args:
        momentum: in [0, 1).
        nesterov: subtract `momentum·m + lr·r·(g + wd·w)` instead of m.
        trust_coefficient: η, 0.001 in the paper and in MLPerf's ResNet-50.
        weight_decay, mask: see `_LayerWise`.
    """

    def __init__(
        self,
        weight_decay: float,
        mask: Mask,
        momentum: float = 0.9,
        nesterov: bool = False,
        trust_coefficient: float = 0.001,
    ) -> None:
        super().__init__(weight_decay, mask, name="lars")
        self._momentum, self._nesterov, self._trust = momentum, nesterov, trust_coefficient

    def _make_slots(self, variables: Sequence[Any]) -> None:
        (self._buffers,) = self.add_optimizer_variables(variables, ["momentum"])

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: Any) -> None:
        """Updates one variable."""
        index, weight = self._get_variable_index(variable), tf.convert_to_tensor(variable)
        buffer, rate = self._buffers[index], tf.cast(learning_rate, weight.dtype)
        if self._mask[index]:
            norm = tf.norm(gradient) + self._decay * tf.norm(weight)
            ratio = self._scaled(weight, norm, self._trust)
            gradient = ratio * (gradient + self._decay * weight)
        moved = self._momentum * buffer.value + rate * gradient
        buffer.assign(moved)
        variable.assign_sub(self._momentum * moved + rate * gradient if self._nesterov else moved)


class LAMB(_LayerWise):
    """`u = m̂/(√v̂ + ε) + wd·w; w -= lr · |w|/|u| · u`, with Adam's bias-corrected m̂ and v̂.

    You et al. 2020, arXiv:1904.00962, algorithm 2 with φ(z) = z. Keras' own Lamb leaves the decay
    out of the ratio. NVIDIA's variant first divides the gradients by their global norm;
    `--grad_clip_norm 1` does the same if the norm is above 1.

    Args:
        beta_1, beta_2: in [0, 1).
        epsilon: 1e-6 in the paper.
        weight_decay, mask: see `_LayerWise`.
    """

    def __init__(
        self,
        weight_decay: float,
        mask: Mask,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-6,
    ) -> None:
        super().__init__(weight_decay, mask, name="lamb")
        self._betas, self._epsilon = (beta_1, beta_2), epsilon

    def _make_slots(self, variables: Sequence[Any]) -> None:
        self._means, self._squares = self.add_optimizer_variables(
            variables, ["momentum", "velocity"]
        )

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: Any) -> None:
        """Updates one variable."""
        index, weight = self._get_variable_index(variable), tf.convert_to_tensor(variable)
        mean, square = self._means[index], self._squares[index]
        step = tf.cast(self.iterations.value + 1, tf.float32)
        beta_1, beta_2 = self._betas
        mean.assign_add((1 - beta_1) * (gradient - mean.value))
        square.assign_add((1 - beta_2) * (tf.square(gradient) - square.value))
        corrected = mean.value / tf.cast(1 - beta_1**step, weight.dtype)
        root = tf.sqrt(square.value / tf.cast(1 - beta_2**step, weight.dtype))
        update = corrected / (root + self._epsilon)
        if self._mask[index]:
            update += self._decay * weight
            update *= self._scaled(weight, tf.norm(update))
        variable.assign_sub(tf.cast(learning_rate, weight.dtype) * update)
