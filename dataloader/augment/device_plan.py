"""Plans a batch's augmentation for an accelerator: the host's draws as small arrays of numbers.

With `--augment_on device` the host only decodes, crops, resizes and flips. It still draws, with the
same functions as for its own augmentation, and does the few computations that need floating point
(angles, boxes, shares). The device, `dataloader.augment.on_device`, only applies a `Plan`:
integers, and products that it rounds as the host does. So the pixels are the same.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import tensorflow as tf

from convoy.dataloader import philox
from convoy.dataloader.augment import erasing, operations, policies
from convoy.dataloader.augment.augmenter import Augmenter, Recipe
from convoy.dataloader.augment.choices import Choice
from convoy.dataloader.augment.mixing import Mixer


class Plan(NamedTuple):
    """Instructions for each of B images, in S steps and three more; 52 bytes per step plus 60.

    Attributes:
        ops: int32 (B, S), indices into `policies.OPS`.
        factors: float32 (B, S), for operations that blend.
        levels: int32 (B, S): bits, thresholds, additions or the shift of hues.
        affine: int32 (B, S, 6), Pillow's 16.16 coefficients; the identity if nothing moves.
        holes: int32 (B, S, 4), Cutout's top, left, bottom, right.
        erased: int32 (B, 4), random erasing's top, left, height, width; all 0 for none.
        noise: uint32 (B, 6), start of the noise stream: key, then counter.
        shares: float32 (B,), weight of each image's own pixels when mixed.
        boxes: int32 (B, 4), CutMix's top, left, bottom, right.
        zero: int32, always 0, but unknown to the compiler; see `on_device.opaque`.
    """

    ops: tf.Tensor
    factors: tf.Tensor
    levels: tf.Tensor
    affine: tf.Tensor
    holes: tf.Tensor
    erased: tf.Tensor
    noise: tf.Tensor
    shares: tf.Tensor
    boxes: tf.Tensor
    zero: tf.Tensor


Steps: TypeAlias = tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]
"""The first five fields of a plan."""


class Planned(NamedTuple):
    """A batch's images before augmentation, uint8 (B, H, W, 3), and what to do to them."""

    images: tf.Tensor
    plan: Plan


class Draws(NamedTuple):
    """One example's random numbers; see the fields of `Plan`. `mix` is a seed, (2,)."""

    uniforms: tf.Tensor
    erased: tf.Tensor
    noise: tf.Tensor
    mix: tf.Tensor


class Planner:
    """Draws for single examples, and turns a batch's draws into a plan.

    Attributes:
        recipe: augmentation of each image.
        mixing: the methods in use: "mixup", "cutmix", both or neither.

    Args:
        augmenter: from `augmenter.make_augmenter`, or None.
        mixer: from `mixing.make_mixer`, or None.
        size: height and width of the images in pixels.
    """

    def __init__(self, augmenter: Augmenter | None, mixer: Mixer | None, size: int):
        self.recipe = Recipe() if augmenter is None else augmenter.recipe
        self.mixing: frozenset[str] = frozenset() if mixer is None else mixer.methods
        self._mixer, self._size = mixer, size

    def draw(self, augment_seed: tf.Tensor, mix_seed: tf.Tensor) -> Draws:
        """Returns the random numbers of one example, from its two int32 (2,) seeds."""
        recipe = self.recipe
        erased, noise = tf.zeros([4], tf.int32), tf.zeros([6], tf.uint32)
        if recipe.erasing:
            erased = erasing.draw_box(augment_seed, recipe.erasing, self._size, self._size)
            if recipe.erasing_mode == "noise":
                noise = tf.concat(philox.key_and_counter(erasing.noise_seed(augment_seed)), axis=0)
        uniforms = recipe.uniforms(augment_seed) if recipe.draws else tf.zeros([0])
        return Draws(uniforms, erased, noise, mix_seed)

    def plan(self, draws: Draws, labels: tf.Tensor, weights: tf.Tensor) -> tuple[Plan, tf.Tensor]:
        """Returns the plan of a batch, and its labels: with mixing, mixed float32 (B, classes).

        Args:
            draws: the stacked draws of B examples.
            labels: int32 (B,).
            weights: float32 (B,).
        """
        batch = tf.shape(labels)[0]
        shares, boxes = tf.ones_like(weights), tf.zeros([batch, 4], tf.int32)
        if self._mixer is not None:
            mixture = self._mixer.draw(labels, weights, draws.mix, self._size, self._size)
            shares = shares if mixture.shares is None else mixture.shares
            boxes = boxes if mixture.boxes is None else mixture.boxes
            labels = mixture.labels
        if self.recipe.draws:
            steps: Steps = planned_steps(self.recipe.choose(draws.uniforms), self._size, self._size)
        else:
            nothing = tf.zeros([batch, 0])
            whole = tf.cast(nothing, tf.int32)
            steps = whole, nothing, whole, whole[..., tf.newaxis], whole[..., tf.newaxis]
        zero = tf.zeros([], tf.int32)
        return Plan(*steps, draws.erased, draws.noise, shares, boxes, zero), labels


def planned_steps(choice: Choice, height: int, width: int) -> Steps:
    """Returns the first five fields of a plan, from a choice with leading dimension B."""
    arguments = choice.arguments

    def of(op: str, otherwise: float = 0.0) -> tf.Tensor:
        return tf.where(choice.ops == policies.OPS.index(op), arguments, otherwise)

    levels = tf.cast(tf.clip_by_value(arguments, -(2.0**30), 2.0**30), tf.int32)
    is_hue = choice.ops == policies.OPS.index(policies.HUE)
    levels = tf.where(is_hue, operations.hue_shift(arguments), levels)
    # For other operations this is a rotation by 0 degrees: the identity.
    a, b, c, d, e, f = operations.rotation(of("Rotate"), height, width)
    b, c = b + of("ShearX"), c + of("TranslateX")
    d, f = d + of("ShearY"), f + of("TranslateY")
    affine = tf.stack(operations.fixed_point((a, b, c, d, e, f)), axis=-1)
    size = tf.cast(tf.stack([height, width]), tf.float32)
    centres = tf.cast(tf.floor(choice.centres * size), tf.int32)
    half = tf.where(choice.ops == policies.OPS.index("Cutout"), levels, 0)[..., tf.newaxis]
    holes = tf.concat([centres - half, centres + half], axis=-1)
    return choice.ops, tf.cast(arguments, tf.float32), levels, affine, holes
