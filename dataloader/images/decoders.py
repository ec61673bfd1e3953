"""Decodes whole images and parts of them in a graph.

TensorFlow decodes JPEG and PNG; it decodes parts only of JPEGs. Pillow decodes the other kinds
(`by_pillow`). The DCT is usually INTEGER_ACCURATE: with libjpeg-turbo's vector code it is as fast
as INTEGER_FAST, and Pillow, OpenCV and DALI's CPU decoder compute the same, so pixels can be
compared.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from convoy.dataloader import native
from convoy.dataloader.images import by_pillow
from convoy.dataloader.images.by_pillow import MAX_PIXELS
from convoy.dataloader.images.orientation import orientation, stored_window, upright, upright_shape

ACCURATE, FAST = "INTEGER_ACCURATE", "INTEGER_FAST"
"""libjpeg's two ways to compute a DCT in integers. `FAST` is TensorFlow's default."""
# The JPEG segment that defines the meaning of four colours: inverted CMYK.
_ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64" + bytes(5)
_GREY_PALETTE = b"".join(bytes([i, i, i, 0]) for i in range(256))

_without_pillow = 0

native.hush_libjpeg()


@contextlib.contextmanager
def tensorflow_only() -> Iterator[None]:
    """Makes code traced or run inside decode only with TensorFlow, as an exported model must.

    It decodes JPEG, PNG, BMP without a palette, and GIF, whose transparent pixels are black.
    """
    global _without_pillow
    _without_pillow += 1
    try:
        yield
    finally:
        _without_pillow -= 1


def _is_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    return tf.equal(tf.strings.substr(encoded, 0, 3), b"\xff\xd8\xff")


def _with_marker(encoded: tf.Tensor, channels: tf.Tensor) -> tf.Tensor:
    """Puts Adobe's marker in front of a JPEG with four channels; returns others unchanged.

    Without a marker TensorFlow reads CMYK as not inverted; Pillow, OpenCV and browsers read all
    CMYK as inverted. The file's own marker, if any, comes later and wins.
    """

    def marked() -> tf.Tensor:
        rest = tf.strings.substr(encoded, 2, tf.strings.length(encoded) - 2)
        return tf.strings.join([b"\xff\xd8" + _ADOBE, rest])

    return tf.cond(tf.equal(channels, 4), marked, lambda: encoded)


def _is_png(encoded: tf.Tensor) -> tf.Tensor:
    return tf.equal(tf.strings.substr(encoded, 0, 4), b"\x89PNG")


def _check_size(height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Returns the height if the size is allowed; fails like TensorFlow's decoders otherwise."""
    few = tf.cast(height, tf.int64) * tf.cast(width, tf.int64) <= MAX_PIXELS
    message = f"more than {MAX_PIXELS} pixels: shrink it with dataloader.prepare --resize_short"
    with tf.control_dependencies([tf.debugging.Assert(few, [message, height, width])]):
        return tf.identity(height)


def _check_header(encoded: tf.Tensor) -> tf.Tensor:
    """Returns a PNG, BMP or GIF if its size is allowed and TensorFlow reads it correctly.

    Refuses all other kinds: TensorFlow's newer decoders (from 2.19 on WebP, in 2.21 JPEG XL) are
    bound by no size, and none of them is in every version.
    """
    # Pad with zeros, so that a very short file fails the checks below and not the slicing.
    header = tf.strings.join([tf.strings.substr(encoded, 0, 1078), bytes(1078)])

    def numbers(
        position: int, dtype: tf.DType, count: int = 2, little: bool = True
    ) -> list[tf.Tensor]:
        part = tf.strings.substr(header, position, count * dtype.size)
        return tf.unstack(tf.io.decode_raw(part, dtype, little)[:count], count)

    def png() -> tf.Tensor:
        width, height = numbers(16, tf.int32, little=False)
        return _check_size(height, width)

    def bmp() -> tf.Tensor:
        width, height = numbers(18, tf.int32)
        (bits,) = numbers(28, tf.uint16, 1)
        # TensorFlow takes 8-bit pixels as grey levels, whatever the palette says.
        grey = tf.equal(tf.strings.substr(header, 54, 1024), _GREY_PALETTE)
        known = tf.debugging.Assert((bits > 8) | grey, ["a BMP with a palette: re-encode it"])
        with tf.control_dependencies([known]):
            return _check_size(tf.abs(height), width)

    def gif() -> tf.Tensor:
        width, height = numbers(6, tf.uint16)
        return _check_size(tf.cast(height, tf.int32), tf.cast(width, tf.int32))

    def other() -> tf.Tensor:
        known = tf.debugging.Assert(False, ["neither JPEG, PNG, BMP nor GIF: re-encode it"])
        with tf.control_dependencies([known]):
            return tf.constant(0)

    start = tf.strings.substr(header, 0, 2)
    cases = [(tf.equal(start, b"\x89P"), png), (tf.equal(start, b"BM"), bmp)]
    cases += [(tf.equal(start, b"GI"), gif)]
    with tf.control_dependencies([tf.case(cases, default=other)]):
        return tf.identity(encoded)


def _turned(image: tf.Tensor, encoded: tf.Tensor) -> tf.Tensor:
    alone = bool(_without_pillow)
    return upright(image, orientation(encoded, alone), alone)


def _decode_other(encoded: tf.Tensor, turn: bool) -> tf.Tensor:
    def by_tensorflow() -> tf.Tensor:
        image = tf.io.decode_image(_check_header(encoded), channels=3, expand_animations=False)
        return _turned(image, encoded) if turn else image

    if _without_pillow:
        return by_tensorflow()
    return tf.cond(_is_png(encoded), by_tensorflow, lambda: _by_pillow(encoded, turn))


