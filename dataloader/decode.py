"""From an encoded image to a uint8 square: random-resized crops in training, else centre crops.

JPEGs are decoded only where the crop is (`decode_and_crop_jpeg`); other formats are decoded whole.

The DCT is INTEGER_ACCURATE: with libjpeg-turbo's vector code it costs no measurable time over
INTEGER_FAST, and it is what Pillow, OpenCV and DALI's CPU decoder compute, so pixels can be
compared.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from convoy.dataloader import native, philox

INTERPOLATIONS = (
    *("bilinear", "bicubic", "nearest", "area"),
    *("lanczos3", "lanczos5", "gaussian", "mitchellcubic"),
)
CROP_ATTEMPTS = 10
# Area, ratio, y and x of each attempt; the flip; which of two interpolations.
UNIFORMS = 4 * CROP_ATTEMPTS + 2
RANDOM = "random"
# Larger images are refused before memory is taken for them: decoded, this many pixels are 268 MB a
# thread. The bound is Pillow's `Image.MAX_IMAGE_PIXELS`.
MAX_PIXELS = 89_478_485
DCT = "INTEGER_ACCURATE"
_GREY_PALETTE = b"".join(bytes([i, i, i, 0]) for i in range(256))


def check_interpolation(name: str) -> str:
    """Returns `name`, or raises ValueError listing the names there are."""
    if name not in INTERPOLATIONS:
        raise ValueError(f"interpolation {name!r} is not one of {', '.join(INTERPOLATIONS)}.")
    return name


@dataclass(frozen=True)
class EvalCrop:
    """How evaluation and predict cut an `N` x `N` square out of an image.

    Attributes:
        padding: pixels; how much of the border is left out. 0 uses the whole short side.
        method: "crop" (EfficientNet): cut the centre square of side
            `floor(N / (N + padding) * min(H, W))`, then resize it to N. "resize" (ResNet,
            torchvision): resize the short side to `N + padding`, keeping the aspect, then cut the
            centre N x N.
        interpolation: one of `INTERPOLATIONS`.
        antialias: filter when shrinking, as Pillow does.
    """

    padding: int = 32
    method: str = "crop"
    interpolation: str = "bilinear"
    antialias: bool = False

    def __post_init__(self):
        if isinstance(self.padding, bool) or not isinstance(self.padding, int) or self.padding < 0:
            raise ValueError(f"eval crop padding must be 0 or more pixels, got {self.padding!r}.")
        if self.method not in ("crop", "resize"):
            raise ValueError(f"eval crop method must be 'crop' or 'resize', got {self.method!r}.")
        check_interpolation(self.interpolation)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON and YAML."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EvalCrop:
        """The inverse of `to_dict`. Raises ValueError on an unknown key or value."""
        unknown = set(values) - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise ValueError(f"eval crop has no setting {', '.join(sorted(unknown))}.")
        return cls(**values)


def _is_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    return tf.equal(tf.strings.substr(encoded, 0, 2), b"\xff\xd8")


def _check_size(height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Passes the height on; the error reads like those of TensorFlow's own decoders."""
    few = tf.cast(height, tf.int64) * tf.cast(width, tf.int64) <= MAX_PIXELS
    message = f"more than {MAX_PIXELS} pixels: shrink it with dataloader.prepare --resize_short"
    with tf.control_dependencies([tf.debugging.Assert(few, [message, height, width])]):
        return tf.identity(height)


def _check_header(encoded: tf.Tensor) -> tf.Tensor:
    """Passes a PNG, BMP or GIF on if its header's size is allowed and TensorFlow reads it right."""
    # Filled up with zeros, so that a stub fails the checks below and not the reading.
    header = tf.strings.join([tf.strings.substr(encoded, 0, 1078), bytes(1078)])

    def numbers(position, dtype, count=2, little=True):
        part = tf.strings.substr(header, position, count * dtype.size)
        return tf.unstack(tf.io.decode_raw(part, dtype, little)[:count], count)

    def png():
        width, height = numbers(16, tf.int32, little=False)
        return _check_size(height, width)

    def bmp():
        width, height = numbers(18, tf.int32)
        (bits,) = numbers(28, tf.uint16, 1)
        # 8-bit pixels are taken for grey levels, whatever the palette says.
        grey = tf.equal(tf.strings.substr(header, 54, 1024), _GREY_PALETTE)
        known = tf.debugging.Assert((bits > 8) | grey, ["a BMP with a palette: re-encode it"])
        with tf.control_dependencies([known]):
            return _check_size(tf.abs(height), width)

    def gif():
        width, height = numbers(6, tf.uint16)
        return _check_size(tf.cast(height, tf.int32), tf.cast(width, tf.int32))

    start = tf.strings.substr(header, 0, 2)
    cases = [(tf.equal(start, b"\x89P"), png), (tf.equal(start, b"BM"), bmp)]
    cases += [(tf.equal(start, b"GI"), gif)]
    with tf.control_dependencies([tf.case(cases, default=lambda: tf.constant(0))]):
        return tf.identity(encoded)


