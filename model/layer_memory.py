"""Says what each layer keeps for its gradient, and which memory it and its gradient take.

The facts are those of the operations that `model.layers` and TensorFlow run. They are plain
numbers: nothing is computed, and no memory is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras

from convoy.model import native
from convoy.model.layers import Excite, Fork, Squeeze
from convoy.model.resnet import GroupedConv2D
from convoy.model.stochastic_depth import StochasticDepth
from convoy.model.sync_batch_norm import SyncBatchNorm

_BY_OUTPUT = ("relu", "relu6", "sigmoid", "tanh")
"""Activations whose gradient reads their output, and which can overwrite their input."""
_SCALES = (keras.layers.Dropout, StochasticDepth)
"""Layers that multiply by few random numbers, which is all that their gradient needs."""


@dataclass(frozen=True)
class Uses:
    """What one call of a layer does with memory, as multiples of tensors.

    Attributes:
        inputs: whether its gradient reads each input.
        outputs: whether its gradient reads the outputs.
        hidden: values that it keeps besides, as a multiple of the first output; they are made
            before the output.
        copies: whether what it keeps is a copy of the first input, not that itself.
        alias: whether each output is the first input's memory.
        in_place: whether the output takes the place of an input that nothing else needs.
        in_place_back: the same for the gradients of output and first input.
        over_input: whether the first input's gradient takes the place of that input, if nothing
            else needs it.
        passes_back: whether the inputs' gradients are that of the output, in the same memory.
        scratch: what it takes while it runs, as multiples of the first input and output.
        scratch_back: the same for its gradient.
    """

    inputs: tuple[bool, ...] = (False,)
    outputs: bool = False
    hidden: float = 0.0
    copies: bool = False
    alias: bool = False
    in_place: bool = False
    in_place_back: bool = False
    over_input: bool = False
    passes_back: bool = False
    scratch: tuple[float, float] = (0.0, 0.0)
    scratch_back: tuple[float, float] = (0.0, 0.0)


def uses(layer: Any, inputs: int, natively: bool, gpu: bool = False) -> Uses:
    """Returns what a layer does with memory in training.

    Args:
        layer: a layer or operation of a functional model.
        inputs: number of its inputs.
        natively: whether it uses `model.native`.
        gpu: whether it runs on a GPU.
    """
    first = (True,) + (False,) * (inputs - 1)
    if isinstance(layer, GroupedConv2D) and layer.groups > 1 and not gpu:
        # Its chunks' inputs and outputs are copies.
        return Uses(first, copies=True, scratch=(0.0, 1.0), scratch_back=(1.0, 1.0))
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return Uses(first, over_input=natively)
    if isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
        return Uses(first)
    if isinstance(layer, keras.layers.BatchNormalization):
        return _norm(layer, inputs, natively)
    if isinstance(layer, Excite):
        both = (True, True)
        return Uses(both, in_place_back=True) if natively else Uses(both, scratch_back=(1.0, 0.0))
    if isinstance(layer, Squeeze):
        again = (0.0, 0.0) if natively else (1.0, 0.0)
        return Uses(alias=True, in_place_back=True, scratch_back=again)
    if isinstance(layer, Fork):
        return Uses(alias=True, in_place_back=True)
    if isinstance(layer, keras.layers.MaxPooling2D):
        return Uses(first, outputs=True)
    if isinstance(layer, keras.layers.Activation):
        return _activation(_name(layer))
    if isinstance(layer, _SCALES):
        return Uses(in_place=True, in_place_back=True)
    if isinstance(layer, keras.layers.Add):
        return Uses((False,) * inputs, in_place=True, passes_back=True)
    return Uses((False,) * inputs)  # padding, means, reordered axes, normalised images


def _norm(layer: Any, inputs: int, natively: bool) -> Uses:
    """Returns a batch norm's, with its activation and the sum with a shortcut."""
    name = _name(layer)
    synced = isinstance(layer, SyncBatchNorm)
    if natively and not synced:
        if name in native.ACTIVATIONS:
            return Uses((True,) * inputs, in_place_back=True)
        after = _activation(name)
        return Uses((True,) * inputs, after.outputs, float(after.inputs[0]), in_place_back=True)
    hidden = 0.0 if name == "linear" else float(_activation(name).inputs[0])
    reads = _activation(name).outputs if name != "linear" else False
    first = (True,) + (False,) * (inputs - 1)
    if synced:  # composed from small operations: it keeps the normalised values
        return Uses(
            (False,) * inputs, reads, hidden + 1.0, scratch=(1.0, 0.0), scratch_back=(1.0, 1.0)
        )
    return Uses(first, reads, hidden, scratch_back=(0.0, 0.0 if reads else hidden))


def _activation(name: str) -> Uses:
    if name == "linear":
        return Uses(alias=True, passes_back=True)
    if name in _BY_OUTPUT:
        return Uses(outputs=True, in_place=True, in_place_back=True)
    return Uses((True,), scratch_back=(0.0, 2.0))


def _name(layer: Any) -> str:
    return getattr(getattr(layer, "activation", None), "__name__", "linear")
