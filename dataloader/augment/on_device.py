"""Augments and mixes a whole batch on the training device, inside the compiled step.

The host draws what to do (`dataloader.augment.device_plan`); this module does it, with the same
bytes as `dataloader.augment.operations` and Pillow. All images go through all possible operations
of a step, and each keeps the result of its own: shapes are static, nothing branches, and XLA can
compile it.

There are few kinds of operations: a gather with coefficients per image (geometry), a look-up in a
table per image (for functions of a pixel's value, after statistics where needed), a blend with a
grey or a smoothed image, and a rectangle. A step has code only for the kinds that it can draw.
"""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from convoy.dataloader import philox
from convoy.dataloader.augment import erasing, operations, policies
from convoy.dataloader.augment.augmenter import Recipe
from convoy.dataloader.augment.device_plan import Plan, Planned
from convoy.dataloader.augment.mixing import Mixture, mix_images
from convoy.utils.machine import xla

_GEOMETRY = frozenset({"Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY"})
_BLENDS = frozenset({"Color", "Sharpness"})
_LOOKED_UP = frozenset(
    {"AutoContrast", "Equalize", "Invert", "Posterize", "Solarize", "SolarizeAdd"}
    | {"Contrast", "Brightness"}
)

Exact = Callable[[tf.Tensor], tf.Tensor]


def opaque(zero: tf.Tensor) -> Exact:
    """Returns a function that passes floating-point numbers through and forces their rounding.

    On CPUs and GPUs, XLA compiles a · b + c to one instruction that rounds once (a "fused
    multiply-add"), but the host rounds twice; and it turns division by a constant into a product.
    It cannot do so with a number whose bits were combined with an integer that it does not know.

    Args:
        zero: int32 scalar 0 from outside the compiled function.
    """

    def exact(values: tf.Tensor) -> tf.Tensor:
        kind = tf.int32 if values.dtype == tf.float32 else tf.int64
        bits = tf.bitwise.bitwise_xor(tf.bitcast(values, kind), tf.cast(zero, kind))
        return tf.bitcast(bits, values.dtype)

    return exact


def make_prepare(
    recipe: Recipe, mixing: frozenset[str] = frozenset(), *, compiled: bool | None = None
) -> Callable[[Planned], tf.Tensor]:
    """Returns `prepare(planned) -> images` for the batches that a `device_plan.Planner` plans.

    Images are uint8 (B, H, W, 3), or float32 in 0–255 with mixing: the same bytes as from a loader
    that augments on the host.

    Args:
        recipe: from `augmenter.make_augmenter`.
        mixing: a mixer's `methods`.
        compiled: compile with XLA. None: if there is a GPU, because there many of TensorFlow's own
            integer operations run on the host. Inside a compiled function it is always compiled.
    """
    if compiled is None:
        compiled = bool(tf.config.list_physical_devices("GPU"))

    def prepare(planned: Planned) -> tf.Tensor:
        images, plan = planned
        exact = opaque(plan.zero)
        for number, ops in enumerate(recipe.steps):
            images = _step(images, plan, number, ops, exact)
        if recipe.erasing:
            images = _erase(images, plan, recipe.erasing_mode)
        if mixing:
            shares, boxes = "mixup" in mixing, "cutmix" in mixing
            mixture = Mixture(plan.shares if shares else None, plan.boxes if boxes else None, None)
            # `exact` also keeps the result apart from what follows: otherwise TensorFlow would fuse
            # the mixing's sums with the model's first layer, and round otherwise.
            images = exact(mix_images(images, mixture, exact))
        return images

    return xla.function(prepare, compiled)


def _step(
    images: tf.Tensor, plan: Plan, number: int, ops: frozenset[str], exact: Exact
) -> tf.Tensor:
    """Applies one step to each image: one of `ops`, or none.

    The order of operations does not matter, as an image has only one.
    """
    drawn = plan.ops[:, number]
    factors, levels = plan.factors[:, number], plan.levels[:, number]

    def is_op(op: str) -> tf.Tensor:
        return (drawn == policies.OPS.index(op))[:, tf.newaxis, tf.newaxis, tf.newaxis]

    if ops & _LOOKED_UP:
        images = _look_up(images, _tables(images, drawn, factors, levels, ops, exact))
    if ops & _BLENDS:
        is_blend = (is_op("Color") | is_op("Sharpness"))[:, 0, 0, 0]
        factors = tf.where(is_blend, factors, 1.0)
        smooth = _smooth(images) if "Sharpness" in ops else None
        grey = _grey(images)[..., tf.newaxis] if "Color" in ops else smooth
        other = grey if smooth is None else tf.where(is_op("Sharpness"), smooth, grey)
        images = _blend(other, images, factors[:, tf.newaxis, tf.newaxis, tf.newaxis], exact)
    if ops & _GEOMETRY:
        images = _move(images, plan.affine[:, number])
    if "Cutout" in ops:
        top, left, bottom, right = tf.unstack(plan.holes[:, number], axis=-1)
        hole = _rectangle(images, top, left, bottom, right)
        images = tf.where(hole[..., tf.newaxis], tf.constant(policies.FILL, tf.uint8), images)
    if policies.HUE in ops:
        turned = operations.turn_hues(images, levels[:, tf.newaxis, tf.newaxis], exact)
        images = tf.where(is_op(policies.HUE), turned, images)
    return images


