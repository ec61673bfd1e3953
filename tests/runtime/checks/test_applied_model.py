"""Flags that contradict the model in the checkpoint are refused, not ignored."""

import pytest

from convoy.runtime.command_line.cli import configure
from convoy.utils.errors import ConfigError

OTHERS = [
    ("arch", "efficientnet-b0"),
    ("num_classes", 5),
    ("activation", "relu"),
    ("bn_epsilon", 0.9),
    ("padding", "symmetric"),
]


@pytest.mark.parametrize(("name", "value"), OTHERS)
@pytest.mark.parametrize("where", ["model_dir", "pretrained_from_file"])
def test_a_flag_that_contradicts_the_trained_model_is_refused(trained, tiny, where, name, value):
    folder = {where: str(trained.model_dir), "data_dir": str(tiny)}
    with pytest.raises(ConfigError) as caught:
        configure(mode="eval", **folder, **{name: value})
    text = str(caught.value)
    if (where, name) == ("pretrained_from_file", "arch"):  # every weight file has this message
        assert "does not fit efficientnet-b0: it holds efficientnet-test" in text
    else:
        assert text.startswith(f"--{name} {value}: "), text
        assert f"leave --{name} out" in text


def test_flags_that_agree_with_the_trained_model_are_accepted(trained, tiny):
    flags = {"arch": "efficientnet-test", "num_classes": 10, "activation": "swish"}
    config = configure(mode="eval", model_dir=str(trained.model_dir), data_dir=str(tiny), **flags)
    assert config.arch == "efficientnet-test"


def test_another_image_size_than_in_training_is_accepted(trained, tiny):
    flags = {"model_dir": str(trained.model_dir), "data_dir": str(tiny), "image_size": 48}
    assert configure(mode="eval", **flags).image_size == 48
