"""Policies are data: tables, level functions and their errors, without TensorFlow."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from dataloader import policies

ROOT = Path(__file__).parents[2]


def test_policies_cost_no_tensorflow():
    code = "import sys, dataloader.policies; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_v0_is_the_published_table():
    policy = policies.get_policy("v0")
    assert len(policy) == 25
    assert all(len(sub_policy) == 2 for sub_policy in policy)
    # Written out once more, in another form, against slips of the pen.
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

    def text(step: policies.Step) -> str:
        probability = f"{step.probability:g}".removeprefix("0" if step.probability else "")
        return f"{step.op}{probability} {step.level}"

    written = ["+".join(text(step) for step in sub_policy) for sub_policy in policy]
    assert written == [" ".join(part.split()) for part in published.split("·")]


def test_randaugment_has_sixteen_operations_and_identity_comes_last():
    assert len(policies.RANDAUGMENT_OPS) == len(set(policies.RANDAUGMENT_OPS)) == 16
    assert (*policies.RANDAUGMENT_OPS, policies.IDENTITY) == policies.OPS
    used = {step.op for sub_policy in policies.get_policy("v0") for step in sub_policy}
    assert used <= set(policies.OPS)
    assert set(policies.OPS) > policies.SIGNED_OPS


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
    ],
)
def test_level_to_argument(op, at_0, at_5, at_10):
    got = [policies.argument(op, level) for level in (0, 5, 10)]
    assert got == pytest.approx([at_0, at_5, at_10])


def test_randaugment_constants():
    options = {
        "translate_const": policies.RANDAUGMENT_TRANSLATE_CONST,
        "cutout_const": policies.RANDAUGMENT_CUTOUT_CONST,
    }
    assert policies.argument("TranslateX", 10, **options) == 100
    assert policies.argument("Cutout", 10, **options) == 40


def test_fault_posterize_0_bits_is_clamped_to_one():
    assert [policies.posterize_bits(level) for level in range(11)] == [
        *(1, 1, 1, 1, 1, 2, 2, 2, 3, 3, 4)
    ]
    assert policies.posterize_bits(100) == 8


def test_magnitudes_above_ten_stay_whole_numbers_and_are_not_wrapped():
    assert policies.argument("Solarize", 15) == 384
    assert policies.argument("Solarize", 11.67) == 298
    assert policies.argument("SolarizeAdd", 15) == 165


def test_steps_are_frozen():
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
def test_errors_say_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