def _size(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    shape = tf.shape(images)
    return shape[1], shape[2]


# --- geometry and rectangles --------------------------------------------------------------------


def _move(images: tf.Tensor, coefficients: tf.Tensor) -> tf.Tensor:
    """Does what `operations._affine` does, with int32 (B, 6) coefficients per image."""
    height, width = _size(images)
    a, b, c, d, e, f = (
        value[:, tf.newaxis, tf.newaxis] for value in tf.unstack(coefficients, axis=-1)
    )
    x, y = tf.range(width), tf.range(height)[:, tf.newaxis]
    source_x = tf.bitwise.right_shift(a * x + (b * y + c), 16)
    source_y = tf.bitwise.right_shift(d * x + (e * y + f), 16)
    inside = (source_x >= 0) & (source_x < width) & (source_y >= 0) & (source_y < height)
    first = tf.range(tf.shape(images)[0])[:, tf.newaxis, tf.newaxis] * (height * width)
    index = tf.where(inside, first + source_y * width + source_x, 0)
    moved = tf.gather(tf.reshape(images, [-1, 3]), index)
    return tf.where(inside[..., tf.newaxis], moved, tf.constant(policies.FILL, tf.uint8))


def _rectangle(
    images: tf.Tensor, top: tf.Tensor, left: tf.Tensor, bottom: tf.Tensor, right: tf.Tensor
) -> tf.Tensor:
    """Returns bool (B, H, W), True from top and left (B,) up to, but without, bottom and right."""
    height, width = _size(images)
    y, x = tf.range(height), tf.range(width)
    top, left, bottom, right = (side[:, tf.newaxis] for side in (top, left, bottom, right))
    rows, columns = (y >= top) & (y < bottom), (x >= left) & (x < right)
    return rows[:, :, tf.newaxis] & columns[:, tf.newaxis, :]


def _erase(images: tf.Tensor, plan: Plan, mode: str) -> tf.Tensor:
    """Erases at random, as `erasing.fill_box` and `erasing.box_contents` do."""
    top, left, height, width = tf.unstack(plan.erased, axis=-1)
    hole = _rectangle(images, top, left, top + height, left + width)
    contents = tf.constant(erasing.COLOUR, tf.uint8)
    if mode == "noise":
        rows, columns = _size(images)
        y, x = tf.range(rows)[:, tf.newaxis], tf.range(columns)
        top, left, width = (v[:, tf.newaxis, tf.newaxis] for v in (top, left, width))
        number = tf.where(hole, (y - top) * width + (x - left), 0)
        noise = plan.noise[:, tf.newaxis, tf.newaxis]
        drawn = philox.blocks(noise[..., :2], noise[..., 2:], tf.cast(number, tf.uint32))
        contents = erasing.noise_of_bits(tf.stack(drawn[:3], axis=-1))
    return tf.where(hole[..., tf.newaxis], contents, images)


# --- blends -------------------------------------------------------------------------------------


def _grey(images: tf.Tensor) -> tf.Tensor:
    """Does `Image.convert("L")`: float32 (B, H, W). Sums of whole numbers below 2^24 are exact."""
    red, green, blue = tf.unstack(tf.cast(images, tf.float32), axis=-1)
    total = red * 19595.0 + green * 38470.0 + blue * 7471.0 + 32768.0
    return tf.floor(total / 65536.0)


def _smooth(images: tf.Tensor) -> tf.Tensor:
    """Does `ImageFilter.SMOOTH`: float32 (B, H, W, 3). See `operations.sharpness`."""
    height, width = _size(images)
    pixels = tf.cast(images, tf.float32)
    padded = tf.pad(pixels, [[0, 0], [1, 1], [1, 1], [0, 0]])
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    box = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    # Thirteenths plus a half are at least 1/26 from a whole number: rounding cannot matter.
    smooth = tf.floor((box + 4.0 * pixels) / 13.0 + 0.5)
    one = tf.ones([1], tf.int32)
    inner = _rectangle(images, one, one, (height - 1) * one, (width - 1) * one)
    return tf.where(inner[..., tf.newaxis], smooth, pixels)


def _blend(other: tf.Tensor, values: tf.Tensor, factors: tf.Tensor, exact: Exact) -> tf.Tensor:
    """Does `Image.blend` of whole numbers: uint8. Factors of 1 return the values."""
    mixed = other + exact(factors * (tf.cast(values, tf.float32) - other))
    return tf.cast(tf.clip_by_value(mixed, 0.0, 255.0), tf.uint8)


# --- tables -------------------------------------------------------------------------------------


def _look_up(images: tf.Tensor, tables: tf.Tensor) -> tf.Tensor:
    """Replaces pixels by uint8 (B, 3, 256)."""
    return tf.gather(tf.reshape(tables, [-1]), _places(images))


def _places(images: tf.Tensor) -> tf.Tensor:
    """Returns each pixel's index into a flattened (B, 3, 256): int32 (B, H, W, 3)."""
    first = tf.range(tf.shape(images)[0])[:, tf.newaxis] * 768 + tf.constant([0, 256, 512])
    return tf.cast(images, tf.int32) + first[:, tf.newaxis, tf.newaxis]


def _tables(
    images: tf.Tensor,
    drawn: tf.Tensor,
    factors: tf.Tensor,
    levels: tf.Tensor,
    ops: frozenset[str],
    exact: Exact,
) -> tf.Tensor:
    """Returns a table from old to new values, uint8 (B, 3, 256); identity for other operations."""
    factors, levels = (part[:, tf.newaxis, tf.newaxis] for part in (factors, levels))
    values = tf.range(256)[tf.newaxis, tf.newaxis]
    inverted = 255 - values

    def posterized() -> tf.Tensor:
        dropped = 8 - tf.clip_by_value(levels, 1, 8)
        return tf.bitwise.bitwise_and(values, 256 - tf.bitwise.left_shift(1, dropped))

    def solarized_added() -> tf.Tensor:
        added = tf.minimum(values + tf.clip_by_value(levels, 0, 255), 255)
        return tf.where(values < 128, added, values)

    def contrasted() -> tf.Tensor:
        return _blend(_mean_grey(images)[:, tf.newaxis, tf.newaxis], values, factors, exact)

    made = {
        "Invert": lambda: inverted,
        "Posterize": posterized,
        "Solarize": lambda: tf.where(values >= levels, inverted, values),
        "SolarizeAdd": solarized_added,
        "Brightness": lambda: _blend(tf.zeros([]), values, factors, exact),
        "Contrast": contrasted,
        "AutoContrast": lambda: _stretched(images, exact),
        "Equalize": lambda: _equalized(images),
    }
    table = tf.tile(tf.cast(values, tf.uint8), [tf.shape(images)[0], 3, 1])
    for op in sorted(ops & _LOOKED_UP):
        chosen = (drawn == policies.OPS.index(op))[:, tf.newaxis, tf.newaxis]
        table = tf.where(chosen, tf.cast(made[op](), tf.uint8), table)
    return table


def _mean_grey(images: tf.Tensor) -> tf.Tensor:
    """Returns the mean of `operations.contrast`: float32 (B,).

    Sums fit int32 up to 2,900 pixels a side.
    """
    total = tf.reduce_sum(tf.cast(_grey(images), tf.int32), axis=[1, 2])
    height, width = _size(images)
    total, count = tf.cast(total, tf.int64), tf.cast(height * width, tf.int64)
    return tf.cast((2 * total + count) // (2 * count), tf.float32)


def _stretched(images: tf.Tensor, exact: Exact) -> tf.Tensor:
    """Returns `operations.auto_contrast` as a table, with its arithmetic: uint8 (B, 3, 256)."""
    low, high = (
        tf.cast(reduce(images, axis=[1, 2]), tf.float64)[..., tf.newaxis]
        for reduce in (tf.reduce_min, tf.reduce_max)
    )
    scale = 255.0 / tf.maximum(high - low, 1.0)
    offset = exact(-low * scale)
    values = tf.range(256, dtype=tf.float64)
    stretched = tf.where(high > low, exact(values * scale) + offset, values)
    return tf.cast(tf.clip_by_value(stretched, 0.0, 255.0), tf.uint8)


def _equalized(images: tf.Tensor) -> tf.Tensor:
    """Returns `operations.equalize` as a table: int32 (B, 3, 256)."""
    batch = tf.shape(images)[0]
    places = tf.reshape(_places(images), [-1])
    histogram = tf.math.unsorted_segment_sum(tf.ones_like(places), places, batch * 768)
    histogram = tf.reshape(histogram, [batch, 3, 256])
    levels = tf.range(256)
    brightest = tf.reduce_max(tf.where(histogram > 0, levels, 0), axis=-1, keepdims=True)
    last = tf.reduce_sum(tf.where(levels == brightest, histogram, 0), axis=-1, keepdims=True)
    step = (tf.reduce_sum(histogram, axis=-1, keepdims=True) - last) // 255
    divisor = tf.maximum(step, 1)
    spread = (divisor // 2 + tf.cumsum(histogram, axis=-1, exclusive=True)) // divisor
    return tf.where(step > 0, tf.minimum(spread, 255), levels)
