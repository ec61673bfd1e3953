"""Layers that Keras lacks: input normalisation, fused batch norm, stochastic depth.

All are registered under the package "convoy", so that `.keras` files load wherever `model.layers`
has been imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

FUSED_DTYPES = ("float16", "bfloat16", "float32")


@keras.saving.register_keras_serializable(package="convoy")
class Normalize(keras.layers.Layer):
    """(image - mean) / std, in float32, then cast to the compute dtype of the policy.

    Holds no weights. Input: any numeric dtype, `(..., channels)`, in the units of `mean` and `std`.
    Output: the same shape in the layer's compute dtype.

    Args:
        mean: One number per channel, in 0-255.
        std: One positive number per channel, in 0-255.

    Raises:
        ValueError: `mean` and `std` differ in length, or a `std` is not positive.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], **kwargs: Any) -> None:
        # Casting 0-255 floats (mixed images, say) to bfloat16 before subtracting the mean would
        # lose up to half a grey level: the policy's automatic cast comes after, not before.
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
        if input_shape[-1] != len(self.mean):
            raise ValueError(
                f"Images have {input_shape[-1]} channels, but mean and std have {len(self.mean)}."
            )
        self.built = True

    def call(self, inputs: Any) -> Any:
        x = keras.ops.cast(inputs, "float32")
        x = (x - keras.ops.array(self.mean, "float32")) / keras.ops.array(self.std, "float32")
        return keras.ops.cast(x, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "mean": self.mean, "std": self.std}


@keras.saving.register_keras_serializable(package="convoy")
class FusedBatchNorm(keras.layers.BatchNormalization):
    """Keras' batch normalisation through TensorFlow's fused kernel (cuDNN's on a GPU).

    Keras 3 composes batch norm of small operations, which costs time and, on a GPU, memory: see
    docs/design.md. Constructor, config, variables and momentum are those of
    `keras.layers.BatchNormalization`, so weights pass both ways. Frozen (`trainable = False`) means
    inference mode, as there.

    Input: `(batch, height, width, channels)`, with `axis=1` `(batch, channels, height, width)`,
    float16, bfloat16 or float32. Output: the same, in the compute dtype. Gamma, beta, the moving
    and the batch statistics are always float32.

    Two differences:
      * `moving_variance` gathers the *unbiased* batch variance, n/(n-1) times Keras' (n = values
        per channel), as PyTorch's does. The batch itself is normalised with the biased one, as in
        Keras.
      * The kernel raises an epsilon below 1.001e-5 to 1.001e-5.

    Whatever the kernel cannot do (another rank or axis, a mask, renorm, `synchronized`, float64)
    goes to Keras' own implementation, and then `moving_variance` gathers the biased variance.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        x = tf.cast(inputs, self.compute_dtype)
        fits = (
            x.shape.rank == 4
            and self.axis in (-1, 3, 1)
            and x.dtype.name in FUSED_DTYPES
            and mask is None
            and not self.renorm
            and not self.synchronized
        )
        if not fits:
            return super().call(inputs, training=training, mask=mask)

        channels, layout = (x.shape[self.axis],), "NCHW" if self.axis == 1 else "NHWC"
        gamma = tf.convert_to_tensor(self.gamma) if self.scale else tf.ones(channels)
        beta = tf.convert_to_tensor(self.beta) if self.center else tf.zeros(channels)
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
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + batch * (1.0 - self.momentum))
        return outputs


@keras.saving.register_keras_serializable(package="convoy")
class StochasticDepth(keras.layers.Layer):
    """Drops the residual branch of whole examples (Huang et al. 2016, arXiv:1603.09382).

    In training each example is zeroed with probability `rate` and the others are divided by
    `1 - rate`, so that inference is the identity. Shape and dtype stay.

    Args:
        rate: Probability of dropping, 0 <= rate < 1.
        seed: Start of the layer's `keras.random.SeedGenerator`.

    Raises:
        ValueError: `rate` is outside [0, 1).
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"The stochastic depth rate must be in [0, 1), not {rate}.")
        self.rate = float(rate)
        self.seed = seed
        if self.rate > 0:
            self.seed_generator = keras.random.SeedGenerator(seed)
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if not training or self.rate == 0:
            return inputs
        keep = 1.0 - self.rate
        shape = (keras.ops.shape(inputs)[0],) + (1,) * (len(inputs.shape) - 1)
        draw = keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)
        return inputs * keras.ops.cast(keras.ops.where(draw < keep, 1.0 / keep, 0.0), inputs.dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
