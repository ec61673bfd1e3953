"""A model for any image size equals the models for fixed sizes."""

import numpy as np
import pytest

from convoy.model import build_model


@pytest.mark.parametrize("arch", ["efficientnet-test", "resnet18"])
def test_weights_and_logits_equal_those_of_a_model_for_one_size(arch):
    free = build_model(arch, num_classes=5, image_size=64, seed=1, any_size=True)
    for size in (40, 64):
        fixed = build_model(arch, num_classes=5, image_size=size, seed=1)
        assert [v.path for v in free.weights] == [v.path for v in fixed.weights]
        for one, other in zip(free.weights, fixed.weights, strict=True):
            np.testing.assert_array_equal(one, other)
        images = np.random.default_rng(size).integers(0, 256, (2, size, size, 3), np.uint8)
        np.testing.assert_array_equal(free(images), fixed(images))
    with pytest.raises(ValueError, match="incompatible"):
        fixed(images[:, :40])
