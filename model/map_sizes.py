"""Counts the numbers in a model's activations, from the shapes in its graph."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import keras

_Sides: TypeAlias = tuple[int | None, ...]
_RESIZING = (
    keras.layers.Conv2D,
    keras.layers.DepthwiseConv2D,
    keras.layers.MaxPooling2D,
    keras.layers.AveragePooling2D,
    keras.layers.ZeroPadding2D,
)
"""Layers whose output may have another height and width than their input."""


def map_sizes(
    model: keras.Model, nodes: Iterable[Any], image_size: int | None = None
) -> dict[int, int]:
    """Counts the numbers that operations return for one image.

    Args:
        model: a functional model.
        nodes: its Keras nodes, in the order to compute them.
        image_size: side of the images, for a model of any size.

    Returns:
        By the ids of symbolic tensors.
    """
    found: dict[int, int] = {}
    sides: dict[int, _Sides] = {id(model.inputs[0]): (image_size, image_size)}
    for node in nodes:
        for tensor in node.outputs:
            sides[id(tensor)] = own = _sides(node, tensor, sides[id(node.input_tensors[0])])
            found[id(tensor)] = _values(tensor.shape, own)
    return found


def _sides(node: Any, tensor: Any, before: _Sides) -> _Sides:
    """Returns height and width of a tensor in a model of any image size."""
    operation, shape = node.operation, tensor.shape
    if None not in shape[1:] or not isinstance(operation, _RESIZING):
        return before
    first = getattr(operation, "data_format", "") == "channels_first"
    given = list(node.input_tensors[0].shape)
    place = slice(2, 4) if first else slice(1, 3)
    given[place] = before
    return tuple(operation.compute_output_shape(tuple(given))[place])


def _values(shape: Sequence[int | None], sides: _Sides) -> int:
    """Returns the numbers in a tensor for one image."""
    rest = iter(sides)
    known = [next(rest) if side is None else side for side in shape[1:]]
    return math.prod(side or 0 for side in known)
