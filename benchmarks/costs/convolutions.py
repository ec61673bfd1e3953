"""Measures each convolution of a training step against the limits of the processor.

    python -m benchmarks.costs.convolutions resnet50 [--image_size 224] [--batch 16]
        [--dtype float32|bfloat16]

The layers run alone, as a training step on CPUs runs them: forward, and the gradients of their
input and kernel. A layer's limit is the longer of two times: of its multiplications at the speed of
a large matrix product, and of reading and writing its tensors once at the speed of a large copy.
Both speeds are measured in turns with the layers, and so is the time of an empty function, which is
subtracted from all. Small tensors stay in the caches, so a layer can exceed the limit of a copy.
Prints a Markdown table: the kinds of layers that lose most time, the share of the limit that they
reach, and the sums over the whole network.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow as tf

from benchmarks.costs.input_operations import machine
from convoy.model import build_model, native

PASSES = ("forward", "input's gradient", "kernel's gradient")
BOTH = "both gradients"
_PRODUCT = 2048
_COPY = 64 * 2**20
"""Numbers in the large matrices' sides, and in the large copy."""
_CALLS = 3
"""Calls that are timed together."""


@dataclass(frozen=True)
class Shape:
    """What makes two convolutions take the same time."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: int
    depthwise: bool
    first: bool
    """Whether the input is the image, which needs no gradient."""

    def __str__(self) -> str:
        kind = " depthwise" if self.depthwise else ""
        return (
            f"{self.kernel[0]} × {self.kernel[1]}{kind}, stride {self.stride}: "
            f"{' × '.join(map(str, self.inputs[1:]))} → {self.outputs[-1]}"
        )

    def operations(self) -> float:
        """Returns the multiplications and additions of one pass."""
        # Each weight of the kernel is one multiplication for every position of the output.
        return 2.0 * math.prod(self.outputs[:3]) * math.prod(self.kernel)

    def numbers(self) -> float:
        """Returns how many numbers one pass reads and writes at least."""
        return float(sum(math.prod(shape) for shape in (self.inputs, self.outputs, self.kernel)))


@dataclass
class Case:
    """A function to time, what it must do at least, and its seconds so far."""

    call: Callable[[], Any]
    operations: float
    numbers: float
    seconds: list[float] = field(default_factory=list)

    def run(self) -> None:
        self.call()  # brings code and memory back after the other cases
        start = time.perf_counter()
        for _ in range(_CALLS):
            self.call()
        self.seconds.append((time.perf_counter() - start) / _CALLS)

    def median(self) -> float:
        return statistics.median(self.seconds)


def _convolutions(model: Any, batch: int) -> Iterator[tuple[Shape, Any]]:
    """Yields the convolutions of a functional model, with one layer for each call."""
    image = model.inputs[0].shape[1:]
    for layer in model.layers:
        if not isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)):
            continue
        inputs, outputs = ((batch, *tensor.shape[1:]) for tensor in (layer.input, layer.output))
        depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
        first = inputs[-1] == image[-1]
        kernel = tuple(layer.kernel.shape)
        yield Shape(inputs, outputs, kernel, layer.strides[0], depthwise, first), layer


def _passes(shape: Shape, layer: Any, dtype: str) -> dict[str, Case]:
    """Returns the passes of a layer, compiled as a training step compiles them."""
    x, dy = (tf.random.normal(side, dtype=dtype) for side in (shape.inputs, shape.outputs))

    def gradients(*sources: Any) -> Callable[[], Any]:
        def call() -> Any:
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x, training=True)
            return tape.gradient(y, sources, output_gradients=dy)

        return tf.function(call)

    kernel = layer.kernel.value
    calls = {PASSES[0]: tf.function(lambda: layer(x, training=True))}
    if shape.depthwise and native.operations(dtype) is not None:
        calls[BOTH] = gradients(x, kernel)
    else:
        calls |= {} if shape.first else {PASSES[1]: gradients(x)}
        calls[PASSES[2]] = gradients(kernel)
    cases = {}
    for name, call in calls.items():
        passes = 2 if name == BOTH else 1
        cases[name] = Case(call, passes * shape.operations(), passes * shape.numbers())
        call()  # traces it
    return cases


def _references(dtype: str) -> tuple[Case, Case, Case]:
    """Returns a large matrix product, a large copy, and an empty function."""
    matrix = tf.random.normal((_PRODUCT, _PRODUCT), dtype=dtype)
    values = tf.zeros((_COPY,), dtype)
    product = tf.function(lambda: tf.matmul(matrix, matrix))
    copy = tf.function(lambda: values + tf.ones((), dtype))
    empty = tf.function(lambda: matrix)
    product(), copy(), empty()
    return (
        Case(product, 2.0 * _PRODUCT**3, 3.0 * _PRODUCT**2),
        Case(copy, _COPY, 2.0 * _COPY),
        Case(empty, 0.0, 0.0),
    )


@dataclass
class Result:
    """What the layers took, the speeds that limit them, and the seconds of an empty function."""

    counts: Counter[Shape]
    layers: dict[Shape, dict[str, Case]]
    operations_per_second: float
    numbers_per_second: float
    overhead: float

    def took(self, case: Case) -> float:
        return case.median() - self.overhead

    def limit(self, case: Case) -> float:
        """Returns the seconds that a pass takes at least."""
        by_arithmetic = case.operations / self.operations_per_second
        return max(by_arithmetic, case.numbers / self.numbers_per_second)

    def lost(self, shape: Shape) -> float:
        """Returns the seconds of a step above the limits, in all layers of this shape."""
        cases = self.layers[shape].values()
        return self.counts[shape] * sum(self.took(case) - self.limit(case) for case in cases)

    def total(self, names: tuple[str, ...], seconds: Callable[[Case], float]) -> float:
        return sum(
            self.counts[shape] * seconds(case)
            for shape, cases in self.layers.items()
            for name, case in cases.items()
            if name in names
        )


def measure(arch: str, size: int, batch: int, dtype: str, rounds: int) -> Result:
    """Measures all convolutions of an architecture, with float32 or bfloat16 numbers."""
    keras.config.set_dtype_policy("mixed_bfloat16" if dtype == "bfloat16" else dtype)
    with native.enabled():
        model = build_model(arch, image_size=size)
        found = list(_convolutions(model, batch))
        layers = {shape: _passes(shape, layer, dtype) for shape, layer in dict(found).items()}
    product, copy, empty = _references(dtype)
    cases = [product, copy, empty, *(case for each in layers.values() for case in each.values())]
    for _ in range(rounds):
        for case in cases:
            case.run()
    return Result(
        Counter(shape for shape, _ in found),
        layers,
        product.operations / product.median(),
        copy.numbers / copy.median(),
        empty.median(),
    )


def _cell(result: Result, case: Case | None) -> str:
    if case is None:
        return ""
    took = result.took(case)
    return f"{1e3 * took:.2f} ({result.limit(case) / took:.0%})"


def table(result: Result, rows: int) -> Iterator[str]:
    """Yields the lines of the table: the shapes that lose most, and the sums."""
    names = (*PASSES, BOTH)
    heads = (f"{name}, ms" for name in (*names, "lost"))
    yield f"| layer | in the network | {' | '.join(heads)} |"
    yield "|---|---|" + "---|" * (len(names) + 1)
    for shape in sorted(result.layers, key=result.lost, reverse=True)[:rows]:
        cells = (_cell(result, result.layers[shape].get(name)) for name in names)
        lost = f"{1e3 * result.lost(shape):.0f}"
        yield f"| {shape} | {result.counts[shape]} | {' | '.join(cells)} | {lost} |"
    sums = []
    for name in (*((name,) for name in names), names):
        took, least = (result.total(name, of) for of in (result.took, result.limit))
        sums.append(f"{1e3 * took:.0f} ({least / took:.0%})" if took else "")
    lost = f"{1e3 * sum(map(result.lost, result.layers)):.0f}"
    yield f"| all: {sums[-1]} | {result.counts.total()} | {' | '.join(sums[:-1])} | {lost} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("arch")
    parser.add_argument("--image_size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--dtype", choices=native.DTYPES, default="float32")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--rows", type=int, default=12, help="kinds of layers in the table")
    asked = parser.parse_args()
    tf.get_logger().setLevel("ERROR")  # it warns of tracing many functions
    print(machine())
    result = measure(asked.arch, asked.image_size, asked.batch, asked.dtype, asked.rounds)
    print(
        f"{asked.arch}, {asked.image_size} px, batch {asked.batch}, {asked.dtype}: "
        f"a large product {result.operations_per_second / 1e9:.0f} GFLOP/s, "
        f"a large copy {result.numbers_per_second * tf.as_dtype(asked.dtype).size / 1e9:.1f} GB/s, "
        f"an empty function {1e3 * result.overhead:.2f} ms"
    )
    print()
    print("\n".join(table(result, asked.rows)))


if __name__ == "__main__":
    main()
