"""Simplifies a network for inference: the same function with fewer operations."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from convoy.model.layers import FusedBatchNorm, Normalize
from convoy.model.stochastic_depth import StochasticDepth

_CONVOLUTIONS = (layers.Conv2D, layers.DepthwiseConv2D)


def folded(model: keras.Model) -> keras.Model:
    """Returns a copy with each batch norm folded into the convolution before it.

    See Jacob et al. 2018 (arXiv:1712.05877), section 3.2. Image normalisation is folded into the
    first convolution; dropout and stochastic depth are left out.

    In float32, logits are the same up to rounding. Under other dtype policies they are less close,
    because kernels are rounded to 16 bits after scaling.

    Args:
        model: from `model.build_model`. It does not change, and shares no variables with the copy.

    Returns:
        A model with the same input, output and layer names.
    """
    norms = _folding_norms(model)
    after = {conv: norm for norm, conv in norms.items()}
    stem = next(layer for layer in model.layers if isinstance(layer, layers.Conv2D))

    def replacement(layer: Any) -> layers.Layer:
        if isinstance(layer, Normalize):
            return _Centre(layer.mean, name=layer.name)
        if layer.name in norms:
            joined = isinstance(layer.input, list)
            return (_Join if joined else layers.Activation)(layer.activation, name=layer.name)
        if isinstance(layer, layers.Dropout | StochasticDepth):
            return layers.Identity(name=layer.name)
        bias = {"use_bias": True} if layer.name in after else {}
        return type(layer).from_config(layer.get_config() | bias)

    def call(layer: Any, *inputs: Any, **_: Any) -> Any:  # none of them takes a mask
        return layer(*inputs)

    copy = keras.models.clone_model(model, clone_function=replacement, call_function=call)
    for layer in copy.layers:
        if not layer.weights:
            continue
        source = model.get_layer(layer.name)
        weights = source.get_weights()
        if layer.name in after:
            weights = _with_norm(source, weights, model.get_layer(after[layer.name]))
        if source is stem:
            weights[0] = weights[0] / np.array(_deviations(model), np.float32)[:, None]
        layer.set_weights(weights)
    return copy


class _Join(layers.Add):
    """Adds both inputs, and applies an activation."""

    def __init__(self, activation: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation = activation

    def call(self, inputs: Any) -> Any:
        return self.activation(super().call(inputs))


class _Centre(layers.Layer):
    """Computes image - mean in float32, then casts to the policy's compute dtype.

    It treats rows as vectors of `width x channels`: in all runtimes, kernels are several times
    slower with vectors of three numbers.
    """

    def __init__(self, mean: list[float], **kwargs: Any) -> None:
        super().__init__(**{"autocast": False, **kwargs})
        self.mean = mean

    def call(self, images: Any) -> Any:
        width, channels = images.shape[2:]
        x = tf.cast(images, tf.float32)
        if width is None:
            return tf.cast(x - tf.constant(self.mean), self.compute_dtype)
        rows = tf.reshape(x, (-1, images.shape[1], width * channels))
        rows = rows - tf.constant(np.tile(np.array(self.mean, np.float32), width))
        return tf.cast(tf.reshape(rows, (-1, *images.shape[1:])), self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return input_shape


def _deviations(model: keras.Model) -> list[float]:
    return next(layer.std for layer in model.layers if isinstance(layer, Normalize))


def _folding_norms(model: keras.Model) -> dict[str, str]:
    """Maps each foldable batch norm to its convolution, by name.

    The convolution must have no other consumer.
    """
    found = {}
    for layer in model.layers:
        if isinstance(layer, FusedBatchNorm):
            (x, *_) = keras.tree.flatten(layer.input)
            before = x._keras_history.operation
            if isinstance(before, _CONVOLUTIONS) and len(before._outbound_nodes) == 1:
                found[layer.name] = before.name
    return found


def _with_norm(conv: Any, weights: list[np.ndarray], norm: FusedBatchNorm) -> list[np.ndarray]:
    """Returns kernel and bias of a convolution combined with its batch norm, in float64."""
    kernel, *bias = (np.float64(value) for value in weights)
    deviation = np.sqrt(np.float64(norm.moving_variance) + norm.epsilon)
    scale = (np.float64(norm.gamma) if norm.scale else 1.0) / deviation
    shift = np.float64(norm.beta) if norm.center else 0.0
    shift = shift + ((bias[0] if bias else 0.0) - np.float64(norm.moving_mean)) * scale
    if isinstance(conv, layers.DepthwiseConv2D):  # (height, width, inputs, outputs of each)
        scale = scale.reshape(kernel.shape[2:])
    return [(kernel * scale).astype(np.float32), np.asarray(shift, np.float32)]
