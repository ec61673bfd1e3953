"""The model in evaluation and prediction: constants in bfloat16, the model itself in float32."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from convoy.model import build_model
from convoy.runtime.builders import inference
from convoy.runtime.builders.inference import ConstantModel, for_inference

POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")


@pytest.fixture
def under():
    """Builds a small model under a dtype policy, with statistics that differ by channel."""
    before = keras.config.dtype_policy()

    def build(policy, arch="efficientnet-test"):
        keras.config.set_dtype_policy(policy)
        keras.utils.set_random_seed(0)
        model, rng = build_model(arch, num_classes=5, image_size=32), np.random.default_rng(0)
        for layer in model.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.moving_mean.assign(rng.normal(0, 0.1, layer.moving_mean.shape))
                layer.moving_variance.assign(rng.uniform(0.5, 2, layer.moving_variance.shape))
                layer.gamma.assign(rng.uniform(0.5, 1.5, layer.gamma.shape))
        return model

    yield build
    keras.config.set_dtype_policy(before)


@pytest.fixture
def images():
    return np.random.default_rng(1).integers(0, 256, (6, 32, 32, 3), np.uint8)


def test_only_bfloat16_on_a_cpu_takes_constants(under, monkeypatch):
    models = {policy: under(policy) for policy in POLICIES}
    chosen = {policy: for_inference(model) for policy, model in models.items()}
    assert isinstance(chosen["mixed_bfloat16"], ConstantModel)
    assert all(chosen[policy] is models[policy] for policy in ("float32", "mixed_float16"))
    bfloat16 = models["mixed_bfloat16"]
    assert for_inference(bfloat16, use_xla=True) is bfloat16
    monkeypatch.setattr(inference.device, "has_gpu", lambda: True)
    assert for_inference(bfloat16) is bfloat16


@pytest.mark.parametrize("arch", ["efficientnet-test", "resnet18", "efficientnet-lite0"])
def test_constants_give_the_logits_of_the_model(under, images, arch):
    model = under("mixed_bfloat16", arch)
    constant, exact = ConstantModel(model), under("float32", arch)
    for own, other in zip(exact.weights, model.weights, strict=True):
        own.assign(other)
    want, spread = exact(images, training=False).numpy(), 0.05
    got = constant(tf.constant(images), training=False)
    assert got.dtype == tf.float32
    assert constant.output_shape == model.output_shape
    scale = np.abs(want).max()
    # bfloat16 has 8 bits; folding rounds no more often than the model in bfloat16 does
    np.testing.assert_allclose(got, want, atol=spread * scale)
    np.testing.assert_allclose(model(images, training=False), want, atol=spread * scale)
    np.testing.assert_array_equal(got, constant(tf.constant(images, tf.float32)))


def test_constants_work_while_a_caller_is_traced_and_keep_their_weights(under, images):
    model = under("mixed_bfloat16")
    constant = ConstantModel(model)
    before = constant(tf.constant(images)).numpy()
    traced = tf.function(lambda pixels: constant(pixels), autograph=False)
    np.testing.assert_allclose(traced(tf.constant(images)), before, rtol=1e-2, atol=1e-3)
    for weight in model.weights:
        weight.assign(weight * 0)
    np.testing.assert_array_equal(constant(tf.constant(images)), before)


def test_constants_take_any_number_of_images(under, images):
    constant = ConstantModel(under("mixed_bfloat16"))
    whole = constant(tf.constant(images)).numpy()
    for count in (1, 4):
        np.testing.assert_allclose(constant(tf.constant(images[:count])), whole[:count], atol=1e-2)
