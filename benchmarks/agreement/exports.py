"""What runtimes make of the same TensorFlow function: casts, ties, NaN, empty batches."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.agreement.case import Case, Program, ask

Function = Callable[[Any], Any]


def cases(installed: dict[str, bool]) -> list[Case]:
    """Returns the cases; each program converts the function and runs it on the CPU."""
    import tensorflow as tf

    nan = float("nan")
    window = np.array([nan, 1, 2, 3], np.float32).reshape(1, 2, 2, 1)

    def largest(x: Any) -> Any:
        return tf.nn.max_pool2d(x, 2, 2, "VALID")

    asked: list[tuple[str, Function, np.ndarray]] = [
        (
            "cast of -1.5, 255.5, 256, 300 to uint8",
            lambda x: tf.cast(x, tf.uint8),
            np.array([[-1.5, 255.5, 256, 300]], np.float32),
        ),
        (
            "round of 0.5, 1.5, 2.5, -0.5",
            tf.round,
            np.array([[0.5, 1.5, 2.5, -0.5]], np.float32),
        ),
        (
            "the numbers of the 4 largest of 1, 3, 3, 2, 3, 0",
            lambda x: tf.math.top_k(x, 4).indices,
            np.array([[1, 3, 3, 2, 3, 0]], np.float32),
        ),
        ("max pooling of NaN, 1, 2, 3", largest, window),
        ("max pooling of 1, 2, 3, NaN", largest, np.roll(window, -1, 2)[:, ::-1].copy()),
        (
            "argmax of NaN, 1, 2",
            lambda x: tf.argmax(x, -1),
            np.array([[nan, 1, 2]], np.float32),
        ),
        (
            "argmax of 1, NaN, 2",
            lambda x: tf.argmax(x, -1),
            np.array([[1, nan, 2]], np.float32),
        ),
        (
            "maximum of NaN and 1",
            lambda x: tf.maximum(x[:, :1], x[:, 1:]),
            np.array([[nan, 1]], np.float32),
        ),
        ("relu6 of NaN", tf.nn.relu6, np.array([[nan]], np.float32)),
        (
            "clip of NaN to 0–1",
            lambda x: tf.clip_by_value(x, 0.0, 1.0),
            np.array([[nan]], np.float32),
        ),
        ("softmax of NaN, 0", tf.nn.softmax, np.array([[nan, 0]], np.float32)),
        (
            "resize of 0, 1 to 3, bilinear",
            lambda x: tf.image.resize(x, [1, 3]),
            np.array([0, 1], np.float32).reshape(1, 1, 2, 1),
        ),
    ]
    return [
        ask(what, _runtimes(function, given, installed), 1e-5) for what, function, given in asked
    ]


def _runtimes(
    function: Function, given: np.ndarray, installed: dict[str, bool]
) -> dict[str, Program]:
    import tensorflow as tf

    shape = [None, *given.shape[1:]]
    traced = tf.function(
        lambda x: {"y": function(x)}, input_signature=[tf.TensorSpec(shape, tf.float32, name="x")]
    )

    def graph() -> np.ndarray:
        return traced(tf.constant(given))["y"].numpy().ravel()

    programs: dict[str, Program] = {"TensorFlow": graph}
    if installed["litert"]:
        programs["LiteRT"] = lambda: _litert(traced, given).ravel()
    if installed["onnx"]:
        programs["ONNX Runtime"] = lambda: _onnx(traced, given).ravel()
    return programs


def _litert(traced: Any, given: np.ndarray) -> np.ndarray:
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    module = tf.Module()
    concrete = traced.get_concrete_function()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = tf.lite.TFLiteConverter.from_concrete_functions([concrete], module).convert()
    interpreter = Interpreter(model_content=content)
    (place,) = interpreter.get_input_details()
    interpreter.resize_tensor_input(place["index"], given.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(place["index"], given)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def _onnx(traced: Any, given: np.ndarray) -> np.ndarray:
    import onnxruntime
    import tf2onnx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        proto, _ = tf2onnx.convert.from_function(
            traced, input_signature=traced.input_signature, opset=17
        )
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (name,) = (x.name for x in session.get_inputs())
    return session.run(None, {name: given})[0]
