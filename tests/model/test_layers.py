"""Layers and initialisers, compared with Keras' own layers."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from convoy.model import catalog, initializers
from convoy.model.layers import FusedBatchNorm, Normalize
from convoy.model.stochastic_depth import StochasticDepth

SHAPE = (4, 5, 6, 3)
VALUES = 4 * 5 * 6  # values per channel
UNBIASED = VALUES / (VALUES - 1)


def images(shape=SHAPE, seed=0, spread=2.0):
    return np.random.default_rng(seed).normal(1.5, spread, shape).astype("float32")


def pair(**options):
    """Returns Keras' batch norm and ours with the same random weights."""
    layers = (keras.layers.BatchNormalization(**options), FusedBatchNorm(**options))
    rng = np.random.default_rng(1)
    for layer in layers:
        layer.build((None, *SHAPE[1:]))
    weights = [rng.uniform(0.5, 1.5, w.shape).astype("float32") for w in layers[0].get_weights()]
    for layer in layers:
        layer.set_weights(weights)
    return layers


# ---------------------------------------------------------------- normalisation


def test_normalize_gives_the_same_for_uint8_and_float32():
    layer = Normalize(catalog.IMAGENET_MEAN, catalog.IMAGENET_STD)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), dtype=np.uint8)
    expected = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    for batch in (pixels, pixels.astype("float32")):
        np.testing.assert_allclose(layer(batch), expected, atol=1e-5)
    assert layer.variables == []


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_normalize_subtracts_the_mean_before_it_casts(dtype):
    layer = Normalize([127.3], [1.0], dtype=f"mixed_{dtype}")
    out = layer(tf.constant([[[[127.7]]]]))  # bfloat16 would round 127.7 to 127.5
    assert out.dtype == dtype
    assert float(tf.cast(out, tf.float32)[0, 0, 0, 0]) == pytest.approx(0.4, abs=2e-3)


def test_normalize_refuses_invalid_constants():
    with pytest.raises(ValueError, match="positive"):
        Normalize([0.0], [0.0])
    with pytest.raises(ValueError, match="1 channels and std has 2"):
        Normalize([0.0], [1.0, 1.0])
    with pytest.raises(ValueError, match="3 channels, but mean and std have 1"):
        Normalize([0.0], [1.0])(images())


# ---------------------------------------------------------------- batch norm


@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}, {"epsilon": 1e-5}])
@pytest.mark.parametrize("training", [False, True])
def test_batch_norm_outputs_and_gradients_equal_kerass(options, training):
    x, upstream = tf.constant(images()), tf.constant(images(seed=2))
    results = []
    for layer in pair(**options):
        with tf.GradientTape() as tape:
            tape.watch(x)
            out = layer(x, training=training)
            loss = tf.reduce_sum(out * upstream)
        gradients = tape.gradient(loss, [x, *(v.value for v in layer.trainable_variables)])
        results.append([out, *gradients])
    for theirs, ours in zip(*results, strict=True):
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * scale)


@pytest.mark.parametrize("training", [False, True])
def test_channels_first_batch_norm_equals_channels_last(training):
    x, results = tf.constant(images()), []
    for axis, there, back in ((3, (0, 1, 2, 3), (0, 1, 2, 3)), (1, (0, 3, 1, 2), (0, 2, 3, 1))):
        layer = FusedBatchNorm(axis=axis)
        with tf.GradientTape() as tape:
            tape.watch(x)
            out = tf.transpose(layer(tf.transpose(x, there), training=training), back)
            loss = tf.reduce_sum(out**3)
        gradients = tape.gradient(loss, [x, *(v.value for v in layer.trainable_variables)])
        results.append([out, *gradients, *layer.get_weights()])
    for last, first in zip(*results, strict=True):
        np.testing.assert_allclose(first, last, atol=1e-5 * max(1, np.abs(last).max()))


