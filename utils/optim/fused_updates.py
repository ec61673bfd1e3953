"""Does Keras' SGD, RMSprop and Adam with one operation per update of a weight and its slots.

Keras composes each update from four to ten operations over the whole weight, each a pass over
memory. TensorFlow's kernels, for CPUs, GPUs and XLA, compute the same: momentum bit for bit, the
others up to rounding. Slots, names and configuration stay Keras' own.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


class SGD(keras.optimizers.SGD):
    """`w -= lr*g`, or with momentum `m = momentum*m - lr*g; w += m`; float32 throughout."""

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: Any) -> None:
        """Updates one variable."""
        rate = tf.cast(learning_rate, tf.float32)
        if not self.momentum:
            tf.raw_ops.ResourceApplyGradientDescent(var=variable.handle, alpha=rate, delta=gradient)
            return
        buffer = self.momentums[self._get_variable_index(variable)]
        tf.raw_ops.ResourceApplyKerasMomentum(
            var=variable.handle,
            accum=buffer.value.handle,
            lr=rate,
            grad=gradient,
            momentum=self.momentum,
            use_nesterov=self.nesterov,
        )


class RMSprop(keras.optimizers.RMSprop):
    """`v = rho*v + (1-rho)*g**2; m = momentum*m + lr*g/sqrt(v + epsilon); w -= m`."""

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: Any) -> None:
        """Updates one variable."""
        if not self.momentum:  # no buffer, but TensorFlow's kernel requires one
            super().update_step(gradient, variable, learning_rate)
            return
        index = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyRMSProp(
            var=variable.handle,
            ms=self._velocities[index].value.handle,
            mom=self._momentums[index].value.handle,
            lr=tf.cast(learning_rate, tf.float32),
            rho=self.rho,
            momentum=self.momentum,
            epsilon=self.epsilon,
            grad=gradient,
        )


class Adam(keras.optimizers.Adam):
    """Kingma and Ba's section 2: `w -= lr*sqrt(1-b2^t)/(1-b1^t) * m/(sqrt(v) + epsilon)`."""

    def update_step(self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: Any) -> None:
        """Updates one variable."""
        index = self._get_variable_index(variable)
        number = tf.cast(self.iterations + 1, tf.float32)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(self.beta_1, number),
            beta2_power=tf.pow(self.beta_2, number),
            lr=tf.cast(learning_rate, tf.float32),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )
