"""Implements layers that Keras lacks, and versions of its own with faster gradients.

The former are input normalisation and fused batch norm; the latter use `model.native`.

All are registered under the package "convoy", like those of `model.resnet` and
`model.sync_batch_norm`: `.keras` files load wherever `model.build` has been imported.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from convoy.model import native

FUSED_DTYPES = ("float16", "bfloat16", "float32")
LEAST_EPSILON = 1.001e-5  # lower limit of TensorFlow's fused batch norm


@keras.saving.register_keras_serializable(package="convoy")
class Normalize(keras.layers.Layer):
    """Computes (image - mean) / std in float32, then casts to the policy's compute dtype.

    Has no weights. Input: any numeric dtype, `(..., channels)`, in the units of `mean` and `std`.
    Output: the same shape in the layer's compute dtype.

    Args:
        mean: one number per channel, in 0-255.
        std: one positive number per channel, in 0-255.

    Raises:
        ValueError: `mean` and `std` differ in length, or a `std` is not positive.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], **kwargs: Any) -> None:
        # Casting 0-255 floats (mixed images, for example) to bfloat16 before subtracting the mean
        # would lose up to half a grey level, so the policy's automatic cast must come afterwards.
        super().__init__(**{"autocast": False, **kwargs})
        self.mean = [float(value) for value in mean]
        self.std = [float(value) for value in std]
        if len(self.mean) != len(self.std):
            raise ValueError(
                f"mean has {len(self.mean)} channels and std has {len(self.std)}: give as many."
            )
        if any(value <= 0 for value in self.std):
            raise ValueError(f"std must be positive in every channel, not {self.std}.")

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Checks that the images' channels have a mean and a deviation each."""
        if input_shape[-1] != len(self.mean):
            raise ValueError(
                f"Images have {input_shape[-1]} channels, but mean and std have {len(self.mean)}."
            )
        self.built = True

    def call(self, inputs: Any) -> Any:
        """Computes in float32, and returns the compute dtype."""
        x = keras.ops.cast(inputs, "float32")
        x = (x - keras.ops.array(self.mean, "float32")) / keras.ops.array(self.std, "float32")
        return keras.ops.cast(x, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments for `.keras` files."""
        return {**super().get_config(), "mean": self.mean, "std": self.std}


@keras.saving.register_keras_serializable(package="convoy")
class FusedBatchNorm(keras.layers.BatchNormalization):
    """Does Keras' batch normalisation with a fused kernel, and the activation after it.

    Keras 3 composes batch norm from small operations, which costs time and memory: see
    docs/decisions. Here it is one TensorFlow operation (cuDNN's on a GPU), or in training on a CPU
    one of `model.native`, which includes the activation. Constructor, config, variables and
    momentum are those of `keras.layers.BatchNormalization`, except for the activation, so weights
    can be exchanged both ways. As there, frozen (`trainable = False`) means inference mode.

    Input: `(batch, height, width, channels)`, with `axis=1` `(batch, channels, height, width)`,
    float16, bfloat16 or float32; or a list of two such: the second, a shortcut, is added to the
    normalised first before the activation. Output: the same, in the compute dtype. Gamma, beta, the
    moving and the batch statistics are always float32.

    Two differences:
      * `moving_variance` collects the *unbiased* batch variance, n/(n-1) times Keras' (n = values
        per channel), as PyTorch's does. The batch itself is normalised with the biased one, as in
        Keras.
      * An epsilon below 1.001e-5 is raised to that, because TensorFlow's kernel requires it.

    Keras' own implementation handles what the kernels cannot do (another rank or axis, a mask,
    renorm, `synchronized`, float64); `moving_variance` then collects the biased variance.

    Args:
        activation: any of Keras' names, or None.
    """

    def __init__(self, *args: Any, activation: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.activation = keras.activations.get(activation)

    def build(self, input_shape: Any) -> None:
        """Makes the variables for the first input; a shortcut must have its shape."""
        super().build(_first(input_shape))
        if _first(input_shape) is not input_shape:
            spec: Any = self.input_spec
            self.input_spec: Any = [spec] * len(input_shape)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        """Returns the first input's shape."""
        return super().compute_output_shape(_first(input_shape))

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalises, adds a shortcut if given, and applies the activation."""
        x, shortcut = (*inputs, None)[:2] if isinstance(inputs, list) else (inputs, None)
        if shortcut is not None:
            mask = mask[0] if mask else None
        if training and self.trainable and self._fits(x, mask):
            ops = self._native_operations()
            if ops is not None:
                return self._train_natively(ops, x, shortcut)
        outputs = self.normalize(x, training, mask)
        return self.activation(outputs if shortcut is None else outputs + shortcut)

    def _native_operations(self) -> Any:
        layout = "channels_first" if self.axis == 1 else "channels_last"
        return native.operations(self.compute_dtype, layout)

    def normalize(self, inputs: Any, training: bool | None, mask: Any) -> Any:
        """Applies only batch norm."""
        if not self._fits(inputs, mask):
            return super().call(inputs, training=training, mask=mask)
        x = tf.cast(inputs, self.compute_dtype)
        layout, (gamma, beta) = "NCHW" if self.axis == 1 else "NHWC", self._scale_and_shift(x)
        if not (training and self.trainable):
            outputs, _, _ = tf.compat.v1.nn.fused_batch_norm(
                x,
                gamma,
                beta,
                mean=tf.convert_to_tensor(self.moving_mean),
                variance=tf.convert_to_tensor(self.moving_variance),
                epsilon=self.epsilon,
                data_format=layout,
                is_training=False,
            )
            return outputs

        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            x, gamma, beta, epsilon=self.epsilon, data_format=layout, is_training=True
        )
        self.move_statistics(mean, variance)
        return outputs

    def move_statistics(self, mean: tf.Tensor, variance: tf.Tensor) -> None:
        """Updates the moving statistics with a batch's mean and unbiased variance."""
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + batch * (1.0 - self.momentum))

    def _train_natively(self, ops: Any, x: tf.Tensor, shortcut: tf.Tensor | None) -> tf.Tensor:
        x = tf.cast(x, self.compute_dtype)
        if shortcut is not None:
            shortcut = tf.cast(shortcut, self.compute_dtype)
        name = self.activation.__name__
        inside = name if name in native.ACTIVATIONS else "linear"
        epsilon = max(self.epsilon, LEAST_EPSILON)
        outputs, mean, variance = native.batch_norm(
            ops, x, *self._scale_and_shift(x), epsilon, inside, shortcut
        )
        values = tf.cast(tf.size(x) // x.shape[-1], tf.float32)
        self.move_statistics(mean, variance * (values / tf.maximum(values - 1.0, 1.0)))
        return outputs if inside == name else self.activation(outputs)

    def _fits(self, inputs: Any, mask: Any) -> bool:
        """Returns whether there are fused kernels for this."""
        return (
            inputs.shape.rank == 4
            and self.axis in (-1, 3, 1)
            and self.compute_dtype in FUSED_DTYPES
            and mask is None
            and not getattr(self, "renorm", False)  # Keras before 3.13 has none
            and not self.synchronized
        )

    def _scale_and_shift(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        channels = (x.shape[self.axis],)
        gamma = tf.convert_to_tensor(self.gamma) if self.scale else tf.ones(channels)
        beta = tf.convert_to_tensor(self.beta) if self.center else tf.zeros(channels)
        return gamma, beta

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments for `.keras` files."""
        name = keras.activations.serialize(self.activation)
        return super().get_config() | ({} if name == "linear" else {"activation": name})


def _first(shape: Any) -> Any:
    """Returns the shape of the first input, from one shape or a list of two."""
    return shape if shape[0] is None or isinstance(shape[0], int) else shape[0]


@keras.saving.register_keras_serializable(package="convoy")
class Conv2D(keras.layers.Conv2D):
    """Keras' layer.

    In training on a CPU, `model.native` computes the kernel's gradient with matrix products if they
    are faster.
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Convolves, with `model.native`'s gradient in training if it is faster."""
        native_ops = native.operations(self.compute_dtype, self.data_format) if training else None
        if native_ops is None or not self._by_products(inputs.shape):
            return super().call(inputs)
        x = tf.cast(inputs, self.compute_dtype)
        kernel = tf.cast(tf.convert_to_tensor(self.kernel), self.compute_dtype)
        return self.activation(native.convolve(x, kernel, self.strides[0], self.padding))

    def _by_products(self, shape: Sequence[int | None]) -> bool:
        if None in shape[1:] or len({*self.strides}) > 1 or {*self.dilation_rate} != {1}:
            return False
        if self.groups != 1 or self.use_bias:
            return False
        points = {*self.kernel_size} == {1}
        # Otherwise windows may extend further beyond one side than the other.
        odd = all(side % 2 for side in self.kernel_size) and {*self.strides} == {1}
        height, width = self.compute_output_shape(shape)[1:3]
        return (self.padding == "valid" or points or odd) and height * width <= self._most(points)

    def _most(self, points: bool) -> float:
        """Returns the most output pixels at which matrix products compute the gradient faster.

        The gradient is the kernel's; the numbers were measured (docs/notes).
        """
        if native.has_tiles():
            if not points:
                return 7 * 7
            if self.compute_dtype == "bfloat16":
                return math.inf
        return 14 * 14


@keras.saving.register_keras_serializable(package="convoy")
class DepthwiseConv2D(keras.layers.DepthwiseConv2D):
    """Keras' layer. In training on a CPU, `model.native` computes its gradients."""

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Convolves, with `model.native` in training if it supports the settings."""
        ops = native.operations(self.compute_dtype, self.data_format) if training else None
        stride, plain = self.strides[0], self.depth_multiplier == 1 and not self.use_bias
        plain = plain and {*self.strides} == {stride} and {*self.dilation_rate} == {1}
        if ops is None or not plain or None in inputs.shape[1:]:
            return super().call(inputs)
        x = tf.cast(inputs, self.compute_dtype)
        kernel = tf.cast(tf.convert_to_tensor(self.kernel), self.compute_dtype)
        return self.activation(native.depthwise(ops, x, kernel, stride, self.padding))


@keras.saving.register_keras_serializable(package="convoy")
class Excite(keras.layers.Multiply):
    """Multiplies maps `(B, H, W, C)` by their gates `(B, 1, 1, C)`: Keras' `Multiply`.

    In training on a CPU, `model.native` computes it and its gradient.
    """

    def call(self, inputs: Sequence[Any], training: bool | None = None) -> Any:
        """Multiplies, with `model.native` in training."""
        maps, gates = inputs
        ops = native.operations(self.compute_dtype) if training else None
        if ops is None or gates.shape[1:3].as_list() != [1, 1]:
            return super().call(inputs)
        return native.gated(ops, *(tf.cast(x, self.compute_dtype) for x in (maps, gates)))


@keras.saving.register_keras_serializable(package="convoy")
class Squeeze(keras.layers.Layer):
    """Returns maps unchanged, and their means over height and width, with sides of 1.

    This is the start of squeeze-and-excitation.

    One layer returns both, so that in training on a CPU `model.native` gets both gradients
    together.

    Args:
        data_format: the maps' format, "channels_last" or "channels_first".
    """

    def __init__(self, data_format: str = "channels_last", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = data_format

    def call(self, inputs: Any, training: bool | None = None) -> tuple[Any, Any]:
        """Computes the means, with `model.native` in training."""
        ops = native.operations(self.compute_dtype, self.data_format) if training else None
        if ops is not None:
            return native.squeeze(ops, tf.cast(inputs, self.compute_dtype))
        axes = (2, 3) if self.data_format == "channels_first" else (1, 2)
        return inputs, keras.ops.mean(inputs, axes, keepdims=True)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments for `.keras` files."""
        return {**super().get_config(), "data_format": self.data_format}


@keras.saving.register_keras_serializable(package="convoy")
class Fork(keras.layers.Layer):
    """Returns its input twice: for a branch and its shortcut.

    In training on a CPU, `model.native` sums both gradients.
    """

    def call(self, inputs: Any, training: bool | None = None) -> tuple[Any, Any]:
        """Returns the input twice, with `model.native`'s gradient in training."""
        ops = native.operations(self.compute_dtype) if training else None
        if ops is None:
            return inputs, inputs
        return native.forked(ops, tf.cast(inputs, self.compute_dtype))
