"""The catalogue of architectures: names, arithmetic, errors, and an import without TensorFlow."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from convoy.model import arithmetic, catalog, get_arch, list_archs
from tests.parameter_count import parameter_count

ROOT = Path(__file__).resolve().parents[2]


STATEMENTS = ("import convoy.model", "import convoy.model.catalog", "model.get_arch")


@pytest.mark.parametrize("statement", STATEMENTS)
def test_importing_the_catalogue_does_not_import_tensorflow(statement):
    code = statement if statement.startswith("import") else f"from convoy import model; {statement}"
    code += "; import sys; print([m for m in ('tensorflow', 'keras') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


AVAILABLE = [name for name in list_archs() if get_arch(name).available]


@pytest.mark.parametrize("name", AVAILABLE)
def test_the_parameter_count_is_the_published_one(name):
    arch = get_arch(name)
    assert parameter_count(arch) == arch.params_1000
    assert parameter_count(arch, trainable=True) == arch.trainable_1000


@pytest.mark.parametrize(("name", "features"), [("efficientnet-b0", 1280), ("resnet50", 2048)])
def test_the_parameter_count_depends_on_the_number_of_classes(name, features):
    arch = get_arch(name)
    assert parameter_count(arch, 10) == arch.params_1000 - 990 * (features + 1)


def test_squeeze_units_by_ratio_equal_timms():
    arch = replace(get_arch("se-resnext101-32x4d"), se_ratio=1 / 16)
    assert {block.squeeze_units for block in catalog.resnet_blocks(arch)} == {16, 32, 64, 128}
    assert parameter_count(arch, trainable=True) == 48_955_416  # timm seresnext101_32x4d


@pytest.mark.parametrize(
    ("name", "billions"),  # table 2 of the EfficientNet paper
    [("b0", 0.39), ("b1", 0.70), ("b2", 1.0), ("b3", 1.8), ("b5", 9.9), ("b6", 19), ("b7", 37)],
)
def test_the_multiply_add_count_is_the_papers(name, billions):
    count = arithmetic.macs(get_arch(f"efficientnet-{name}"))
    assert count / 1e9 == pytest.approx(billions, rel=0.04)


# torchvision 0.28: `_ops` in the metadata of the IMAGENET1K_V1 weights, at the size of the weights.
# tests/parity/test_torch_models.py compares with the installed version.
TORCHVISION_OPS = {
    ("efficientnet-b0", 224): 0.386,
    ("efficientnet-b1", 240): 0.687,
    ("efficientnet-b2", 288): 1.088,
    ("efficientnet-b3", 300): 1.827,
    ("efficientnet-b4", 380): 4.394,
    ("efficientnet-b5", 456): 10.266,
    ("efficientnet-b6", 528): 19.068,
    ("efficientnet-b7", 600): 37.746,
    ("efficientnetv2-s", 384): 8.366,
    ("resnet18", 224): 1.814,
    ("resnet34", 224): 3.664,
    ("resnet50", 224): 4.089,
    ("resnet101", 224): 7.801,
    ("resnet152", 224): 11.514,
    ("resnext50-32x4d", 224): 4.23,
    ("resnext101-32x8d", 224): 16.414,
}


@pytest.mark.parametrize(("name", "size"), TORCHVISION_OPS)
def test_multiply_adds_equal_torchvisions(name, size):
    billions = arithmetic.macs(get_arch(name), size) / 1e9
    assert billions == pytest.approx(TORCHVISION_OPS[name, size], rel=0.001, abs=0.0005)


def test_resnet_stages_stride_in_their_first_block_and_project_where_shapes_change():
    blocks = {block.name: block for block in catalog.resnet_blocks(get_arch("resnet50"))}
    assert len(blocks) == 16
    assert [n for n, b in blocks.items() if b.stride == 2] == ["layer2_0", "layer3_0", "layer4_0"]
    assert [n for n, b in blocks.items() if b.has_projection] == [
        f"layer{i}_0" for i in range(1, 5)
    ]
    widths = [blocks[f"layer{i}_1"].width for i in range(1, 5)]
    assert widths == [64, 128, 256, 512]
    first = catalog.resnet_blocks(get_arch("resnet18"))[0]
    assert not first.has_projection
    wide = catalog.resnet_blocks(get_arch("resnext101-32x8d"))[-1]
    assert (wide.width, wide.filters_out, wide.groups) == (2048, 2048, 32)


def test_stochastic_depth_of_b0_grows_with_depth():
    arch = get_arch("efficientnet-b0")
    rates = [
        round(0.2 * block.drop_position, 4)
        for block in catalog.efficientnet_blocks(arch)
        if block.has_skip
    ]
    assert rates == [0.025, 0.05, 0.075, 0.0875, 0.1125, 0.125, 0.15, 0.1625, 0.175]


def test_lite_models_do_not_scale_the_first_and_last_layers():
    """Compares Lite4 with B4, which has the same coefficients.

    The reference is models/official/efficientnet/lite of TensorFlow's authors.
    """
    lite, b4 = get_arch("efficientnet-lite4"), get_arch("efficientnet-b4")
    assert (catalog.stem_filters(lite), catalog.top_filters(lite)) == (32, 1280)
    assert (catalog.stem_filters(b4), catalog.top_filters(b4)) == (48, 1792)
    blocks = {arch.name: catalog.efficientnet_blocks(arch) for arch in (lite, b4)}
    ours, theirs = ([b for b in each if b.name[5] not in "17"] for each in blocks.values())
    assert [b.name for b in ours] == [b.name for b in theirs]
    assert [b.filters_out for b in ours] == [b.filters_out for b in theirs]
    ends = [b for b in blocks[lite.name] if b.name[5] in "17"]
    assert [(b.name, b.filters_in, b.filters_out) for b in ends] == [
        ("block1a", 32, 24),
        ("block7a", 272, 448),
    ]
    assert not any(b.squeeze_units for b in blocks[lite.name])
    assert [get_arch(f"efficientnet-lite{i}").resolution for i in range(5)] == [
        *(224, 240, 260, 280, 300)
    ]


def test_the_test_arch_has_every_kind_of_block():
    arch = get_arch("efficientnet-test")
    blocks = catalog.efficientnet_blocks(arch)
    assert arch.params_1000 <= 100_000
    assert {block.stride for block in blocks} == {1, 2}
    assert {block.kernel for block in blocks} == {3, 5}
    assert any(block.expand == 1 for block in blocks)
    assert any(block.has_skip and block.drop_position > 0 for block in blocks)


@pytest.mark.parametrize(
    ("filters", "width", "expected"),
    [(32, 1.0, 32), (32, 1.1, 32), (32, 1.2, 40), (16, 1.1, 16), (24, 1.4, 32), (2, 1.0, 8)],
)
def test_round_filters_rounds_to_multiples_of_8(filters, width, expected):
    assert catalog.round_filters(filters, width) == expected


def test_round_filters_reduces_by_at_most_10_percent():
    for filters in range(1, 400):
        for width in (0.3, 0.9, 1.0, 1.1, 1.7):
            rounded = catalog.round_filters(filters, width)
            assert rounded % 8 == 0
            assert rounded >= 0.9 * filters * width


def test_round_repeats_rounds_up():
    assert [catalog.round_repeats(3, depth) for depth in (1.0, 1.1, 1.4, 3.1)] == [3, 4, 5, 10]


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match=r"'EfficientNet_B4'.*efficientnet-b4"):
        get_arch("EfficientNet_B4")
    with pytest.raises(ValueError, match=r"Known: efficientnet-b0, .*resnet50"):
        get_arch("zzz")


def test_list_archs_filters_by_a_pattern():
    assert list_archs("*net-b[0-2]") == [f"efficientnet-b{i}" for i in range(3)]
    assert list_archs("resnext101") == [
        "resnext101-32x4d",
        "resnext101-32x8d",
        "resnext101-32x8d-basic",
        "se-resnext101-32x4d",
    ]
    assert list_archs("nothing") == []
    assert {"efficientnet-b7", "resnet50"} <= set(list_archs())


def test_a_name_without_a_definition_is_listed_but_cannot_be_built():
    arch = get_arch("resnext101-32x8d-basic")
    assert not arch.available
    assert [name for name in list_archs() if name not in AVAILABLE] == [arch.name]
    for refuse in (arithmetic.weight_shapes, arithmetic.macs, catalog.check_available):
        with pytest.raises(ValueError, match=r"32x8d-basic cannot be built.*without a definition"):
            refuse(arch)


@pytest.mark.parametrize(
    ("size", "message"),
    [(31, "at least 32 pixels, not 31"), (64.0, "whole number"), (True, "not True")],
)
def test_invalid_image_sizes_are_refused(size, message):
    with pytest.raises(ValueError, match=message):
        catalog.check_image_size(get_arch("efficientnet-b0"), size)


def test_the_smallest_image_sizes_are_accepted():
    catalog.check_image_size(get_arch("efficientnet-b7"), 32)
    catalog.check_image_size(get_arch("efficientnet-test"), 8)
