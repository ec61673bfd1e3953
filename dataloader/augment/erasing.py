"""Erases a random rectangle of one uint8 image (Zhong et al. 2017, arXiv:1708.04896).

The rectangle covers 0.02 to 1/3 of the image, and its ratio height / width is log-uniform from 0.3
to 3.3: the numbers of torchvision and timm. It is filled with ImageNet's mean colour, or with noise
of ImageNet's mean and deviation in each pixel and channel. These correspond to 0 and standard
normal noise in torchvision and timm, which normalise images first; here noise is clipped to 0 and
255.

Noise comes from a table: 12 random bits select one of 4,096 quantiles of the normal distribution.
This needs only integers, so noise is the same on every device.
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from convoy.dataloader import philox
from convoy.dataloader.augment import policies

AREA = (0.02, 1 / 3)
RATIO = (0.3, 3.3)
MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
COLOUR = tuple(round(mean) for mean in MEAN)
NOISE_BITS = 12
ATTEMPTS = 10
BOX_UNIFORMS = 1 + 4 * ATTEMPTS

# Gives erasing its own random numbers; augmentation receives the same seed.
_BOX_STREAM = (0x65726173, 0x65426F78)
_NOISE_STREAM = (0x65726173, 0x654E6F69)


def erasing_box(
    uniforms: tf.Tensor, probability: float, height: int | tf.Tensor, width: int | tf.Tensor
) -> tf.Tensor:
    """Chooses the rectangle to erase: the first of ten that is smaller than the image.

    Args:
        uniforms: float32 (…, 41) in [0, 1): whether to erase, then ten each for area, ratio, y and
            x.
        probability: probability of erasing anything.
        height: rows of the image.
        width: columns of the image.

    Returns:
        int32 (…, 4): top, left, height, width in pixels; all 0 if nothing is erased.
    """
    size = tf.cast(tf.stack([height, width]), tf.float32)
    shape = tf.concat([tf.shape(uniforms)[:-1], [4, ATTEMPTS]], axis=0)
    areas, ratios, top, left = tf.unstack(tf.reshape(uniforms[..., 1:], shape), axis=-2)
    areas = (AREA[0] + (AREA[1] - AREA[0]) * areas) * size[0] * size[1]
    low, high = math.log(RATIO[0]), math.log(RATIO[1])
    root = tf.exp(0.5 * (low + (high - low) * ratios))
    sides = tf.round(tf.stack([tf.sqrt(areas) * root, tf.sqrt(areas) / root], axis=-1))
    room = size - sides + 1.0
    # A float32 product can round up to the bound, although the uniform stays below 1.
    start = tf.minimum(tf.floor(tf.stack([top, left], axis=-1) * room), room - 1.0)
    fits = tf.reduce_all(sides < size, axis=-1)
    first = tf.argmax(fits, axis=-1, output_type=tf.int32)
    boxes = tf.concat([start, sides], axis=-1)
    box = tf.gather(boxes, first, axis=-2, batch_dims=len(uniforms.shape) - 1)
    erased = (uniforms[..., 0] < probability) & tf.reduce_any(fits, axis=-1)
    return tf.cast(tf.where(erased[..., tf.newaxis], box, 0.0), tf.int32)


def fill_box(image: tf.Tensor, box: tf.Tensor, contents: tf.Tensor) -> tf.Tensor:
    """Returns uint8 (H, W, 3) with `contents`, uint8 (h, w, 3), at the box (top, left, h, w)."""
    shape = tf.shape(image)
    top, left, height, width = tf.unstack(box)
    padding = [[top, shape[0] - top - height], [left, shape[1] - left - width], [0, 0]]
    hole = tf.pad(tf.fill(tf.stack([height, width, 3]), tf.constant(255, tf.uint8)), padding)
    kept = tf.bitwise.bitwise_and(image, tf.bitwise.invert(hole))
    return tf.bitwise.bitwise_or(kept, tf.pad(contents, padding))


@functools.lru_cache(maxsize=1)
def noise_table() -> np.ndarray:
    """Returns the equally likely values of a noise pixel: uint8 (3, 4096)."""
    quantile, count = statistics.NormalDist().inv_cdf, 1 << NOISE_BITS
    normal = np.array([quantile((i + 0.5) / count) for i in range(count)])
    noise = np.rint(normal * np.array(STD)[:, None] + np.array(MEAN)[:, None])
    return noise.clip(0, 255).astype(np.uint8)


def noise_of_bits(bits: tf.Tensor) -> tf.Tensor:
    """Looks uint32 (…, 3) random bits up in `noise_table`. Returns uint8 (…, 3)."""
    count = 1 << NOISE_BITS
    numbers = tf.bitwise.right_shift(bits, tf.constant(32 - NOISE_BITS, tf.uint32))
    numbers = tf.cast(numbers, tf.int32) + tf.constant([0, count, 2 * count])
    return tf.gather(tf.constant(noise_table().ravel()), numbers)


def box_contents(shape: tf.Tensor, mode: str, seed: tf.Tensor) -> tf.Tensor:
    """Returns the contents of a box of int32 `shape` (h, w, 3): uint8 noise, or one colour."""
    if mode == "constant":
        return tf.broadcast_to(tf.constant(COLOUR, tf.uint8), shape)
    # One block of four numbers per pixel, so that a device can compute any pixel independently.
    bits = philox.bits(tf.concat([shape[:2], [4]], axis=0), noise_seed(seed))
    return noise_of_bits(bits[..., :3])


def noise_seed(seed: tf.Tensor) -> tf.Tensor:
    """Returns the seed of an image's noise."""
    return _stream(seed, _NOISE_STREAM)


def _stream(seed: tf.Tensor, stream: tuple[int, int]) -> tf.Tensor:
    return tf.bitwise.bitwise_xor(tf.cast(seed, tf.int32), tf.constant(stream, tf.int32))


def draw_box(
    seed: tf.Tensor, probability: float, height: int | tf.Tensor, width: int | tf.Tensor
) -> tf.Tensor:
    """Draws the `erasing_box` of one image: int32 (4,)."""
    uniforms = philox.uniforms([BOX_UNIFORMS], _stream(seed, _BOX_STREAM))
    return erasing_box(uniforms, probability, height, width)


def make_eraser(
    probability: float, mode: str = "noise"
) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Returns `erase(image, seed) -> image` for uint8 (H, W, 3) and an int32 (2,) seed.

    Args:
        probability: probability that a rectangle is erased.
        mode: "noise" or "constant".

    Raises:
        ValueError: an argument is out of range.
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"Random erasing takes a probability, 0 to 1, not {probability!r}.")
    policies.check_name("mode of random erasing", mode, policies.ERASING_MODES)

    def erase(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        box = draw_box(seed, probability, tf.shape(image)[0], tf.shape(image)[1])
        shape = tf.concat([box[2:], [3]], axis=0)

        def filled() -> tf.Tensor:
            return fill_box(image, box, box_contents(shape, mode, seed))

        result = tf.cond(box[2] > 0, filled, lambda: image)
        result.set_shape(image.shape)
        return result

    return erase
