"""`--recompute`: the blocks that it means, and numbers that are refused."""

import pytest

from convoy.model.arithmetic import maps_by_block
from convoy.model.catalog import get_arch
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.recomputation import recomputed_blocks


def test_a_number_means_the_blocks_with_the_most_activations():
    config = Config(arch="efficientnet-b0")
    assert recomputed_blocks(config) is None
    assert recomputed_blocks(config.with_(recompute="norms")) == []
    assert recomputed_blocks(config.with_(recompute=3)) == ["block2a", "block2b", "block1a"]
    assert len(recomputed_blocks(config.with_(recompute="blocks"))) == 16


def test_maps_are_counted_in_every_block():
    sizes = maps_by_block(get_arch("resnet50"))
    assert list(sizes)[:2] == ["layer1_0", "layer1_1"]
    assert sizes["layer1_1"] == 56 * 56 * (64 + 64 + 256)
    assert sizes["layer1_0"] == 56 * 56 * (64 + 64 + 256 + 256)
    block = maps_by_block(get_arch("efficientnet-b0"))["block2a"]
    assert block == 112 * 112 * 96 + 56 * 56 * (96 + 24) + 4 + 96


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("9", "resnet18 has 8 blocks; --recompute blocks means all"),
        ("0", "must be at least 1"),
        ("some", "takes a whole number or none or norms or blocks or auto, not some"),
    ],
)
def test_other_values_are_refused(refused, tiny, tmp_path, value, said):
    given = ("--arch", "resnet18", "--data_dir", tiny, "--model_dir", tmp_path)
    assert said in refused(*given, "--recompute", value)
