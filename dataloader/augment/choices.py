"""Draws what to do to an image from uniform random numbers: AutoAugment, RandAugment, jitter.

A draw only looks uniforms up in tables made from `dataloader.augment.policies`, over any leading
dimensions: for one image in tf.data, or for a whole batch at once. `dataloader.augment.augmenter`
applies the choices.

Sources: AutoAugment, arXiv:1805.09501; RandAugment, arXiv:1909.13719; TrivialAugment,
arXiv:2103.10158; colour jitter, torchvision's `ColorJitter`.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from convoy.dataloader.augment import policies


class Choice(NamedTuple):
    """What to do to an image, step by step. The leading dimensions (…) are those of the uniforms.

    Attributes:
        ops: int32 (…, steps), indices into `policies.OPS`; a skipped step is Identity.
        arguments: float64 (…, steps), with their signs.
        centres: float32 (…, steps, 2), Cutout's centre (y, x) as a share of height and width.
    """

    ops: tf.Tensor
    arguments: tf.Tensor
    centres: tf.Tensor


_IDENTITY = policies.OPS.index(policies.IDENTITY)


def concatenate(choices: Sequence[Choice]) -> Choice:
    """Joins choices with equal leading dimensions into one with all their steps in order."""
    if len(choices) == 1:
        return choices[0]
    ops, arguments, centres = zip(*choices, strict=True)
    return Choice(tf.concat(ops, -1), tf.concat(arguments, -1), tf.concat(centres, -2))


def _index(uniforms: tf.Tensor, count: int) -> tf.Tensor:
    """Converts float32 uniforms in [0, 1) to int32 from 0 to count − 1, all equally likely."""
    # The largest float32 below 1 times a count may round up to it.
    return tf.minimum(tf.cast(tf.floor(uniforms * count), tf.int32), count - 1)


def autoaugment_uniforms(policy: policies.Policy) -> int:
    """Returns the number of uniforms that `autoaugment_choice` takes for an image.

    Raises:
        ValueError: the sub-policies differ in length.
    """
    lengths = {len(sub_policy) for sub_policy in policy}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            "An AutoAugment policy needs sub-policies of one and the same length; pad short ones "
            f"with Step('{policies.IDENTITY}', 1.0, 0). Lengths found: {sorted(lengths)}."
        )
    return 1 + 4 * lengths.pop()


def autoaugment_choice(
    uniforms: tf.Tensor,
    policy: str | policies.Policy = "v0",
    *,
    translate_const: float = policies.AUTOAUGMENT_TRANSLATE_CONST,
    cutout_const: float = policies.AUTOAUGMENT_CUTOUT_CONST,
) -> Choice:
    """Chooses a sub-policy uniformly, then applies each step with its own probability and sign.

    Args:
        uniforms: float32 (…, 1 + 4·steps) in [0, 1): the sub-policy, then per step whether to apply
            it, its sign, and Cutout's centre (y, x).
        policy: a name for `policies.get_policy`, or a policy.
        translate_const: pixels of translation at level 10.
        cutout_const: pixels of Cutout's half side at level 10.

    Raises:
        ValueError: the policy is unknown, or its sub-policies differ in length.
    """
    sub_policies = policies.get_policy(policy) if isinstance(policy, str) else policy
    steps = (autoaugment_uniforms(sub_policies) - 1) // 4

    def argument(step: policies.Step, negative: bool) -> float:
        constants = {"translate_const": translate_const, "cutout_const": cutout_const}
        return policies.argument(
            step.op, step.level, ranges=step.ranges, negative=negative, **constants
        )

    op_table = tf.constant([[policies.OPS.index(s.op) for s in sub] for sub in sub_policies])
    probability_table = tf.constant(
        [[s.probability for s in sub] for sub in sub_policies], tf.float32
    )
    argument_table = tf.constant(
        [[[argument(s, sign) for sign in (False, True)] for s in sub] for sub in sub_policies],
        tf.float64,
    )
    index = _index(uniforms[..., 0], len(sub_policies))
    per_step = tf.reshape(
        uniforms[..., 1:], tf.concat([tf.shape(uniforms)[:-1], [steps, 4]], axis=0)
    )
    per_step.set_shape([*uniforms.shape[:-1], steps, 4])
    applied = per_step[..., 0] < tf.gather(probability_table, index)
    both_signs = tf.gather(argument_table, index)
    arguments = tf.where(per_step[..., 1] < 0.5, both_signs[..., 1], both_signs[..., 0])
    return Choice(
        tf.where(applied, tf.gather(op_table, index), _IDENTITY),
        tf.where(applied, arguments, 0.0),
        per_step[..., 2:],
    )


SPACE_UNIFORMS = 6
"""Number of uniforms that `space_choice` takes per layer."""


@functools.lru_cache(maxsize=16)
def _space_table(
    space: policies.Space, levels: tuple[float, ...], translate_const: float, cutout_const: float
) -> np.ndarray:
    """Returns the arguments of each operation, level and sign: float64 (ops · levels · 2,)."""
    constants = {"translate_const": translate_const, "cutout_const": cutout_const}
    return np.array(
        [
            policies.argument(op, level, ranges=space.ranges, negative=negative, **constants)
            for op in space.ops
            for level in levels
            for negative in (False, True)
        ],
        np.float64,
    )


def space_choice(
    uniforms: tf.Tensor,
    space: policies.Space,
    levels: Sequence[float],
    *,
    translate_const: float,
    cutout_const: float = policies.RANDAUGMENT_CUTOUT_CONST,
) -> Choice:
    """Chooses an operation, its level and its sign uniformly for each layer.

    RandAugment uses `policies.randaugment_levels`; TrivialAugment is one layer of its own space
    with `policies.TRIVIALAUGMENT_LEVELS`.

    Args:
        uniforms: float32 (…, layers, 6) in [0, 1): the operation, whether to apply it, its level,
            its sign, Cutout's centre (y, x).
        space: the operations to draw from.
        levels: equally likely levels.
        translate_const: pixels of translation at level 10.
        cutout_const: pixels of Cutout's half side at level 10.
    """
    table = tf.constant(_space_table(space, tuple(levels), translate_const, cutout_const))
    drawn = _index(uniforms[..., 0], len(space.ops))
    ops = tf.gather(tf.constant([policies.OPS.index(op) for op in space.ops]), drawn)
    level = _index(uniforms[..., 2], len(levels))
    negative = tf.cast(uniforms[..., 3] < 0.5, tf.int32)
    arguments = tf.gather(table, (drawn * len(levels) + level) * 2 + negative)
    if space.probability < 1:
        applied = uniforms[..., 1] < space.probability
        ops, arguments = tf.where(applied, ops, _IDENTITY), tf.where(applied, arguments, 0.0)
    return Choice(ops, arguments, uniforms[..., 4:])


JITTER_OPS = ("Brightness", "Contrast", "Color", policies.HUE)
JITTER_UNIFORMS = 1 + len(JITTER_OPS)
"""Number of uniforms that `jitter_choice` takes for an image."""


def jitter_choice(uniforms: tf.Tensor, strengths: Sequence[float]) -> Choice:
    """Chooses the factors of brightness, contrast, saturation and hue, and their order.

    Args:
        uniforms: float32 (…, 5) in [0, 1): the order, then the four factors.
        strengths: from `policies.jitter_strengths`. A factor is uniform in [max(0, 1 − s), 1 + s],
            hue's in [−s, s]. Operations of strength 0 are left out.
    """
    used = [i for i, strength in enumerate(strengths) if strength]
    bounds = tf.constant(
        [
            (-s, s) if op == policies.HUE else (max(0.0, 1.0 - s), 1.0 + s)
            for op, s in zip(JITTER_OPS, strengths, strict=True)
        ],
        tf.float64,
    )
    low, high = bounds[:, 0], bounds[:, 1]
    factors = low + (high - low) * tf.cast(uniforms[..., 1:], tf.float64)
    orders = tf.constant(list(itertools.permutations(used)))
    order = tf.gather(orders, _index(uniforms[..., 0], orders.shape[0]))
    numbers = tf.constant([policies.OPS.index(op) for op in JITTER_OPS])
    arguments = tf.gather(factors, order, axis=-1, batch_dims=len(uniforms.shape) - 1)
    centres = tf.zeros(tf.concat([tf.shape(order), [2]], axis=0))
    return Choice(tf.gather(numbers, order), arguments, centres)
