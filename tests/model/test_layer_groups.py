"""The depth of variables from the classifier."""

import pytest

from convoy.model import build_model
from convoy.model.catalog import efficientnet_blocks, get_arch
from convoy.model.layer_groups import depth_from_top


@pytest.fixture(scope="module", params=["efficientnet-test", "resnet18"])
def model(request):
    made = build_model(request.param, num_classes=4, image_size=32, seed=0)
    made.arch = request.param
    return made


def test_depth_counts_from_the_classifier_through_the_blocks_to_the_stem(model):
    depth = depth_from_top(model)
    assert set(depth) == {v.path for v in model.weights}
    if model.arch == "resnet18":
        blocks = [f"layer{stage}_{unit}" for stage in range(1, 5) for unit in range(2)]
        stem, head, extra = ("conv1", "bn1"), ("fc",), {}
    else:
        blocks = [block.name for block in efficientnet_blocks(get_arch(model.arch))]
        stem, head = ("stem_conv", "stem_bn"), ("predictions",)
        extra = dict.fromkeys(("top_conv", "top_bn"), 1)
    want = {
        **dict.fromkeys(head, 0),
        **dict.fromkeys(stem, len(blocks) + 1),
        **{name: len(blocks) - i for i, name in enumerate(blocks)},
        **extra,
    }
    for path, number in depth.items():
        layer = path.split("/")[0]
        (owner,) = (name for name in want if layer == name or layer.startswith(f"{name}_"))
        assert number == want[owner], path
    assert sorted(set(depth.values())) == list(range(len(blocks) + 2))


def test_depth_does_not_depend_on_frozen_layers(model):
    before = depth_from_top(model)
    model.layers[3].trainable = False
    try:
        assert depth_from_top(model) == before
    finally:
        model.layers[3].trainable = True
