"""Models with NCHW inside have the weights, logits, gradients and statistics of NHWC models."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from convoy.model import build_model
from convoy.model.resnet import GroupedConv2D
from convoy.model.summary import flops

SIZE = 40
# The smallest models with squeeze-and-excitation, both paddings and max pooling.
MODELS = {"efficientnet-test": {}, "resnet18": {"padding": "same"}}


def pair(arch, **options):
    build = {"num_classes": 5, "image_size": SIZE, "seed": 3, "dropout": 0.0} | options
    return [build_model(arch, **build, data_format=f) for f in ("channels_last", "channels_first")]


def answers(model, images, labels, xla):
    """Returns logits of inference and training, loss gradients, and the updated statistics."""

    @tf.function(jit_compile=True if xla else None, autograph=False)
    def run():
        evaluated = model(images, training=False)
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            loss = tf.reduce_mean(losses)
        return evaluated, logits, tape.gradient(loss, [v.value for v in model.trainable_variables])

    return [*run(), [v.numpy() for v in model.non_trainable_variables]]


def assert_near(one, other, bound):
    """Compares relative to the largest value, as rounding errors grow with it."""
    one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
    assert np.abs(one - other).max() <= bound * max(1.0, np.abs(one).max())


@pytest.mark.slow
@pytest.mark.parametrize(
    "arch",
    [pytest.param(a, marks=pytest.mark.slow) if "res" in a else a for a in MODELS],
)
def test_a_channels_first_model_has_the_same_logits_gradients_and_statistics(arch):
    last, first = pair(arch, stochastic_depth=0.0, **MODELS[arch])
    assert [v.path for v in last.weights] == [v.path for v in first.weights]
    for a, b in zip(last.weights, first.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    assert last.input_shape == first.input_shape == (None, SIZE, SIZE, 3)
    assert flops(last) == flops(first)
    layout = first.get_layer("channels_first")
    assert layout.input.shape[1:] == (SIZE, SIZE, 3)
    assert layout.output.shape[1:] == (3, SIZE, SIZE)

    rng = np.random.default_rng(0)
    images = tf.constant(rng.integers(0, 256, (4, SIZE, SIZE, 3), np.uint8))
    labels = tf.constant([0, 2, 4, 2])
    wanted, got = answers(last, images, labels, False), answers(first, images, labels, True)
    for a, b in zip(wanted[:2], got[:2], strict=True):
        assert np.std(a) > 1e-3
        assert_near(a, b, 1e-5)
    for v, a, b in zip(last.trainable_variables, wanted[2], got[2], strict=True):
        bound = 1e-4 * max(float(tf.reduce_max(tf.abs(a))), 1e-2)
        np.testing.assert_allclose(a, b, rtol=0, atol=bound, err_msg=v.path)
    for a, b in zip(wanted[3], got[3], strict=True):
        assert_near(a, b, 1e-5)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_channels_first_se_resnext_has_the_same_logits():
    """Its gradients would take XLA many minutes on a CPU; the test above covers its layer types."""
    last, first = pair("se-resnext101-32x4d")
    images = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), np.uint8)
    want = last(images)
    got = tf.function(lambda x: first(x), jit_compile=True, autograph=False)(images)
    assert np.std(want) > 1e-3
    assert_near(want, got, 1e-5)


def test_grouped_convolutions_are_equal_in_both_formats():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2, 9, 9, 32)).astype(np.float32)
    layers = [
        GroupedConv2D(64, 3, strides=2, padding="same", groups=8, data_format=f, name=f)
        for f in ("channels_last", "channels_first")
    ]
    for layer, shape in zip(layers, ((None, 9, 9, 32), (None, 32, 9, 9)), strict=True):
        layer.build(shape)
    layers[1].kernel.assign(layers[0].kernel)
    want = layers[0](x)
    run = tf.function(lambda y: layers[1](y), jit_compile=True, autograph=False)
    got = run(tf.transpose(x, (0, 3, 1, 2)))
    np.testing.assert_allclose(tf.transpose(got, (0, 2, 3, 1)), want, atol=1e-5)


def test_another_data_format_is_refused():
    for arch in ("efficientnet-test", "resnet18"):
        with pytest.raises(ValueError, match="data_format must be 'channels_last'"):
            build_model(arch, data_format="NCHW")
    assert keras.config.image_data_format() == "channels_last"
