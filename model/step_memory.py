"""Computes the memory of a training step's forward and backward pass from the model's graph.

It goes through the operations as the step runs them, segments of `model.recompute` included, and
follows each tensor from the operation that makes it to the last one that reads it. It computes no
tensors, so it takes milliseconds. Numbers are per image, so one walk serves all batches.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from convoy.model.layer_memory import Uses, uses
from convoy.model.map_sizes import map_sizes
from convoy.model.segments import Segment, segments

_FLOAT = 4
"""Bytes of a number in float32, as in the gradients of weights."""


@dataclass(frozen=True)
class Moment:
    """What is in memory while one operation runs, in bytes.

    Attributes:
        at: the layer.
        backward: whether its gradient runs.
        kept: what the forward pass made and the backward pass needs.
        working: other activations and their gradients.
        gradients: those of weights so far.
    """

    at: str
    backward: bool
    kept: float
    working: float
    gradients: float

    @property
    def total(self) -> float:
        """Returns the bytes of everything."""
        return self.kept + self.working + self.gradients


def step_memory(
    model: keras.Model,
    whole: Collection[str] | None,
    *,
    itemsize: int = 4,
    natively: bool = False,
    gpu: bool = False,
    image_size: int | None = None,
) -> StepMemory:
    """Computes what a pass of training takes.

    Args:
        model: a functional model.
        whole: as for `model.recompute.Recomputing`; None: all activations are kept.
        itemsize: bytes of a number in activations.
        natively: whether layers use `model.native`.
        gpu: whether they run on a GPU.
        image_size: side of the images, for a model of any size.
    """
    parts = segments(model, whole or ())
    walk = _Walk(model, parts, image_size, itemsize, natively, gpu)
    for segment in parts:
        walk.forward(segment.nodes)
    ended = len(walk.steps)
    walk.begin_backward(model.outputs[0])
    for segment in reversed([part for part in parts if not part.frozen]):
        if whole is None:
            walk.backward(segment.nodes)
        else:
            walk.recomputing(segment)
    return StepMemory(walk.steps, ended)


@dataclass
class _Step:
    """One operation: which buffers it reads, and which it makes, in bytes per image.

    `over` has, for a made buffer, the one whose place it takes if that ends here.
    """

    at: str
    backward: bool
    reads: list[int] = field(default_factory=list)
    makes: dict[int, float] = field(default_factory=dict)
    over: dict[int, int] = field(default_factory=dict)
    scratch: float = 0.0
    gradients: int = 0


class StepMemory:
    """The memory of a pass, without the weights themselves.

    Args:
        steps: operations, in the order of the step.
        turn: the place of the first one of the backward pass.

    Attributes:
        calls: number of layers that are called, those of second passes and gradients included.
        kept: bytes per image that are kept when the backward pass begins.
        largest: bytes per image of the largest tensor.
    """

    def __init__(self, steps: Sequence[_Step], turn: int) -> None:
        self._steps, self.calls = steps, len(steps)
        self._last = {key: p for p, step in enumerate(steps) for key in (*step.reads, *step.makes)}
        self._ending: dict[int, list[int]] = {}
        for key, place in self._last.items():
            self._ending.setdefault(place, []).append(key)
        self._kept = {key for step in steps[:turn] for key in step.makes if self._last[key] >= turn}
        self.kept = sum(
            size for step in steps[:turn] for key, size in step.makes.items() if key in self._kept
        )

        self.largest = max((size for step in steps for size in step.makes.values()), default=0.0)

    def peak(self, batch: int) -> Moment:
        """Returns the moment that takes most, for so many images."""
        return max(self._moments(batch), key=lambda moment: moment.total)

    def _moments(self, batch: int) -> Iterator[Moment]:
        """Follows every buffer from the step that makes it to the last that reads it."""
        live: dict[int, float] = {}
        kept = working = gradients = 0.0

        def change(key: int, size: float) -> None:
            nonlocal kept, working
            if key in self._kept:
                kept += size
            else:
                working += size

        for place, step in enumerate(self._steps):
            for made, size in step.makes.items():
                old = step.over.get(made)
                if old is not None and old in live and self._last[old] == place:
                    change(old, -live.pop(old))
                live[made] = batch * size
                change(made, live[made])
            gradients += step.gradients
            yield Moment(step.at, step.backward, kept, working + batch * step.scratch, gradients)
            for key in self._ending.get(place, ()):
                if key in live:
                    change(key, -live.pop(key))


class _Walk:
    """Lists the steps of a pass.

    Args:
        model: the model.
        parts: its segments, in order.
        image_size, itemsize, natively, gpu: as for `step_memory`.
    """

    def __init__(
        self,
        model: keras.Model,
        parts: Iterable[Segment],
        image_size: int | None,
        itemsize: int,
        natively: bool,
        gpu: bool,
    ) -> None:
        self.steps: list[_Step] = []
        self._uses: dict[int, Uses] = {}
        self._trained: dict[int, int] = {}
        self._differentiable: set[int] = set()
        self._buffers = {id(model.inputs[0]): -1}  # the batch: whoever reads it counts it
        self._hidden: dict[int, int] = {}
        self._gradients: dict[int, list[int]] = {}
        self._number = itertools.count()
        self._in_backward = False
        nodes = [node for segment in parts for node in segment.nodes]
        sizes = map_sizes(model, nodes, image_size)
        self._bytes: dict[int, float] = {key: itemsize * count for key, count in sizes.items()}
        self._bytes[id(model.inputs[0])] = 0.0
        for node in nodes:
            inputs = [id(tensor) for tensor in node.input_tensors]
            self._uses[id(node)] = uses(node.operation, len(inputs), natively, gpu)
            self._trained[id(node)] = trained = _trained(node.operation)
            if trained or any(key in self._differentiable for key in inputs):
                self._differentiable |= {id(tensor) for tensor in node.outputs}

    def forward(self, nodes: Iterable[Any]) -> None:
        """Runs nodes."""
        for node in nodes:
            self._run(node)

    def _run(self, node: Any) -> None:
        use = self._uses[id(node)]
        inputs = [id(tensor) for tensor in node.input_tensors]
        outputs = [id(tensor) for tensor in node.outputs]
        step = self._step(node, [self._buffers[key] for key in inputs])
        step.scratch = self._scratch(use.scratch, inputs[0], outputs[0])
        for key in outputs:
            if use.alias and self._bytes[key] == self._bytes[inputs[0]]:
                self._buffers[key] = self._buffers[inputs[0]]
                continue
            self._buffers[key] = made = self._make(step, self._bytes[key])
            if use.in_place:
                step.over[made] = step.reads[0]
        hidden = use.hidden * self._bytes[outputs[0]] + use.copies * self._bytes[inputs[0]]
        if hidden:
            self._hidden[id(node)] = self._make(step, hidden)

    def begin_backward(self, output: Any) -> None:
        """Gives the model's output a gradient."""
        self._in_backward = True
        step = _Step("the loss", True, [self._buffers[id(output)]])
        self._gradients[id(output)] = [self._make(step, self._bytes[id(output)])]
        self.steps.append(step)

    def recomputing(self, segment: Segment) -> None:
        """Runs the gradients of a segment, after its second pass if it has one."""
        walk = self._second_pass(segment) if segment.drops else self
        for part in reversed(segment.parts):
            walk.recomputing(part)
        if not segment.parts:
            walk.backward(segment.nodes)

    def _second_pass(self, segment: Segment) -> _Walk:
        """Runs what is needed of a segment again, and returns a walk with it.

        Its gradients need it, or its parts that have second passes of their own need it as input.
        """
        again = copy.copy(self)
        again._buffers, again._hidden = dict(self._buffers), {}
        later = [part for part in segment.parts if part.drops]
        needed = {id(tensor) for part in later for tensor in part.inputs}
        in_parts = {id(node) for part in later for node in part.nodes}
        wanted = []
        for node in reversed(segment.nodes):
            use, inputs = self._uses[id(node)], [id(tensor) for tensor in node.input_tensors]
            outputs = {id(tensor) for tensor in node.outputs}
            own = outputs <= self._differentiable and id(node) not in in_parts
            if (own and (use.hidden or use.copies or use.outputs)) or outputs & needed:
                wanted.append(node)
                needed |= {*inputs}
            elif own:
                needed |= {key for key, read in zip(inputs, use.inputs, strict=False) if read}
        for node in reversed(wanted):
            again._run(node)
        return again

    def backward(self, nodes: Sequence[Any]) -> None:
        """Runs the gradients of nodes."""
        for node in reversed(nodes):
            outputs = [id(tensor) for tensor in node.outputs]
            found = [grads for key in outputs for grads in self._gradients.pop(key, ())]
            if found and outputs[0] in self._differentiable:
                self._differentiate(node, outputs, found)

    def _differentiate(self, node: Any, outputs: list[int], found: list[int]) -> None:
        use, inputs = self._uses[id(node)], [id(tensor) for tensor in node.input_tensors]
        if not use.alias:
            found = self._summed(node, found, self._bytes[outputs[0]])
        step = self._step(node, found)
        step.reads += [
            self._buffers[key]
            for key, read in zip(inputs, use.inputs, strict=False)
            if read and not use.copies
        ]
        step.reads += [self._buffers[key] for key in outputs if use.outputs]
        step.reads += [self._hidden[id(node)]] if id(node) in self._hidden else []
        step.scratch = self._scratch(use.scratch_back, inputs[0], outputs[0])
        step.gradients = self._trained[id(node)]
        for place, key in enumerate(inputs):
            if key not in self._differentiable:
                continue
            if use.passes_back:
                made = found[0]
            else:
                made = self._make(step, self._bytes[key])
                if use.in_place_back and not place:
                    step.over[made] = found[0]
                elif use.over_input and not place:
                    step.over[made] = self._buffers[key]
            self._gradients.setdefault(key, []).append(made)

    def _summed(self, node: Any, found: list[int], size: float) -> list[int]:
        if len(found) == 1:
            return found
        step = self._step(node, found)
        made = self._make(step, size)
        step.over[made] = found[0]
        return [made]

    def _step(self, node: Any, reads: list[int]) -> _Step:
        step = _Step(node.operation.name, self._in_backward, [*reads])
        self.steps.append(step)
        return step

    def _make(self, step: _Step, size: float) -> int:
        number = next(self._number)
        step.makes[number] = size
        return number

    def _scratch(self, shares: tuple[float, float], first: int, second: int) -> float:
        return shares[0] * self._bytes[first] + shares[1] * self._bytes[second]


def _trained(operation: Any) -> int:
    """Returns the bytes of the gradients of a layer's weights."""
    if not getattr(operation, "weights", ()):
        return 0
    return _FLOAT * sum(math.prod(v.shape) for v in operation.trainable_variables)
