"""Policies, ranges and operations against the installed timm and torchvision."""

import random

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from convoy.dataloader.augment import choices, erasing, operations, policies
from convoy.dataloader.augment.levels import RANGES, UNUSED

pytest.importorskip("torch", reason="needs the extra `parity`: see tests/parity/conftest.py")

LEVELS = np.arange(0, 10.001, 0.25)
FILL = (policies.FILL,) * 3


@pytest.fixture(scope="module")
def auto_augment(timm):
    from timm.data import auto_augment

    return auto_augment


@pytest.fixture(scope="module")
def autoaugment(torchvision):
    from torchvision.transforms import autoaugment

    return autoaugment


@pytest.fixture(scope="module")
def functional(torchvision):
    from torchvision.transforms import functional

    return functional


def _plain(name):
    """Returns our name of an operation that timm has in several variants."""
    for ending in ("Original", "Increasing", "Rel"):
        name = name.removesuffix(ending)
    return name


@pytest.mark.parametrize("name", ["v0", "original"])
def test_policies_equal_timms(auto_augment, name):
    theirs = [
        [(_plain(op.name), op.prob, op.magnitude) for op in sub]
        for sub in auto_augment.auto_augment_policy(name)
    ]
    ours = [[(s.op, s.probability, s.level) for s in sub] for sub in policies.get_policy(name)]
    assert ours == theirs


def test_the_original_policy_equals_torchvisions(autoaugment):
    theirs = autoaugment.AutoAugment(autoaugment.AutoAugmentPolicy.IMAGENET).policies
    for name in ("original", "reduced"):
        for sub, their_sub in zip(policies.get_policy(name), theirs, strict=True):
            for step, (op, probability, level) in zip(sub, their_sub, strict=True):
                assert (step.op, step.probability) == (op, probability)
                assert level in (None, step.level)


def test_timms_spaces_equal_timms(auto_augment):
    for name, increasing in (("timm", False), ("timm-inc", True)):
        ops = auto_augment.rand_augment_choices("", increasing=increasing)
        assert sorted(policies.RANDAUGMENT_SPACES[name].ops) == sorted(map(_plain, ops))
        text = f"rand-m7-mstd0.5-inc{int(increasing)}"
        made = auto_augment.rand_augment_transform(text, {"translate_const": 100})
        assert made.num_layers == 2
        assert {op.prob for op in made.ops} == {policies.RANDAUGMENT_SPACES[name].probability}


@pytest.mark.parametrize(
    ("ranges", "variant"), [("tf", ""), ("original", "Original"), ("increasing", "Increasing")]
)
def test_arguments_equal_timms(auto_augment, monkeypatch, ranges, variant):
    for op in ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY", "Posterize", "Solarize"):
        _compare_arguments(auto_augment, monkeypatch, ranges, op, variant)
    for op in ("SolarizeAdd", "Color", "Contrast", "Brightness", "Sharpness"):
        _compare_arguments(auto_augment, monkeypatch, ranges, op, variant)


def _compare_arguments(auto_augment, monkeypatch, ranges, op, variant):
    table = auto_augment.LEVEL_TO_ARG
    function = table.get(op + variant, table[op])
    for level in LEVELS:
        for negative, uniform in ((False, 0.0), (True, 1.0)):
            monkeypatch.setattr(random, "random", lambda value=uniform: value)
            (theirs,) = function(level, {"translate_const": 100})
            ours = policies.argument(
                op, level, ranges=ranges, negative=negative, translate_const=100
            )
            if op == "Posterize":
                theirs = max(theirs, 1)  # timm's image would be black
            assert ours == pytest.approx(theirs, abs=1e-12), (op, level)


def test_levels_are_distributed_like_timms(auto_augment):
    """Records the magnitudes that timm's own operation gets."""
    seen = []
    op = auto_augment.AugmentOp("Rotate", 1.0, 9, {"magnitude_std": 0.5, "translate_const": 1})
    op.level_fn, op.aug_fn = lambda level, _: (level,), lambda _, level, **kw: seen.append(level)
    random.seed(1)
    for _ in range(40_000):
        op(None)
    ours = np.random.default_rng(1).choice(policies.randaugment_levels(9, 0.5), 40_000)
    points = np.quantile(seen, np.linspace(0.02, 0.97, 12))
    for point in points:
        assert (ours <= point).mean() == pytest.approx((np.array(seen) <= point).mean(), abs=0.02)
    assert max(seen) == max(ours) == 10


def test_trivialaugments_space_equals_torchvisions(autoaugment):
    space = autoaugment.TrivialAugmentWide()._augmentation_space(31)
    assert set(space) == set(policies.TRIVIALAUGMENT_SPACE.ops)
    for op, (magnitudes, signed) in space.items():
        assert RANGES["wide"].get(op, UNUSED).signed == signed
        if not magnitudes.ndim:
            continue
        shift = op in ("Brightness", "Color", "Contrast", "Sharpness")
        for level, magnitude in zip(
            policies.TRIVIALAUGMENT_LEVELS, magnitudes.double().tolist(), strict=True
        ):
            theirs = np.ceil(magnitude) if op == "Solarize" else magnitude + shift
            # In float32 the 16th of its 31 bins is 15.999999 and becomes 15 pixels instead of 16.
            theirs = int(theirs + 1e-4) if op.startswith("Translate") else theirs
            options = {"ranges": "wide", "translate_const": 32}
            assert policies.argument(op, level, **options) == pytest.approx(theirs, abs=1e-5), op


