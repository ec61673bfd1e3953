"""Changes an ONNX graph after tf2onnx, so that ONNX Runtime can fuse more of it."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np


def keep_batch(model: Any) -> Any:
    """Marks in reshapes that they keep the batch dimension; removes those that change nothing.

    tf2onnx turns transposes of `(batch, channels, 1, 1)` into reshapes to `(-1, channels, 1, 1)`.
    After such a reshape, ONNX Runtime treats the batch as a new unknown number, and then neither
    adds shortcuts within convolutions nor keeps its own layout between layers.
    """
    from onnx import numpy_helper, shape_inference

    graph = model.graph
    constants = {item.name: item for item in graph.initializer}
    known = shape_inference.infer_shapes(model).graph
    shapes = {
        value.name: [dim.dim_value or None for dim in value.type.tensor_type.shape.dim]
        for value in (*known.input, *known.value_info)
    }
    instead: dict[str, str] = {}
    outputs = {output.name for output in graph.output}
    for number, node in enumerate(list(graph.node)):
        for place, name in enumerate(node.input):
            node.input[place] = instead.get(name, name)
        if node.op_type != "Reshape" or node.input[1] not in constants:
            continue
        target = numpy_helper.to_array(constants[node.input[1]]).tolist()
        _, *found = shapes.get(node.input[0]) or [None, None]
        before = [size for size in found if size is not None]
        if target[0] != -1 or before != found or math.prod(before) != math.prod(target[1:]):
            continue
        if before == target[1:] and node.output[0] not in outputs:
            instead[node.output[0]] = node.input[0]
            continue
        name = f"shape_{number}"  # 0 means the input's own dimension
        shape = np.array([0, *target[1:]], np.int64)
        graph.initializer.append(numpy_helper.from_array(shape, name))
        node.input[1] = name
    kept = [node for node in graph.node if node.output[0] not in instead]
    del graph.node[:]
    graph.node.extend(kept)
    # ONNX Runtime warns about every unused constant.
    taken = {name for node in graph.node for name in node.input} | outputs
    left = [item for item in graph.initializer if item.name in taken]
    del graph.initializer[:]
    graph.initializer.extend(left)
    return model


def pad_within_pools(model: Any) -> Any:
    """Moves zero padding between a ReLU and a max-pool into the max-pool.

    ONNX pads max-pools with minus infinity; for numbers from 0 up, the maxima are the same. For a
    separate padding, ONNX Runtime leaves its own layout and returns to it, which takes a twentieth
    of ResNet50's time.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    source = {name: node for node in graph.node for name in node.output}
    users = Counter(name for node in graph.node for name in node.input)
    for pool in [node for node in graph.node if node.op_type == "MaxPool"]:
        settings = {a.name: helper.get_attribute_value(a) for a in pool.attribute}
        pad = source.get(pool.input[0])
        pads = _zeros_around_relu(pad, source, constants)
        if (
            pad is None
            or pads is None
            or users[pad.output[0]] > 1
            or {"pads", "auto_pad"} & {*settings}
        ):
            continue
        if all(n < side for n, side in zip(pads, 2 * settings["kernel_shape"], strict=True)):
            pool.attribute.append(helper.make_attribute("pads", pads))
            pool.input[0] = pad.input[0]
            graph.node.remove(pad)
    return model


def _zeros_around_relu(pad: Any, source: dict[str, Any], constants: Any) -> list[int] | None:
    """Returns the padding above, left, below and right; None if the node is anything else."""
    if pad is None or pad.op_type != "Pad" or len(pad.input) > 2 or pad.attribute:
        return None  # a third input is a number other than 0, an attribute another mode
    before = source.get(pad.input[0])
    pads = constants.get(pad.input[1], np.zeros(0, int)).tolist()
    if before is None or before.op_type != "Relu" or len(pads) != 8 or min(pads) < 0:
        return None
    if any((*pads[:2], *pads[4:6])):  # padding of the batch or the channels
        return None
    return [*pads[2:4], *pads[6:]]
