"""Makes a trained model fast in evaluation and prediction, where its weights do not change."""

from __future__ import annotations

import keras
import tensorflow as tf

from convoy.model.fold_batch_norm import folded
from convoy.utils.machine import device


def for_inference(model: keras.Model, use_xla: bool = False) -> keras.Model | ConstantModel:
    """Returns what computes the model's logits fastest here.

    In bfloat16 on a CPU this is a `ConstantModel`. EfficientNet-B0 then takes 0.64 and ResNet50
    half of the model's time in float32; the model itself in bfloat16 takes 0.96 and 0.61 of it
    (docs/decisions/114-constants-in-bfloat16.md).

    Otherwise it is the model, so an evaluation in float32 gives the figures of the evaluation in
    training, to the last bit.

    Args:
        model: from `model.build_model`; it does not change.
        use_xla: the caller compiles with XLA, which chooses its own operations.
    """
    if model.compute_dtype == "bfloat16" and not use_xla and not device.has_gpu():
        return ConstantModel(model)
    return model


class ConstantModel:
    """Computes a model's logits with folded batch norms, and with constants as weights.

    TensorFlow then computes a convolution, its bias and a ReLU in one operation, and arranges a
    kernel for oneDNN only once.

    Attributes:
        output_shape: the model's.

    Args:
        model: from `model.build_model`; later changes of its weights have no effect.
    """

    def __init__(self, model: keras.Model) -> None:
        # The same in TensorFlow 2.17; TensorFlow Lite's converter uses it too.
        from tensorflow.python.framework.convert_to_constants import (
            convert_variables_to_constants_v2 as with_constants,
        )

        self.output_shape = model.output_shape
        copy = folded(model)
        signature = [tf.TensorSpec(model.input_shape, tf.float32)]
        logits = tf.function(
            lambda images: copy(images, training=False), signature, autograph=False
        )
        self._logits = with_constants(logits.get_concrete_function())

    def __call__(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns float32 `(batch, classes)` for images `(batch, size, size, 3)` in 0-255."""
        del training  # it is here because Keras models take it
        return self._logits(tf.cast(images, tf.float32))[0]
