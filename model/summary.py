"""What a built model costs."""

from __future__ import annotations

import math

import keras

_COUNTED = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)


def flops(model: keras.Model) -> int:
    """Multiply-adds for one image, each counted once as papers do.

    Convolutions and dense layers, nested models included; norms, activations and sums are left out.

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
            # The kernel holds one multiply-add per weight for every position of the output.
            total += math.prod(layer.kernel.shape) * math.prod(positions)
    return total
