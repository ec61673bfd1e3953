"""Policies as data: tables, level functions and errors, without TensorFlow."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from convoy.dataloader.augment import policies
from convoy.dataloader.augment.levels import RANGES

ROOT = Path(__file__).parents[3]


def test_importing_policies_does_not_import_tensorflow():
    code = "import sys, dataloader.augment.policies; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_v0_equals_the_published_table():
    policy = policies.get_policy("v0")
    assert len(policy) == 25
    assert all(len(sub_policy) == 2 for sub_policy in policy)
    # The table again in another form, to catch typing errors.
    published = """
        Equalize.8 1+ShearY.8 4 · Color.4 9+Equalize.6 3 · Color.4 1+Rotate.6 8 ·
        Solarize.8 3+Equalize.4 7 · Solarize.4 2+Solarize.6 2 · Color.2 0+Equalize.8 8 ·
        Equalize.4 8+SolarizeAdd.8 3 · ShearX.2 9+Rotate.6 8 · Color.6 1+Equalize1 2 ·
        Invert.4 9+Rotate.6 0 · Equalize1 9+ShearY.6 3 · Color.4 7+Equalize.6 0 ·
        Posterize.4 6+AutoContrast.4 7 · Solarize.6 8+Color.6 9 · Solarize.2 4+Rotate.8 9 ·
        Rotate1 7+TranslateY.8 9 · ShearX0 0+Solarize.8 4 · ShearY.8 0+Color.6 4 ·
        Color1 0+Rotate.6 2 · Equalize.8 4+Equalize0 8 · Equalize1 4+AutoContrast.6 2 ·
        ShearY.4 7+SolarizeAdd.6 7 · Posterize.8 2+Solarize.6 10 · Solarize.6 8+Equalize.6 1 ·
        Color.8 6+Rotate.4 5
    """

    written = ["+".join(_text(step) for step in sub_policy) for sub_policy in policy]
    assert written == [" ".join(part.split()) for part in published.split("·")]


def _text(step: policies.Step) -> str:
    probability = f"{step.probability:g}".removeprefix("0" if step.probability else "")
    return f"{step.op}{probability} {step.level}"


# Table 9 of the AutoAugment paper, as in TensorFlow's model garden (`policy_reduced_imagenet` in
# official/vision/ops/augment.py). DALI's `get_reduced_image_net_policy` and torchvision's IMAGENET
# leave out levels without a meaning; tests/parity compares with timm and torchvision themselves.
TABLE_9 = """
    Posterize.4 8+Rotate.6 9 · Solarize.6 5+AutoContrast.6 5 · Equalize.8 8+Equalize.6 3 ·
    Posterize.6 7+Posterize.6 6 · Equalize.4 7+Solarize.2 4 · Equalize.4 4+Rotate.8 8 ·
    Solarize.6 3+Equalize.6 7 · Posterize.8 5+Equalize1 2 · Rotate.2 3+Solarize.6 8 ·
    Equalize.6 8+Posterize.4 6 · Rotate.8 8+Color.4 0 · Rotate.4 9+Equalize.6 2 ·
    Equalize0 7+Equalize.8 8 · Invert.6 4+Equalize1 8 · Color.6 4+Contrast1 8 ·
    Rotate.8 8+Color1 2 · Color.8 8+Solarize.8 7 · Sharpness.4 7+Invert.6 8 ·
    ShearX.6 5+Equalize1 9 · Color.4 0+Equalize.6 3 · Equalize.4 7+Solarize.2 4 ·
    Solarize.6 5+AutoContrast.6 5 · Invert.6 4+Equalize1 8 · Color.6 4+Contrast1 8 ·
    Equalize.8 8+Equalize.6 3
