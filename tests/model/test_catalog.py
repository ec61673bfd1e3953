"""The catalogue: names, arithmetic, errors, and that it costs no TensorFlow."""

import subprocess
import sys
from pathlib import Path

import pytest

from model import catalog, get_arch, list_archs

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("statement", ["import model", "import model.catalog", "model.get_arch"])
def test_importing_costs_no_tensorflow(statement):
    code = statement if statement.startswith("import") else f"import model; {statement}"
    code += "; import sys; print([m for m in ('tensorflow', 'keras') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", list_archs("efficientnet"))
def test_parameter_count_is_the_published_one(name):
    arch = get_arch(name)
    assert catalog.parameter_count(arch) == arch.params_1000


def test_parameter_count_follows_the_classes():
    arch = get_arch("efficientnet-b0")
    assert catalog.parameter_count(arch, 10) == arch.params_1000 - 990 * (1280 + 1)


@pytest.mark.parametrize(
    ("name", "billions"),  # table 2 of the paper
    [("b0", 0.39), ("b1", 0.70), ("b2", 1.0), ("b3", 1.8), ("b5", 9.9), ("b6", 19), ("b7", 37)],
)
def test_flop_count_is_the_papers(name, billions):
    count = catalog.flop_count(get_arch(f"efficientnet-{name}"))
    assert count / 1e9 == pytest.approx(billions, rel=0.04)


def test_stochastic_depth_of_b0_grows_over_its_skip_blocks():
    arch = get_arch("efficientnet-b0")
    rates = [
        round(0.2 * block.drop_position, 4)
        for block in catalog.efficientnet_blocks(arch)
        if block.has_skip
    ]
    assert rates == [0.025, 0.05, 0.075, 0.0875, 0.1125, 0.125, 0.15, 0.1625, 0.175]


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
def test_round_filters(filters, width, expected):
    assert catalog.round_filters(filters, width) == expected


def test_round_filters_never_loses_a_tenth():
    for filters in range(1, 400):
        for width in (0.3, 0.9, 1.0, 1.1, 1.7):
            rounded = catalog.round_filters(filters, width)
            assert rounded % 8 == 0
            assert rounded >= 0.9 * filters * width


def test_round_repeats_rounds_up():
    assert [catalog.round_repeats(3, depth) for depth in (1.0, 1.1, 1.4, 3.1)] == [3, 4, 5, 10]


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match=r"'EfficientNet_B4'.*efficientnet-b4"):
        get_arch("EfficientNet_B4")
    with pytest.raises(ValueError, match=r"Known: efficientnet-b0, .*resnet50"):
        get_arch("zzz")


def test_list_archs_by_pattern():
    assert list_archs("*-b[0-2]") == [f"efficientnet-b{i}" for i in range(3)]
    assert list_archs("resnext101") == [
        "resnext101-32x4d",
        "resnext101-32x8d",
        "se-resnext101-32x4d",
    ]
    assert list_archs("nothing") == []
    assert {"efficientnet-b7", "resnet50"} <= set(list_archs())


def test_resnets_are_named_but_not_available():
    arch = get_arch("resnet50")
    assert (arch.family, arch.resolution, arch.available) == ("resnet", 224, False)
    for refuse in (catalog.parameter_count, catalog.flop_count, catalog.check_available):
        with pytest.raises(ValueError, match="resnet50 is planned but cannot be built yet"):
            refuse(arch)


@pytest.mark.parametrize(
    ("size", "message"),
    [(31, "at least 32 pixels, not 31"), (64.0, "whole number"), (True, "not True")],
)
def test_bad_image_sizes_are_refused(size, message):
    with pytest.raises(ValueError, match=message):
        catalog.check_image_size(get_arch("efficientnet-b0"), size)


def test_smallest_image_sizes_pass():
    catalog.check_image_size(get_arch("efficientnet-b7"), 32)
    catalog.check_image_size(get_arch("efficientnet-test"), 8)
