"""Implements the operations of AutoAugment, RandAugment and colour jitter on one uint8 image.

All are TensorFlow functions. Every operation takes and returns uint8 `(H, W, 3)` with values 0–255.
H and W may be unknown while tracing, and must not exceed 8192. An argument may be a Python number
or a scalar tensor.

Pillow is the reference (`tests/dataloader/augment/test_operations.py`): all operations, also the
geometric and the floating-point ones, give the same bytes.

Source: Pillow's `ImageOps`, `ImageEnhance`, `Image.transform` and `Image.rotate`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import tensorflow as tf

from convoy.dataloader.augment import policies

Scalar: TypeAlias = float | int | tf.Tensor
Coefficients = tuple[Scalar, Scalar, Scalar, Scalar, Scalar, Scalar]

# Three facts shape this code (TensorFlow 2.18, CPU). tf.where on uint8 takes several times as long
# as masking bits. Broadcasting over a last axis of length 3 takes several times as long as over
# rows of 3·W numbers. Looking single bytes up in a table takes longer than float64 arithmetic on
# them.


def _as_rows(image: tf.Tensor) -> tf.Tensor:
    """Reshapes (H, W, 3) to (H, 3·W)."""
    return tf.reshape(image, tf.stack([tf.shape(image)[0], 3 * tf.shape(image)[1]]))


def _as_image(rows: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
    """Undoes `_as_rows`, and restores the static shape."""
    result = tf.reshape(rows, tf.shape(image))
    result.set_shape(image.shape)
    return result


def _along_rows(per_channel: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
    """Repeats three numbers W times, to broadcast with the result of `_as_rows`."""
    return tf.tile(per_channel, tf.shape(image)[1:2])


def _bits_if(condition: tf.Tensor) -> tf.Tensor:
    """Converts True to uint8 255 and False to 0."""
    return tf.cast(condition, tf.uint8) * tf.constant(255, tf.uint8)


def _rectangle(rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Combines masks (H,) and (W,) into bool (H, 3·W)."""
    return rows[:, tf.newaxis] & tf.repeat(columns, 3)[tf.newaxis]


# --- geometry -----------------------------------------------------------------------------------


def fixed_point(coefficients: Coefficients) -> tuple[tf.Tensor, ...]:
    """Returns coefficients (a, b, c, d, e, f) for pixel centres as Pillow's 16.16: six int32."""
    a, b, c, d, e, f = (tf.cast(value, tf.float64) for value in coefficients)
    return tuple(
        # Clip at 2^14 pixels: this is outside any image, and sums cannot overflow int32.
        tf.cast(tf.floor(tf.clip_by_value(value, -16384.0, 16384.0) * 65536.0 + 0.5), tf.int32)
        for value in (a, b, c + 0.5 * (a + b), d, e, f + 0.5 * (d + e))
    )


def rotation(degrees: Scalar, height: Scalar, width: Scalar) -> Coefficients:
    """Returns the coefficients of a counter-clockwise rotation about the centre.

    They are float64, shaped like `degrees`.
    """
    centre_y, centre_x = (0.5 * tf.cast(side, tf.float64) for side in (height, width))
    angle = tf.cast(degrees, tf.float64) * (math.pi / 180.0)
    cos, sin = tf.cos(angle), tf.sin(angle)
    return (
        cos,
        -sin,
        centre_x - cos * centre_x + sin * centre_y,
        sin,
        cos,
        centre_y - sin * centre_x - cos * centre_y,
    )


def _affine(
    image: tf.Tensor, a: Scalar, b: Scalar, c: Scalar, d: Scalar, e: Scalar, f: Scalar
) -> tf.Tensor:
    """Sets output pixel (x, y) to the input pixel nearest to (ax + by + c, dx + ey + f).

    Coordinates are Pillow's: pixel i covers [i, i + 1) and is sampled at its centre i + 1/2. The
    16.16 fixed-point arithmetic is Pillow's too, so no pixel differs. One gather of whole pixels
    also takes 0.4 times as long as `ImageProjectiveTransformV3` does (224 px, one core).
    """
    a, b, c, d, e, f = fixed_point((a, b, c, d, e, f))
    shape = tf.shape(image)
    height, width = shape[0], shape[1]
    x, y = tf.range(width)[tf.newaxis], tf.range(height)[:, tf.newaxis]
    source_x = tf.bitwise.right_shift(a * x + (b * y + c), 16)
    source_y = tf.bitwise.right_shift(d * x + (e * y + f), 16)
    inside = (source_x >= 0) & (source_x < width) & (source_y >= 0) & (source_y < height)
    fill = tf.fill([1, 3], tf.constant(policies.FILL, tf.uint8))
    pixels = tf.concat([tf.reshape(image, [-1, 3]), fill], axis=0)
    result = tf.gather(pixels, tf.where(inside, source_y * width + source_x, height * width))
    result.set_shape(image.shape)
    return result


