"""Runs inference: from uint8 images in host memory to probabilities in host memory.

All contenders of an architecture have the same weights, and each first compares its logits with the
Keras model's (inference_models.py). The exception is keras.applications' ResNet50, which is another
network (v1). Each contender may use all cores.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contenders.inference_models import check, our_model, prepared, timm_model
from benchmarks.contenders.pytorch import import_torch
from benchmarks.contenders.training import KERAS_NAMES
from benchmarks.harness.contender import Contender
from convoy.utils.machine import device

CORES = len(os.sched_getaffinity(0))
CLOSE = 2e-3  # for logits with a standard deviation of about 3; ResNet50 in batches of 64: 1.1e-3


def _contender(
    run: Callable[[np.ndarray], Any],
    of: Callable[[Any], np.ndarray],
    arch: str,
    size: int,
    batch: int,
    facts: dict[str, Any],
    *,
    probabilities: bool = False,
    bound: float | None = CLOSE,
) -> Contender:
    """Compares a program's results with the Keras model's, and returns it as a contender.

    Args:
        run: runs the program on uint8 images `(batch, size, size, 3)`.
        of: extracts logits or probabilities `(batch, classes)` from the result of `run`.
        probabilities: True if `of` returns probabilities.
        bound: largest allowed difference; None allows any.

    Raises:
        ValueError: results differ by more than `bound`, or predict another class.
    """
    images, wanted = check(arch, size)
    wanted = _softmax(wanted) if probabilities else wanted
    # In batches of the measured size, so that the program is traced or compiled only once.
    parts = [images[i : i + batch] for i in range(0, len(images), batch)]
    got = np.concatenate([of(run(part)) for part in parts if len(part) == batch])
    wanted = wanted[: len(got)]
    difference = float(np.abs(got - wanted).max())
    agreement = float((got.argmax(-1) == wanted.argmax(-1)).mean())
    if bound is not None and not (difference <= bound and agreement == 1):
        raise ValueError(f"{facts}: off by {difference:.2g}, top-1 agrees on {agreement:.0%}")
    pixels = images[:batch]

    def turn(count: int) -> None:
        for _ in range(count):
            run(pixels)

    turn(3)
    found = {"largest difference": difference, "top-1 agreement": agreement}
    return Contender(turn, items=batch, facts=facts | found)


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def ours(arch: str, size: int, batch: int, use_amp: bool = False) -> Contender:
    """Runs the forward pass of `--mode predict`, in bfloat16 with `use_amp`."""
    device.prefer_onednn()
    import keras
    import tensorflow as tf

    from convoy.runtime.builders.trained_model import Trained
    from convoy.runtime.predict.tensorflow_engine import TensorflowEngine
    from convoy.runtime.settings.config import Config

    folder = prepared(arch, size, "weights").parent
    config = Config(arch=arch, image_size=size, predict_batch_size=batch)
    if use_amp:  # whatever the processor, which is what the row shows
        keras.config.set_dtype_policy("mixed_bfloat16")
    engine = TensorflowEngine(Trained(our_model(arch, size, folder), arch), config)
    facts = {"tensorflow": tf.__version__}
    # Random weights say nothing about the agreement of fewer bits.
    bound = None if use_amp else CLOSE
    return _contender(
        engine.probabilities,
        np.asarray,
        arch,
        size,
        batch,
        facts,
        probabilities=True,
        bound=bound,
    )


def export(name: str, arch: str, size: int, batch: int) -> Contender:
    """Runs a file of `--mode export`, as `--mode inference_benchmark` does."""
    device.prefer_onednn()
    path = prepared(arch, size, name)
    from convoy.runtime.export.writers import READERS

    runner = READERS[name](path, threads=CORES)[-1]

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        return runner(images, ())

    facts = {"mib": round(_bytes(path) / 2**20, 1)}
    bound = None if "int8" in name else CLOSE  # int8 can only be judged with trained weights
    return _contender(run, lambda got: got["logits"], arch, size, batch, facts, bound=bound)


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _keras_model(arch: str, size: int) -> tuple[Any, bool]:
    """Returns keras.applications' network, and whether it is the same network as ours."""
    import keras

    shape = (size, size, 3)
    if arch == "resnet50":
        net = keras.applications.ResNet50(weights=None, input_shape=shape)
        images = keras.Input(shape)
        means = keras.layers.Normalization(mean=[123.68, 116.779, 103.939], variance=[1, 1, 1])
        return keras.Model(images, net(means(images))), False
    from convoy.model.catalog import IMAGENET_MEAN, IMAGENET_STD

    net = getattr(keras.applications, KERAS_NAMES[arch])(weights=None, input_shape=shape)
    # Its first layers divide by 255 and normalise with constants that are part of its weights.
    place = next(i for i, x in enumerate(net.layers) if x.name.startswith("normalization"))
    net.layers[place].mean = np.reshape(IMAGENET_MEAN, (1, 1, 1, 3)).astype(np.float32) / 255
    net.layers[place].variance = np.square(IMAGENET_STD, dtype=np.float32).reshape(1, 1, 1, 3)
    net.layers[place].variance /= 255**2
    folder = prepared(arch, size, "weights").parent
    source = our_model(arch, size, folder)
    for layer in source.layers:
        if layer.weights and layer.name != "normalization":
            net.get_layer(layer.name).set_weights(layer.get_weights())
    return net, True


def keras_model(arch: str, size: int, batch: int, how: str) -> Contender:
    """Runs keras.applications by `predict` (how="predict") or `tf.function` (how="function")."""
    import keras
    import tensorflow as tf

    model, same = _keras_model(arch, size)
    if how == "predict":

        def run(images: np.ndarray) -> np.ndarray:
            return model.predict(images, batch_size=batch, verbose=0)
    else:
        forward = tf.function(lambda images: model(images, training=False))

        def run(images: np.ndarray) -> np.ndarray:
            return forward(tf.constant(images)).numpy()

    facts = {"keras": keras.__version__, "tensorflow": tf.__version__}
    bound = CLOSE if same else None
    return _contender(run, np.asarray, arch, size, batch, facts, probabilities=True, bound=bound)


def timm_torch(arch: str, size: int, batch: int, channels_last: bool, compiled: bool) -> Contender:
    """Runs timm in PyTorch, under `inference_mode`."""
    torch = import_torch()
    import timm

    model = timm_model(arch, size)
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    forward = torch.compile(model) if compiled else model

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.inference_mode():
            return tuple(x.numpy() for x in forward(torch.from_numpy(images)))

    facts = {"torch": torch.__version__, "timm": timm.__version__}
    return _contender(run, lambda got: got[0], arch, size, batch, facts)


def timm_onnx(arch: str, size: int, batch: int) -> Contender:
    """Runs timm's network, exported by `torch.onnx.export`, in ONNX Runtime with its defaults."""
    import onnxruntime

    path = prepared(arch, size, "timm.onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = CORES
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(images: np.ndarray) -> list[np.ndarray]:
        return session.run(["logits", "probabilities"], {"images": images})

    facts = {"onnxruntime": onnxruntime.__version__, "mib": round(_bytes(path) / 2**20, 1)}
    return _contender(run, lambda got: got[0], arch, size, batch, facts)
