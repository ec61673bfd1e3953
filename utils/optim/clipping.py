"""Clips gradients: by global norm, by value, and adaptively by unit.

Each function takes gradients that are unscaled, averaged over ranks and finite. All work in a
`tf.function`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

AGC_EPSILON = 1e-3
"""Lower bound for a unit's weight norm (Brock et al. 2021, section 4.1)."""


def global_norm(gradients: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns the Euclidean norm of all gradients together, float32 scalar."""
    return tf.linalg.global_norm([tf.cast(g, tf.float32) for g in gradients])


def clip_by_global_norm(gradients: Sequence[tf.Tensor], limit: float) -> list[tf.Tensor]:
    """Scales all gradients by `limit / norm` if their global norm is above `limit`.

    Pascanu et al. 2013, arXiv:1211.5063.
    """
    factor = limit / tf.maximum(global_norm(gradients), limit)
    return [g * tf.cast(factor, g.dtype) for g in gradients]


def clip_by_value(gradients: Sequence[tf.Tensor], limit: float) -> list[tf.Tensor]:
    """Clips every number to `[-limit, limit]`."""
    return [tf.clip_by_value(g, -limit, limit) for g in gradients]


def clip_adaptively(
    gradients: Sequence[tf.Tensor], variables: Sequence[Any], limit: float
) -> list[tf.Tensor]:
    """Limits each unit's gradient norm to `limit` times its weight norm (AGC).

    Brock et al. 2021, arXiv:2102.06171, section 4. A unit is one output channel of a convolution,
    or a whole vector. As in the paper, the classifier (a kernel of two dimensions, and its bias) is
    not clipped.

    Args:
        gradients: float tensors.
        variables: Keras variables, in the same order.
        limit: λ; 0.01 to 0.16 in the paper, smaller for larger batches.
    """
    heads = {_layer(v) for v in variables if len(v.shape) == 2}
    return [
        g if _layer(v) in heads else _clip_unit(g, v.value, limit)
        for g, v in zip(gradients, variables, strict=True)
    ]


def _layer(variable: Any) -> str:
    return variable.path.rsplit("/", 1)[0]


def _clip_unit(gradient: tf.Tensor, weight: tf.Tensor, limit: float) -> tf.Tensor:
    axes = _unit_axes(weight.shape)
    weight_norm, norm = (
        tf.sqrt(tf.reduce_sum(tf.square(x), axis=axes, keepdims=True)) for x in (weight, gradient)
    )
    most = limit * tf.maximum(weight_norm, AGC_EPSILON)
    return gradient * tf.where(norm > most, most / norm, 1.0)


def _unit_axes(shape: tf.TensorShape) -> list[int]:
    """Returns the axes for a unit's norm."""
    if shape.rank < 4:
        return list(range(shape.rank))
    # A depthwise kernel is (k, k, channels, 1): its channels are on the third axis.
    return [0, 1, 3] if shape[-1] == 1 else [0, 1, 2]
