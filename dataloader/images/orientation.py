"""Turns pictures upright in a graph, as EXIF's orientation says.

`turning.py` explains the numbers. The number is read from the header, and decoded parts are turned,
by native operations if they are built and otherwise by Python. Exported models have neither.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from convoy.dataloader import native
from convoy.dataloader.images import exif
from convoy.dataloader.images.turning import COLUMNS, ROWS, turned

NextSegment: TypeAlias = Callable[..., tuple[tf.Tensor, tf.Tensor]]

_TAG, _SHORT, _LONG = 0x0112, 3, 4  # in EXIF


def orientation(encoded: tf.Tensor, alone: bool = False) -> tf.Tensor:
    """Returns the orientation of an encoded JPEG or PNG: int32 scalar from 1 to 8.

    It is 1 for other files and for broken EXIF.

    Args:
        encoded: scalar string.
        alone: if there are no native operations, use only TensorFlow and not Python.
    """
    ops = native.load()
    if ops is not None:
        found = ops.convoy_orientation(encoded)
    elif alone:
        return _by_tensorflow(encoded)
    else:
        found = tf.numpy_function(_read, [encoded], tf.int32, stateful=False)
    found.set_shape([])
    return found


def _read(encoded: bytes | np.ndarray) -> np.int32:
    content = encoded if isinstance(encoded, bytes) else encoded.item()
    return np.int32(exif.of_encoded(content))


def upright(image: tf.Tensor, number: tf.Tensor, alone: bool = False) -> tf.Tensor:
    """Turns uint8 `(H, W, 3)` as an orientation says; `alone` is as in `orientation`."""
    ops = native.load()
    if ops is not None:
        result = ops.convoy_upright(image, number)
        result.set_shape([None, None, 3])
        return result

    def turned_by_tensorflow() -> tf.Tensor:
        reversed_ = tf.cond(_is(number, ROWS), lambda: tf.reverse(image, [0]), lambda: image)
        both = tf.cond(_is(number, COLUMNS), lambda: tf.reverse(reversed_, [1]), lambda: reversed_)
        return tf.cond(number >= 5, lambda: tf.transpose(both, [1, 0, 2]), lambda: both)

    def turned_by_python() -> tf.Tensor:
        return tf.numpy_function(turned, [image, number], tf.uint8, stateful=False)

    # A branch that is not taken still costs time for each of its operations, so keep it to one.
    image = tf.cond(number > 1, turned_by_tensorflow if alone else turned_by_python, lambda: image)
    image.set_shape([None, None, 3])
    return image


def upright_shape(shape: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    """Returns the int32 `(2,)` height and width of a picture of this shape after turning."""
    return tf.where(number >= 5, tf.reverse(shape, [0]), shape)


def stored_window(window: tf.Tensor, shape: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    """Maps a part of the turned picture to the stored picture.

    Args:
        window: int32 `(4,)`: y, x, height, width in the turned picture.
        shape: int32 `(2,)`, height and width of the stored picture.
        number: the orientation, int32 scalar.
    """
    ops = native.load()
    if ops is not None:
        result = ops.convoy_stored_window(window, shape, number)
        result.set_shape([4])
        return result
    start, extent = (
        tf.where(number >= 5, tf.reverse(part, [0]), part) for part in (window[:2], window[2:])
    )
    reversed_ = tf.stack([_is(number, ROWS), _is(number, COLUMNS)])
    return tf.concat([tf.where(reversed_, shape - start - extent, start), extent], 0)


def _is(number: tf.Tensor, some: tuple[int, ...]) -> tf.Tensor:
    return tf.reduce_any(tf.equal(number, some))


# ---- without the native operation ---------------------------------------------------------------


def _by_tensorflow(encoded: tf.Tensor) -> tf.Tensor:
    """Reads the orientation with TensorFlow's own operations, for exported models."""
    start = tf.strings.substr(encoded, 0, 4)

    def found(next_segment: NextSegment, first: int, header: int) -> tf.Tensor:
        size = tf.cast(tf.strings.length(encoded), tf.int64)
        exif = tf.while_loop(
            lambda place, exif: place + header <= size,
            lambda place, exif: next_segment(encoded, place, size, exif),
            [tf.constant(first, tf.int64), tf.zeros([2], tf.int64)],
        )[1]
        return tf.cond(exif[1] >= 8, lambda: _of_tiff(encoded, exif), lambda: tf.constant(1))

    is_jpeg = tf.equal(tf.strings.substr(start, 0, 2), b"\xff\xd8")
    return tf.case(
        [
            (is_jpeg, lambda: found(_next_in_jpeg, 2, 10)),
            (tf.equal(start, b"\x89PNG"), lambda: found(_next_in_png, 8, 12)),
        ],
        default=lambda: tf.constant(1),
    )


