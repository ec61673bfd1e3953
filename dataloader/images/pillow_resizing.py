"""Resizes as Pillow does, to the bit, in TensorFlow's operations: exports have no Pillow.

Pillow resizes in two passes, one along the rows and one along the columns. Each pass weighs the
pixels that its filter reaches with numbers of 22 bits after the point, and rounds the sum to a
byte. When shrinking, the filter grows with the factor (antialias). Pillow 13 begins with the
columns if the height shrinks by more than twice as many pixels as the width; earlier versions
always begin with the rows, and so differ by a level here and there in tall pictures. This is what
13 does.
"""

from __future__ import annotations

import tensorflow as tf

from convoy.dataloader.images.pillow_filters import BITS, RADIUS, bicubic

_Weights = tuple[tf.Tensor, tf.Tensor]


def pillow_square(
    image: tf.Tensor, frame: tf.Tensor, start: tf.Tensor, size: int, interpolation: str
) -> tf.Tensor:
    """Returns what `Image.resize(frame)` and a crop of the square at `start` give.

    Only the square is computed, from the pixels that it needs.

    Args:
        image: uint8 `(H, W, 3)`.
        frame: int64 `(2,)`, height and width.
        start: int64 `(2,)`, y and x of the square, which is within the frame.
        size: side of the square.
        interpolation: one of `eval_crop.PILLOWS`.

    Returns:
        uint8 `(size, size, 3)`.
    """
    shape = tf.cast(tf.shape(image)[:2], tf.int64)
    if interpolation == "nearest":
        rows, columns = (_nearest(shape[i], frame[i], start[i], size) for i in (0, 1))
        return tf.gather(tf.gather(image, rows), columns, axis=1)
    down, across = (_weights(shape[i], frame[i], start[i], size, interpolation) for i in (0, 1))
    shrinks = shape - frame
    columns_first = (shrinks[0] > 0) & (shrinks[0] > 2 * shrinks[1])

    def turned(image: tf.Tensor) -> tf.Tensor:
        return tf.transpose(image, [1, 0, 2])

    return tf.cond(
        columns_first,
        lambda: turned(_two_passes(image, down, across)),
        lambda: _two_passes(turned(image), across, down),
    )


def _two_passes(image: tf.Tensor, along: _Weights, then: _Weights) -> tf.Tensor:
    """Weighs along the first axis and then along the second; the result's axes are swapped.

    Args:
        image: uint8 `(n, m, 3)`.
        along: result of `_weights` for the first axis.
        then: result of `_weights` for the second axis.

    Returns:
        uint8 `(size of then, size of along, 3)`.
    """
    places, weights = then
    first, last = places[0], places[-1] + tf.shape(weights)[1]  # what the second pass reaches
    image = _weigh(image[:, first:last], *along)
    return _weigh(tf.transpose(image, [1, 0, 2]), places - first, weights)


def _quotient(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Divides integers, float64, to the last bit.

    In a traced function TensorFlow replaces x / constant with x * (1 / constant), which may differ
    in the last bit; it leaves divide_no_nan.
    """
    return tf.math.divide_no_nan(tf.cast(one, tf.float64), tf.cast(other, tf.float64))


def _nearest(length: tf.Tensor, target: tf.Tensor, start: tf.Tensor, size: int) -> tf.Tensor:
    """Returns the places that `size` pixels from `start` are copied from, int32 `(size,)`.

    Pillow adds up steps of the scale, and so do we: where a centre falls between two pixels, the
    rounding of the sum decides.
    """
    scale = _quotient(length, target)
    steps = tf.fill([target - 1], scale)
    centres = tf.cumsum(tf.concat([[scale * 0.5], steps], 0))
    return tf.cast(centres[start : start + size], tf.int32)


def _weights(
    length: tf.Tensor, target: tf.Tensor, start: tf.Tensor, size: int, interpolation: str
) -> _Weights:
    """Returns for `size` pixels from `start` the first pixel that each weighs, and the weights.

    Args:
        length: int64, pixels along this axis.
        target: int64, pixels along this axis after resizing.
        start: int64, the first of the wanted ones.
        size: number of wanted ones.
        interpolation: "bilinear" or "bicubic".

    Returns:
        int32 `(size,)` and int32 `(size, taps)`, of `BITS` bits after the point.
    """
    scale = _quotient(length, target)
    stretch = tf.maximum(scale, 1.0)
    reach = RADIUS[interpolation] * stretch
    centre = (tf.cast(start + tf.range(size, dtype=tf.int64), tf.float64) + 0.5) * scale
    low = tf.maximum(tf.cast(centre - reach + 0.5, tf.int64), 0)
    high = tf.minimum(tf.cast(centre + reach + 0.5, tf.int64), length)
    places = low[:, None] + tf.range(tf.cast(tf.math.ceil(reach), tf.int64) * 2 + 1)
    distance = tf.abs((tf.cast(places, tf.float64) - centre[:, None] + 0.5) * (1.0 / stretch))
    if interpolation == "bilinear":
        shares = tf.maximum(1.0 - distance, 0.0)
    else:
        near, far = bicubic(distance)
        shares = tf.where(distance < 1.0, near, tf.where(distance < 2.0, far, 0.0))
    shares = tf.where(places < high[:, None], shares, 0.0)
    shares = tf.math.divide_no_nan(shares, tf.reduce_sum(shares, axis=1, keepdims=True))
    half = tf.where(shares < 0, tf.constant(-0.5, tf.float64), 0.5)
    return tf.cast(low, tf.int32), tf.cast(shares * float(1 << BITS) + half, tf.int32)


def _weigh(image: tf.Tensor, first: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Weighs pixels along the first axis.

    Args:
        image: uint8 `(n, m, 3)`.
        first: int32 `(size,)`, the first pixel for each result.
        weights: int32 `(size, taps)`.

    Returns:
        uint8 `(size, m, 3)`.
    """
    last = tf.shape(image)[0] - 1

    def add(tap: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # Places behind the last pixel have the weight 0.
        pixels = tf.gather(image, tf.minimum(first + tap, last))
        return tap + 1, total + tf.cast(pixels, tf.int32) * weights[:, tap, None, None]

    shape = tf.stack([tf.shape(first)[0], tf.shape(image)[1], 3])
    taps = tf.shape(weights)[1]
    _, total = tf.while_loop(
        lambda tap, _: tap < taps,
        add,
        (tf.constant(0), tf.fill(shape, 1 << (BITS - 1))),
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([None, None, 3])),
    )
    total = tf.bitwise.right_shift(total, BITS)
    return tf.cast(tf.clip_by_value(total, 0, 255), tf.uint8)
