"""Computes predict's answers with TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from convoy.dataloader.bad_images.culprits import TF_ERRORS
from convoy.dataloader.bad_images.explain import first_words
from convoy.dataloader.images.by_pillow import BadImage, unread
from convoy.dataloader.images.crops import eval_decode
from convoy.dataloader.images.eval_crop import EvalCrop
from convoy.runtime.builders.inference import for_inference
from convoy.runtime.builders.trained_model import Trained
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.flags import AUTO
from convoy.runtime.settings.images import eval_crop
from convoy.utils.machine import xla

_BATCH = 32  # for --predict_batch_size auto


class TensorflowEngine:
    """Computes with a Keras model; see `engine.Engine`.

    Args:
        trained: the model, from uint8 images to logits.
        config: for the crop, the batch, mirror images and XLA.
        once: there is only one image. Tracing functions would cost more than it saves: 2.7 s of
            processor time instead of 0.6 s, for EfficientNet-B0.
    """

    at_once = 1

    def __init__(self, trained: Trained, config: Config, once: bool = False) -> None:
        model, batch = trained.model, config.predict_batch_size
        self.text = trained.text
        self.class_names: Sequence[str] | None = trained.class_names
        self.classes, self.size = model.output_shape[-1], model.input_shape[1]
        self.batch = 1 if once else _BATCH if batch == AUTO else int(batch)
        self._decode = decoder(self.size, eval_crop(config), traced=not once)
        compiled = config.data_format == "channels_first" and config.use_xla
        ready = model if once else for_inference(model, compiled)
        self._forward = _forward(ready, config.flip_tta)
        if compiled or not once:
            self._forward = xla.function(self._forward, compiled)

    def square(self, encoded: bytes) -> np.ndarray:
        """Returns the model's view of an encoded image, decoded as in evaluation."""
        return self._decode(encoded)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Returns float32 `(images, classes)`.

        It pads a short batch, so that the model is compiled for only one shape.
        """
        padding = np.zeros((self.batch - len(images), *images.shape[1:]), np.uint8)
        return self._forward(tf.constant(np.concatenate([images, padding]))).numpy()[: len(images)]


def _forward(model: Any, flip: bool) -> Callable[[tf.Tensor], tf.Tensor]:
    """Maps images to probabilities; with `flip`, the mean over an image and its mirror image."""

    def of(images: tf.Tensor) -> tf.Tensor:
        logits = model(images, training=False)
        # softmax makes an ordinary 0 of -inf
        finite = tf.reduce_all(tf.math.is_finite(logits), axis=-1, keepdims=True)
        return tf.where(finite, tf.nn.softmax(logits), np.nan)

    def forward(images: tf.Tensor) -> tf.Tensor:
        probabilities = of(images)
        if flip:
            probabilities = (probabilities + of(tf.reverse(images, [2]))) / 2
        return probabilities

    return forward


def decoder(size: int, crop: EvalCrop, traced: bool = True) -> Callable[[bytes], np.ndarray]:
    """Returns a function from encoded bytes to the model's view, `(size, size, 3)`.

    The view is that of `crops.eval_decode`. The function raises BadImage if the bytes
    are not an image.
    """

    def decode(encoded: tf.Tensor) -> tf.Tensor:
        return eval_decode(encoded, size, crop)

    fast = decode
    if traced:
        signature = [tf.TensorSpec([], tf.string)]
        fast = tf.function(decode, input_signature=signature, autograph=False)

    def run(content: bytes) -> np.ndarray:
        try:
            return fast(tf.constant(content)).numpy()
        except TF_ERRORS as error:
            raise BadImage(unread(content) or _why(content, error)) from error

    def _why(content: bytes, error: Exception) -> str:
        """Returns what is wrong: outside a compiled function, errors say more."""
        try:
            decode(tf.constant(content))
        except TF_ERRORS as plain:
            error = plain
        return f"not a readable image ({first_words(error)})"

    return run
