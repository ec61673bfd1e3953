"""EfficientNetV2-S against keras.applications, and the largest EfficientNets."""

import time

import keras
import numpy as np
import pytest

from model import build_model, catalog, get_arch
from model.layers import StochasticDepth
from model.summary import flops
from model.sync_batch_norm import SyncBatchNorm

SIZE = 96


@pytest.fixture(scope="module")
def ours():
    return build_model("efficientnetv2-s", num_classes=50, image_size=SIZE, dropout=0, seed=0)


def pixels(count, seed=0):
    rng = np.random.default_rng(seed)
    patches = rng.integers(0, 256, (count, 4, 4, 3)).repeat(SIZE // 4, 1).repeat(SIZE // 4, 2)
    noise = rng.integers(-64, 65, (count, SIZE, SIZE, 3))
    return np.clip(patches + noise, 0, 255).astype(np.uint8)


def test_logits_are_those_of_keras_applications(ours):
    keras.utils.set_random_seed(0)
    theirs = keras.applications.EfficientNetV2S(
        weights=None, input_shape=(SIZE, SIZE, 3), classes=50, classifier_activation=None
    )
    # Random gains, with the statistics of the batch: freely drawn ones would make logits constants.
    rng = np.random.default_rng(0)
    batch = pixels(8)
    # Their model maps 0-255 to -1..1 (x / 128 - 1); ours normalises by mean and std.
    mean, std = np.array(catalog.IMAGENET_MEAN), np.array(catalog.IMAGENET_STD)
    their_batch = (128 * ((batch - mean) / std + 1)).astype("float32")
    for variable in theirs.variables:
        if variable.name in ("gamma", "beta", "bias"):
            variable.assign(variable + rng.uniform(-0.4, 0.4, variable.shape))
    for layer in theirs.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    theirs(their_batch, training=True)

    source = {layer.name: layer for layer in theirs.layers if layer.weights}
    target = {layer.name: layer for layer in ours.layers if layer.count_params()}
    assert source.keys() == target.keys()
    for name, layer in source.items():
        target[name].set_weights(layer.get_weights())
        if isinstance(layer, keras.layers.BatchNormalization):
            assert (target[name].momentum, target[name].epsilon) == (0.9, 1e-3)
    expected = theirs(their_batch, training=False).numpy()
    logits = ours(batch, training=False).numpy()
    assert expected.std(axis=0).mean() > 0.01 * np.abs(expected).max()  # images do matter
    # Measured over seeds: 2e-5 to 4e-5. Fewer pixels make the batch's statistics so narrow that
    # rounding alone passes the bound (64 pixels: 5e-5 to 2e-4).
    assert np.abs(logits - expected).max() < 1e-4 * np.abs(expected).max()


def test_built_model_agrees_with_the_catalogue(ours):
    arch = get_arch("efficientnetv2-s")
    assert arch.resolution == 384
    assert ours.count_params() == catalog.parameter_count(arch, 50)
    assert flops(ours) == catalog.macs(arch, SIZE, 50)
    rates = [layer.rate for layer in ours.layers if isinstance(layer, StochasticDepth)]
    assert rates[:2] == [pytest.approx(0.2 / 40), pytest.approx(0.2 * 3 / 40)]
    assert rates[-1] == pytest.approx(0.2 * 39 / 40)


def test_syncbn_is_in_every_norm():
    model = build_model("efficientnet-test", num_classes=5, batch_norm="syncbn", seed=0)
    norms = [la for la in model.layers if isinstance(la, keras.layers.BatchNormalization)]
    assert norms
    assert all(type(layer) is SyncBatchNorm for layer in norms)
    plain = build_model("efficientnet-test", num_classes=5, seed=0)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    np.testing.assert_allclose(model(images), plain(images), rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet-b8", "efficientnet-l2"])
def test_the_largest_agree_with_the_catalogue(name):
    arch, started = get_arch(name), time.perf_counter()
    model = build_model(name, image_size=64)
    print(f"{name}: built in {time.perf_counter() - started:.1f} s")
    assert model.count_params() == arch.params_1000
    assert flops(model) == catalog.macs(arch, 64)
