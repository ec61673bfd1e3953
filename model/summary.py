"""Counts the operations of a built model."""

from __future__ import annotations

import math

import keras

_COUNTED = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)


def flops(model: keras.Model) -> int:
    """Counts multiply-adds for one image, each once, as papers do.

    It includes convolutions and dense layers, also in nested models, but not norms, activations and
    sums.

    Raises:
        ValueError: the model was built without a fixed image size.
    """
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            total += flops(layer)
        elif isinstance(layer, _COUNTED):
            first = getattr(layer, "data_format", None) == "channels_first"
            positions = layer.output.shape[2:] if first else layer.output.shape[1:-1]
            if None in positions:
                raise ValueError(
                    f"{model.name} has no fixed image size, so its cost is not defined: build it "
                    f"with image_size."
                )
            # Each weight of the kernel is one multiply-add for every position of the output.
            total += math.prod(layer.kernel.shape) * math.prod(positions)
    return total
