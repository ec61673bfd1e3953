"""Built EfficientNet-Lite models. tests/parity compares their logits and weights with others."""

import numpy as np
import pytest

from convoy.model import build_model
from convoy.model.weights import WeightFileError, inspect, load_pretrained
from convoy.model.weights.load import model_arguments
from convoy.runtime.builders.models import model_arguments as of_config
from convoy.runtime.settings.config import Config, defaults

NAME = "efficientnet-lite0"


@pytest.fixture(scope="module")
def lite():
    return build_model(NAME, num_classes=5, image_size=32, seed=0)


def test_lite_has_no_squeeze_and_excitation_and_activations_end_at_6(lite):
    assert not any("_se_" in layer.name for layer in lite.layers)
    used = {layer.activation.__name__ for layer in lite.layers if hasattr(layer, "moving_mean")}
    assert used == {"relu6", "linear"}
    inner = type(lite)(lite.input, lite.get_layer("stem_bn").output)
    lite.get_layer("stem_bn").gamma.assign(50 * np.ones(32))
    seen = np.asarray(inner(np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3))))
    assert (seen.min(), seen.max()) == (0, 6)


def test_lite_normalises_and_crops_as_published(lite):
    built = model_arguments(lite)
    assert (built["activation"], built["padding"]) == ("relu6", "same")
    assert (built["mean"], built["std"]) == ([127.0] * 3, [128.0] * 3)
    arguments = of_config(Config(arch=NAME), 5)
    assert {k: arguments[k] for k in ("activation", "mean", "std")} == {
        k: built[k] for k in ("activation", "mean", "std")
    }
    seen = [defaults(f"efficientnet-lite{i}") for i in range(5)]
    assert [values["crop_padding"] for values in seen] == [32, 34, 37, 40, 43]
    assert {values["interpolation"] for values in seen} == {"bicubic"}
    assert defaults("efficientnet-b4")["interpolation"] == "bilinear"


@pytest.mark.parametrize("ending", [".keras", pytest.param(".weights.h5", marks=pytest.mark.slow)])
def test_keras_files_of_lite_load_with_the_same_logits(ending, lite, tmp_path):
    path = tmp_path / f"lite{ending}"
    lite.save(path) if ending == ".keras" else lite.save_weights(path)
    hint = inspect(path, NAME)
    assert hint.num_classes == 5
    again = build_model(NAME, num_classes=5, image_size=32, **hint.arguments)
    assert not load_pretrained(again, NAME, path, strict=True).warnings
    images = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(again(images), lite(images))
    with pytest.raises(WeightFileError, match="give --arch efficientnet-lite0"):
        inspect(path, "efficientnet-b0")
