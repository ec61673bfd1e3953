"""EfficientNet models. test_applications.py compares their logits with Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.tree import flatten

from convoy.model import build_model
from convoy.model.layers import FusedBatchNorm
from convoy.model.stochastic_depth import StochasticDepth

pytestmark = pytest.mark.usefixtures("keras_policy")

TINY = "efficientnet-test"


def pixels(size, count=2, seed=0):
    """Returns coloured patches with noise: after pooling they differ, unlike plain noise."""
    rng = np.random.default_rng(seed)
    patches = rng.integers(0, 256, (count, 3, 3, 3)).repeat(size, 1).repeat(size, 2)[:, ::3, ::3]
    noise = rng.integers(-64, 65, (count, size, size, 3))
    return np.clip(patches + noise, 0, 255).astype(np.uint8)


def test_layers_have_no_regularisers():
    for layer in build_model(TINY).layers:
        for key, value in layer.get_config().items():
            assert not (key.endswith("_regularizer") and value is not None), layer.name


def test_defaults_come_from_the_catalogue_and_arguments_override_them():
    def find(model, kind):
        return [layer for layer in model.layers if isinstance(layer, kind)]

    model = build_model("efficientnet-b0", image_size=32)
    norms = find(model, FusedBatchNorm)
    assert {(n.momentum, n.epsilon) for n in norms} == {(0.99, 1e-3)}
    assert model.get_layer("top_dropout").rate == 0.2
    rates = [layer.rate for layer in find(model, StochasticDepth)]
    assert (rates[0], rates[-1]) == pytest.approx((0.025, 0.175))

    model = build_model(
        TINY, dropout=0, stochastic_depth=0, bn_momentum=0.9, bn_epsilon=1e-5, activation="relu"
    )
    assert {(n.momentum, n.epsilon) for n in find(model, FusedBatchNorm)} == {(0.9, 1e-5)}
    assert not find(model, (keras.layers.Dropout, StochasticDepth))
    assert model.get_layer("stem_bn").get_config()["activation"] == "relu"


def test_the_seed_determines_weights_and_random_draws():
    def drawn(seed):
        model = build_model(TINY, seed=seed)
        batch = pixels(32, count=16)
        return model, model(batch, training=True).numpy()

    (one, first), (two, again), (_, other) = drawn(3), drawn(3), drawn(4)
    np.testing.assert_array_equal(first, again)  # equal weights, dropout and stochastic depth
    assert np.abs(first - other).max() > 1e-3
    for mine, theirs in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_no_two_layers_share_a_seed():
    model = build_model("efficientnet-b0", image_size=32, seed=3)
    seeds = [
        layer.kernel_initializer.seed
        for layer in model.layers
        if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense))
    ]
    seeds += [
        layer.depthwise_initializer.seed
        for layer in model.layers
        if isinstance(layer, keras.layers.DepthwiseConv2D)
    ]
    seeds += [v.numpy()[0] for v in model.variables if "seed_generator" in v.path]
    # Convolutions, dense, depthwise, random layers.
    assert len(seeds) == 1 + 15 + 2 * 16 + 16 + 1 + 1 + 16 + 9 + 1
    assert len(set(seeds)) == len(seeds)


def test_uint8_and_float32_images_give_the_same_logits():
    model = build_model(TINY, num_classes=5)
    batch = pixels(32)
    np.testing.assert_array_equal(model(batch), model(batch.astype("float32")))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_mixed_precision_gives_float32_logits_close_to_full_precision(dtype):
    full = build_model(TINY, num_classes=5, seed=0)
    keras.config.set_dtype_policy(f"mixed_{dtype}")
    mixed = build_model(TINY, num_classes=5, seed=0)
    assert mixed.get_layer("stem_conv").compute_dtype == dtype
    assert {v.dtype for v in mixed.trainable_variables} == {"float32"}
    logits = mixed(pixels(32), training=False)
    assert logits.dtype == tf.float32
    expected = full(pixels(32), training=False).numpy()
    np.testing.assert_allclose(logits, expected, atol=0.05 * np.abs(expected).max())


def train_step(model, batch, jit):
    @tf.function(jit_compile=jit, autograph=False)
    def step(images, labels):
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        variables = [v.value for v in model.trainable_variables]
        gradients = tape.gradient(loss, variables)
        for variable, gradient in zip(variables, gradients, strict=True):
            variable.assign_sub(0.1 * gradient)
        return loss, gradients

    return step(tf.constant(batch), tf.range(len(batch)) % 5)


@pytest.mark.slow
def test_a_training_step_under_xla_equals_the_one_without():
    results = []
    for jit in (False, True):
        # XLA's random ops differ from the others, so the model has no dropout.
        model = build_model(TINY, num_classes=5, dropout=0, stochastic_depth=0, seed=0)
        loss, gradients = train_step(model, pixels(32, count=8), jit)
        results.append([loss, *gradients, *model.get_weights()])
    for plain, xla in zip(*results, strict=True):
        np.testing.assert_allclose(xla, plain, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "policy",
    ["mixed_float16", "float32", "mixed_bfloat16"],
)
def test_every_weight_gets_a_finite_gradient_under_xla(policy):
    keras.config.set_dtype_policy(policy)
    model = build_model(TINY, num_classes=5, seed=0)
    loss, gradients = train_step(model, pixels(32, count=8), jit=True)
    assert np.isfinite(loss)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert np.isfinite(gradient).all(), variable.path
        assert np.any(gradient), variable.path


@pytest.mark.parametrize("size", [32, 33, 47])
def test_symmetric_padding_keeps_the_output_sizes(size):
    same, symmetric = (
        build_model(TINY, num_classes=5, image_size=size, padding=padding, seed=0)
        for padding in ("same", "symmetric")
    )
    for layer in same.layers:
        for one, other in zip(
            *(flatten(m.get_layer(layer.name).output) for m in (same, symmetric)), strict=True
        ):
            assert one.shape == other.shape, layer.name
    pads = [la.name for la in symmetric.layers if isinstance(la, keras.layers.ZeroPadding2D)]
    assert pads == ["stem_conv_pad", "block1a_dwconv_pad"]
    # TensorFlow's padding is itself symmetric for odd sizes: 33 → 17 → 9.
    alike = np.allclose(same(pixels(size)), symmetric(pixels(size)), atol=1e-6)
    assert alike == (size == 33)


def test_a_saved_model_has_the_same_logits_and_configuration(tmp_path):
    model = build_model(TINY, num_classes=5, seed=0)
    model(pixels(32), training=True)  # updates the statistics, which start at 0 and 1
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(pixels(32)), model(pixels(32)))
    assert loaded.to_json() == model.to_json()
    assert isinstance(loaded.get_layer("stem_bn"), FusedBatchNorm)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 7}, "at least 8 pixels, not 7"),
        ({"num_classes": 0}, "num_classes"),
        ({"dropout": 1.0}, "dropout must be"),
        ({"stochastic_depth": -0.1}, "stochastic_depth must be"),
        ({"activation": "swoosh"}, "'swoosh'"),
        ({"batch_norm": "group"}, "must be 'syncbn' or 'default', not 'group'"),
        ({"weight_init": "fan_avg"}, "weight_init"),
        ({"padding": "valid"}, "padding must be"),
        ({"std": (1.0, 0.0, 1.0)}, "std must be positive"),
        ({"mean": (1.0,), "std": (1.0,)}, "3 channels"),
    ],
)
def test_invalid_options_of_efficientnet_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build_model(TINY, **options)


def test_models_that_cannot_be_built_are_refused():
    with pytest.raises(ValueError, match="resnext101-32x8d-basic cannot be built"):
        build_model("resnext101-32x8d-basic")
    with pytest.raises(ValueError, match="Did you mean"):
        build_model("efficientnet-b9")
    with pytest.raises(TypeError, match=r"has no option 'wings' \(there are num_classes, .*seed"):
        build_model(TINY, wings=2)
    with pytest.raises(TypeError, match="has no option 'dropouts'; did you mean dropout"):
        build_model(TINY, dropouts=0.1)


@pytest.mark.parametrize("activation", ["relu6", "hard_swish", "gelu"])
def test_other_activations_give_finite_logits(activation):
    assert np.isfinite(build_model(TINY, num_classes=5, activation=activation)(pixels(32))).all()
