"""Measures one row of `--mode inference_benchmark`: a model, in Keras or exported."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Generator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from convoy.runtime.benchmark.plan import DEFAULT_ITERATIONS, KERAS, Row
from convoy.runtime.builders.inference import for_inference
from convoy.runtime.builders.inputs import build_loader
from convoy.runtime.builders.models import DEFAULT_CLASSES, build_training_model, model_arguments
from convoy.runtime.builders.trained_model import Trained, trained_model
from convoy.runtime.data.class_names import class_names
from convoy.runtime.export.export import export_folder
from convoy.runtime.export.formats import FORMATS, SIDE_FILE
from convoy.runtime.export.sample_images import Sample
from convoy.runtime.export.writers import READERS, WRITERS, Exportable
from convoy.runtime.run_folder.checkpoint import has_any
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.images import eval_crop, image_size
from convoy.utils.errors import ConfigError
from convoy.utils.machine import xla
from convoy.utils.machine.resources import Energy
from convoy.utils.metrics import Throughput

CALIBRATION_IMAGES = 32
RANDOM = "random weights"


class Inference:
    """The model and images of a row, made once and then timed at one batch size after another.

    Args:
        config: config with the row's settings.
        row: the row; its format decides the runtime.
        folder: empty folder for an export, if the run has none that fits.
    """

    def __init__(self, config: Config, row: Row, folder: Path) -> None:
        exported = row.format != KERAS
        if exported:  # exports take NHWC images, whatever the run's format
            config = config.with_(data_format="channels_last")
        trained = _model(config)
        self._classes = trained.model.output_shape[-1]
        self._source: Any = None
        # Of Keras, only float32 is what exports are compared with.
        self._agreement = 1.0 if row.precision == "fp32" else None
        self.origin = trained.text.rstrip("/").rpartition("/")[2]  # the name without its folder
        if exported:  # frees the Keras model at the end, so that it takes no memory from the export
            self._run = self._open_export(config, row.format, trained, folder / "export")
        else:
            self._run = _keras_function(trained.model, row.xla)
        print(f"{row.format}: {self.origin}", flush=True)

    def __call__(self, config: Config) -> dict[str, Any]:
        """Times `--prof` batches of `--eval_batch_size` after `--benchmark_warmup`.

        It reads real images as evaluation does, and starts over at their end.

        Returns:
            As `runtime.benchmark.training.train`.
        """
        steps = config.prof or DEFAULT_ITERATIONS
        times, energy = Throughput(config.benchmark_warmup), None
        with closing(self._images(config)) as images:
            for number in range(config.benchmark_warmup + steps):
                if number == config.benchmark_warmup:
                    energy = Energy()
                start = time.perf_counter()
                batch = next(images)
                ready = time.perf_counter()
                self._run(batch)
                times.add(len(batch), ready - start, time.perf_counter() - ready)
        return {
            "data": times.data_times,
            "compute": times.compute_times,
            "warmup_iterations": config.benchmark_warmup,
            "images_per_iteration": config.eval_batch_size,
            "model": self.origin,
            "agreement": self._agreement,
            "energy": energy and energy.read(),
        }

    def _images(self, config: Config) -> Generator[np.ndarray, None, None]:
        """Yields batches, uint8 `(B, H, W, 3)`, without end."""
        loader = build_loader(config, "validation", num_classes=self._classes, source=self._source)
        self._source = loader.source
        if loader.source is None:  # synthetic: the same batch again and again
            images = next(iter(loader.batches(0)))[0].numpy()
            while True:
                yield images
        while True:
            with closing(loader.batches(0)) as batches:
                for images, _, _ in batches:
                    yield images.numpy()

    def _open_export(
        self, config: Config, name: str, trained: Trained, place: Path
    ) -> Callable[[np.ndarray], Any]:
        """Returns a function that runs the run's export, or a new one of its model at `place`."""
        path = export_folder(config.with_(output=None)) / FORMATS[name].file
        if _fits(path, config, trained):
            self.origin += f", {FORMATS[name].file} of the run"
            self._agreement = _agreement(config, name)
        else:
            path = place
            self._write(config, name, trained, path)
            self.origin += ", exported for this benchmark"
            self._agreement = None
        run = READERS[name](path, threads=threads(config))[-1]
        return lambda images: run(images, ())

    def _write(self, config: Config, name: str, trained: Trained, path: Path) -> None:
        names, crop = class_names(trained.class_names, self._classes), eval_crop(config).in_bytes()
        what = Exportable(trained.model, names, crop, min(config.top_k, len(names)), False, {})
        with closing(self._images(config.with_(eval_batch_size=1))) as images:
            calibration = [batch[0] for batch in islice(images, CALIBRATION_IMAGES)]
        WRITERS[name](what, path, Sample(calibration=calibration))


def _model(config: Config) -> Trained:
    """Returns the run's model; without a run, one with random weights and the same speed.

    Raises:
        CheckpointError: there is a checkpoint, but not the requested one, or it is damaged.
        ConfigError: `--arch` is not the checkpoint's.
    """
    flags = (config.pretrained_from_file, config.checkpoint, config.weights)
    if flags == (None, "best", "auto") and not has_any(config.model_dir):
        classes = config.num_classes or DEFAULT_CLASSES
        state = {"model": model_arguments(config, classes)}
        return Trained(build_training_model(config, classes), RANDOM, state=state)
    trained = trained_model(config)
    arch = (trained.state.get("model") or {}).get("arch", config.arch)
    if arch != config.arch:
        raise ConfigError(
            f"--arch {config.arch}: the checkpoint of --model_dir {config.model_dir} is of {arch};"
            " leave --arch out, or name a --model_dir without checkpoints to time random weights"
        )
    return trained


def _agreement(config: Config, name: str) -> float | None:
    """Returns the top-1 agreement of the run's export; None unless it was found good enough."""
    try:
        said = json.loads((export_folder(config.with_(output=None)) / SIDE_FILE).read_text())
        entry = said["formats"][name]
        return entry["top1_agreement"] if entry["passed"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _fits(path: Path, config: Config, trained: Trained) -> bool:
    """Returns whether there is an export with this architecture, size and number of classes."""
    try:
        said = json.loads((export_folder(config.with_(output=None)) / SIDE_FILE).read_text())
        found = said["arch"], said["preprocessing"]["image_size"], len(said["classes"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
    model = trained.model
    arch = (trained.state.get("model") or {}).get("arch", config.arch)
    return path.exists() and found == (arch, image_size(config), model.output_shape[-1])


def _keras_function(model: keras.Model, compiled: bool) -> Callable[[np.ndarray], np.ndarray]:
    """Returns what `predict` and `eval` compute."""
    ready = for_inference(model, compiled)
    forward = xla.function(lambda images: ready(images, training=False), compiled)
    return lambda images: forward(tf.convert_to_tensor(images)).numpy()


def threads(config: Config) -> int:
    """Returns the number for runtimes that need one: by default all cores, as in TensorFlow."""
    return config.intraop_threads or len(os.sched_getaffinity(0))
