"""For each format, has one function that writes a model and one that runs the result.

Exports include the preprocessing: crop and resizing if they take encoded images (only SavedModel;
the other runtimes have no JPEG decoder), and always the normalisation.
"""

from __future__ import annotations

import tempfile
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from convoy.dataloader import native
from convoy.dataloader.images.crops import eval_decode
from convoy.dataloader.images.decoders import tensorflow_only
from convoy.dataloader.images.eval_crop import EvalCrop
from convoy.model.fold_batch_norm import folded
from convoy.runtime.export import onnx_int8
from convoy.runtime.export.onnx_graph import keep_batch, pad_within_pools
from convoy.runtime.export.sample_images import Sample
from convoy.utils import strict_json
from convoy.utils.files import naming
from convoy.utils.machine.device import without_start_up_lines

OPSET = 17
Outputs = dict[str, np.ndarray]


@dataclass
class Exportable:
    """The input of all formats.

    Attributes:
        model: from images to float32 logits.
        names: one per class.
        crop: crop of an image before the model.
        top: number of classes named in the output.
        features: output the pooled features as well.
        metadata: stored in each file, as JSON.
    """

    model: keras.Model
    names: list[str]
    crop: EvalCrop
    top: int
    features: bool
    metadata: dict[str, Any]

    @property
    def size(self) -> int:
        """Returns the side of images in pixels."""
        return self.model.input_shape[1]

    @cached_property
    def folded(self) -> keras.Model:
        """Returns the model to write: without batch norms, which took a tenth of the time."""
        return folded(self.model)


def head_input(model: keras.Model) -> Any:
    """Returns the symbolic tensor for the classifier: the pooled features, `(batch, channels)`."""
    return next(x for x in reversed(model.layers) if isinstance(x, keras.layers.Dense)).input


