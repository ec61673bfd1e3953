"""Gradient clipping against TensorFlow's functions and NumPy in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from convoy.model import build_model
from convoy.utils.optim.clipping import (
    AGC_EPSILON,
    clip_adaptively,
    clip_by_global_norm,
    clip_by_value,
)


@pytest.fixture(scope="module")
def gradients():
    rng = np.random.default_rng(0)
    return [tf.constant(rng.normal(size=s).astype(np.float32)) for s in ((3, 4), (5,), (2, 2, 3))]


@pytest.mark.parametrize("limit", [0.5, 3.0, 100.0])
def test_global_norm_clipping_equals_tensorflows(gradients, limit):
    want, _ = tf.clip_by_global_norm(gradients, limit)
    for a, b in zip(clip_by_global_norm(gradients, limit), want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_zero_gradients_stay_zero():
    np.testing.assert_array_equal(clip_by_global_norm([tf.zeros([3])], 1.0)[0], np.zeros(3))


def test_value_clipping_equals_numpys(gradients):
    for a, b in zip(clip_by_value(gradients, 0.3), gradients, strict=True):
        np.testing.assert_array_equal(a, np.clip(b, -0.3, np.float32(0.3)))


def by_unit(gradient, weight, unit_axis, limit):
    """Clips unit by unit in float64, as equation 3 of the paper says."""
    gradient, weight = (np.moveaxis(np.float64(x), unit_axis, 0).copy() for x in (gradient, weight))
    for g, w in zip(gradient, weight, strict=True):
        most = limit * max(np.sqrt((w**2).sum()), AGC_EPSILON)
        size = np.sqrt((g**2).sum())
        if size > most:
            g *= most / size
    return np.moveaxis(gradient, 0, unit_axis)


def test_adaptive_clipping_works_by_output_channel_and_skips_the_classifier():
    model = build_model("efficientnet-test", num_classes=10, seed=0)
    rng = np.random.default_rng(1)
    variables = model.trainable_variables
    gradients = [rng.normal(size=v.shape).astype(np.float32) * 0.1 for v in variables]
    got = clip_adaptively([tf.constant(g) for g in gradients], variables, 0.05)
    kinds = set()
    for variable, before, after in zip(variables, gradients, got, strict=True):
        path, weight = variable.path, variable.numpy()
        if path.startswith("predictions"):
            want, kind = before, "classifier"
        elif len(weight.shape) == 1:
            want, kind = by_unit(before[None], weight[None], 0, 0.05)[0], "vector"
        elif "dwconv" in path:
            want, kind = by_unit(before, weight, 2, 0.05), "depthwise"
        else:
            want, kind = by_unit(before, weight, 3, 0.05), "convolution"
        kinds.add(kind)
        np.testing.assert_allclose(after, want, rtol=2e-5, atol=1e-8, err_msg=path)
    assert kinds == {"classifier", "vector", "depthwise", "convolution"}


def test_adaptive_clipping_does_not_change_small_gradients():
    variable = keras.Variable(np.ones((3, 3, 2, 4), np.float32), name="kernel")
    gradient = tf.fill([3, 3, 2, 4], 1e-3)
    np.testing.assert_array_equal(clip_adaptively([gradient], [variable], 0.1)[0], gradient)
