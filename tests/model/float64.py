"""Random tensors, and their distance from results in float64."""

import numpy as np
import tensorflow as tf

# Relative to the largest value: float32 rounding, and half a unit in bfloat16's last place.
CLOSE = {"float32": 3e-6, "bfloat16": 2**-8}


def drawn(rng, shape, dtype, mean=0.0, deviation=1.0):
    return tf.cast(rng.normal(mean, deviation, shape), dtype)


def double(x):
    return tf.cast(x, tf.float64).numpy()


def distance(found, expected):
    return np.abs(double(found) - expected).max() / np.abs(expected).max()
