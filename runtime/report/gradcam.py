"""Computes Grad-CAM: the parts of an image that support a class.

See Selvaraju et al. 2017 (arXiv:1610.02391).

It weights each channel of the last activation with height and width by the mean gradient of the
class's logit over its positions, sums over channels, and clips below 0. If logits are linear in the
pooled activation, as in all our models, this is the class activation map of Zhou et al. 2016
(arXiv:1512.04150) divided by the number of positions.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

# From dark blue over cyan and yellow to red, equally spaced; RGB.
_COLOURS = np.array([(0, 0, 110), (0, 140, 255), (90, 230, 150), (255, 215, 0), (240, 30, 0)])

Explain = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def grad_cam(model: keras.Model) -> Explain:
    """Returns a function that shows, for each image, what supports the class of the largest logit.

    Args:
        model: a functional model in channels_last that ends in logits.

    Returns:
        A function from images `(B, H, W, 3)` to logits float32 `(B, classes)` and maps float32 `(B,
        h, w)` of the activation's size, from 0 up.

    Raises:
        ValueError: the model has no activation with height and width.
    """
    activation = last_activation(model)
    body = keras.Model(model.inputs[0], activation)
    head = keras.Model(activation, model.outputs[0])

    @functools.partial(tf.function, autograph=False)
    def explain(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        features = body(images, training=False)
        # Only the head needs a backward pass.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(features)
            logits = head(features, training=False)
            largest = tf.reduce_max(logits, axis=-1)
        weights = tf.reduce_mean(tape.gradient(largest, features), axis=[1, 2], keepdims=True)
        maps = tf.reduce_sum(tf.cast(weights * features, tf.float32), axis=-1)
        return tf.cast(logits, tf.float32), tf.nn.relu(maps)

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits, maps = explain(tf.constant(images))
        return logits.numpy(), maps.numpy()

    return run


def last_activation(model: keras.Model) -> keras.KerasTensor:
    """Returns the output `(B, h, w, channels)` of the last layer with height and width.

    It is the input of the global pooling before the head.
    """
    for layer in reversed(model.layers):
        if isinstance(layer.output, keras.KerasTensor) and len(layer.output.shape) == 4:
            return layer.output
    raise ValueError(f"{model.name} has no activation with height and width.")


def overlay(images: np.ndarray, maps: np.ndarray, strength: float = 0.55) -> np.ndarray:
    """Draws maps in colour over the images in grey.

    Args:
        images: uint8 `(B, H, W, 3)`.
        maps: float `(B, h, w)`; each is scaled by its own maximum. A map of zeros is completely
            dark.
        strength: weight of the colour.

    Returns:
        uint8 `(B, H, W, 3)`.
    """
    largest = maps.max(axis=(1, 2), keepdims=True)
    maps = maps / np.where(largest > 0, largest, 1.0)
    size = images.shape[1:3]
    maps = tf.image.resize(maps[..., None], size, "bicubic").numpy()[..., 0].clip(0, 1)
    stops = np.linspace(0, 1, len(_COLOURS))
    colour = np.stack([np.interp(maps, stops, channel) for channel in _COLOURS.T], axis=-1)
    grey = images @ np.array([0.299, 0.587, 0.114])
    mixed = (1 - strength) * grey[..., None] + strength * colour
    return mixed.round().clip(0, 255).astype(np.uint8)
