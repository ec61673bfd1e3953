"""Resizes uint8 images with TensorFlow's arithmetic, in NumPy or in C++: every byte is the same.

All numbers are float32 and every operation rounds once, in the order of TensorFlow's kernels
ResizeBilinear, ResizeBicubic and, for long thin images, ScaleAndTranslate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

import numpy as np

from convoy.dataloader.images.interpolations import FRAME_PIXELS, KERNELS, LONGEST_SIDE
from convoy.dataloader.plain import library

KINDS = ("bilinear", "bicubic")
"""The known interpolations: those of `--interpolation`."""
_HALF, _ONE = np.float32(0.5), np.float32(1)
_STRIP = 32  # rows
_TABLE = 1024  # distances for which ResizeBicubic knows weights


class _Taps(NamedTuple):
    """The pixels that make up each pixel of the result, along one side, and their weights.

    Attributes:
        places: int64 `(taps, size)`.
        weights: float32 `(taps, size)`.
    """

    places: np.ndarray
    weights: np.ndarray


def resize(
    image: np.ndarray,
    frame: tuple[int, int],
    start: tuple[int, int],
    size: int,
    interpolation: str,
) -> np.ndarray:
    """Returns the square of `size` at `start` of an image that is resized to `frame`.

    Args:
        image: uint8 `(H, W, 3)`.
        frame: height and width.
        start: y and x.
        size: side of the square.
        interpolation: one of `KINDS`.

    Returns:
        uint8 `(size, size, 3)`, rounded to nearest, clipped to 0-255.
    """
    if frame[0] * frame[1] > max(FRAME_PIXELS, 3 * size * size) or max(image.shape) > LONGEST_SIDE:
        return _resize_part(image, frame, start, size, interpolation)
    if interpolation == "bilinear":
        whole = library.resize(image, *frame)
        if whole is None:
            return _bilinear(image, frame, start, size)
        return whole[start[0] : start[0] + size, start[1] : start[1] + size]
    square = library.resize_cubic(image, frame, start, size)
    return _cubic(image, frame, start, size) if square is None else square


def _positions(side: int, frame: int, start: int, size: int) -> np.ndarray:
    """Returns where the centres of pixels of the result lie in the image: float32 `(size,)`."""
    scale = np.float32(side) / np.float32(frame)
    return (np.arange(start, start + size).astype(np.float32) + _HALF) * scale - _HALF


def _bilinear(
    image: np.ndarray, frame: tuple[int, int], start: tuple[int, int], size: int
) -> np.ndarray:
    """Mixes columns, then rows, as ResizeBilinear does."""
    lower, upper, shares = [], [], []
    for i in (0, 1):
        side, position = image.shape[i], _positions(image.shape[i], frame[i], start[i], size)
        floor = np.floor(position)
        lower.append(np.clip(floor.astype(np.int64), 0, side - 1))
        upper.append(np.clip(np.ceil(position).astype(np.int64), 0, side - 1))
        shares.append(position - floor)
    flat, result = image.reshape(len(image), -1), np.empty((size, 3 * size), np.uint8)
    lefts, rights, across = _channels(lower[1]), _channels(upper[1]), np.repeat(shares[1], 3)
    for strip in _strips(size):
        tops, bottoms = lower[0][strip], upper[0][strip]
        part = flat[tops[0] : bottoms[-1] + 1]
        left, right = (part.take(at, 1).astype(np.float32) for at in (lefts, rights))
        wide = _mixed(left, right, across)
        top, bottom = wide.take(tops - tops[0], 0), wide.take(bottoms - tops[0], 0)
        result[strip] = np.rint(_mixed(top, bottom, shares[0][strip, None]))
    return result.reshape(size, size, 3)


def _strips(size: int) -> Iterator[slice]:
    """Yields parts of the result's rows, whose intermediate numbers fit into a core's cache."""
    return (slice(first, first + _STRIP) for first in range(0, size, _STRIP))


def _channels(columns: np.ndarray) -> np.ndarray:
    return (3 * columns[:, None] + np.arange(3)).reshape(-1)


def _mixed(one: np.ndarray, other: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Returns one + (other - one) * share, in place."""
    other -= one
    other *= share
    one += other
    return one


def _cubic(
    image: np.ndarray, frame: tuple[int, int], start: tuple[int, int], size: int
) -> np.ndarray:
    """Mixes four rows, then four columns, as ResizeBicubic does."""
    rows, columns = (_cubic_taps(image.shape[i], frame[i], start[i], size) for i in (0, 1))
    return _weighted(image, rows, columns)