@pytest.mark.parametrize("op", [op for op in policies.TRIVIALAUGMENT_SPACE.ops if op != "Identity"])
def test_trivialaugments_pixels_equal_torchvisions(autoaugment, pictures, op):
    from torchvision.transforms import InterpolationMode

    snake = {"AutoContrast": "auto_contrast"}.get(op, op.lower())
    for axis in "xy":
        for name in ("shear", "translate"):
            snake = snake.replace(f"{name}{axis}", f"{name}_{axis}")
    ours = getattr(operations, snake)
    magnitudes, signed = autoaugment.TrivialAugmentWide()._augmentation_space(31)[op]
    levels = magnitudes.tolist()[::3] if magnitudes.ndim else [0.0]
    # torchvision gives where the content moves; Pillow's matrix, and ours, where to read it.
    turned = -1 if op.startswith("Translate") else 1
    worst = 0.0
    for magnitude in [sign * m for m in levels for sign in ((1, -1) if signed else (1,))]:
        argument = turned * magnitude
        if op in ("Brightness", "Color", "Contrast", "Sharpness"):
            argument = 1 + magnitude
        if op.startswith("Translate"):
            argument = int(argument)
        if op == "Solarize":
            argument = np.ceil(argument)
        for image in pictures(96)[::5]:
            theirs = autoaugment._apply_op(
                Image.fromarray(image), op, magnitude, InterpolationMode.NEAREST, list(FILL)
            )
            got = ours(image) if not magnitudes.ndim else ours(image, argument)
            worst = max(worst, (got.numpy() != np.asarray(theirs)).any(axis=-1).mean())
    # torchvision's shear goes through an angle and its tangent: a few pixels lie on an edge.
    assert worst <= (0.02 if op.startswith("Shear") else 0)


def test_hue_equals_torchvisions(functional, pictures):
    for image in pictures(64)[::3]:
        for factor in (-0.5, -0.2, -0.01, 0.0, 0.1, 0.37, 0.5):
            theirs = functional.adjust_hue(Image.fromarray(image), factor)
            np.testing.assert_array_equal(operations.hue(image, factor), np.asarray(theirs))


def test_jitter_equals_torchvisions(functional, pictures):
    """Our random choice is applied by torchvision's functions to Pillow images."""
    from convoy.dataloader.augment.augmenter import apply_choice

    adjust = {
        "Brightness": functional.adjust_brightness,
        "Contrast": functional.adjust_contrast,
        "Color": functional.adjust_saturation,
        "Hue": functional.adjust_hue,
    }
    rng = np.random.default_rng(0)
    for image in pictures(64):
        uniforms = tf.constant(rng.random(choices.JITTER_UNIFORMS, np.float32))
        choice = choices.jitter_choice(uniforms, (0.4, 0.4, 0.4, 0.1))
        theirs = Image.fromarray(image)
        for op, factor in zip(choice.ops.numpy(), choice.arguments.numpy(), strict=True):
            theirs = adjust[policies.OPS[op]](theirs, float(factor))
        np.testing.assert_array_equal(apply_choice(image, choice), np.asarray(theirs))


def test_jitters_bounds_equal_torchvisions(torchvision):
    from torchvision.transforms import ColorJitter

    made = ColorJitter(0.4, 0.3, 1.2, 0.1)
    uniforms = np.stack([np.zeros(5), np.full(5, 1 - 2.0**-24)]).astype(np.float32)
    choice = choices.jitter_choice(tf.constant(uniforms), (0.4, 0.3, 1.2, 0.1))
    for op, bounds in zip(
        choices.JITTER_OPS, (made.brightness, made.contrast, made.saturation, made.hue), strict=True
    ):
        places = choice.ops.numpy() == policies.OPS.index(op)
        assert choice.arguments.numpy()[places] == pytest.approx(bounds, abs=1e-6)


def test_erased_boxes_are_distributed_like_torchvisions(torch, torchvision):
    from torchvision.transforms import RandomErasing

    torch.manual_seed(0)
    height, width, count = 224, 192, 10_000
    image = torch.zeros(3, height, width)
    theirs = np.array(
        [
            RandomErasing.get_params(image, erasing.AREA, erasing.RATIO, [0])[:4]
            for _ in range(count)
        ]
    )
    uniforms = np.random.default_rng(0).random((count, erasing.BOX_UNIFORMS), np.float32)
    ours = erasing.erasing_box(tf.constant(uniforms), 1.0, height, width).numpy()
    for column in range(4):
        for point in np.quantile(theirs[:, column], np.linspace(0.1, 0.9, 7)):
            share = (theirs[:, column] <= point).mean()
            noise = 5 * (2 * share * (1 - share) / count) ** 0.5 + 1e-9
            assert (ours[:, column] <= point).mean() == pytest.approx(share, abs=noise)