def _bytes(encoded: tf.Tensor, place: tf.Tensor, count: tf.Tensor | int) -> tf.Tensor:
    part = tf.strings.substr(encoded, place, tf.cast(count, tf.int64))
    return tf.cast(tf.io.decode_raw(part, tf.uint8), tf.int64)


def _number(digits: tf.Tensor, big: tf.Tensor | bool = True) -> tf.Tensor:
    """Converts bytes `(…, n)` to int64 `(…)`."""
    count = digits.shape[-1]
    small = [256**i for i in range(count)]
    weights = tf.where(big, tf.constant(small[::-1], tf.int64), tf.constant(small, tf.int64))
    return tf.reduce_sum(digits * weights, -1)


def _next_in_jpeg(
    encoded: tf.Tensor, place: tf.Tensor, size: tf.Tensor, exif: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the place of the next segment, and the start and length of EXIF's data.

    The place is one beyond the end at EXIF or pixels.
    """
    head = tf.ensure_shape(_bytes(encoded, place, 10), [10])
    marker, length = head[1], _number(head[2:4])
    fills = tf.equal(marker, 0xFF)
    alone = tf.equal(marker, 1) | ((marker >= 0xD0) & (marker <= 0xD7))
    ends = tf.not_equal(head[0], 0xFF) | tf.equal(marker, 0xDA) | tf.equal(marker, 0xD9)
    ends |= (length < 2) & ~fills & ~alone
    here = tf.equal(marker, 0xE1) & tf.reduce_all(tf.equal(head[4:], list(b"Exif\0\0"))) & ~ends
    whole = here & (place + 2 + length <= size)
    one, two = tf.constant(1, tf.int64), tf.constant(2, tf.int64)
    step = tf.where(fills, one, tf.where(alone, two, 2 + length))
    exif = tf.where(whole, tf.stack([place + 10, length - 8]), exif)
    return tf.where(ends | here, size, place + step), exif


def _next_in_png(
    encoded: tf.Tensor, place: tf.Tensor, size: tf.Tensor, exif: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    head = tf.ensure_shape(_bytes(encoded, place, 8), [8])
    length = _number(head[:4])
    here = tf.reduce_all(tf.equal(head[4:], list(b"eXIf")))
    whole = here & (place + 12 + length <= size)
    exif = tf.where(whole, tf.stack([place + 8, length]), exif)
    return tf.where(here, size, place + 12 + length), exif


def _of_tiff(encoded: tf.Tensor, exif: tf.Tensor) -> tf.Tensor:
    """Returns the orientation in EXIF data, which begin at `exif[0]` and have at least 8 bytes."""
    data = _bytes(encoded, exif[0], exif[1])
    big = tf.equal(data[0], ord("M"))
    known = tf.equal(data[0], data[1]) & (big | tf.equal(data[0], ord("I")))
    known &= tf.equal(_number(tf.ensure_shape(data[2:4], [2]), big), 42)
    place = tf.minimum(_number(tf.ensure_shape(data[4:8], [4]), big), exif[1])
    padded = tf.pad(data, [[0, 2]])
    count = _number(tf.ensure_shape(padded[place : place + 2], [2]), big)
    count = tf.maximum(tf.minimum((exif[1] - place - 2) // 12, count), 0)
    entries = tf.reshape(padded[place + 2 : place + 2 + 12 * count], [-1, 12])
    kind = _number(entries[:, 2:4], big)
    value = tf.where(
        tf.equal(kind, _SHORT), _number(entries[:, 8:10], big), _number(entries[:, 8:12], big)
    )
    usable = (tf.equal(kind, _SHORT) | tf.equal(kind, _LONG)) & (value >= 1) & (value <= 8)
    usable &= tf.equal(_number(entries[:, 4:8], big), 1)
    ours = tf.equal(_number(entries[:, :2], big), _TAG) & known
    found = tf.boolean_mask(tf.where(usable, tf.cast(value, tf.int32), 1), ours)
    return tf.concat([[1], found], 0)[-1]
