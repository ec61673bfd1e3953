"""A model whose logits NumPy knows too, and their softmax in float64."""

import keras
import numpy as np


def identity_model(classes):
    """Returns a model whose logits, (batch, classes), are its input."""
    inputs = keras.Input((classes,))
    return keras.Model(inputs, keras.layers.Activation("linear")(inputs))


def softmax(logits):
    """Returns the float64 softmax over the last axis."""
    logits = np.asarray(logits, np.float64)
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
