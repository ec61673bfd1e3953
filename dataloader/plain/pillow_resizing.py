"""Resizes as Pillow does, to the bit: `images.pillow_resizing` without TensorFlow.

That module explains how. Pillow itself would resize the whole picture. A line of a thousand pixels
becomes a gigabyte then; here only the square is computed.
"""

from __future__ import annotations

import numpy as np

from convoy.dataloader.images.pillow_filters import BITS, RADIUS, bicubic

_Weights = tuple[np.ndarray, np.ndarray]


def pillow_square(
    image: np.ndarray,
    frame: tuple[int, int],
    start: tuple[int, int],
    size: int,
    interpolation: str,
) -> np.ndarray:
    """Returns what `Image.resize(frame)` of Pillow 13 and a crop of the square at `start` give.

    Args:
        image: uint8 `(H, W, 3)`.
        frame: height and width.
        start: y and x of the square, which is within the frame.
        size: side of the square.
        interpolation: one of `eval_crop.PILLOWS`.

    Returns:
        uint8 `(size, size, 3)`.
    """
    sides = image.shape[:2]
    if interpolation == "nearest":
        rows, columns = (_nearest(sides[i], frame[i], start[i], size) for i in (0, 1))
        return image[rows[:, None], columns]
    down, across = (_weights(sides[i], frame[i], start[i], size, interpolation) for i in (0, 1))
    fewer_rows, fewer_columns = sides[0] - frame[0], sides[1] - frame[1]
    if fewer_rows > 0 and fewer_rows > 2 * fewer_columns:
        return _two_passes(image, down, across).swapaxes(0, 1)
    return _two_passes(image.swapaxes(0, 1), across, down)


def _two_passes(image: np.ndarray, along: _Weights, then: _Weights) -> np.ndarray:
    """Weighs along the first axis and then along the second; the result's axes are swapped."""
    places, weights = then
    first, last = places[0], places[-1] + len(weights)  # what the second pass reaches
    image = _weigh(image[:, first:last], *along)
    return _weigh(image.swapaxes(0, 1), places - first, weights)


def _nearest(side: int, target: int, start: int, size: int) -> np.ndarray:
    """Returns the places that `size` pixels from `start` are copied from.

    Pillow adds up steps of the scale, whose rounding decides between two pixels.
    """
    scale = side / target
    steps = np.full(start + size, scale)
    steps[0] *= 0.5
    return np.cumsum(steps)[start:].astype(np.int64)


def _weights(side: int, target: int, start: int, size: int, interpolation: str) -> _Weights:
    """Returns the first pixel that each of `size` pixels from `start` weighs, and the weights.

    Returns:
        int64 `(size,)` and int32 `(taps, size)`, of `BITS` bits after the point.
    """
    scale = side / target
    stretch = max(scale, 1.0)
    reach = RADIUS[interpolation] * stretch
    centre = (start + np.arange(size) + 0.5) * scale
    low = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
    high = np.minimum((centre + reach + 0.5).astype(np.int64), side)
    places = low + np.arange(int(np.ceil(reach)) * 2 + 1)[:, None]
    distance = np.abs((places - centre + 0.5) * (1.0 / stretch))
    if interpolation == "bilinear":
        shares = np.maximum(1.0 - distance, 0.0)
    else:
        near, far = bicubic(distance)
        shares = np.where(distance < 1.0, near, np.where(distance < 2.0, far, 0.0))
    shares = np.where(places < high, shares, 0.0)
    total = np.zeros(size)
    for share in shares:
        total += share
    shares = np.divide(shares, total, out=np.zeros_like(shares), where=total != 0)
    half = np.where(shares < 0, -0.5, 0.5)
    return low, (shares * float(1 << BITS) + half).astype(np.int32)


def _weigh(image: np.ndarray, first: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighs pixels along the first axis.

    Args:
        image: uint8 `(n, m, 3)`.
        first: `(size,)`, the first pixel for each result.
        weights: int32 `(taps, size)`.

    Returns:
        uint8 `(size, m, 3)`.
    """
    total = np.full((len(first), *image.shape[1:]), 1 << (BITS - 1), np.int32)
    for tap, shares in enumerate(weights):
        # places behind the last pixel have the weight 0
        pixels = image[np.minimum(first + tap, len(image) - 1)].astype(np.int32)
        pixels *= shares[:, None, None]
        total += pixels
    total >>= BITS
    return np.clip(total, 0, 255).astype(np.uint8)