"""


@pytest.mark.parametrize(("name", "ranges"), [("original", "original"), ("reduced", "tf")])
def test_original_and_reduced_are_the_papers_table_with_different_ranges_of_levels(name, ranges):
    policy = policies.get_policy(name)
    written = ["+".join(_text(step) for step in sub_policy) for sub_policy in policy]
    assert written == [" ".join(part.split()) for part in TABLE_9.split("·")]
    assert {step.ranges for sub_policy in policy for step in sub_policy} == {ranges}


def test_other_programs_names_of_a_policy_are_accepted():
    assert policies.list_policies() == ("v0", "original", "reduced")
    for alias in ("reduced_imagenet", "reduced_image_net"):
        assert policies.get_policy(alias) == policies.get_policy("reduced")


def test_the_numbers_of_operations_are_fixed():
    # Native code uses these numbers; checkpoints do not.
    assert len(policies.RANDAUGMENT_OPS) == len(set(policies.RANDAUGMENT_OPS)) == 16
    assert (*policies.RANDAUGMENT_OPS, "Identity", "Hue") == policies.OPS
    names = policies.list_policies()
    used = {step.op for n in names for sub in policies.get_policy(n) for step in sub}
    used |= {op for table in RANGES.values() for op in table}
    assert used <= set(policies.OPS)


def test_spaces_equal_the_published_sets():
    spaces = policies.RANDAUGMENT_SPACES
    assert set(spaces["tf"].ops) == {*policies.RANDAUGMENT_OPS, "Identity"}
    assert set(spaces["timm"].ops) == set(policies.RANDAUGMENT_OPS) - {"Cutout"}
    assert spaces["timm-inc"].ops == spaces["timm"].ops
    assert [spaces[name].probability for name in ("tf", "timm", "timm-inc")] == [1, 0.5, 0.5]
    wide = set(policies.TRIVIALAUGMENT_SPACE.ops)
    assert wide == {*policies.RANDAUGMENT_OPS, "Identity"} - {"Invert", "Cutout", "SolarizeAdd"}


@pytest.mark.parametrize(
    ("op", "at_0", "at_5", "at_10"),
    [
        ("Rotate", 0, 15, 30),
        ("ShearX", 0, 0.15, 0.3),
        ("ShearY", 0, 0.15, 0.3),
        ("TranslateX", 0, 125, 250),
        ("TranslateY", 0, 125, 250),
        ("Color", 0.1, 1.0, 1.9),
        ("Contrast", 0.1, 1.0, 1.9),
        ("Brightness", 0.1, 1.0, 1.9),
        ("Sharpness", 0.1, 1.0, 1.9),
        ("Posterize", 1, 2, 4),
        ("Solarize", 0, 128, 256),
        ("SolarizeAdd", 0, 55, 110),
        ("Cutout", 0, 50, 100),
        ("AutoContrast", 0, 0, 0),
        ("Equalize", 0, 0, 0),
        ("Invert", 0, 0, 0),
        ("Identity", 0, 0, 0),
        ("Hue", 0, 0, 0),
    ],
)
def test_levels_map_to_arguments(op, at_0, at_5, at_10):
    got = [policies.argument(op, level) for level in (0, 5, 10)]
    assert got == pytest.approx([at_0, at_5, at_10])


def test_randaugments_constants_scale_translation_and_cutout():
    options = {
        "translate_const": policies.RANDAUGMENT_TRANSLATE_CONST,
        "cutout_const": policies.RANDAUGMENT_CUTOUT_CONST,
    }
    assert policies.argument("TranslateX", 10, **options) == 100
    assert policies.argument("Cutout", 10, **options) == 40


@pytest.mark.parametrize(
    ("ranges", "op", "at_0", "at_5", "at_10"),
    [
        ("original", "Posterize", 4, 6, 8),
        ("increasing", "Posterize", 4, 2, 1),
        ("increasing", "Solarize", 256, 128, 0),
        ("increasing", "SolarizeAdd", 0, 55, 110),
        ("increasing", "Color", 1, 1.45, 1.9),
        ("increasing", "TranslateX", 0, 125, 250),
        ("wide", "Posterize", 8, 5, 2),
        ("wide", "Solarize", 255, 128, 0),
        ("wide", "ShearX", 0, 0.495, 0.99),
        ("wide", "Rotate", 0, 67.5, 135),
        ("wide", "Sharpness", 1, 1.495, 1.99),
        ("wide", "TranslateY", 0, 125, 250),
    ],
)
def test_levels_of_other_ranges_map_to_arguments(ranges, op, at_0, at_5, at_10):
    got = [policies.argument(op, level, ranges=ranges) for level in (0, 5, 10)]
    assert got == pytest.approx([at_0, at_5, at_10])


def test_a_negative_sign_mirrors_the_argument_at_its_neutral_value():
    for ranges, table in RANGES.items():
        for op in table:
            low = policies.argument(op, 10, ranges=ranges, negative=True)
            high = policies.argument(op, 10, ranges=ranges)
            neutral = table[op].base if table[op].signed else high
            assert low == pytest.approx(2 * neutral - high)
    geometry = {"Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY"}
    signed = {
        name: {op for op, values in table.items() if values.signed}
        for name, table in RANGES.items()
    }
    assert signed["tf"] == geometry
    assert signed["wide"] == geometry | {*("Color", "Contrast", "Brightness", "Sharpness")}


def test_a_magnitude_without_deviation_gives_one_level():
    assert policies.randaugment_levels(9) == (9.0,)
    levels = policies.randaugment_levels(9, 0.5)
    assert len(levels) == 1024
    assert sorted(levels) == list(levels)
    assert levels[-1] == 10
    assert max(policies.randaugment_levels(15, 3)) == 15


def test_posterize_keeps_at_least_one_bit():
    assert [policies.argument("Posterize", level) for level in range(11)] == [
        *(1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 4)
    ]
    assert policies.argument("Posterize", 100) == 8
    assert policies.argument("Posterize", 10, ranges="increasing") == 1


def test_magnitudes_above_10_give_larger_whole_numbers():
    assert policies.argument("Solarize", 15) == 384
    assert policies.argument("Solarize", 11.67) == 298
    assert policies.argument("SolarizeAdd", 15) == 165


def test_steps_are_immutable():
    step = policies.Step("Invert", 0.5, 3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        step.level = 4


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: policies.get_policy("V0"), "Did you mean 'v0'"),
        (lambda: policies.Step("Solarise", 0.5, 1), "Did you mean 'Solarize'"),
        (lambda: policies.Step("Invert", 1.5, 1), r"Invert must lie in \[0, 1\], not 1.5"),
        (lambda: policies.Step("Invert", 0.5, -1), "level must be finite and at least 0, not -1"),
        (lambda: policies.argument("Rotate", float("nan")), "not nan"),
        (lambda: policies.argument("Cutout", 1, cutout_const=-2), "cutout_const .* not -2"),
    ],
)
def test_invalid_policies_are_refused_with_the_reason(call, message):
    with pytest.raises(ValueError, match=message):
        call()
