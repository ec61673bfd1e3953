"""Changes to ONNX graphs keep the results in ONNX Runtime (`make test-export`)."""

import numpy as np
import pytest

from convoy.runtime.export.onnx_graph import pad_within_pools

onnx = pytest.importorskip("onnx", reason="the extra export: make test-export")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra export: make test-export")

X = np.random.default_rng(0).normal(size=(2, 3, 8, 9)).astype(np.float32)


def graph(before="Relu", pads=(0, 0, 1, 1, 0, 0, 1, 1), value=None, kernel=(3, 3), **settings):
    """Returns a model of an activation, a padding and a max pooling."""
    helper = onnx.helper
    constants = [onnx.numpy_helper.from_array(np.array(pads), "pads")]
    if value is not None:
        constants.append(onnx.numpy_helper.from_array(np.float32(value), "value"))
    nodes = [
        helper.make_node(before, ["x"], ["a"]),
        helper.make_node("Pad", ["a", *(c.name for c in constants)], ["b"]),
        helper.make_node("MaxPool", ["b"], ["y"], kernel_shape=kernel, strides=(2, 2), **settings),
    ]
    values = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["batch", None, None, None])
              for n in "xy"]  # fmt: skip
    inside = helper.make_graph(nodes, "pooled", values[:1], values[1:], constants)
    return helper.make_model(inside, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def run(model):
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(["y"], {"x": X})[0]


@pytest.mark.parametrize(
    ("settings", "inside"),
    [
        ({}, True),
        ({"pads": (0, 0, 0, 2, 0, 0, 1, 0)}, True),
        ({"before": "Tanh"}, False),
        ({"value": 2.0}, False),
        ({"pads": (0, 1, 1, 1, 0, 0, 1, 1)}, False),
        ({"pads": (0, 0, 3, 1, 0, 0, 1, 1)}, False),
        ({"pads": (0, 0, -1, 1, 0, 0, 1, 1)}, False),
        ({"auto_pad": "SAME_UPPER"}, False),
    ],
    ids=["padded", "unevenly", "no relu", "no zeros", "channels", "too far", "cut", "pads itself"],
)
def test_zero_padding_between_relu_and_pool_moves_into_the_pool(settings, inside):
    wanted = run(graph(**settings))
    model = pad_within_pools(graph(**settings))
    assert ("Pad" not in {node.op_type for node in model.graph.node}) == inside
    np.testing.assert_array_equal(run(model), wanted)