def rotate(image: tf.Tensor, degrees: Scalar) -> tf.Tensor:
    """Rotates counter-clockwise about the image's centre; keeps the size and fills with 128.

    Agrees with `Image.rotate(degrees, NEAREST, fillcolor=(128, 128, 128))`.
    """
    return _affine(image, *rotation(degrees, tf.shape(image)[0], tf.shape(image)[1]))


def shear_x(image: tf.Tensor, factor: Scalar) -> tf.Tensor:
    """Shifts row y left by `factor · y` px: `Image.transform` with (1, factor, 0, 0, 1, 0)."""
    return _affine(image, 1.0, factor, 0.0, 0.0, 1.0, 0.0)


def shear_y(image: tf.Tensor, factor: Scalar) -> tf.Tensor:
    """Shifts column x up by `factor · x` px: `Image.transform` with (1, 0, 0, factor, 1, 0)."""
    return _affine(image, 1.0, 0.0, 0.0, factor, 1.0, 0.0)


def translate_x(image: tf.Tensor, pixels: Scalar) -> tf.Tensor:
    """Shifts left by `pixels`: `Image.transform` with (1, 0, pixels, 0, 1, 0)."""
    return _affine(image, 1.0, 0.0, pixels, 0.0, 1.0, 0.0)


def translate_y(image: tf.Tensor, pixels: Scalar) -> tf.Tensor:
    """Shifts up by `pixels`: `Image.transform` with (1, 0, 0, 0, 1, pixels)."""
    return _affine(image, 1.0, 0.0, 0.0, 0.0, 1.0, pixels)


def cutout(image: tf.Tensor, half_side: Scalar, centre_y: Scalar, centre_x: Scalar) -> tf.Tensor:
    """Fills rows and columns [centre − half_side, centre + half_side) with 128, clipped.

    See DeVries and Taylor (arXiv:1708.04552). All arguments are whole pixels.
    """
    shape = tf.shape(image)
    half_side, centre_y, centre_x = (
        tf.cast(value, tf.int32) for value in (half_side, centre_y, centre_x)
    )
    y, x = tf.range(shape[0]), tf.range(shape[1])
    rows = (y >= centre_y - half_side) & (y < centre_y + half_side)
    columns = (x >= centre_x - half_side) & (x < centre_x + half_side)
    hole = _bits_if(_rectangle(rows, columns))
    kept = tf.bitwise.bitwise_and(_as_rows(image), tf.bitwise.invert(hole))
    fill = tf.bitwise.bitwise_and(hole, tf.constant(policies.FILL, tf.uint8))
    return _as_image(tf.bitwise.bitwise_or(kept, fill), image)


# --- ImageEnhance -------------------------------------------------------------------------------


def _blend(degenerate: tf.Tensor, image: tf.Tensor, factor: Scalar) -> tf.Tensor:
    """Does `Image.blend`: float32 arithmetic on whole numbers, clipped, fractions dropped."""
    factor = tf.cast(factor, tf.float32)
    mixed = degenerate + factor * (tf.cast(image, tf.float32) - degenerate)
    return tf.cast(tf.clip_by_value(mixed, 0.0, 255.0), tf.uint8)


def _grey(image: tf.Tensor) -> tf.Tensor:
    """Does `Image.convert("L")`: float32 (H, W).

    The weighted sums stay below 2^24, so they are exact.
    """
    red, green, blue = tf.unstack(tf.cast(image, tf.float32), axis=-1)
    total = red * 19595.0 + green * 38470.0 + blue * 7471.0 + 32768.0
    return tf.floor(total / 65536.0)


def color(image: tf.Tensor, factor: Scalar) -> tf.Tensor:
    """Does `ImageEnhance.Color`: 0 gives grey, 1 the image, above 1 stronger colours."""
    return _blend(_grey(image)[..., tf.newaxis], image, factor)


def contrast(image: tf.Tensor, factor: Scalar) -> tf.Tensor:
    """Does `ImageEnhance.Contrast`: 0 gives the image's mean grey, 1 the image."""
    grey = tf.cast(_grey(image), tf.int64)
    total, count = tf.reduce_sum(grey), tf.size(grey, out_type=tf.int64)
    # floor(mean + 1/2) in integers, so that no float32 sums over many pixels.
    mean = (2 * total + count) // (2 * tf.maximum(count, 1))
    return _blend(tf.cast(mean, tf.float32), image, factor)


def brightness(image: tf.Tensor, factor: Scalar) -> tf.Tensor:
    """Does `ImageEnhance.Brightness`: 0 gives black, 1 the image."""
    return _blend(tf.zeros([], tf.float32), image, factor)


