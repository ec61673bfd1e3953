"""Trains with less memory: the backward pass computes activations again that were not kept.

See Chen et al. 2016 (arXiv:1604.06174). A segment (`model.segments`) keeps its inputs and drops
what lies inside. The second pass changes nothing: it gets the variables' values of before the first
one, so that seed generators draw the same numbers, and its updates of batch norm's statistics and
of seed generators are thrown away. Statistics of the batch and exchanges between ranks come from
the first pass (`model.replay`). The second pass of a whole block is itself run part by part in this
way, so that it does not keep all of the block's activations at once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import keras
import tensorflow as tf

from convoy.model import native
from convoy.model.replay import Memory
from convoy.model.segments import Segment, segments


class Recomputing:
    """Calls a model as `model(images, training=True)` does, for gradients with less memory.

    Results, gradients, batch norm's statistics and random numbers are those of the plain call.
    Batch norms, activations and gates are always computed again.

    Args:
        model: a functional model with one input and one output.
        whole: names of the blocks of which everything is computed again, convolutions too.
        compiled: whether XLA compiles the step.
    """

    def __init__(
        self, model: keras.Model, whole: Collection[str] = (), compiled: bool = False
    ) -> None:
        (self._input,), (self._output,) = model.inputs, model.outputs
        self._segments, self._compiled = segments(model, whole), compiled

    def __call__(self, images: Any) -> Any:
        """Returns the model's output for images."""
        found = _run(self._segments, {id(self._input): images}, self._compiled)
        return found[id(self._output)]


def _run(parts: Sequence[Segment], found: dict[int, Any], compiled: bool) -> dict[int, Any]:
    """Runs segments.

    Args:
        parts: in order.
        found: the values of the tensors that they need from others, by the tensors' ids.
        compiled: whether XLA compiles the step.

    Returns:
        `found`, with the segments' outputs added.
    """
    for part in parts:
        values = [found[id(tensor)] for tensor in part.inputs]
        outputs = _recomputed(part, values, compiled) if part.drops else part.run(values)
        found |= {id(t): value for t, value in zip(part.outputs, outputs, strict=True)}
    return found


def _recomputed(segment: Segment, values: Sequence[tf.Tensor], compiled: bool) -> list[tf.Tensor]:
    """Runs a segment so that its backward pass runs it again."""
    memory, natively = Memory(), native.LIBRARY.used
    states = [tf.convert_to_tensor(variable.value) for variable in segment.variables]

    @tf.custom_gradient
    def forward(*given: tf.Tensor) -> Any:
        with memory.first_pass():
            outputs, scope = _with_states(segment, given, segment.run)
        for variable, before in zip(segment.variables, given[len(values) :], strict=True):
            if (after := scope.get_current_value(variable)) is not before:
                variable.assign(after)

        def again(values: Sequence[tf.Tensor]) -> list[tf.Tensor]:
            found = {id(t): value for t, value in zip(segment.inputs, values, strict=True)}
            _run(segment.parts, found, compiled)
            return [found[id(tensor)] for tensor in segment.outputs]

        def backward(*upstream: tf.Tensor) -> list[tf.Tensor | None]:
            inputs, above = _after(given, upstream, compiled)
            with (
                memory.second_pass(),
                native.enabled(natively),
                tf.control_dependencies(above),
                tf.GradientTape() as tape,
            ):
                sources = [tensor for tensor in inputs if tensor.dtype.is_floating]
                tape.watch(sources)
                run = again if segment.parts else segment.run
                outputs, _ = _with_states(segment, inputs, run)
            gradients = tape.gradient(outputs, sources, output_gradients=above)
            found = iter(_together(gradients) if segment.waits and not compiled else gradients)
            return [next(found) if tensor.dtype.is_floating else None for tensor in inputs]

        return outputs, backward

    return forward(*values, *states)


def _with_states(
    segment: Segment,
    given: Sequence[tf.Tensor],
    run: Callable[[Sequence[tf.Tensor]], list[tf.Tensor]],
) -> tuple[list[tf.Tensor], keras.StatelessScope]:
    """Runs a segment with the values of its inputs and then of its variables.

    Args:
        segment: whose inputs and variables these are.
        given: the values.
        run: computes its outputs from the inputs' values.

    Returns:
        The outputs, and the scope that has the variables' new values.
    """
    count = len(segment.inputs)
    states = list(zip(segment.variables, given[count:], strict=True))
    with keras.StatelessScope(states, initialize_variables=False) as scope:
        outputs = run(given[:count])
    return outputs, scope


def _together(gradients: Sequence[tf.Tensor | None]) -> list[tf.Tensor | None]:
    """Returns gradients that exist only once all do.

    Otherwise TensorFlow may compute the gradient of a kernel long after that of the map, and keep
    what it reads until then: up to a quarter more at the peak.
    """
    with tf.control_dependencies([tensor for tensor in gradients if tensor is not None]):
        return [None if tensor is None else tf.identity(tensor) for tensor in gradients]


def _after(
    given: Sequence[tf.Tensor], upstream: Sequence[tf.Tensor], compiled: bool
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """Returns copies of both that exist only once the gradients from above do.

    Otherwise the second pass could start at once, or be merged with the first: nothing would be
    saved. XLA ignores control dependencies, and has an operation for this.
    """
    if compiled:
        from tensorflow.compiler.tf2xla.python.xla import optimization_barrier

        both = optimization_barrier(*given, *upstream)
        return list(both[: len(given)]), list(both[len(given) :])
    with tf.control_dependencies(upstream):
        return [tf.identity(tensor) for tensor in given], list(upstream)
