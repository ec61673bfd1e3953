"""Layers and models use native training operations where these exist, otherwise TensorFlow's."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from convoy.model import build_model, native
from convoy.model.layers import Conv2D, DepthwiseConv2D, FusedBatchNorm

pytestmark = pytest.mark.usefixtures("ops")


def gradients_of(arch, dtype, enabled, **arguments):
    """Returns loss, gradients and statistics of a training pass, and first if it ran natively."""
    keras.mixed_precision.set_dtype_policy(dtype)
    try:
        model = build_model(arch, num_classes=7, seed=3, **arguments)
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    rng = np.random.default_rng(4)
    size = arguments["image_size"]
    images = tf.constant(rng.integers(0, 256, (6, size, size, 3), dtype=np.uint8))

    @tf.function(autograph=False)
    def run(images):
        with native.enabled(enabled), tf.GradientTape() as tape:
            logits = model(images, training=True)
            loss = tf.reduce_mean(tf.square(logits - 0.1))
        return loss, tape.gradient(loss, [v.value for v in model.trainable_variables])

    names = {op.type for op in run.get_concrete_function(images).graph.get_operations()}
    loss, gradients = run(images)
    statistics = [v.numpy() for v in model.non_trainable_variables if "moving" in v.path]
    natively = any(name.startswith("Convoy") for name in names)
    return natively, loss.numpy(), [g.numpy() for g in gradients], statistics


@pytest.mark.parametrize(
    ("arch", "arguments"),
    [
        ("efficientnet-test", {"image_size": 32, "dropout": 0, "stochastic_depth": 0}),
        ("efficientnet-test", {"image_size": 37, "dropout": 0, "stochastic_depth": 0,
                               "activation": "gelu", "any_size": True}),
        ("resnet18", {"image_size": 32}),
    ],
    ids=["efficientnet", "any size, gelu", "resnet"],
)  # fmt: skip
def test_a_models_gradients_equal_those_of_tensorflows_operations(arch, arguments):
    natively, loss, gradients, statistics = gradients_of(arch, "float32", True, **arguments)
    without, other_loss, others, other_statistics = gradients_of(
        arch, "float32", False, **arguments
    )
    assert (natively, without) == (True, False)
    assert loss == pytest.approx(other_loss, rel=1e-5)
    largest = max(np.abs(g).max() for g in others)
    for one, other in zip(gradients, others, strict=True):
        assert np.abs(one - other).max() < 2e-4 * max(np.abs(other).max(), 0.01 * largest)
    for one, other in zip(statistics, other_statistics, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_bfloat16_models_also_train_with_native_operations():
    arguments = {"image_size": 32, "dropout": 0, "stochastic_depth": 0}
    natively, loss, gradients, _ = gradients_of(
        "efficientnet-test", "mixed_bfloat16", True, **arguments
    )
    _, exact, others, _ = gradients_of("efficientnet-test", "float32", False, **arguments)
    assert natively
    assert loss == pytest.approx(exact, rel=0.05)
    flat, other = (np.concatenate([g.ravel() for g in all]) for all in (gradients, others))
    assert flat @ other / np.linalg.norm(flat) / np.linalg.norm(other) > 0.9


def test_evaluation_uses_no_native_operation():
    model = build_model("efficientnet-test", num_classes=3, image_size=32)
    with native.enabled():
        graph = tf.function(
            lambda x: model(x, training=False), autograph=False
        ).get_concrete_function(tf.zeros((1, 32, 32, 3)))
    assert not [op.type for op in graph.graph.get_operations() if op.type.startswith("Convoy")]


@pytest.mark.parametrize(
    ("layer", "dtype"),
    [
        (lambda: FusedBatchNorm(axis=1), "float32"),
        (lambda: FusedBatchNorm(dtype="mixed_float16"), "float16"),
        (lambda: DepthwiseConv2D(3, depth_multiplier=2), "float32"),
        (lambda: DepthwiseConv2D(3, use_bias=True), "float32"),
        (lambda: DepthwiseConv2D(3, dilation_rate=2, use_bias=False), "float32"),
        (lambda: Conv2D(5, 3, dilation_rate=2, padding="same", use_bias=False), "float32"),
        (lambda: Conv2D(5, 3, padding="same", strides=2, use_bias=False), "float32"),
        (lambda: Conv2D(5, 2, padding="same", use_bias=False), "float32"),
        (lambda: Conv2D(5, 3), "float32"),
    ],
    ids=[
        "channels first",
        "float16",
        "multiplier",
        "bias",
        "dilated depthwise",
        "dilated",
        "uneven",
        "even kernel",
        "its bias",
    ],
)
def test_cases_without_a_native_operation_use_tensorflows(layer, dtype):
    layer = layer()
    x = tf.cast(np.random.default_rng(7).normal(size=(2, 6, 6, 4)), dtype)
    with native.enabled():
        found = layer(x, training=True)
    with native.enabled(False):
        expected = layer(x, training=True)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tiles", [False, True])
@pytest.mark.parametrize(
    ("dtype", "kernel", "side", "without", "with_tiles"),
    [
        ("float32", 1, 14, True, True),
        ("float32", 1, 28, False, False),
        ("float32", 3, 14, True, False),
        ("float32", 3, 7, True, True),
        ("bfloat16", 1, 56, False, True),
        ("bfloat16", 3, 14, True, False),
        ("bfloat16", 3, 7, True, True),
    ],
)
def test_kernel_gradients_are_matrix_products_where_these_are_faster(
    monkeypatch, tiles, dtype, kernel, side, without, with_tiles
):
    monkeypatch.setattr(native, "has_tiles", lambda: tiles)
    layer = Conv2D(5, kernel, padding="same", use_bias=False, dtype=dtype)
    layer.build((2, side, side, 4))

    @tf.function(autograph=False)
    def run(x):
        with native.enabled(), tf.GradientTape() as tape:
            y = layer(x, training=True)
        return tape.gradient(y, layer.kernel.value)

    graph = run.get_concrete_function(tf.zeros((2, side, side, 4), dtype)).graph
    convolved = "Conv2DBackpropFilter" in {op.type for op in graph.get_operations()}
    assert convolved != (with_tiles if tiles else without)