def _decode_other(encoded: tf.Tensor) -> tf.Tensor:
    return tf.io.decode_image(_check_header(encoded), channels=3, expand_animations=False)


def decode_image(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes a JPEG, PNG, BMP or GIF (first frame).

    Args:
        encoded: scalar string.

    Returns:
        uint8 `(H, W, 3)`.

    Raises:
        tf.errors.InvalidArgumentError: the bytes are none of these, or damaged.
    """

    def jpeg():
        height, width, _ = tf.unstack(tf.io.extract_jpeg_shape(encoded), 3)
        with tf.control_dependencies([_check_size(height, width)]):
            return tf.io.decode_jpeg(encoded, channels=3, dct_method=DCT)

    image = tf.cond(_is_jpeg(encoded), jpeg, lambda: _decode_other(encoded))
    image.set_shape([None, None, 3])
    return image


def as_rgb(encoded: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Bytes that any decoder turns into the pixels of `decode_image`, and their int32 `(2,)` shape.

    Grey and three-colour JPEGs stay what they are. All else (CMYK, palettes, 16 bits, transparency,
    where decoders go separate ways) is decoded here and becomes an uncompressed RGB PNG.

    Raises:
        tf.errors.InvalidArgumentError: as `decode_image`, but damage inside of JPEGs goes unseen.
    """

    def decoded():
        image = decode_image(encoded)
        return tf.io.encode_png(image, compression=0), tf.shape(image)[:2]

    def jpeg():
        height, width, channels = tf.unstack(tf.io.extract_jpeg_shape(encoded), 3)
        shape = tf.stack([_check_size(height, width), width])
        return tf.cond(channels <= 3, lambda: (encoded, shape), decoded)

    return tf.cond(_is_jpeg(encoded), jpeg, decoded)


def _decode_window(encoded: tf.Tensor, window_of) -> tf.Tensor:
    """Decodes the part `window_of(int32 (2,) height and width) -> int32 (4,) y, x, h, w`."""

    def jpeg():
        height, width, _ = tf.unstack(tf.io.extract_jpeg_shape(encoded), 3)
        window = window_of(tf.stack([_check_size(height, width), width]))
        return tf.image.decode_and_crop_jpeg(encoded, window, channels=3, dct_method=DCT)

    def other():
        image = _decode_other(encoded)
        window = window_of(tf.shape(image)[:2])
        return tf.slice(image, tf.concat([window[:2], [0]], 0), tf.concat([window[2:], [3]], 0))

    image = tf.cond(_is_jpeg(encoded), jpeg, other)
    image.set_shape([None, None, 3])
    return image


def resize(
    image: tf.Tensor,
    size: Any,
    interpolation: str = "bilinear",
    antialias: bool = False,
    flip: tf.Tensor | None = None,
) -> tf.Tensor:
    """Resizes uint8 `(H, W, 3)` to uint8 `(*size, 3)`: rounded to nearest, clipped to 0-255.

    Where the bool `flip` is true, left and right change places.
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
        if interpolation not in ("bilinear", "area"):  # these two cannot overshoot
            result = tf.clip_by_value(result, 0.0, 255.0)
        result = tf.cast(tf.round(result), tf.uint8)
    if flip is not None:
        result = tf.cond(flip, lambda: tf.reverse(result, [1]), lambda: result)
    return result


def crop_window(
    shape: tf.Tensor,
    uniforms: tf.Tensor,
    area: tuple[float, float],
    ratio: tuple[float, float],
) -> tf.Tensor:
    """The random-resized crop (Szegedy et al. 2015), with torchvision's distribution.

    Ten attempts draw an area uniformly and an aspect ratio log-uniformly; the first that fits the
    image wins. If none does, the largest centre crop with an allowed aspect ratio is taken.

    Args:
        shape: int32 `(2,)`, height and width.
        uniforms: float32 `(UNIFORMS,)` in [0, 1).
        area: least and greatest share of the image's area.
        ratio: least and greatest width / height.

    Returns:
        int32 `(4,)`: y, x, height, width.
    """
    logs = math.log(ratio[0]) / 2, math.log(ratio[1]) / 2
    drawn = tf.reshape(uniforms[: 4 * CROP_ATTEMPTS], [4, CROP_ATTEMPTS])
    spread = np.array([[area[1] - area[0]], [logs[1] - logs[0]]], np.float32)
    lowest = np.array([[area[0]], [logs[0]]], np.float32)
    areas, half_log_ratios = tf.unstack(drawn[:2] * spread + lowest)
    # The exponential is TensorFlow's in both versions: libraries differ in the last bit.
    stretch = tf.exp([[-1.0], [1.0]] * half_log_ratios)
    limits = [1 / ratio[0], ratio[1]]
    ops = native.load()
    if ops is not None:
        window = ops.convoy_crop_window(shape, areas, stretch, drawn[2:], limits)
        window.set_shape([4])
        return window

    # Height and width run together as rows: each op costs a few µs beside a decode of some hundred.
    shape = tf.cast(shape, tf.float32)
    sides = tf.sqrt(areas * tf.reduce_prod(shape)) * stretch
    # Past the last attempt stands the fallback, so that one argmax picks the winner.
    fallback = tf.minimum(shape, shape[::-1] * limits)
    sides = tf.maximum(tf.round(tf.concat([sides, fallback[:, None]], 1)), 1.0)
    fits = tf.reduce_all(sides <= shape[:, None], axis=0)
    winner = tf.argmax(fits, output_type=tf.int32)
    sides = tf.gather(sides, winner, axis=1)
    room = shape - sides
    place = tf.gather(tf.pad(drawn[2:], [[0, 0], [0, 1]], constant_values=0.5), winner, axis=1)
    # A float32 product can round up to the bound that the uniform itself stays below.
    start = tf.minimum(tf.floor(place * (room + 1)), room)
    return tf.cast(tf.concat([start, sides], 0), tf.int32)


def flips(uniforms: tf.Tensor, probability: float) -> tf.Tensor:
    """Whether the image whose `(UNIFORMS,)` these are is flipped: bool scalar."""
    return uniforms[-2] < probability


def first_interpolation(uniforms: tf.Tensor) -> tf.Tensor:
    """Whether `RANDOM` means bilinear, not bicubic, for the image of these: bool scalar."""
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
) -> tf.Tensor:
    """A random-resized crop, flipped left to right with probability `hflip`.

    Args:
        encoded: scalar string, a JPEG, PNG, BMP or GIF.
        seed: int32 `(2,)`; the crop and the flip are functions of it alone.
        size: pixels, of the square that comes out.
        interpolation: one of `INTERPOLATIONS`, or `RANDOM`: bilinear or bicubic, as often.

    Returns:
        uint8 `(size, size, 3)`.

    Raises:
        tf.errors.InvalidArgumentError: the bytes cannot be decoded.
    """
    uniforms = philox.uniforms([UNIFORMS], seed)
    image = _decode_window(encoded, lambda shape: crop_window(shape, uniforms, area, ratio))
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
    """Decodes for evaluation and predict as `crop` says.

    Args:
        encoded: scalar string, a JPEG, PNG, BMP or GIF.
        size: pixels, of the square that comes out.

    Returns:
        uint8 `(size, size, 3)`.

    Raises:
        tf.errors.InvalidArgumentError: the bytes cannot be decoded.
    """
    if crop.method == "resize":
        image = decode_image(encoded)
        resized, start = eval_frame(tf.shape(image)[:2], size, crop)
        image = resize(image, resized, crop.interpolation, crop.antialias)
        image = tf.slice(image, tf.concat([start, [0]], 0), [size, size, 3])
    else:
        image = _decode_window(encoded, lambda shape: eval_window(shape, size, crop))
        image = resize(image, [size, size], crop.interpolation, crop.antialias)
    image.set_shape([size, size, 3])
    return image


def eval_window(shape: tf.Tensor, size: int, crop: EvalCrop) -> tf.Tensor:
    """The part that method "crop" cuts out before it resizes.

    Args:
        shape: int32 `(2,)`, height and width of the image.
        size: pixels, of the square that comes out.

    Returns:
        int32 `(4,)`: y, x, height, width.
    """
    side = tf.maximum(tf.reduce_min(shape) * size // (size + crop.padding), 1)
    start = (shape - side + 1) // 2
    return tf.concat([start, [side, side]], 0)


def eval_frame(shape: tf.Tensor, size: int, crop: EvalCrop) -> tuple[tf.Tensor, tf.Tensor]:
    """What method "resize" resizes a whole image to, and where its square then begins.

    Args:
        shape: int32 `(2,)`, height and width of the image.
        size: pixels, of the square that comes out.

    Returns:
        int32 `(2,)` height and width, and int32 `(2,)` y and x.
    """
    # Integer floor division: exact where float32 would lose a pixel.
    resized = shape * (size + crop.padding) // tf.reduce_min(shape)
    # Half to even, as Python's round() in torchvision's CenterCrop.
    return resized, tf.cast(tf.round(tf.cast(resized - size, tf.float32) / 2), tf.int32)
