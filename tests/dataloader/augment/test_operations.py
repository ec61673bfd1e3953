"""Every augmentation operation gives Pillow's bytes over its range of levels.

This holds for one image on the host and for a batch on the device, with and without XLA.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageOps

from convoy.dataloader.augment import operations, policies
from convoy.dataloader.augment.augmenter import Draw, Recipe
from convoy.dataloader.augment.choices import Choice
from convoy.dataloader.augment.device_plan import Plan, Planned, planned_steps
from convoy.dataloader.augment.levels import RANGES
from convoy.dataloader.augment.on_device import make_prepare

GREY = (policies.FILL,) * 3
LEVELS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)


def _photo_like(height: int, width: int, seed: int) -> np.ndarray:
    """Returns smooth coloured gradients with a little noise; neighbouring pixels are similar."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    image = np.zeros((height, width, 3))
    for channel in range(3):
        fy, fx, phase = rng.uniform(0.01, 0.06, 3) * (1, 1, 50)
        image[..., channel] = 110 + 70 * np.sin(fy * y + phase) * np.cos(fx * x) + 0.2 * y
    return np.clip(image + rng.normal(0, 4, image.shape), 20, 240).astype(np.uint8)


def _noise(height: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _two_values(height: int, width: int) -> np.ndarray:
    image = np.full((height, width, 3), 200, np.uint8)
    image[: height // 3] = (10, 200, 0)
    return image


IMAGES = {
    "noise": _noise(64, 64, 1),
    "noise wide": _noise(37, 90, 2),
    "noise tall": _noise(101, 56, 3),
    "photo 224": _photo_like(224, 224, 4),
    "photo 150x256": _photo_like(150, 256, 5),
    "photo 40x33": _photo_like(40, 33, 15),
    "noise 331x480": _noise(331, 480, 9),
    "constant": np.full((40, 33, 3), 77, np.uint8),
    "constant channels": np.broadcast_to(np.uint8([0, 128, 255]), (24, 24, 3)).copy(),
    "black": np.zeros((20, 31, 3), np.uint8),
    "white": np.full((31, 20, 3), 255, np.uint8),
    "two values": _two_values(48, 50),
    "3x3": _noise(3, 3, 6),
    "2x5": _noise(2, 5, 7),
    "1x1": _noise(1, 1, 8),
}


def _affine(image: Image.Image, coefficients: tuple[float, ...]) -> Image.Image:
    return image.transform(
        image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.NEAREST, fillcolor=GREY
    )


def _table(image: Image.Image, values: list[int]) -> Image.Image:
    return image.point(values * 3)


def _pil_solarize_add(image: Image.Image, addition: float) -> Image.Image:
    return _table(image, [min(255, i + int(addition)) if i < 128 else i for i in range(256)])


def _pil_hue(image: Image.Image, factor: float) -> Image.Image:
    """Does what torchvision's adjust_hue does; tests/parity compares with torchvision itself."""
    hue, saturation, value = image.convert("HSV").split()
    shifted = (np.asarray(hue).astype(int) + int(factor * 255)) % 256
    bands = (Image.fromarray(shifted.astype(np.uint8)), saturation, value)
    return Image.merge("HSV", bands).convert("RGB")


PILLOW = {
    "Rotate": lambda im, a: im.rotate(a, Image.Resampling.NEAREST, fillcolor=GREY),
    "ShearX": lambda im, a: _affine(im, (1, a, 0, 0, 1, 0)),
    "ShearY": lambda im, a: _affine(im, (1, 0, 0, a, 1, 0)),
    "TranslateX": lambda im, a: _affine(im, (1, 0, a, 0, 1, 0)),
    "TranslateY": lambda im, a: _affine(im, (1, 0, 0, 0, 1, a)),
    "Color": lambda im, a: ImageEnhance.Color(im).enhance(a),
    "Contrast": lambda im, a: ImageEnhance.Contrast(im).enhance(a),
    "Brightness": lambda im, a: ImageEnhance.Brightness(im).enhance(a),
    "Sharpness": lambda im, a: ImageEnhance.Sharpness(im).enhance(a),
    "Posterize": lambda im, a: ImageOps.posterize(im, int(a)),
    "Solarize": lambda im, a: ImageOps.solarize(im, int(a)),
    "SolarizeAdd": _pil_solarize_add,
    "AutoContrast": lambda im, _: ImageOps.autocontrast(im),
    "Equalize": lambda im, _: ImageOps.equalize(im),
    "Invert": lambda im, _: ImageOps.invert(im),
    "Hue": lambda im, a: _pil_hue(im, a),
}
OURS = {
    "Rotate": operations.rotate,
    "ShearX": operations.shear_x,
    "ShearY": operations.shear_y,
    "TranslateX": operations.translate_x,
    "TranslateY": operations.translate_y,
    "Color": operations.color,
    "Contrast": operations.contrast,
    "Brightness": operations.brightness,
    "Sharpness": operations.sharpness,
    "Posterize": operations.posterize,
    "Solarize": operations.solarize,
    "SolarizeAdd": operations.solarize_add,
    "AutoContrast": lambda image, _: operations.auto_contrast(image),
    "Equalize": lambda image, _: operations.equalize(image),
    "Invert": lambda image, _: operations.invert(image),
    "Hue": operations.hue,
}
NO_ARGUMENT = ("AutoContrast", "Equalize", "Invert")


def _compiled(op: str):
    """Returns one graph for all sizes and arguments, as in a tf.data map."""
    return tf.function(
        OURS[op],
        input_signature=[
            tf.TensorSpec([None, None, 3], tf.uint8),
            tf.TensorSpec([], tf.float64),
        ],
        autograph=False,
    )


def _arguments(op: str) -> list[float]:
    """Returns every argument that a policy can give this operation, and some random magnitudes."""
    if op in NO_ARGUMENT:
        return [0.0]
    if op == policies.HUE:
        return [-0.5, -0.31, -0.1, 0.0, 0.004, 0.1, 0.25, 0.5]
    levels = {
        "tf": (*LEVELS, 2.6, 11.67, 15),
        "original": LEVELS,
        "increasing": (*LEVELS, 6.3),
        "wide": policies.TRIVIALAUGMENT_LEVELS[::3],
    }
    return sorted(
        {
            policies.argument(op, level, ranges=ranges, negative=negative, translate_const=constant)
            for ranges, chosen in levels.items()
            if op in RANGES[ranges]
            for level in chosen
            for negative in (False, True)
            for constant in ((32,) if ranges == "wide" else (100, 250))
        }
    )


def test_every_operation_is_compared_with_pillow():
    assert set(PILLOW) | {"Cutout", policies.IDENTITY} == set(policies.OPS)
    assert set(PILLOW) == set(OURS)


def _on_host(op: str):
    """Returns a function from an image and arguments to one image per argument."""
    ours = _compiled(op)
    return lambda array, arguments: np.stack([ours(array, a).numpy() for a in arguments])


def _planned(array: np.ndarray, names: list[str], arguments: list[float]) -> Planned:
    """Returns one copy of the image per argument, with one operation each."""
    count = len(arguments)
    choice = Choice(
        tf.constant([[policies.OPS.index(name)] for name in names]),
        tf.constant(arguments, tf.float64)[:, tf.newaxis],
        tf.zeros([count, 1, 2]),
    )
    box, noise = tf.zeros([count, 4], tf.int32), tf.zeros([count, 6], tf.uint32)
    steps = planned_steps(choice, *array.shape[:2])
    plan = Plan(*steps, box, noise, tf.ones(count), box, tf.zeros([], tf.int32))
    return Planned(tf.tile(array[np.newaxis], [count, 1, 1, 1]), plan)


def _any_size(part: tf.Tensor) -> tf.TensorSpec:
    sizes = [size if i == len(part.shape) - 1 else None for i, size in enumerate(part.shape)]
    return tf.TensorSpec(sizes, part.dtype)


def _prepare(ops: set[str], compiled: bool = False):
    return make_prepare(Recipe((Draw((), None, (frozenset(ops),)),)), compiled=compiled)


def _check(op: str, name: str, arguments: list[float], got: np.ndarray) -> None:
    assert got.dtype == np.uint8
    assert got.shape == (len(arguments), *IMAGES[name].shape)
    image = Image.fromarray(IMAGES[name])
    for argument, result in zip(arguments, got, strict=True):
        wrong = int((result != np.asarray(PILLOW[op](image, argument))).any(axis=-1).sum())
        assert wrong == 0, f"{op}({argument}) of {name}: {wrong} pixels differ"


@pytest.mark.parametrize("op", PILLOW)
@pytest.mark.parametrize("large", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_an_operation_gives_pillows_bytes(op, large):
    ours, arguments = _on_host(op), _arguments(op)
    for name, array in IMAGES.items():
        if (array.size > 120_000) == large:
            _check(op, name, arguments, ours(array, arguments))


@pytest.mark.parametrize("op", PILLOW)
@pytest.mark.parametrize("large", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_an_operation_on_the_device_gives_pillows_bytes(op, large):
    arguments = _arguments(op)
    chosen = {n: array for n, array in IMAGES.items() if (array.size > 20_000) == large}
    planned = {
        name: _planned(array, [op] * len(arguments), arguments) for name, array in chosen.items()
    }
    # one graph for all sizes
    spec = tf.nest.map_structure(_any_size, next(iter(planned.values())))
    prepare = tf.function(_prepare({op}), input_signature=[spec], autograph=False)
    for name in chosen:
        _check(op, name, arguments, prepare(planned[name]).numpy())


def test_all_operations_compiled_by_xla_give_pillows_bytes():
    """One batch and one program contain all operations."""
    names = [op for op in PILLOW for _ in _arguments(op)]
    arguments = [argument for op in PILLOW for argument in _arguments(op)]
    name = "photo 40x33"
    got = _prepare(set(PILLOW), compiled=True)(_planned(IMAGES[name], names, arguments)).numpy()
    for op in PILLOW:
        _check(op, name, _arguments(op), got[[other == op for other in names]])


def test_hue_of_every_colour_gives_pillows_bytes():
    ours = _compiled(policies.HUE)
    levels = np.arange(0, 256, 3, dtype=np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(len(levels), -1, 3)
    for factor in (0.0, -0.07, 0.43):
        expected = np.asarray(_pil_hue(Image.fromarray(cube), factor))
        np.testing.assert_array_equal(ours(cube, factor).numpy(), expected)


@pytest.mark.parametrize("op", ["TranslateX", "TranslateY"])
def test_translation_by_half_pixels_keeps_the_same_edge_as_pillow(op):
    # Source coordinates lie exactly on pixel edges; rounding halves away from zero would lose one.
    array = _noise(20, 24, 10)
    for argument in (-1e9, -7.5, -0.5, 0.5, 7.5, 12.5, 1e9):
        expected = np.asarray(PILLOW[op](Image.fromarray(array), argument))
        np.testing.assert_array_equal(OURS[op](array, argument).numpy(), expected)


@pytest.mark.parametrize("centre", [(0, 0), (5, 9), (19, 29), (12, 0)])
@pytest.mark.parametrize("level", LEVELS)
def test_cutout_equals_a_pasted_rectangle(level, centre):
    array = _noise(20, 30, 11)
    half = int(policies.argument("Cutout", level, cutout_const=40))
    y, x = centre
    expected = array.copy()
    expected[max(0, y - half) : y + half, max(0, x - half) : x + half] = policies.FILL
    got = operations.cutout(tf.constant(array), half, y, x).numpy()
    np.testing.assert_array_equal(got, expected)


# --- faults of earlier implementations ------------------------------------------------------------


@pytest.mark.parametrize("level", [10, 11.67, 15])
def test_solarize_at_level_10_and_above_leaves_the_image_unchanged(level):
    # A threshold of 256 narrowed to uint8 became 0 and inverted the whole image.
    array = _photo_like(32, 32, 12)
    array[0, 0] = 255
    threshold = policies.argument("Solarize", level)
    assert threshold >= 256
    np.testing.assert_array_equal(operations.solarize(array, threshold).numpy(), array)


@pytest.mark.parametrize("side", [224, 300])
def test_contrast_uses_the_mean_grey_and_not_the_number_of_pixels(side):
    # The old mean was pixels / 256: 196 at 224 px, and 255 from 300 px on, for any image.
    array = (_photo_like(side, side, 13) // 3).astype(np.uint8)
    grey = np.asarray(Image.fromarray(array).convert("L"))
    mean = math.floor(grey.mean() + 0.5)
    assert mean < 100
    got = operations.contrast(array, 0.0).numpy()
    assert np.unique(got).tolist() == [mean]


def test_posterize_to_0_bits_keeps_one_bit():
    array = _noise(32, 32, 14)
    expected = np.asarray(ImageOps.posterize(Image.fromarray(array), 1))
    for bits in (0, policies.argument("Posterize", 2), policies.argument("Posterize", 0)):
        got = operations.posterize(array, bits).numpy()
        np.testing.assert_array_equal(got, expected)
    assert set(np.unique(got)) == {0, 128}


def test_solarize_add_clips_instead_of_wrapping():
    array = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=-1)
    got = operations.solarize_add(array, 165.0).numpy()[..., 0].ravel()
    expected = [min(255, i + 165) if i < 128 else i for i in range(256)]
    np.testing.assert_array_equal(got, expected)
