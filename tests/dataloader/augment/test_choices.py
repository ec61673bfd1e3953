"""Random choices: probabilities, signs, levels and areas, from many draws without images."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import tensorflow as tf

from convoy.dataloader.augment import choices, erasing, policies
from convoy.dataloader.augment.levels import RANGES, UNUSED

DRAWS = 200_000
IDENTITY = policies.OPS.index(policies.IDENTITY)


def _uniforms(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def _tolerance(probability: float, draws: int) -> float:
    """Five standard deviations: one false alarm in about two million checks."""
    return 5 * (probability * (1 - probability) / draws) ** 0.5 + 1e-9


# --- AutoAugment --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", policies.list_policies())
def test_autoaugment_draws_sub_policies_uniformly_and_steps_with_their_probability(name):
    uniforms = _uniforms(DRAWS, 9)
    choice = choices.autoaugment_choice(tf.constant(uniforms), name)
    ops = choice.ops.numpy()
    index = np.floor(uniforms[:, 0].astype(np.float64) * 25).astype(int)
    assert np.bincount(index, minlength=25) / DRAWS == pytest.approx(
        np.full(25, 1 / 25), abs=_tolerance(1 / 25, DRAWS)
    )
    for number, sub_policy in enumerate(policies.get_policy(name)):
        rows = ops[index == number]
        for position, step in enumerate(sub_policy):
            applied = rows[:, position] == policies.OPS.index(step.op)
            assert np.all(applied | (rows[:, position] == IDENTITY))
            assert applied.mean() == pytest.approx(
                step.probability, abs=_tolerance(step.probability, len(rows))
            )
        # The two steps are independent.
        both = (rows != IDENTITY).all(axis=1).mean()
        product = sub_policy[0].probability * sub_policy[1].probability
        assert both == pytest.approx(product, abs=_tolerance(product, len(rows)))


@pytest.mark.parametrize("name", policies.list_policies())
def test_autoaugment_arguments_follow_the_levels_and_only_geometry_has_signs(name):
    uniforms = _uniforms(DRAWS, 9, seed=1)
    choice = choices.autoaugment_choice(tf.constant(uniforms), name, translate_const=100.0)
    ops, arguments = choice.ops.numpy(), choice.arguments.numpy()
    index = np.floor(uniforms[:, 0].astype(np.float64) * 25).astype(int)
    for number, sub_policy in enumerate(policies.get_policy(name)):
        for position, step in enumerate(sub_policy):
            rows = (index == number) & (ops[:, position] == policies.OPS.index(step.op))
            got = arguments[rows, position]
            expected = policies.argument(
                step.op, step.level, ranges=step.ranges, translate_const=100.0
            )
            np.testing.assert_array_equal(np.abs(got), expected)
            if RANGES[step.ranges].get(step.op, UNUSED).signed and expected:
                assert (got < 0).mean() == pytest.approx(0.5, abs=_tolerance(0.5, len(got)))
            else:
                assert (got >= 0).all()


# --- RandAugment and TrivialAugment -------------------------------------------------------------

CONSTANTS = {"translate_const": 40.0, "cutout_const": 30.0}
SPACES = policies.RANDAUGMENT_SPACES | {"wide": policies.TRIVIALAUGMENT_SPACE}


def _drawn(space, levels, layers=1, seed=2):
    """Returns operations and arguments, each (DRAWS, layers), as NumPy arrays."""
    uniforms = tf.constant(_uniforms(DRAWS, layers, choices.SPACE_UNIFORMS, seed=seed))
    choice = choices.space_choice(uniforms, SPACES[space], levels, **CONSTANTS)
    assert choice.centres.shape == (DRAWS, layers, 2)
    return choice.ops.numpy(), choice.arguments.numpy()


@pytest.mark.parametrize("space", SPACES)
def test_a_space_draws_its_operations_with_equal_probability_and_layers_independently(space):
    ops, _ = _drawn(space, (7.0,), layers=2)
    known = {policies.OPS.index(op) for op in SPACES[space].ops}
    each = SPACES[space].probability / len(known)
    expected = np.zeros(len(policies.OPS))
    expected[sorted(known)] = each
    expected[IDENTITY] += 1 - SPACES[space].probability
    count = len(policies.OPS)
    pairs = np.bincount(ops[:, 0] * count + ops[:, 1], minlength=count**2) / DRAWS
    products = np.outer(expected, expected).ravel()
    assert np.abs(pairs - products).max() < _tolerance(products.max(), DRAWS)
    assert (pairs[products == 0] == 0).all()


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("magnitude", [0, 7, 15])
def test_arguments_follow_the_magnitude_and_half_of_the_signed_ones_are_negative(space, magnitude):
    if space == "wide" and magnitude > policies.MAX_LEVEL:
        return
    ops, arguments = _drawn(space, policies.randaugment_levels(magnitude), seed=magnitude)
    for op in set(SPACES[space].ops) - {policies.IDENTITY}:
        got = arguments[ops == policies.OPS.index(op)]
        ranges = SPACES[space].ranges
        high, low = (
            policies.argument(op, magnitude, ranges=ranges, negative=sign, **CONSTANTS)
            for sign in (False, True)
        )
        assert set(np.unique(got)) == {high, low}
        if high != low:
            assert (got == low).mean() == pytest.approx(0.5, abs=_tolerance(0.5, len(got)))
        else:
            assert not RANGES[ranges].get(op, UNUSED).signed or not magnitude


@pytest.mark.parametrize(("magnitude", "std"), [(7, 0.5), (9, 0.5), (9, 1.0), (15, 2.0), (1, 1.0)])
def test_levels_follow_the_clipped_normal_distribution(magnitude, std):
    ops, arguments = _drawn("timm", policies.randaugment_levels(magnitude, std), seed=3)
    levels = np.abs(arguments[ops == policies.OPS.index("Rotate")]) / 3.0
    most = max(10, magnitude)
    assert levels.min() >= 0
    assert levels.max() <= most
    reference = np.random.default_rng(0).normal(magnitude, std, 1_000_000).clip(0, most)
    assert levels.mean() == pytest.approx(reference.mean(), abs=5 * std / len(levels) ** 0.5)
    assert levels.std() == pytest.approx(reference.std(), rel=0.04)
    inside = levels[(levels > 0) & (levels < most)]
    for level in np.linspace(*np.quantile(inside, [0.02, 0.98]), 9):
        share = (reference <= level).mean()
        got = (levels <= level).mean()
        # Allow half a step of the table beside the statistical tolerance.
        assert got == pytest.approx(share, abs=_tolerance(share, len(levels)) + 1 / 2048)


def test_levels_are_independent_of_layer_operation_and_sign():
    uniforms = _uniforms(DRAWS, 2, choices.SPACE_UNIFORMS, seed=4)
    space = policies.Space(("Rotate", "ShearX"), "tf")
    levels = policies.randaugment_levels(5, 1)
    choice = choices.space_choice(tf.constant(uniforms), space, levels, **CONSTANTS)
    ops, arguments = choice.ops.numpy(), choice.arguments.numpy()
    is_rotation = ops == policies.OPS.index("Rotate")
    drawn = np.abs(arguments) / np.where(is_rotation, 3.0, 0.03)
    columns = [drawn[:, 0], drawn[:, 1], arguments[:, 0] < 0, arguments[:, 1] < 0]
    correlations = np.corrcoef([*columns, is_rotation[:, 0], is_rotation[:, 1]])
    assert np.abs(correlations - np.eye(6)).max() < 5 / DRAWS**0.5


def test_trivialaugment_draws_31_levels_with_equal_probability():
    ops, arguments = _drawn("wide", policies.TRIVIALAUGMENT_LEVELS)
    for op, step in (("Rotate", 4.5), ("ShearY", 0.033), ("Brightness", 0.033)):
        got = arguments[ops == policies.OPS.index(op)] - (op == "Brightness")
        bins = np.rint(got / step)
        np.testing.assert_allclose(got, bins * step, atol=1e-12)
        counts = np.bincount((bins + 30).astype(int), minlength=61) / len(got)
        expected = np.full(61, 1 / 62)
        expected[30] = 1 / 31  # both signs of level 0
        assert np.abs(counts - expected).max() < _tolerance(1 / 31, len(got))
    bits = arguments[ops == policies.OPS.index("Posterize")]
    shares = np.bincount(bits.astype(int), minlength=9) / len(bits)
    expected = np.array([0, 0, 3, 5, 5, 5, 5, 5, 3]) / 31
    assert np.abs(shares - expected).max() < _tolerance(5 / 31, len(bits))


def test_the_largest_uniform_number_stays_within_the_tables():
    largest = tf.fill([12], tf.constant(np.nextafter(np.float32(1), np.float32(0))))
    choices.autoaugment_choice(largest[:9])
    levels = policies.randaugment_levels(9, 0.5)
    for space in SPACES.values():
        choice = choices.space_choice(tf.reshape(largest, [2, 6]), space, levels, **CONSTANTS)
        last = IDENTITY if space.probability < 1 else policies.OPS.index(space.ops[-1])
        assert choice.ops.numpy().tolist() == [last, last]
    assert choices.jitter_choice(largest[:5], (0.4, 0.4, 0.4, 0.1)).ops.shape == (4,)
    box = erasing.erasing_box(tf.fill([41], largest[0]), 1.0, 30, 20).numpy()
    assert (box[:2] + box[2:] <= (30, 20)).all()


# --- colour jitter ------------------------------------------------------------------------------


def test_jitter_draws_uniform_factors_in_any_order():
    strengths = (0.4, 0.3, 1.2, 0.1)
    uniforms = tf.constant(_uniforms(DRAWS, choices.JITTER_UNIFORMS, seed=5))
    choice = choices.jitter_choice(uniforms, strengths)
    ops, factors = choice.ops.numpy(), choice.arguments.numpy()
    assert choice.centres.shape == (DRAWS, 4, 2)
    names = ("Brightness", "Contrast", "Color", "Hue")
    numbers = [policies.OPS.index(name) for name in names]
    orders, counts = np.unique(ops, axis=0, return_counts=True)
    assert sorted(map(tuple, orders)) == sorted(itertools.permutations(numbers))
    assert np.abs(counts / DRAWS - 1 / 24).max() < _tolerance(1 / 24, DRAWS)
    bounds = ((0.6, 1.4), (0.7, 1.3), (0.0, 2.2), (-0.1, 0.1))
    drawn = [factors[ops == number] for number in numbers]
    for got, (low, high) in zip(drawn, bounds, strict=True):
        assert low <= got.min() <= got.max() <= high
        shares = np.histogram(got, 10, (low, high))[0] / DRAWS
        assert np.abs(shares - 0.1).max() < _tolerance(0.1, DRAWS)
    assert np.abs(np.corrcoef(drawn) - np.eye(4)).max() < 5 / DRAWS**0.5


def test_jitter_skips_operations_of_strength_0():
    choice = choices.jitter_choice(tf.constant(_uniforms(1000, 5)), (0.0, 0.4, 0.0, 0.1))
    numbers = [policies.OPS.index("Contrast"), policies.OPS.index("Hue")]
    assert set(map(tuple, choice.ops.numpy())) == {tuple(numbers), tuple(numbers[::-1])}


def test_one_strength_applies_to_brightness_contrast_and_saturation():
    assert policies.jitter_strengths(0.4) == (0.4, 0.4, 0.4, 0.0)
    assert policies.jitter_strengths([0.4]) == (0.4, 0.4, 0.4, 0.0)
    assert policies.jitter_strengths([0.4, 0.2]) == (0.4, 0.2, 0.0, 0.0)
    assert policies.jitter_strengths([0, 0, 0, 0.5]) == (0.0, 0.0, 0.0, 0.5)


@pytest.mark.parametrize("strength", [-0.1, 256, 1e39, math.inf, math.nan])
def test_jitter_refuses_strengths_that_mean_nothing(strength):
    with pytest.raises(ValueError, match="from 0 to 255, not"):
        policies.jitter_strengths([0.4, strength])


# --- random erasing -----------------------------------------------------------------------------


def test_erased_boxes_have_the_papers_areas_and_ratios_and_any_position():
    height, width = 2240, 1920  # large, so that rounding to pixels does not matter
    uniforms = tf.constant(_uniforms(DRAWS, erasing.BOX_UNIFORMS, seed=6))
    boxes = erasing.erasing_box(uniforms, 0.25, height, width).numpy().astype(np.float64)
    erased = boxes[:, 2] > 0
    assert erased.mean() == pytest.approx(0.25, abs=_tolerance(0.25, DRAWS))
    assert (boxes[~erased] == 0).all()
    top, left, rows, columns = boxes[erased].T
    assert (top >= 0).all()
    assert (top + rows <= height).all()
    assert (left + columns <= width).all()
    areas, ratios = rows * columns / (height * width), np.log(rows / columns)
    # The reference redraws boxes that do not fit, as a loop in NumPy would.
    rng = np.random.default_rng(1)
    area, ratio = rng.uniform(0.02, 1 / 3, 400_000), rng.uniform(*np.log((0.3, 3.3)), 400_000)
    tall = np.sqrt(area * height * width * np.exp(ratio))
    wide = np.sqrt(area * height * width / np.exp(ratio))
    fits = (np.round(tall) < height) & (np.round(wide) < width)
    assert 0.9 < fits.mean() < 1
    for got, wanted in ((areas, area[fits]), (ratios, ratio[fits])):
        for point in np.quantile(wanted, np.linspace(0.05, 0.95, 10)):
            share = (wanted <= point).mean()
            noise = _tolerance(share, len(got)) + _tolerance(share, len(wanted))
            assert (got <= point).mean() == pytest.approx(share, abs=noise + 1e-3)
    for place in (top / (height - rows), left / (width - columns)):
        shares = np.histogram(place, 10, (0, 1))[0] / len(place)
        assert np.abs(shares - 0.1).max() < _tolerance(0.1, len(place)) + 1e-3


def test_only_the_box_is_filled():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    box = tf.constant([3, 7, 5, 11])
    for mode in policies.ERASING_MODES:
        contents = erasing.box_contents(tf.constant([5, 11, 3]), mode, tf.constant([1, 2]))
        expected = image.copy()
        expected[3:8, 7:18] = contents
        got = erasing.fill_box(tf.constant(image), box, contents).numpy()
        np.testing.assert_array_equal(got, expected)


def test_noise_has_imagenets_mean_and_standard_deviation_before_clipping():
    shape = tf.constant([400, 500, 3])
    noise = erasing.box_contents(shape, "noise", tf.constant([1, 2])).numpy()
    reference = np.random.default_rng(0).normal(erasing.MEAN, erasing.STD, (400, 500, 3))
    reference = np.rint(reference).clip(0, 255)
    for channel in range(3):
        got, wanted = noise[..., channel].astype(float), reference[..., channel]
        assert got.mean() == pytest.approx(wanted.mean(), abs=5 * 58 * (2 / 200_000) ** 0.5)
        assert got.std() == pytest.approx(wanted.std(), rel=0.02)
    flat = noise.reshape(-1, 3).astype(float)
    assert np.abs(np.corrcoef(flat.T) - np.eye(3)).max() < 5 / 200_000**0.5
    other = erasing.box_contents(shape, "noise", tf.constant([1, 3])).numpy()
    assert (other == noise).mean() < 0.05
    assert np.unique(erasing.box_contents(shape, "constant", tf.constant([1, 2]))).tolist() == [
        *(104, 116, 124)
    ]