def sharpness(image: tf.Tensor, factor: Scalar) -> tf.Tensor:
    """Does `ImageEnhance.Sharpness`: 0 gives a smoothed image, 1 the image, above 1 a sharper one.

    The smoothing is `ImageFilter.SMOOTH`: a 3×3 mean with weight 5 at the centre and 1 around it;
    the outermost pixels stay unchanged.
    """
    pixels = tf.cast(image, tf.float32)
    padded = tf.pad(pixels, [[1, 1], [1, 1], [0, 0]], mode="SYMMETRIC")
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    box = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    smooth = tf.floor((box + 4.0 * pixels) / 13.0 + 0.5)
    shape = tf.shape(image)
    y, x = tf.range(shape[0]), tf.range(shape[1])
    inner_rows, inner_columns = (y > 0) & (y < shape[0] - 1), (x > 0) & (x < shape[1] - 1)
    inner = _as_image(tf.cast(_rectangle(inner_rows, inner_columns), tf.float32), image)
    return _blend(pixels + inner * (smooth - pixels), image, factor)


# --- hue ----------------------------------------------------------------------------------------

# Pillow computes in float64 and stores results in float32 variables. These functions do the same:
# fractions are dropped, so a difference in the last bit would change a level.

Exact = Callable[[tf.Tensor], tf.Tensor]
"""Passes a number through and forces the compiler to round it: `on_device.opaque`."""


def _rgb_to_hsv(image: tf.Tensor, exact: Exact) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Does `Image.convert("HSV")`: three float64 (…) of whole numbers 0–255."""
    red, green, blue = tf.unstack(tf.cast(image, tf.float64), axis=-1)
    value = tf.maximum(red, tf.maximum(green, blue))
    chroma = value - tf.minimum(red, tf.minimum(green, blue))
    divisor = tf.maximum(chroma, 1.0)
    from_red, from_green, from_blue = (
        _float32((value - channel) / divisor, exact) for channel in (red, green, blue)
    )
    third = tf.where(green == value, 2.0 + from_red - from_blue, 4.0 + from_green - from_red)
    hue_sixths = _float32(tf.where(red == value, from_blue - from_green, third), exact)
    six = exact(tf.constant(6.0, tf.float64))  # division by a constant may become a product
    turned = _float32(tf.math.floormod(hue_sixths / six + 1.0, 1.0), exact)
    saturation = _float32(chroma / tf.maximum(value, 1.0), exact)
    hues = tf.where(chroma > 0, tf.floor(turned * 255.0), 0.0)
    return hues, tf.floor(saturation * 255.0), value


def _float32(values: tf.Tensor, exact: Exact) -> tf.Tensor:
    return tf.cast(exact(tf.cast(values, tf.float32)), tf.float64)


def _hsv_to_rgb(
    hues: tf.Tensor, saturation: tf.Tensor, value: tf.Tensor, exact: Exact
) -> tf.Tensor:
    """Does `Image.convert("RGB")` on the result of `_rgb_to_hsv`: uint8 (…, 3)."""
    most = exact(tf.constant(255.0, tf.float64))
    sixths = hues * 6.0 / most
    share = _float32(sixths - tf.floor(sixths), exact)
    strength = _float32(saturation / most, exact)

    def level(left: tf.Tensor) -> tf.Tensor:
        return tf.floor(exact(value * left) + 0.5)

    falling = level(1.0 - _float32(strength * share, exact))
    rising = level(1.0 - exact(strength * (1.0 - share)))
    least = level(1.0 - strength)
    corners = tf.cast(tf.stack([value, rising, least, falling], axis=-1), tf.uint8)
    # For each sixth of the circle, which of the four values red, green and blue take.
    table = tf.constant([[0, 1, 2], [3, 0, 2], [2, 0, 1], [2, 3, 0], [1, 2, 0], [0, 2, 3]])
    sector = tf.math.floormod(tf.cast(tf.floor(sixths), tf.int32), 6)
    return tf.gather(corners, tf.gather(table, sector), axis=-1, batch_dims=len(sector.shape))


def turn_hues(image: tf.Tensor, shift: tf.Tensor, exact: Exact = tf.identity) -> tf.Tensor:
    """Adds an int32 `shift`, which broadcasts, to the hues (0 to 255) of a uint8 (…, 3) image.

    It goes through Pillow's 8-bit HSV, so even a shift of 0 changes some pixels.
    """
    hues, saturation, value = _rgb_to_hsv(image, exact)
    hues = tf.math.floormod(hues + tf.cast(shift, tf.float64), 256.0)
    return _hsv_to_rgb(hues, saturation, value, exact)


def hue_shift(factor: Scalar) -> tf.Tensor:
    """Returns the shift for `turn_hues`, int32, from a fraction of the circle, −1/2 to 1/2."""
    return tf.cast(tf.cast(factor, tf.float64) * 255.0, tf.int32)  # fractions are dropped


def hue(image: tf.Tensor, factor: Scalar) -> tf.Tensor:
    """Does torchvision's `adjust_hue`: turns hues by a fraction of the circle, −1/2 to 1/2."""
    return turn_hues(image, hue_shift(factor))


