"""Makes 8-bit copies of an exported ONNX graph, with chosen layers left in float.

The quantising itself is ONNX Runtime's own (`onnxruntime.quantization`).
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import re
import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

METHODS = {"min-max": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}
"""Ways to get a tensor's range from its values, with ONNX Runtime's names of them."""
_LAYERS = ("Conv", "Gemm", "MatMul")
# Without ReLU and Clip, the numbers before them would be quantised too, in a much wider range; in 8
# bits, swish (Sigmoid and Mul) is no less exact than between two conversions, and is a table.
_ACTIVATIONS = ("Relu", "Clip", "Sigmoid", "Mul")
_OPERATORS = (*_LAYERS, *_ACTIVATIONS, "Add", "MaxPool", "AveragePool", "GlobalAveragePool")
# A logit in 256 steps could not tell the two best classes from each other.
_FLOAT_RESULTS = ["Gemm", "MatMul"]
_PIXELS = 8 * 224 * 224  # whose values of all tensors are kept at once, for histograms


@dataclass(frozen=True)
class Layer:
    """A convolution or the classifier.

    Attributes:
        node: its node in the graph.
        name: its name in the Keras model, as far as the graph tells.
        work: multiply-adds for one image.
    """

    node: str
    name: str
    work: int


class QuantisedGraph:
    """An exported graph, and its 8-bit copies.

    Attributes:
        layers: all layers, in the graph's order.

    Args:
        file: the float32 export.
        folder: a folder for temporary files.
        reduce_range: weights have 7 bits, so that no sum of two products overflows 16 bits.
    """

    def __init__(self, file: Path, folder: Path, reduce_range: bool) -> None:
        import onnx
        from onnxruntime.quantization.shape_inference import quant_pre_process

        self._file, self._folder = folder / "prepared.onnx", folder
        self._reduce_range = reduce_range
        with _quietly():  # fuses the bias into the classifier, and writes down all shapes
            quant_pre_process(str(file), str(self._file), skip_symbolic_shape=True)
        self._model = onnx.load(str(self._file))
        self._properties = {p.key: p.value for p in onnx.load(str(file)).metadata_props}
        self.layers = list(_layers(self._model.graph))

    @property
    def work(self) -> int:
        """Returns the multiply-adds of all layers for one image."""
        return sum(layer.work for layer in self.layers)

    def ranges(self, method: str, images: Sequence[np.ndarray]) -> Any:
        """Returns the range of each tensor, by one of `METHODS`, on uint8 `(size, size, 3)`."""
        from onnxruntime.quantization import CalibrationMethod
        from onnxruntime.quantization.calibrate import create_calibrator

        batch = max(1, _PIXELS // math.prod(images[0].shape[:2]))
        batches = (images[i : i + batch] for i in range(0, len(images), batch))
        with _quietly():
            calibrator = create_calibrator(
                self._file,
                _OPERATORS,
                str(self._folder / "augmented.onnx"),
                calibrate_method=CalibrationMethod[METHODS[method]],
            )
            for some in batches:
                calibrator.collect_data(_Reader([{"images": np.stack(some)}]))
            return calibrator.compute_data()

    def quantised(self, ranges: Any, left: Collection[Layer] = ()) -> Any:
        """Returns a copy in which all layers but those `left` in float32 have 8 bits."""
        return self._copy(ranges, excluded=[name for one in left for name in self._nodes(one)])

    def with_one(self, ranges: Any, layer: Layer) -> Any:
        """Returns a copy in which only this layer has 8 bits."""
        return self._copy(ranges, included=self._nodes(layer))

    def _nodes(self, layer: Layer) -> list[str]:
        """Returns the names of a layer's nodes: itself and its activation."""
        names: list[str] = []
        results: set[str] = set()
        for node in self._model.graph.node:  # in the order of computation
            after = node.op_type in _ACTIVATIONS and results & {*node.input}
            if node.name == layer.node or after:
                names.append(node.name)
                if node.op_type in (*_LAYERS, "Sigmoid"):
                    results |= {*node.output}
        return names

    def _copy(self, ranges: Any, included: Sequence[str] = (), excluded: Sequence[str] = ()) -> Any:
        import onnx
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        with _quietly():
            quantizer = QDQQuantizer(
                model,
                per_channel=True,
                reduce_range=self._reduce_range,
                weight_qType=QuantType.QInt8,
                activation_qType=QuantType.QUInt8,
                tensors_range=ranges,
                nodes_to_quantize=list(included),
                nodes_to_exclude=list(excluded),
                op_types_to_quantize=list(_OPERATORS),
                extra_options={"OpTypesToExcludeOutputQuantization": _FLOAT_RESULTS},
            )
            quantizer.quantize_model()
        made = quantizer.model.model
        del made.metadata_props[:]
        onnx.helper.set_model_props(made, self._properties)
        return made


class _Reader:
    """Gives a calibrator its inputs, as `onnxruntime.quantization.CalibrationDataReader`."""

    def __init__(self, inputs: Sequence[dict[str, np.ndarray]]) -> None:
        self._inputs = iter(inputs)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._inputs, None)


def _layers(graph: Any) -> Iterator[Layer]:
    weights = {item.name: list(item.dims) for item in graph.initializer}
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.value_info, *graph.output)
    }
    taken = set()
    for node in graph.node:
        if node.op_type not in _LAYERS or node.input[1] not in weights:
            continue
        pixels = shapes[node.output[0]][2:]
        name = _keras_name(node)
        name = node.name if name in taken else name
        taken.add(name)
        yield Layer(node.name, name, math.prod(pixels) * math.prod(weights[node.input[1]]))


def _keras_name(node: Any) -> str:
    """Returns a layer's name in Keras, from names as `model_1/block1a_dwconv_1/Squeeze:0`."""
    for name in (node.name, *reversed(node.input[1:])):
        parts = name.split("/")
        if len(parts) > 2:
            return re.sub(r"_1$", "", parts[-2])
    return node.name


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Silences the quantiser, which tells its progress in three ways."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
