"""Implements AutoAugment and RandAugment as usual in TensorFlow, as a baseline.

It uses float32 images, operations from `tf.image` and similar, and one `tf.switch_case` per step.
The table of sub-policies and the meaning of levels come from `dataloader.augment.policies`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import tensorflow as tf

from convoy.dataloader.augment import policies

SIGNED = ("Rotate", "ShearX", "ShearY", "TranslateX", "TranslateY")


def _blend(first: tf.Tensor | float, second: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(first + factor * (second - first), 0.0, 255.0)


def _transform(image: tf.Tensor, coefficients: Sequence[tf.Tensor | float]) -> tf.Tensor:
    coefficients = [tf.cast(value, tf.float32) for value in (*coefficients, 0.0, 0.0)]
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=image[tf.newaxis],
        transforms=tf.stack(coefficients)[tf.newaxis],
        output_shape=tf.shape(image)[:2],
        fill_value=128.0,
        interpolation="NEAREST",
        fill_mode="CONSTANT",
    )[0]


def _rotate(image: tf.Tensor, degrees: tf.Tensor) -> tf.Tensor:
    angle = degrees * math.pi / 180.0
    cos, sin = tf.cos(angle), tf.sin(angle)
    size = tf.cast(tf.shape(image), tf.float32) - 1.0
    y, x = size[0] / 2.0, size[1] / 2.0
    return _transform(image, (cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y))


def _shear_x(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    return _transform(image, (1.0, factor, 0.0, 0.0, 1.0, 0.0))


def _shear_y(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    return _transform(image, (1.0, 0.0, 0.0, factor, 1.0, 0.0))


def _translate_x(image: tf.Tensor, pixels: tf.Tensor) -> tf.Tensor:
    return _transform(image, (1.0, 0.0, pixels, 0.0, 1.0, 0.0))


def _translate_y(image: tf.Tensor, pixels: tf.Tensor) -> tf.Tensor:
    return _transform(image, (1.0, 0.0, 0.0, 0.0, 1.0, pixels))


def _color(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    return _blend(tf.image.rgb_to_grayscale(image), image, factor)


def _contrast(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    return _blend(tf.reduce_mean(tf.image.rgb_to_grayscale(image)), image, factor)


def _brightness(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    return _blend(0.0, image, factor)


def _sharpness(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    kernel = tf.constant([[1.0, 1.0, 1.0], [1.0, 5.0, 1.0], [1.0, 1.0, 1.0]]) / 13.0
    kernel = tf.tile(kernel[:, :, tf.newaxis, tf.newaxis], [1, 1, 3, 1])
    smooth = tf.nn.depthwise_conv2d(image[tf.newaxis], kernel, [1, 1, 1, 1], "VALID")[0]
    inner = tf.pad(tf.ones_like(smooth), [[1, 1], [1, 1], [0, 0]])
    smooth = tf.pad(smooth, [[1, 1], [1, 1], [0, 0]])
    return _blend(tf.where(inner > 0, smooth, image), image, factor)


def _posterize(image: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    step = tf.pow(2.0, 8.0 - bits)
    return tf.floor(image / step) * step


def _solarize(image: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
    return tf.where(image < threshold, image, 255.0 - image)


def _solarize_add(image: tf.Tensor, addition: tf.Tensor) -> tf.Tensor:
    return tf.where(image < 128.0, tf.minimum(image + addition, 255.0), image)


def _auto_contrast(image: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    low, high = tf.reduce_min(image, axis=[0, 1]), tf.reduce_max(image, axis=[0, 1])
    scaled = (image - low) * 255.0 / tf.maximum(high - low, 1.0)
    return tf.where(high > low, scaled, image)


def _equalize_channel(channel: tf.Tensor) -> tf.Tensor:
    levels = tf.cast(channel, tf.int32)
    histogram = tf.histogram_fixed_width(levels, [0, 255], nbins=256)
    used = tf.boolean_mask(histogram, histogram > 0)
    step = (tf.reduce_sum(used) - used[-1]) // 255
    table = (tf.cumsum(histogram, exclusive=True) + step // 2) // tf.maximum(step, 1)
    return tf.cond(
        step > 0,
        lambda: tf.cast(tf.gather(tf.minimum(table, 255), levels), tf.float32),
        lambda: channel,
    )


def _equalize(image: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    return tf.stack([_equalize_channel(image[..., c]) for c in range(3)], axis=-1)


def _invert(image: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
    return 255.0 - image


BRANCHES = {
    "Rotate": _rotate,
    "ShearX": _shear_x,
    "ShearY": _shear_y,
    "TranslateX": _translate_x,
    "TranslateY": _translate_y,
    "Color": _color,
    "Contrast": _contrast,
    "Brightness": _brightness,
    "Sharpness": _sharpness,
    "Posterize": _posterize,
    "Solarize": _solarize,
    "SolarizeAdd": _solarize_add,
    "AutoContrast": _auto_contrast,
    "Equalize": _equalize,
    "Invert": _invert,
}


def autoaugment(image: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Augments float32 `(H, W, 3)` in 0–255 with the policy "v0"; `seed` is int32 `(2,)`."""
    names = list(BRANCHES)
    table = policies.get_policy("v0")
    ops = tf.constant([[names.index(step.op) for step in sub] for sub in table])
    chances = tf.constant([[step.probability for step in sub] for sub in table])
    arguments = tf.constant([[policies.argument(s.op, s.level) for s in sub] for sub in table])

    chosen = tf.random.stateless_uniform([], seed, 0, len(table), tf.int32)
    uniforms = tf.random.stateless_uniform([2, 2], seed)
    for step in range(2):
        op, argument = ops[chosen, step], arguments[chosen, step]
        image = tf.cond(
            uniforms[step, 1] < chances[chosen, step],
            functools.partial(_apply, image, op, argument, uniforms[step, 0]),
            lambda image=image: image,
        )
    return image


def randaugment(image: tf.Tensor, seed: tf.Tensor, steps: int = 2, level: float = 10) -> tf.Tensor:
    """Augments float32 `(H, W, 3)` in 0–255 with `steps` operations; `seed` is int32 `(2,)`.

    Each step draws one of the operations (all but Cutout) or none, with equal probability.
    """
    constant = policies.RANDAUGMENT_TRANSLATE_CONST
    arguments = [policies.argument(op, level, translate_const=constant) for op in BRANCHES]
    chosen = tf.random.stateless_uniform([steps], seed, 0, len(arguments) + 1, tf.int32)
    uniforms = tf.random.stateless_uniform([steps], seed)
    for step in range(steps):
        op = tf.minimum(chosen[step], len(arguments) - 1)
        image = tf.cond(
            chosen[step] < len(arguments),
            functools.partial(_apply, image, op, tf.constant(arguments)[op], uniforms[step]),
            lambda image=image: image,
        )
    return image


def _apply(image: tf.Tensor, op: tf.Tensor, argument: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
    """Applies operation number `op`. Signed operations negate the argument if `uniform` < 0.5."""
    signed = tf.constant([name in SIGNED for name in BRANCHES])
    argument = tf.where(signed[op] & (uniform < 0.5), -argument, argument)
    return tf.switch_case(op, [lambda f=f: f(image, argument) for f in BRANCHES.values()])
