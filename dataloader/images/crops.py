"""Cuts a uint8 square from an encoded image: random in training, otherwise from the centre."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from convoy.dataloader import native, philox
from convoy.dataloader.images.decoders import ACCURATE, FAST, decode_image, decode_window
from convoy.dataloader.images.eval_crop import EvalCrop
from convoy.dataloader.images.pillow_resizing import pillow_square
from convoy.dataloader.images.resizing import resize, resize_square

CROP_ATTEMPTS = 10
# Area, ratio, y and x of each attempt; the flip; the choice between two interpolations.
UNIFORMS = 4 * CROP_ATTEMPTS + 2
RANDOM = "random"


def crop_window(
    shape: tf.Tensor,
    uniforms: tf.Tensor,
    area: tuple[float, float],
    ratio: tuple[float, float],
) -> tf.Tensor:
    """Draws a random-resized crop (Szegedy et al. 2015) with torchvision's distribution.

    Ten attempts draw an area uniformly and an aspect ratio log-uniformly; the first that fits the
    image wins. If none does, it takes the largest centre crop with an allowed aspect ratio.

    Args:
        shape: int32 `(2,)`, height and width.
        uniforms: float32 `(UNIFORMS,)` in [0, 1).
        area: smallest and largest fraction of the image's area.
        ratio: smallest and largest width / height.

    Returns:
        int32 `(4,)`: y, x, height, width.
    """
    logs = math.log(ratio[0]) / 2, math.log(ratio[1]) / 2
    drawn = tf.reshape(uniforms[: 4 * CROP_ATTEMPTS], [4, CROP_ATTEMPTS])
    spread = np.array([[area[1] - area[0]], [logs[1] - logs[0]]], np.float32)
    lowest = np.array([[area[0]], [logs[0]]], np.float32)
    areas, half_log_ratios = tf.unstack(drawn[:2] * spread + lowest)
    # Both versions use TensorFlow's exponential: libraries differ in the last bit.
    stretch = tf.exp([[-1.0], [1.0]] * half_log_ratios)
    limits = [1 / ratio[0], ratio[1]]
    ops = native.load()
    if ops is not None:
        window = ops.convoy_crop_window(shape, areas, stretch, drawn[2:], limits)
        window.set_shape([4])
        return window

    # Compute height and width together as rows: each op costs a few µs, and a decode a few hundred.
    shape = tf.cast(shape, tf.float32)
    sides = tf.sqrt(areas * tf.reduce_prod(shape)) * stretch
    # The fallback follows the last attempt, so that one argmax picks the winner.
    fallback = tf.minimum(shape, tf.reverse(shape, [0]) * limits)
    sides = tf.maximum(tf.round(tf.concat([sides, fallback[:, None]], 1)), 1.0)
    fits = tf.reduce_all(sides <= shape[:, None], axis=0)
    winner = tf.argmax(fits, output_type=tf.int32)
    sides = tf.gather(sides, winner, axis=1)
    room = shape - sides
    place = tf.gather(tf.pad(drawn[2:], [[0, 0], [0, 1]], constant_values=0.5), winner, axis=1)
    # A float32 product can round up to the bound, although the uniform stays below 1.
    start = tf.minimum(tf.floor(place * (room + 1)), room)
    return tf.cast(tf.concat([start, sides], 0), tf.int32)


def flips(uniforms: tf.Tensor, probability: float) -> tf.Tensor:
    """Returns whether to flip the image with these uniforms `(UNIFORMS,)`: bool scalar."""
    return uniforms[-2] < probability


def first_interpolation(uniforms: tf.Tensor) -> tf.Tensor:
    """Returns whether `RANDOM` means bilinear, not bicubic, for these uniforms: bool scalar."""
    return uniforms[-1] < 0.5


def random_crop_decode(
    encoded: tf.Tensor,
    seed: tf.Tensor,
    size: int,
    *,
    area: tuple[float, float] = (0.05, 1.0),
    ratio: tuple[float, float] = (0.75, 1.333),
    interpolation: str = "bilinear",
    hflip: float = 0.5,
    turn: bool = False,
) -> tf.Tensor:
    """Decodes a random-resized crop, flipped left to right with probability `hflip`.

    Args:
        encoded: scalar string, a picture of a supported kind.
        seed: int32 `(2,)`; the crop and the flip depend only on it.
        size: side of the resulting square in pixels.
        area: smallest and largest fraction of the image's area that a crop covers.
        ratio: smallest and largest ratio of a crop's width to its height.
        interpolation: one of `interpolations.INTERPOLATIONS`, or `RANDOM`: bilinear or bicubic
            with equal probability.
        hflip: probability of a left-right flip.
        turn: apply EXIF's orientation before the crop.

    Returns:
        uint8 `(size, size, 3)`.

    Raises:
        tf.errors.InvalidArgumentError: the bytes cannot be decoded.
    """
    uniforms = philox.uniforms([UNIFORMS], seed)
    image = decode_window(encoded, lambda shape: crop_window(shape, uniforms, area, ratio), turn)
    flip = flips(uniforms, hflip) if hflip > 0 else None
    if interpolation == RANDOM:
        image = tf.cond(
            first_interpolation(uniforms),
            lambda: resize(image, [size, size], "bilinear", flip=flip),
            lambda: resize(image, [size, size], "bicubic", flip=flip),
        )
    else:
        image = resize(image, [size, size], interpolation, flip=flip)
    image.set_shape([size, size, 3])
    return image


def eval_decode(encoded: tf.Tensor, size: int, crop: EvalCrop) -> tf.Tensor:
    """Decodes an image and cuts its square as `crop` says, for evaluation and predict.

    Args:
        encoded: scalar string, a picture of a supported kind.
        size: side of the resulting square in pixels.
        crop: how to cut it.

    Returns:
        `(size, size, 3)` in 0-255: uint8, or float32 if `crop.rounded` is False.

    Raises:
        tf.errors.InvalidArgumentError: the bytes cannot be decoded.
    """
    how = (crop.interpolation, crop.antialias)
    if crop.method == "crop":
        own = crop.arithmetic == "own"
        image = decode_window(
            encoded,
            lambda shape: eval_window(shape, size, crop),
            crop.turn,
            exact=own,
            dct=ACCURATE if own else FAST,
        )
        if crop.rounded:
            image = resize(image, [size, size], *how)
        else:
            image = tf.image.resize(image, [size, size], how[0], antialias=how[1])
    else:
        image = decode_image(encoded, crop.turn)
        frame, start = eval_frame(tf.shape(image)[:2], size, crop)
        if crop.arithmetic == "pillow":
            image = pillow_square(image, frame, start, size, crop.interpolation)
        else:
            image = resize_square(image, frame, start, size, *how)
    image.set_shape([size, size, 3])
    return image


def eval_window(shape: tf.Tensor, size: int, crop: EvalCrop) -> tf.Tensor:
    """Returns the part that method "crop" cuts out before it resizes.

    Args:
        shape: int32 `(2,)`, height and width of the image.
        size: side of the resulting square in pixels.
        crop: its `padding` decides the size.

    Returns:
        int32 `(4,)`: y, x, height, width.
    """
    side = tf.maximum(tf.reduce_min(shape) * size // (size + crop.padding), 1)
    start = (shape - side + 1) // 2
    return tf.concat([start, [side, side]], 0)


def eval_frame(shape: tf.Tensor, size: int, crop: EvalCrop) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the size to which a whole image is resized, and where its square begins.

    This is for the methods "resize" and "squash".

    Args:
        shape: int32 `(2,)`, height and width of the image.
        size: side of the resulting square in pixels.
        crop: its `padding` decides the size.

    Returns:
        int64 `(2,)` height and width, and int64 `(2,)` y and x.
    """
    shape = tf.cast(shape, tf.int64)
    # Integer floor division is exact where float32 would lose a pixel.
    frame = shape * (size + crop.padding) // tf.reduce_min(shape)
    if crop.method == "squash":
        frame = tf.fill([2], tf.constant(size + crop.padding, tf.int64))
    room = frame - size
    # Round half to even, like Python's round() in torchvision's CenterCrop.
    return frame, room // 2 + room % 2 * (room // 2 % 2)