def _weighted(image: np.ndarray, rows: _Taps, columns: _Taps) -> np.ndarray:
    """Sums weighted rows, then weighted columns, in the order of the taps, and rounds."""
    size, first = rows.places.shape[1], columns.places.min()
    flat = image[:, first : columns.places.max() + 1].reshape(len(image), -1)
    across = [
        (_channels(places - first), np.repeat(weights, 3))
        for places, weights in zip(*columns, strict=True)
    ]
    result = np.empty((size, 3 * size), np.uint8)
    for strip in _strips(size):
        height = len(rows.places[0][strip])
        tall = np.zeros((height, flat.shape[1]), np.float32)
        for places, weights in zip(*rows, strict=True):
            row = flat.take(places[strip], 0).astype(np.float32)
            row *= weights[strip, None]
            tall += row
        wide = np.zeros((height, 3 * size), np.float32)
        for places, weights in across:
            column = tall.take(places, 1)
            column *= weights
            wide += column
        result[strip] = np.rint(np.clip(wide, 0, 255, out=wide), out=wide)
    return result.reshape(size, size, 3)


@cache
def _cubic_table() -> tuple[np.ndarray, np.ndarray]:
    """Returns the weights of pixels at a distance below 1, and from 1 to 2, in 1,024ths."""
    near = np.arange(_TABLE + 1) / _TABLE
    far, a = near + 1, -0.5
    return (
        (((a + 2) * near - (a + 3)) * near * near + 1).astype(np.float32),
        (((a * far - 5 * a) * far + 8 * a) * far - 4 * a).astype(np.float32),
    )


def _cubic_taps(side: int, frame: int, start: int, size: int) -> _Taps:
    """Returns ResizeBicubic's four taps (Keys' kernel); those outside the image weigh nothing."""
    position = _positions(side, frame, start, size)
    floor = np.floor(position)
    offset = np.rint((position - floor) * np.float32(_TABLE)).astype(np.int64)
    near, far = _cubic_table()
    weights = np.stack([far[offset], near[offset], near[_TABLE - offset], far[_TABLE - offset]])
    places = floor.astype(np.int64) + np.arange(-1, 3)[:, None]
    inside = (places >= 0) & (places < side)
    weights[~inside] = 0
    total = weights[0] + weights[1] + weights[2] + weights[3]
    return _Taps(np.clip(places, 0, side - 1), weights * (_ONE / total))


def _resize_part(
    image: np.ndarray,
    frame: tuple[int, int],
    start: tuple[int, int],
    size: int,
    interpolation: str,
) -> np.ndarray:
    """Does as `images.resizing` with large frames: ScaleAndTranslate of the needed part alone."""
    (_, radius), kernel = KERNELS[interpolation], _PIECES[interpolation]
    taps, part = [], image
    for i in (0, 1):
        side, scale = image.shape[i], frame[i] / image.shape[i]
        begin = max(math.floor(start[i] / scale - radius - 1), 0)
        end = min(math.ceil((start[i] + size) / scale + radius + 1), side)
        inverse = np.float32(1 / np.float64(np.float32(scale)))
        shift = -inverse * np.float32(begin * scale - start[i])
        centres = (np.arange(size).astype(np.float32) + _HALF) * inverse + shift
        taps.append(_spans(centres, end - begin, radius, kernel))
        part = part[begin:end].swapaxes(0, 1)
    return _weighted(part, *taps)


def _spans(
    centres: np.ndarray, side: int, radius: int, kernel: Callable[[np.ndarray], np.ndarray]
) -> _Taps:
    """Returns the pixels around each centre, weighted by their distance, as ScaleAndTranslate."""
    reach = np.float32(radius)
    begin = np.clip(np.ceil(centres - reach - _HALF).astype(np.int64), 0, side - 1)
    last = np.clip(np.floor(centres + reach - _HALF).astype(np.int64), 0, side - 1)
    places = begin + np.arange(min(2 * radius + 1, side))[:, None]
    weights = kernel(np.abs(places.astype(np.float32) + _HALF - centres))
    weights[(places > last) | (centres < 0) | (centres > side)] = 0
    total = np.zeros_like(centres)
    for weight in weights:
        total += weight
    share = np.divide(_ONE, total, out=np.zeros_like(total), where=total != 0)
    return _Taps(np.minimum(places, side - 1), weights * share)


def _triangle(distance: np.ndarray) -> np.ndarray:
    return np.maximum(_ONE - distance, np.float32(0))


def _keys(distance: np.ndarray) -> np.ndarray:
    c = [np.float32(x) for x in (1.5, 2.5, 0.5, 4, 2)]
    near = (c[0] * distance - c[1]) * distance * distance + _ONE
    far = ((-c[2] * distance + c[1]) * distance - c[3]) * distance + c[4]
    return np.where(distance < 1, near, np.where(distance < 2, far, np.float32(0)))


_PIECES = {"bilinear": _triangle, "bicubic": _keys}
