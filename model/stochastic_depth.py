"""Drops residual branches at random: stochastic depth (Huang et al. 2016, arXiv:1603.09382)."""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable(package="convoy")
class StochasticDepth(keras.layers.Layer):
    """Drops the residual branch of whole examples (Huang et al. 2016, arXiv:1603.09382).

    In training it zeroes each example with probability `rate` and divides the others by `1 - rate`,
    so inference is the identity. Shape and dtype do not change.

    Args:
        rate: probability of dropping, 0 <= rate < 1.
        seed: start of the layer's `keras.random.SeedGenerator`.

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
        """Drops the branch of some images in training, and scales the others."""
        if not training or self.rate == 0:
            return inputs
        keep = 1.0 - self.rate
        shape = (keras.ops.shape(inputs)[0],) + (1,) * (len(inputs.shape) - 1)
        draw = keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)
        return inputs * keras.ops.cast(keras.ops.where(draw < keep, 1.0 / keep, 0.0), inputs.dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments for `.keras` files."""
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}
