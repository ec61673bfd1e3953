"""Resizes uint8 images: whole, or only the needed square of the result."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from convoy.dataloader import native
from convoy.dataloader.images.interpolations import FRAME_PIXELS, KERNELS, LONGEST_SIDE


def resize(
    image: tf.Tensor,
    size: Any,
    interpolation: str = "bilinear",
    antialias: bool = False,
    flip: tf.Tensor | None = None,
) -> tf.Tensor:
    """Resizes uint8 `(H, W, 3)` to uint8 `(*size, 3)`: rounded to nearest, clipped to 0-255.

    If the bool `flip` is true, left and right are swapped.
    """
    ops = native.load()
    if ops is not None and interpolation == "bilinear" and not antialias:
        result = ops.convoy_resize(image, size, False if flip is None else flip)
        result.set_shape(tf.TensorShape(tf.get_static_value(size)).concatenate([3]))
        return result
    if interpolation == "nearest":
        result = tf.image.resize(image, size, interpolation)
    else:
        result = tf.image.resize(image, size, interpolation, antialias=antialias)
        result = _to_bytes(result, interpolation)
    if flip is not None:
        result = tf.cond(flip, lambda: tf.reverse(result, [1]), lambda: result)
    return result


def _to_bytes(image: tf.Tensor, interpolation: str) -> tf.Tensor:
    if interpolation not in ("bilinear", "area"):  # these two cannot overshoot
        image = tf.clip_by_value(image, 0.0, 255.0)
    return tf.cast(tf.round(image), tf.uint8)


def is_large(frame: tf.Tensor, size: int) -> tf.Tensor:
    """Returns whether a frame is too long and thin to compute all of it for one square.

    Args:
        frame: int64 `(2,)`, height and width.
        size: side of the square.

    Returns:
        bool scalar.
    """
    bound = max(FRAME_PIXELS, 3 * size * size)
    # Floats, since the sides of a thin picture's frame can have products beyond 64 bits.
    return tf.reduce_prod(tf.cast(frame, tf.float64)) > float(bound)


def resize_square(
    image: tf.Tensor,
    frame: tf.Tensor,
    start: tf.Tensor,
    size: int,
    interpolation: str = "bilinear",
    antialias: bool = False,
) -> tf.Tensor:
    """Resizes uint8 `(H, W, 3)` to `frame`, and returns the square of `size` at `start`.

    Memory does not grow with the frame: of a large frame it computes only the square, from the part
    of the image that the filter reaches, at the same sampling points as in the whole frame.

    Args:
        image: uint8 `(H, W, 3)`.
        frame: int64 `(2,)`, height and width.
        start: int64 `(2,)`, y and x.
        size: side of the square.
        interpolation: one of `interpolations.INTERPOLATIONS`.
        antialias: filter with wider support when shrinking, as `tf.image.resize` does.

    Returns:
        uint8 `(size, size, 3)`.
    """

    def whole() -> tf.Tensor:
        place = tf.concat([tf.cast(start, tf.int32), [0]], 0)
        resized = resize(image, tf.cast(frame, tf.int32), interpolation, antialias)
        return tf.slice(resized, place, [size, size, 3])

    def part() -> tf.Tensor:
        return _resize_part(image, frame, start, size, interpolation, antialias)

    long = tf.reduce_max(tf.shape(image)) > LONGEST_SIDE
    result = tf.cond(is_large(frame, size) | long, part, whole)
    result.set_shape([size, size, 3])
    return result


def _resize_part(
    image: tf.Tensor,
    frame: tf.Tensor,
    start: tf.Tensor,
    size: int,
    interpolation: str,
    antialias: bool,
) -> tf.Tensor:
    shape = tf.cast(tf.shape(image)[:2], tf.float64)
    scale = tf.cast(frame, tf.float64) / shape
    first = tf.cast(start, tf.float64)  # all positions in float64: thin pictures are long
    if interpolation == "nearest":
        offsets = (tf.range(size, dtype=tf.float64) + 0.5)[None]
        places = tf.floor((first[:, None] + offsets) / scale[:, None])
        rows, columns = tf.unstack(tf.cast(tf.minimum(places, shape[:, None] - 1), tf.int32))
        return tf.gather(tf.gather(image, rows, axis=0), columns, axis=1)
    kernel, radius = KERNELS.get(interpolation, ("", 1))
    # When shrinking with antialias, the filter is stretched and reaches further by the same factor.
    reach = radius * (tf.maximum(1 / scale, 1.0) if antialias else 1.0) + 1
    begin = tf.maximum(tf.floor(first / scale - reach), 0.0)
    end = tf.minimum(tf.math.ceil((first + size) / scale + reach), shape)
    begin_end = tf.cast(tf.stack([begin, end]), tf.int32)
    part = image[begin_end[0, 0] : begin_end[1, 0], begin_end[0, 1] : begin_end[1, 1]]
    if interpolation == "area":
        rows, columns = (
            _shares(begin[i], tf.shape(part)[i], first[i], scale[i], size) for i in (0, 1)
        )
        shrunk = tf.tensordot(rows, tf.cast(part, tf.float32), [[1], [0]])
        result = tf.transpose(tf.tensordot(columns, shrunk, [[1], [1]]), [1, 0, 2])
    else:
        (result,) = tf.unstack(
            tf.raw_ops.ScaleAndTranslate(
                images=part[None],
                size=[size, size],
                scale=tf.cast(scale, tf.float32),
                translation=tf.cast(begin * scale - first, tf.float32),
                kernel_type=kernel,
                antialias=antialias,
            ),
            1,
        )
    return _to_bytes(result, interpolation)


def _shares(
    begin: tf.Tensor, count: tf.Tensor, first: tf.Tensor, scale: tf.Tensor, size: int
) -> tf.Tensor:
    """Returns what each of `count` pixels from `begin` contributes to `size` ones from `first`.

    The contribution is the area they share: float32 `(size, count)`, each row sums to 1.
    """
    lower = (first + tf.range(size, dtype=tf.float64))[:, None] / scale
    pixel = begin + tf.cast(tf.range(count), tf.float64)[None]
    common = tf.minimum(lower + 1 / scale, pixel + 1) - tf.maximum(lower, pixel)
    return tf.cast(tf.maximum(common, 0.0) * scale, tf.float32)