def _by_pillow(encoded: tf.Tensor, turn: bool) -> tf.Tensor:
    if tf.executing_eagerly():  # otherwise the Python function's own error would come out
        try:
            return tf.constant(by_pillow.decode(encoded.numpy(), turn))
        except by_pillow.BadImage as error:
            raise tf.errors.InvalidArgumentError(None, None, str(error)) from error

    def decode(content: bytes | np.ndarray) -> np.ndarray:
        content = content if isinstance(content, bytes) else content.item()
        return by_pillow.decode(content, turn)

    return tf.numpy_function(decode, [encoded], tf.uint8, stateful=False)


def decode_image(encoded: tf.Tensor, turn: bool = False) -> tf.Tensor:
    """Decodes a JPEG or PNG, or with Pillow a BMP, GIF (first frame), WebP, TIFF or AVIF.

    Args:
        encoded: scalar string.
        turn: apply EXIF's orientation (`dataloader.images.orientation`).

    Returns:
        uint8 `(H, W, 3)`.

    Raises:
        tf.errors.InvalidArgumentError: the bytes are none of these, or damaged.
    """

    def jpeg() -> tf.Tensor:
        height, width, channels = tf.unstack(tf.io.extract_jpeg_shape(encoded), 3)
        with tf.control_dependencies([_check_size(height, width)]):
            marked = _with_marker(encoded, channels)
            image = tf.io.decode_jpeg(marked, channels=3, dct_method=ACCURATE)
            return _turned(image, encoded) if turn else image

    image = tf.cond(_is_jpeg(encoded), jpeg, lambda: _decode_other(encoded, turn))
    image.set_shape([None, None, 3])
    return image


def as_rgb(encoded: tf.Tensor, turn: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns bytes that any decoder turns into the pixels of `decode_image`, and their shape.

    The shape is int32 `(2,)`.

    Grey and three-colour JPEGs stay unchanged. Everything that decoders treat differently (CMYK,
    palettes, 16 bits, transparency; with `turn` also images with an EXIF turn) is decoded here and
    becomes an uncompressed RGB PNG.

    Raises:
        tf.errors.InvalidArgumentError: as in `decode_image`, but damage inside JPEGs is not
            noticed.
    """

    def decoded() -> tuple[tf.Tensor, tf.Tensor]:
        image = decode_image(encoded, turn)
        return tf.io.encode_png(image, compression=0), tf.shape(image)[:2]

    def jpeg() -> tuple[tf.Tensor, tf.Tensor]:
        height, width, channels = tf.unstack(tf.io.extract_jpeg_shape(encoded), 3)
        shape = tf.stack([_check_size(height, width), width])
        stays = channels <= 3
        if turn:
            stays &= tf.equal(orientation(encoded), 1)
        return tf.cond(stays, lambda: (encoded, shape), decoded)

    return tf.cond(_is_jpeg(encoded), jpeg, decoded)


def _jpeg_window(
    encoded: tf.Tensor, window: tf.Tensor, width: tf.Tensor | None, dct: str
) -> tf.Tensor:
    """Decodes a part of a JPEG; with the image's width, one column more on each side."""
    if width is None:
        return tf.image.decode_and_crop_jpeg(encoded, window, channels=3, dct_method=dct)
    y, x, h, w = tf.unstack(window)
    left, right = tf.minimum(x, 1), tf.minimum(width - x - w, 1)
    wider = tf.stack([y, x - left, h, left + w + right])
    image = tf.image.decode_and_crop_jpeg(encoded, wider, channels=3, dct_method=dct)
    return image[:, left : left + w]


def decode_window(
    encoded: tf.Tensor,
    window_of: Callable[[tf.Tensor], tf.Tensor],
    turn: bool = False,
    exact: bool = False,
    dct: str = ACCURATE,
) -> tf.Tensor:
    """Decodes a part of an image, uint8 `(h, w, 3)`.

    Args:
        encoded: scalar string, a picture of a supported kind.
        window_of: maps the image's int32 `(2,)` height and width to int32 `(4,)` y, x, h, w; both
            refer to the turned image.
        turn: as for `decode_image`.
        exact: return the pixels that the whole image has. Otherwise the colours of a JPEG's first
            and last column are those of an image that ends there, a few levels off.
        dct: for JPEGs, `ACCURATE` or `FAST`.
    """

    def jpeg() -> tf.Tensor:
        height, width, channels = tf.unstack(tf.io.extract_jpeg_shape(encoded), 3)
        shape = tf.stack([_check_size(height, width), width])

        if turn:
            number = orientation(encoded, bool(_without_pillow))
            window = window_of(upright_shape(shape, number))
            window = stored_window(window, shape, number)
        else:
            window = window_of(shape)
        marked, wide = _with_marker(encoded, channels), shape[1] if exact else None
        image = _jpeg_window(marked, window, wide, dct)
        return upright(image, number, bool(_without_pillow)) if turn else image

    def other() -> tf.Tensor:
        image = _decode_other(encoded, turn)
        image.set_shape([None, None, 3])
        window = window_of(tf.shape(image)[:2])
        return tf.slice(image, tf.concat([window[:2], [0]], 0), tf.concat([window[2:], [3]], 0))

    image = tf.cond(_is_jpeg(encoded), jpeg, other)
    image.set_shape([None, None, 3])
    return image
