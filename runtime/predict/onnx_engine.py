"""Computes a model's answers with ONNX Runtime, without TensorFlow."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convoy.dataloader.plain import library
from convoy.dataloader.plain.square import eval_square
from convoy.model.weights import onnx_file
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.flags import AUTO
from convoy.runtime.settings.images import eval_crop
from convoy.utils.errors import ConfigError, UserError
from convoy.utils.machine.cores import usable_cores
from convoy.utils.machine.resources import NO_MEMORY

_PIXELS = 8 * 224 * 224  # of a batch, for --predict_batch_size auto
_LONGEST = 300  # characters of ONNX Runtime's messages
_PLACE = re.compile(r"^(\[ONNXRuntimeError\] : \d+ : \w+ : )?(/\S+:\d+ .*?\) (?=[A-Z]))?")


class EngineError(UserError, RuntimeError):
    """ONNX Runtime failed to compute. The text says why."""


class OnnxEngine:
    """Computes with an ONNX file of `--mode export`; see `engine.Engine`.

    Attributes:
        trained_names: names of the classes in the training data, which may differ from those in
            answers; None: they had none.

    Args:
        file: the ONNX file.
        config: for the crop, the batch, mirror images and threads.
        count: number of images to label. A few share all cores; of many, each core has its own.
        class_names: names in the training data, perhaps none; None: those in the file.

    Raises:
        ConfigError: the file cannot be used; the text says why.
    """

    def __init__(
        self, file: Path, config: Config, count: int, class_names: Sequence[str] | None = None
    ) -> None:
        said, cores = onnx_file.facts(file), usable_cores()
        settings = onnx_file.settings(file)
        of_file = settings["class_names"]
        self.class_names: Sequence[str] | None = of_file if class_names is None else class_names
        self.trained_names: Sequence[str] | None = class_names
        if class_names is None:
            self.trained_names = said.get("classes_in_data", of_file)
        self.classes, self.size = len(of_file), settings["image_size"]
        self._crop, self._flip = eval_crop(config), config.flip_tta
        library.prepare(count)
        few = count < 2 * cores
        self.at_once = 1 if few or config.intraop_threads else cores
        self.batch = _batch(config.predict_batch_size, self.size, count, self.at_once)
        threads = config.intraop_threads or (cores if few else 1)
        self._session, version = _session(file, threads, self.size, self.classes)
        self.text = f"{file}, made of {said.get('source')}, in ONNX Runtime {version}"

    def square(self, encoded: bytes) -> np.ndarray:
        """Returns the model's view of an encoded image, with the pixels that evaluation sees."""
        return eval_square(encoded, self.size, self._crop)

    def probabilities(self, images: np.ndarray) -> np.ndarray:
        """Returns float32 `(images, classes)`; NaN where a logit is not finite.

        Raises:
            EngineError: ONNX Runtime failed.
        """
        found = self._finite(images)
        return (found + self._finite(images[:, :, ::-1])) / 2 if self._flip else found

    def _finite(self, images: np.ndarray) -> np.ndarray:
        logits, probabilities = self.outputs(images)
        return np.where(np.isfinite(logits).all(-1, keepdims=True), probabilities, np.nan)

    def outputs(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns logits and probabilities, each float32 `(images, classes)`.

        Raises:
            EngineError, MemoryError: ONNX Runtime failed.
        """
        feed = {"images": np.ascontiguousarray(images)}
        try:
            logits, probabilities = self._session.run(["logits", "probabilities"], feed)
        except Exception as error:
            if NO_MEMORY.search(text := _first_words(error)):
                raise MemoryError(text) from error
            raise EngineError(f"ONNX Runtime: {text}") from error
        return logits, probabilities


def _batch(asked: int | str, size: int, count: int, at_once: int) -> int:
    if asked != AUTO:
        return int(asked)
    share = -(-count // (2 * at_once))
    return max(1, min(_PIXELS // (size * size), share))


def _session(file: Path, threads: int, size: int, classes: int) -> tuple[Any, str]:
    """Loads the file; returns the session and ONNX Runtime's version."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors
    try:
        session = onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        raise ConfigError(
            f"{file}: ONNX Runtime {onnxruntime.__version__} cannot load it: {_first_words(error)}"
        ) from error
    _check(file, session, size, classes)
    return session, onnxruntime.__version__


def _check(file: Path, session: Any, size: int, classes: int) -> None:
    """Raises ConfigError unless the network's inputs and outputs are as its metadata say."""
    (*others, images), outputs = session.get_inputs(), session.get_outputs()
    wanted = ["images", "tensor(uint8)", [size, size, 3]]
    if others or [images.name, images.type, images.shape[1:]] != wanted:
        takes = ", ".join(f"{i.name} {i.type} {i.shape}" for i in session.get_inputs())
        raise ConfigError(
            f"{file} takes {takes}, and not images of uint8 ({size}, {size}, 3), as its metadata"
            " say: export it again"
        )
    numbers = {output.name: output.shape[-1:] for output in outputs}
    for name in ("logits", "probabilities"):
        if numbers.get(name) != [classes]:
            gives = numbers.get(name, ["no"])
            raise ConfigError(
                f"{file} names {classes} classes, and gives {gives[0]} {name}: export it again"
            )


def _first_words(error: Exception) -> str:
    """Returns what ONNX Runtime says, without codes and places in its source."""
    text = " ".join(str(error).split()).split(" failed:", 1)[-1]
    return _PLACE.sub("", text)[:_LONGEST].rstrip(".")
