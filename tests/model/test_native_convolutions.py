"""Convolutions with native gradients against TensorFlow in float64."""

import numpy as np
import pytest
import tensorflow as tf

from convoy.model import native
from convoy.model.layers import Conv2D
from tests.model.float64 import CLOSE, distance, double, drawn


def as_close_as(theirs, expected, bound):
    """Returns the bound for results of TensorFlow's own operations.

    Without AVX-512 TensorFlow rounds sums of bfloat16 repeatedly, so its results are further from
    float64 than those of the native operations.
    """
    return max(bound, distance(theirs, expected))


@pytest.mark.parametrize("dtype", native.DTYPES)
@pytest.mark.parametrize(
    ("height", "width", "channels", "kernel", "stride", "padding"),
    [
        (14, 14, 48, 3, 1, "same"),
        (15, 13, 40, 5, 2, "same"),
        (16, 16, 35, 3, 2, "same"),
        (4, 4, 72, 5, 1, "same"),
        (9, 9, 70, 7, 1, "same"),
        (9, 10, 16, 2, 1, "same"),
        (17, 17, 33, 3, 2, "valid"),
        (3, 3, 8, 3, 2, "valid"),
        # More than the operations pack at a time.
        (60, 40, 200, 5, 1, "same"),
        (61, 40, 200, 5, 2, "same"),
    ],
)
def test_depthwise_convolution_and_its_gradients_are_close_to_float64(
    ops, level, dtype, height, width, channels, kernel, stride, padding
):
    rng = np.random.default_rng(1)
    x = drawn(rng, (3, height, width, channels), dtype)
    weights = drawn(rng, (kernel, kernel, channels, 1), dtype)
    exact = [tf.constant(double(x)), tf.constant(double(weights))]
    with tf.GradientTape() as tape:
        tape.watch(exact)
        expected = tf.nn.depthwise_conv2d(*exact, (1, stride, stride, 1), padding.upper())
    dy = drawn(rng, expected.shape, dtype)
    gradients = tape.gradient(expected, exact, tf.cast(dy, tf.float64))
    with tf.GradientTape() as tape:
        tape.watch([x, weights])
        y = native.depthwise(ops, x, weights, stride, padding)
    found = tape.gradient(y, [x, weights], dy)
    theirs = tf.nn.depthwise_conv2d(x, weights, (1, stride, stride, 1), padding.upper())
    assert distance(y, expected.numpy()) <= as_close_as(theirs, expected.numpy(), CLOSE[dtype])
    for one, other in zip(found, gradients, strict=True):
        assert one.dtype == dtype
        assert distance(one, other.numpy()) < CLOSE[dtype]


@pytest.mark.parametrize("dtype", native.DTYPES)
@pytest.mark.parametrize(
    ("height", "width", "kernel", "stride", "padding"),
    [
        (7, 7, (1, 1), 1, "same"),
        (7, 6, (3, 3), 1, "same"),
        (6, 5, (3, 5), 1, "same"),
        (16, 16, (3, 3), 2, "valid"),
        (15, 13, (3, 3), 2, "valid"),
        (11, 14, (2, 5), 3, "valid"),
        (14, 14, (1, 1), 2, "same"),
        (7, 9, (1, 1), 2, "same"),
    ],
)
def test_convolution_and_its_gradients_are_close_to_float64(
    dtype, height, width, kernel, stride, padding
):
    rng = np.random.default_rng(3)
    x = drawn(rng, (3, height, width, 20), dtype)
    weights = drawn(rng, (*kernel, 20, 24), dtype)
    exact = [tf.constant(double(x)), tf.constant(double(weights))]
    with tf.GradientTape() as tape:
        tape.watch(exact)
        expected = tf.nn.conv2d(*exact, stride, padding.upper())
    dy = drawn(rng, expected.shape, dtype)
    gradients = tape.gradient(expected, exact, tf.cast(dy, tf.float64))

    layer = Conv2D(24, kernel, strides=stride, padding=padding, use_bias=False, dtype=dtype)
    layer.build(x.shape)
    layer.kernel.assign(weights)

    @tf.function(autograph=False)
    def run(x, dy):
        with native.enabled(), tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
        return y, tape.gradient(y, [x, layer.kernel.value], dy)

    @tf.function(autograph=False)
    def run_theirs(x, dy):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.nn.conv2d(x, weights, stride, padding.upper())
        return y, tape.gradient(y, x, dy)

    graph = run.get_concrete_function(x, dy).graph
    assert "Conv2DBackpropFilter" not in {op.type for op in graph.get_operations()}
    y, (dx, dkernel) = run(x, dy)
    dx_exact, dkernel_exact = (gradient.numpy() for gradient in gradients)
    y_theirs, dx_theirs = run_theirs(x, dy)
    assert distance(y, expected.numpy()) <= as_close_as(y_theirs, expected.numpy(), CLOSE[dtype])
    assert distance(dx, dx_exact) <= as_close_as(dx_theirs, dx_exact, 2 * CLOSE[dtype])
    assert distance(dkernel, dkernel_exact) < 2 * CLOSE[dtype]