def test_batch_norm_statistics_equal_kerass_but_with_unbiased_variance():
    theirs, ours = pair(momentum=0.9)
    before = theirs.moving_variance.numpy()
    for layer in (theirs, ours):
        layer(images(), training=True)
    np.testing.assert_allclose(ours.moving_mean, theirs.moving_mean, rtol=1e-5)
    biased = (theirs.moving_variance.numpy() - 0.9 * before) / 0.1
    np.testing.assert_allclose(biased, images().var((0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(
        ours.moving_variance, 0.9 * before + 0.1 * UNBIASED * biased, rtol=1e-5
    )


def test_inference_and_frozen_layers_do_not_change_batch_norm_statistics():
    _, layer = pair()
    before = [v.numpy() for v in layer.non_trainable_variables]
    quiet = layer(images(), training=False)
    layer.trainable = False
    frozen = layer(images(), training=True)
    np.testing.assert_array_equal(frozen, quiet)
    np.testing.assert_array_equal(
        [v.numpy() for v in (layer.moving_mean, layer.moving_variance)], before
    )


def test_frozen_batch_norm_has_the_gradient_of_inference():
    grads = []
    for layer in pair():
        layer.trainable = False
        x = tf.constant(images())
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(layer(x, training=True) ** 2)
        grads.append(tape.gradient(loss, x))
    np.testing.assert_allclose(grads[1], grads[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 5e-3), ("bfloat16", 4e-2)])
@pytest.mark.parametrize("training", [False, True])
def test_batch_norm_under_mixed_precision_keeps_float32_weights(dtype, tolerance, training):
    theirs, ours = pair(dtype=f"mixed_{dtype}")
    assert {v.dtype for v in ours.variables} == {"float32"}
    x = tf.cast(images(), dtype)
    with tf.GradientTape() as tape:
        out = ours(x, training=training)
        loss = tf.reduce_sum(tf.cast(out, tf.float32))
    gradients = tape.gradient(loss, [v.value for v in ours.trainable_variables])
    assert out.dtype == dtype
    assert {g.dtype for g in gradients} == {tf.float32}
    expected = tf.cast(theirs(x, training=training), tf.float32)
    np.testing.assert_allclose(tf.cast(out, tf.float32), expected, atol=tolerance)


@pytest.mark.parametrize("training", [False, True])
def test_batch_norm_under_xla_equals_the_one_without(training):
    results = []
    for compiled in (False, True):
        _, layer = pair()
        call = tf.function(
            lambda x, layer=layer: layer(x, training=training),
            jit_compile=compiled,
            autograph=False,
        )
        results.append([call(tf.constant(images())), *layer.get_weights()])
    for plain, xla in zip(*results, strict=True):
        np.testing.assert_allclose(xla, plain, rtol=1e-4, atol=1e-5)


def test_batch_norm_over_one_value_per_channel_is_finite():
    layer = FusedBatchNorm()
    out = layer(images((1, 1, 1, 3)), training=True)
    np.testing.assert_array_equal(out, np.zeros((1, 1, 1, 3)))
    assert np.isfinite(layer.get_weights()).all()


@pytest.mark.parametrize(
    ("options", "shape"),
    [({}, (8, 3)), ({}, (4, 6, 3)), ({"axis": 2}, SHAPE), ({"dtype": "float64"}, SHAPE)],
)
def test_batch_norm_uses_keras_for_other_ranks_axes_and_dtypes(options, shape):
    results = []
    for kind in (keras.layers.BatchNormalization, FusedBatchNorm):
        layer = kind(**options)
        out = layer(images(shape), training=True)
        results.append([out, *layer.get_weights()])
    for theirs, ours in zip(*results, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_batch_norms_config_equals_kerass():
    ours = FusedBatchNorm(momentum=0.9, epsilon=1e-5, name="bn").get_config()
    theirs = keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name="bn").get_config()
    assert ours == theirs
    assert FusedBatchNorm.from_config(theirs).get_config() == theirs


# ---------------------------------------------------------------- stochastic depth


def test_stochastic_depth_drops_whole_examples_at_its_rate_and_scales_the_others():
    layer = StochasticDepth(0.3, seed=7)
    out = layer(tf.ones((4000, 2, 2, 3)), training=True).numpy()
    assert (out == out[:, :1, :1, :1]).all()
    kept = out[:, 0, 0, 0]
    np.testing.assert_allclose(np.unique(kept), [0.0, 1 / 0.7], rtol=1e-6)
    assert (kept == 0).mean() == pytest.approx(0.3, abs=0.03)  # four standard deviations
    assert kept.mean() == pytest.approx(1.0, abs=0.05)


def test_stochastic_depth_repeats_with_its_seed_and_differs_in_the_next_call():
    def draws(seed):
        layer = StochasticDepth(0.5, seed=seed)
        return [layer(tf.ones((64, 1, 1, 1)), training=True).numpy() for _ in range(2)]

    first, again, other = draws(1), draws(1), draws(2)
    np.testing.assert_array_equal(first, again)
    assert (first[0] != first[1]).any()
    assert (first[0] != other[0]).any()


def test_stochastic_depth_is_the_identity_in_inference():
    x = tf.constant(images())
    for layer in (StochasticDepth(0.9), StochasticDepth(0.0)):
        assert layer(x, training=False) is x
    assert StochasticDepth(0.0)(x, training=True) is x
    assert StochasticDepth(0.0).variables == []


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_stochastic_depth_refuses_rates_outside_0_to_1(rate):
    with pytest.raises(ValueError, match=r"in \[0, 1\)"):
        StochasticDepth(rate)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_stochastic_depth_keeps_the_dtype_and_compiles(dtype):
    layer = StochasticDepth(0.5, seed=0, dtype=f"mixed_{dtype}")
    call = tf.function(lambda x: layer(x, training=True), jit_compile=True, autograph=False)
    out = call(tf.ones((16, 2, 2, 3), dtype))
    assert out.dtype == dtype
    assert set(np.unique(tf.cast(out, tf.float32))) == {0.0, 2.0}


# ---------------------------------------------------------------- initialisers


@pytest.mark.parametrize("mode", ["fan_in", "fan_out"])
@pytest.mark.parametrize(
    ("maker", "shape", "fans"),
    [
        (initializers.conv_initializer, (3, 3, 64, 128), {"fan_in": 576, "fan_out": 1152}),
        (initializers.depthwise_initializer, (5, 5, 512, 1), {"fan_in": 25, "fan_out": 25}),
    ],
)
def test_convolutions_start_with_variance_2_over_fan(mode, maker, shape, fans):
    values = np.asarray(maker(mode, seed=3)(shape))
    expected = np.sqrt(2 / fans[mode])
    assert values.std() == pytest.approx(expected, rel=0.03)
    # Truncated at two uncorrected standard deviations.
    assert np.abs(values).max() <= 2 * expected / 0.879 + 1e-6


@pytest.mark.parametrize(("mode", "fan"), [("fan_in", 400), ("fan_out", 100)])
def test_the_classifier_starts_with_a_uniform_distribution(mode, fan):
    values = np.asarray(initializers.dense_initializer(mode, seed=3)((400, 100)))
    assert np.abs(values).max() == pytest.approx(1 / np.sqrt(fan), rel=0.01)
    assert values.std() == pytest.approx(1 / np.sqrt(3 * fan), rel=0.02)


def test_layer_seeds_depend_on_the_layer_and_the_seed():
    seeds = {initializers.layer_seed(s, n) for s in (0, 1) for n in ("stem_conv", "top_conv")}
    assert len(seeds) == 4
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert initializers.layer_seed(0, "stem_conv") == initializers.layer_seed(0, "stem_conv")
    assert initializers.layer_seed(None, "stem_conv") is None


def test_an_unknown_weight_init_is_refused():
    with pytest.raises(ValueError, match="weight_init must be one of fan_in, fan_out"):
        initializers.conv_initializer("fan_avg")