# --- ImageOps -----------------------------------------------------------------------------------


def posterize(image: tf.Tensor, bits: Scalar) -> tf.Tensor:
    """Does `ImageOps.posterize`: keeps the `bits` highest bits, clamped to 1–8.

    With 0 bits Pillow returns a black image; `dataloader.augment.levels` says why we do not.
    """
    dropped = 8 - tf.clip_by_value(tf.cast(bits, tf.int32), 1, 8)
    mask = 256 - tf.bitwise.left_shift(1, dropped)
    return tf.bitwise.bitwise_and(image, tf.cast(mask, tf.uint8))


def solarize(image: tf.Tensor, threshold: Scalar) -> tf.Tensor:
    """Does `ImageOps.solarize`: inverts pixels at or above `threshold`; at 256, none."""
    # 256 does not fit into uint8: a cast would make it 0 and invert every pixel. "Above threshold −
    # 1" fits, except for thresholds up to 0, where every pixel qualifies.
    below = tf.cast(tf.clip_by_value(tf.cast(threshold, tf.int32) - 1, 0, 255), tf.uint8)
    inverted = (image > below) | (tf.cast(threshold, tf.int32) <= 0)
    return tf.bitwise.bitwise_xor(image, _bits_if(inverted))


def solarize_add(image: tf.Tensor, addition: Scalar, threshold: Scalar = 128) -> tf.Tensor:
    """Adds `addition`, at least 0, to pixels below `threshold`; the sum stops at 255."""
    addition = tf.cast(tf.clip_by_value(tf.cast(addition, tf.int32), 0, 255), tf.uint8)
    below = tf.cast(tf.clip_by_value(tf.cast(threshold, tf.int32), 0, 255), tf.uint8)
    # Limit the addition to the room above each pixel first: 8-bit sums would wrap.
    room = tf.minimum(255 - image, addition)
    return image + tf.bitwise.bitwise_and(room, _bits_if(image < below))


def auto_contrast(image: tf.Tensor) -> tf.Tensor:
    """Does `ImageOps.autocontrast`: stretches each channel's range to 0–255. Flat channels stay."""
    pixels = tf.reshape(image, [-1, 3])
    low = tf.cast(tf.reduce_min(pixels, axis=0), tf.float64)
    high = tf.cast(tf.reduce_max(pixels, axis=0), tf.float64)
    # Pillow's own formula and precision: fractions are dropped, so 1 ulp can change a level.
    scale = 255.0 / tf.maximum(high - low, 1.0)
    scale, offset = tf.where(high > low, scale, 1.0), tf.where(high > low, -low * scale, 0.0)
    rows = tf.cast(_as_rows(image), tf.float64)
    rows = rows * _along_rows(scale, image) + _along_rows(offset, image)
    return _as_image(tf.cast(tf.clip_by_value(rows, 0.0, 255.0), tf.uint8), image)


def equalize(image: tf.Tensor) -> tf.Tensor:
    """Does `ImageOps.equalize`: spreads each channel's histogram evenly. Flat channels stay."""
    channel_offsets = _along_rows(tf.constant([0, 256, 512]), image)
    indices = tf.reshape(tf.cast(_as_rows(image), tf.int32) + channel_offsets, [-1])
    histogram = tf.raw_ops.DenseBincount(
        input=indices, size=768, weights=tf.zeros([0], tf.int32), binary_output=False
    )
    histogram = tf.reshape(histogram, [3, 256])
    levels = tf.range(256)[tf.newaxis]
    brightest = tf.reduce_max(tf.where(histogram > 0, levels, 0), axis=1)
    last = tf.gather(histogram, brightest, axis=1, batch_dims=1)
    step = ((tf.reduce_sum(histogram, axis=1) - last) // 255)[:, tf.newaxis]
    divisor = tf.maximum(step, 1)
    spread = (divisor // 2 + tf.cumsum(histogram, axis=1, exclusive=True)) // divisor
    table = tf.cast(tf.where(step > 0, tf.minimum(spread, 255), levels), tf.uint8)
    return _as_image(tf.gather(tf.reshape(table, [768]), indices), image)


def invert(image: tf.Tensor) -> tf.Tensor:
    """Does `ImageOps.invert`: 255 minus each pixel."""
    return 255 - image
