"""Evaluates an exported ONNX file, without TensorFlow."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from convoy.dataloader.plain import library
from convoy.dataloader.plain.loader import PlainLoader
from convoy.runtime.data.class_matching import known_names, match_classes
from convoy.runtime.data.open_split import open_split, say_found
from convoy.runtime.evaluate.counting import CountingByClass
from convoy.runtime.evaluate.evaluate import evaluate_data
from convoy.runtime.predict.choice import Choice
from convoy.runtime.predict.onnx_engine import OnnxEngine
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.images import eval_crop
from convoy.utils.machine.cores import usable_cores
from convoy.utils.metrics import array_sums
from convoy.utils.optional import known
from convoy.utils.text import tell


class _Step(CountingByClass):
    """Converts a batch to float64 `(4,)`: sums of loss, top-1, top-5 and weight."""

    def __init__(self, engine: OnnxEngine) -> None:
        self._engine = engine
        super().__init__(engine.classes)

    def __call__(self, images: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Evaluates a batch, counts its answers by class, and returns its sums."""
        logits, _ = self._engine.outputs(images)
        broken = np.isnan(logits).any(-1)  # not a class: wrong for any label
        answers = np.where(broken, self.classes, logits.argmax(-1))
        self.count(labels[weights > 0], answers[weights > 0].astype(np.int32))
        return array_sums(logits, labels, weights)


def evaluate_export(config: Config, choice: Choice) -> dict[str, Any]:
    """Evaluates an ONNX file on the validation split; the figures are those of `evaluate`.

    Raises:
        ConfigError: the file cannot be used.
        DataError: the data do not fit, or more images are unreadable than allowed.
    """
    engine = OnnxEngine(known(choice.file), config, 1, choice.class_names)
    print(f"evaluating {engine.text} at {engine.size} px", flush=True)
    names = known_names(engine.trained_names, engine.classes, config.label_file)
    source = open_split(config, "validation", say_found)
    source, lines = match_classes(source, names, engine.classes, f"--data_dir {config.data_dir}")
    for line in lines:
        tell(line, sys.stdout)
    library.prepare(source.num_examples)
    loader = PlainLoader(
        source,
        engine.classes,
        image_size=engine.size,
        batch_size=config.eval_batch_size,
        crop=eval_crop(config),
        threads=config.num_workers or usable_cores(),
    )
    return evaluate_data(_Step(engine), loader, config, prof=config.prof)
