"""EfficientNetV2-S, and synchronised batch norm in all layers."""

import keras
import numpy as np
import pytest

from convoy.model import arithmetic, build_model, get_arch
from convoy.model.stochastic_depth import StochasticDepth
from convoy.model.summary import flops
from convoy.model.sync_batch_norm import SyncBatchNorm
from tests.parameter_count import parameter_count

SIZE = 96


@pytest.fixture(scope="module")
def ours():
    return build_model("efficientnetv2-s", num_classes=50, image_size=SIZE, dropout=0, seed=0)


def test_counts_and_stochastic_depth_of_v2_s_equal_the_catalogues(ours):
    arch = get_arch("efficientnetv2-s")
    assert arch.resolution == 384
    assert ours.count_params() == parameter_count(arch, 50)
    assert flops(ours) == arithmetic.macs(arch, SIZE, 50)
    rates = [layer.rate for layer in ours.layers if isinstance(layer, StochasticDepth)]
    assert rates[:2] == [pytest.approx(0.2 / 40), pytest.approx(0.2 * 3 / 40)]
    assert rates[-1] == pytest.approx(0.2 * 39 / 40)


def test_syncbn_replaces_every_batch_norm():
    model = build_model("efficientnet-test", num_classes=5, batch_norm="syncbn", seed=0)
    norms = [la for la in model.layers if isinstance(la, keras.layers.BatchNormalization)]
    assert norms
    assert all(type(layer) is SyncBatchNorm for layer in norms)
    plain = build_model("efficientnet-test", num_classes=5, seed=0)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    np.testing.assert_allclose(model(images), plain(images), rtol=1e-5, atol=1e-6)
