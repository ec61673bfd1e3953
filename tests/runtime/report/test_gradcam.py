"""Grad-CAM agrees with the class activation map for models with a linear head, and with numerical
gradients for others.
"""

import keras
import numpy as np
import pytest

from convoy.model import build_model
from convoy.runtime.report.gradcam import grad_cam, last_activation, overlay


def images(count, size=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), np.uint8)


def spread(model):
    """Randomises biases, betas and moving means, so that classes differ and batch norm acts."""
    rng = np.random.default_rng(1)
    for weight in model.weights:
        if weight.path.endswith(("beta", "bias", "moving_mean")):
            weight.assign(rng.normal(size=weight.shape) * 0.3)
    return model


ARCHS = {
    "efficientnet-test": ("top_bn", 32),
    "resnet18": ("layer4_1_bn2", 64),
}


@pytest.mark.parametrize("arch", ARCHS)
def test_grad_cam_equals_the_class_activation_map_of_our_models(arch):
    layer, size = ARCHS[arch]
    model = spread(build_model(arch, num_classes=5, image_size=size, dropout=0.2, seed=0))
    activation = model.get_layer(layer).output
    assert last_activation(model) is activation
    x = images(3, size)
    logits, maps = grad_cam(model)(x)
    assert maps[0].size > 1
    np.testing.assert_allclose(logits, model(x, training=False), rtol=1e-4, atol=1e-4)

    features = np.array(keras.Model(model.inputs[0], activation)(x, training=False))
    kernel = np.asarray(model.layers[-1].kernel).astype(np.float64)
    for feature, image_logits, got in zip(features.astype(np.float64), logits, maps, strict=True):
        positions = feature.shape[0] * feature.shape[1]
        want = np.maximum(feature @ kernel[:, image_logits.argmax()], 0) / positions
        assert want.max() > 0
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4 * want.max())


def test_grad_cam_equals_numerical_gradients_for_a_nonlinear_head():
    layers = keras.layers
    inputs = keras.Input((6, 6, 3))
    x = layers.Conv2D(4, 3, activation="tanh", name="last")(inputs)
    x = layers.Dense(5, activation="tanh", name="hidden")(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, layers.Dense(3, name="logits")(x))
    rng = np.random.default_rng(2)
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape))
    x = rng.normal(size=(2, 6, 6, 3)).astype(np.float32)
    logits, maps = grad_cam(model)(x)

    (w1, b1), (w2, b2) = (
        [np.array(w, np.float64) for w in model.get_layer(name).get_weights()]
        for name in ("hidden", "logits")
    )

    def logit(feature, chosen):
        return (np.tanh(feature.mean(axis=(0, 1)) @ w1 + b1) @ w2 + b2)[chosen]

    features = keras.Model(inputs, model.get_layer("last").output).predict(x, verbose=0)
    for feature, chosen, got in zip(
        features.astype(np.float64), logits.argmax(-1), maps, strict=True
    ):
        slopes = []
        for channel in range(4):  # the gradient by central differences, averaged over positions
            gradients = []
            for place in np.ndindex(feature.shape[:2]):
                step = np.zeros_like(feature)
                step[(*place, channel)] = 1e-5
                more, less = logit(feature + step, chosen), logit(feature - step, chosen)
                gradients.append((more - less) / 2e-5)
            slopes.append(np.mean(gradients))
        want = np.maximum(feature @ np.array(slopes), 0)
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-5)


def test_an_overlay_is_red_where_the_map_is_high():
    x, maps = images(2), np.zeros((2, 4, 4), np.float32)
    maps[0, 3, 0] = 5.0
    got = overlay(x, maps)
    assert got.shape == x.shape
    assert got.dtype == np.uint8
    red, blue = got[0, ..., 0].astype(int), got[0, ..., 2].astype(int)
    assert (red - blue)[26:, :6].min() > 0 > (red - blue)[:16, 16:].max()
    assert (got[1, ..., 2] >= got[1, ..., 0]).all(), "a map of zeros is dark blue"


def test_a_model_without_spatial_activations_is_refused():
    inputs = keras.Input((3,))
    with pytest.raises(ValueError, match="no activation with height and width"):
        grad_cam(keras.Model(inputs, keras.layers.Dense(2)(inputs)))
