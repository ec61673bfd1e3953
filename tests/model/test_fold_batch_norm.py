"""Models with folded batch norm give the logits of the originals."""

import keras
import numpy as np
import pytest

from convoy.model import build_model
from convoy.model.fold_batch_norm import folded

# Small ranges, so that no network amplifies rounding errors.
RANGES = {"gamma": (0.3, 0.7), "beta": (-0.1, 0.1)}
RANGES |= {"moving_mean": (-0.1, 0.1), "moving_variance": (0.8, 1.5)}


def randomise(model):
    """Gives batch norms statistics, scales and shifts that differ from a new model's."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            for variable in layer.weights:
                low, high = RANGES[variable.name]
                variable.assign(rng.uniform(low, high, variable.shape))


@pytest.mark.parametrize(
    ("arch", "options"),
    [
        ("efficientnet-test", {"stochastic_depth": 0.2, "padding": "symmetric"}),
        pytest.param("efficientnetv2-s", {}, marks=pytest.mark.slow),
        pytest.param("resnet50", {"bn_epsilon": 1e-7}, marks=pytest.mark.slow),
        pytest.param("se-resnext101-32x4d", {}, marks=pytest.mark.slow),
    ],
)
def test_folding_removes_batch_norm_and_keeps_the_logits(arch, options):
    model = build_model(arch, num_classes=7, image_size=64, seed=1, **options)
    randomise(model)
    before = [np.asarray(v).copy() for v in model.weights]
    images = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    wanted = np.asarray(model(images, training=False))
    copy = folded(model)
    np.testing.assert_allclose(
        np.asarray(copy(images, training=False)), wanted, atol=2e-5 * np.abs(wanted).max()
    )
    assert not any("_bn" in v.path or "moving" in v.path for v in copy.variables)
    assert [layer.name for layer in copy.layers] == [layer.name for layer in model.layers]
    for variable, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    assert not {id(v) for v in copy.variables} & {id(v) for v in model.variables}


def test_folding_works_for_models_of_any_image_size():
    model = build_model("efficientnet-test", num_classes=3, image_size=32, any_size=True)
    images = np.random.default_rng(1).integers(0, 256, (2, 40, 48, 3), dtype=np.uint8)
    np.testing.assert_allclose(folded(model)(images), model(images), atol=1e-5)