class Serving(tf.Module):
    """The exported functions.

    Args:
        what: see `Exportable`.
        named: output class names; int8 models contain only numbers.
    """

    def __init__(self, what: Exportable, named: bool = True) -> None:
        super().__init__()
        net = what.folded
        self._variables = [v.value for v in net.variables]  # SavedModel keeps what it can see
        if what.features:
            net = keras.Model(net.input, [net.output, head_input(net)])
        # Do not keep the network itself, or its variables would be stored twice.
        self._apply = lambda images: net(images, training=False)
        self._what, self._named = what, named

    def of_images(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Maps `(batch, size, size, 3)` in 0-255, already cropped and resized, to the outputs."""
        results = self._apply(images)
        logits = results[0] if self._what.features else results
        probabilities = tf.nn.softmax(logits)
        outputs = {"logits": logits, "probabilities": probabilities}
        if self._named:
            scores, best = tf.math.top_k(probabilities, self._what.top)
            outputs |= {"classes": tf.gather(tf.constant(self._what.names), best), "scores": scores}
        return outputs | ({"features": results[1]} if self._what.features else {})

    def of_bytes(self, image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Maps encoded images, `(batch,)`, to the outputs.

        JPEG, PNG, BMP or GIF of any size are decoded only by TensorFlow.
        """
        size, crop = self._what.size, self._what.crop

        def decode(encoded: tf.Tensor) -> tf.Tensor:
            return eval_decode(encoded, size, crop)

        shape = tf.TensorSpec([size, size, 3], tf.uint8)
        with tf.device("/cpu:0"):
            images = tf.map_fn(decode, image_bytes, fn_output_signature=shape)
        return self.of_images(images)

    def traced(self, dtype: tf.DType) -> Any:
        """Traces `of_images` for images of a dtype and any batch."""
        shape = [None, self._what.size, self._what.size, 3]
        function = tf.function(self.of_images, autograph=False)
        return function.get_concrete_function(tf.TensorSpec(shape, dtype, "images"))

    def traced_bytes(self) -> Any:
        """Traces `of_bytes` with only TensorFlow's own operations, so that it runs anywhere."""
        function = tf.function(self.of_bytes, autograph=False)
        with native.disabled(), tensorflow_only():
            return function.get_concrete_function(tf.TensorSpec([None], tf.string, "image_bytes"))


def write_savedmodel(what: Exportable, path: Path, sample: Sample) -> None:
    """Writes for TensorFlow (Serving): `serving_default` takes bytes, `images` pixels."""
    serving = Serving(what)
    signatures = {"serving_default": serving.traced_bytes(), "images": serving.traced(tf.uint8)}
    tf.saved_model.save(serving, str(path), signatures=signatures)
    extra = path / "assets.extra"
    extra.mkdir()
    for name, text in _side_files(what).items():
        (extra / name).write_text(text, encoding="utf-8")


def write_tflite(what: Exportable, path: Path, sample: Sample) -> None:
    """Writes for TensorFlow Lite (LiteRT), in float32."""
    _convert(Serving(what), tf.uint8, what, path, lambda converter: None)


def write_tflite_int8(what: Exportable, path: Path, sample: Sample) -> None:
    """Writes for TensorFlow Lite, with only 8-bit integers inside and float32 outputs.

    Args:
        what: the model.
        path: the file.
        sample: its training images' activations set the ranges of the integers.
    """
    # Include both ends of the pixels' range, so that the input is quantised with scale 1: a uint8
    # image's numbers do not change.
    whole = sample.calibration[0].copy()
    whole.flat[:2] = 0, 255
    images = [whole, *sample.calibration[1:]]

    def settings(converter: Any) -> None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: (
            {"images": image[None].astype(np.float32)} for image in images
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = tf.uint8

    _convert(Serving(what, named=False), tf.float32, what, path, settings)


def _convert(
    serving: Serving, dtype: tf.DType, what: Exportable, path: Path, settings: Callable[[Any], None]
) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tf.saved_model.save(serving, folder, signatures={"serve": serving.traced(dtype)})
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["serve"])
        settings(converter)
        with without_start_up_lines():
            content = converter.convert()
        with naming(path):
            path.write_bytes(content)
    # Like TensorFlow Lite's own metadata tools, append a zip archive to the model: readers of the
    # model ignore it, but `unzip` finds it.
    with zipfile.ZipFile(path, "a") as archive:
        for name, text in _side_files(what).items():
            archive.writestr(name, text)


def write_onnx(what: Exportable, path: Path, sample: Sample) -> None:
    """Writes for ONNX Runtime and others, in float32, NHWC."""
    import onnx
    import tf2onnx

    spec = tf.TensorSpec([None, what.size, what.size, 3], tf.uint8, "images")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        function = tf.function(Serving(what).of_images, autograph=False)
        proto, _ = tf2onnx.convert.from_function(function, input_signature=[spec], opset=OPSET)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    keep_batch(pad_within_pools(proto))
    onnx.helper.set_model_props(proto, _side_files(what))
    onnx.checker.check_model(proto)
    onnx.save(proto, str(path))


def write_onnx_int8(what: Exportable, path: Path, sample: Sample) -> dict[str, Any]:
    """Writes for ONNX Runtime, with 8-bit integers inside; see `onnx_int8`.

    Returns:
        How it was quantised.
    """
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        whole = Path(folder) / "float.onnx"
        write_onnx(what, whole, sample)
        return onnx_int8.quantise(whole, path, sample)


def _side_files(what: Exportable) -> dict[str, str]:
    names = "".join(f"{' '.join(name.split())}\n" for name in what.names)
    metadata = strict_json.dumps(what.metadata, indent=1, ensure_ascii=False)
    return {"labels.txt": names, "metadata.json": metadata}


WRITERS: dict[str, Callable[[Exportable, Path, Sample], dict[str, Any] | None]] = {
    "savedmodel": write_savedmodel,
    "tflite": write_tflite,
    "tflite-int8": write_tflite_int8,
    "onnx": write_onnx,
    "onnx-int8": write_onnx_int8,
}
"""Each writes a model to a path, and may return facts about it for `export.json`."""


def open_savedmodel(
    path: Path, threads: int | None = None
) -> list[Callable[[np.ndarray, Sequence[bytes]], Outputs]]:
    """Returns both signatures, each as a function of pixels and their encoded bytes.

    It runs in TensorFlow's threads.
    """
    loaded = tf.saved_model.load(str(path))

    def of_bytes(images: np.ndarray, encoded: Sequence[bytes]) -> Outputs:
        outputs = loaded.signatures["serving_default"](image_bytes=tf.constant(list(encoded)))
        return {name: value.numpy() for name, value in outputs.items()}

    def of_images(images: np.ndarray, encoded: Sequence[bytes]) -> Outputs:
        outputs = loaded.signatures["images"](images=tf.constant(images))
        return {name: value.numpy() for name, value in outputs.items()}

    return [of_bytes, of_images]


def open_tflite(
    path: Path, threads: int | None = None
) -> list[Callable[[np.ndarray, Sequence[bytes]], Outputs]]:
    """Returns the single signature of a TensorFlow Lite file; by default in one thread."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow's interpreter announces its end
        runner = _interpreter()(str(path), num_threads=threads).get_signature_runner("serve")
    return [lambda images, encoded: runner(images=images)]


def _interpreter() -> Any:
    """Returns the interpreter class of LiteRT, TensorFlow Lite's successor, or TensorFlow's own."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        return tf.lite.Interpreter
    return Interpreter


def open_onnx(
    path: Path, threads: int | None = None
) -> list[Callable[[np.ndarray, Sequence[bytes]], Outputs]]:
    """Runs an ONNX file in ONNX Runtime on the CPU; by default in as many threads as it chooses."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(images: np.ndarray, encoded: Sequence[bytes]) -> Outputs:
        return dict(zip(names, session.run(names, {"images": images}), strict=True))

    return [run]


READERS = {
    "savedmodel": open_savedmodel,
    "tflite": open_tflite,
    "tflite-int8": open_tflite,
    "onnx": open_onnx,
    "onnx-int8": open_onnx,
}
