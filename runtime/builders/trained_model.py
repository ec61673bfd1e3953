"""Builds the trained model for `eval`, `predict`, `export` and others.

It comes from a checkpoint or a file.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any

import keras
import yaml

from convoy.dataloader import EvalCrop
from convoy.dataloader.sources.source import Source
from convoy.runtime.builders.models import model_arguments
from convoy.runtime.data.class_matching import known_names, match_classes
from convoy.runtime.run_folder.arrays import assign
from convoy.runtime.run_folder.checkpoint import AnyPath, Checkpoint, CheckpointError, read
from convoy.runtime.run_folder.marker import MARKER, weights_sha256
from convoy.runtime.run_folder.which_checkpoint import folder_of, passed_over, resolve
from convoy.runtime.settings.config import Config, defaults
from convoy.runtime.settings.images import eval_crop, image_size
from convoy.runtime.settings.modes import AVERAGE
from convoy.utils.distributed import ranks
from convoy.utils.errors import ConfigError
from convoy.utils.files import path_of
from convoy.utils.optional import known
from convoy.utils.text import tell


@dataclass
class Trained:
    """A model with weights.

    Attributes:
        model: from images to logits.
        text: description for the user.
        class_names: one per class, or None.
        state, config: from the checkpoint (`state.json`, `config.yaml`); empty for a file.
    """

    model: keras.Model
    text: str
    class_names: list[str] | None = None
    state: dict[str, Any] = field(default_factory=dict)
    config: str = ""

    @property
    def settings(self) -> dict[str, Any] | None:
        """Returns its run's settings by flag; None for a file."""
        return yaml.safe_load(self.config) if self.config else None

    def evaluated_on(self, size: int, crop: EvalCrop) -> bool:
        """Returns whether its run evaluated it on images of this size and crop."""
        if not (settings := self.settings):
            return False
        known, whole = {f.name for f in fields(Config)}, defaults(settings["arch"]) | settings
        run = Config(**{name: value for name, value in whole.items() if name in known})
        return (image_size(run), eval_crop(run)) == (size, crop)


def load_model(
    path: str | AnyPath,
    weights: str = "auto",
    data_format: str = "channels_last",
    image_size: int | None = None,
) -> tuple[Any, Checkpoint]:
    """Builds the model of a checkpoint.

    Args:
        path: a checkpoint's folder, or a model_dir (for its best checkpoint).
        weights: "raw", "ema", or "auto": the better of the two when the checkpoint was saved.
        data_format: the layout for computing; any checkpoint works with both.
        image_size: side in pixels; None: as in training.

    Returns:
        The Keras model, and the checkpoint, whose state has also `weights_used` and their
        `weights_sha256`.
    """
    from convoy.model import build_model

    path = path_of(path)
    folder = path if (path / MARKER).exists() else resolve(path)
    checkpoint = read(folder)
    if weights == "auto":
        weights = checkpoint.state.get("better_weights", "raw")
    if weights == "ema" and not checkpoint.ema:
        raise CheckpointError(
            f"--weights ema: {checkpoint.path} holds no moving average (it was trained with"
            " --moving_average_decay 0)"
        )
    built = dict(checkpoint.state["model"])
    built |= {"image_size": image_size} if image_size else {}
    model = build_model(built.pop("arch"), **built, data_format=data_format)
    assign(model.weights, checkpoint.ema if weights == "ema" else checkpoint.model, "weight")
    checkpoint.state["weights_used"] = weights
    checkpoint.state["weights_sha256"] = weights_sha256(folder, weights)
    return model, checkpoint


def trained_model(config: Config) -> Trained:
    """Loads the file of `--pretrained_from_file`, or otherwise `--checkpoint` of `--model_dir`.

    Raises:
        CheckpointError, WeightFileError: it cannot be read.
        ConfigError: the file has no classifier, or another number of classes than requested.
    """
    file = config.pretrained_from_file
    path = ranks.on_rank0(lambda: _checkpoint_of(config))
    if path is None:
        return _from_file(config, known(file))
    model, saved = load_model(path, config.weights, config.data_format, config.image_size)
    text = f"{path} ({saved.state['weights_used']} weights, epoch {saved.state['epoch']})"
    return Trained(model, text, saved.state.get("class_names"), saved.state, saved.config)


def _checkpoint_of(config: Config) -> Any:
    """Returns the checkpoint's folder from the flags, or None for a file.

    It warns of damaged checkpoints that would have been chosen.
    """
    if config.pretrained_from_file:
        return folder_of(config.pretrained_from_file)
    path = resolve(config.model_dir, config.checkpoint)
    if config.checkpoint in ("best", "last"):
        for line in passed_over(config.model_dir, path, config.checkpoint):
            tell(line)
    return path


def for_classes_of(trained: Trained, config: Config) -> Callable[[Source], Source]:
    """Returns a function that maps the classes of a source of `--data_dir` to the model's.

    It says on rank 0 which are not matched by name.

    The function raises DataError if there are images of classes that the model lacks.
    """
    classes = trained.model.output_shape[-1]
    names = known_names(trained.class_names, classes, config.label_file)

    def adapt(source: Source) -> Source:
        matched, lines = match_classes(source, names, classes, f"--data_dir {config.data_dir}")
        if ranks.rank() == 0:
            for line in lines:
                tell(line, sys.stdout)
        return matched

    return adapt


def _from_file(config: Config, file: str) -> Trained:
    from convoy.model import build_model
    from convoy.model.weights import inspect, load_pretrained
    from convoy.model.weights.origin import how_applied

    ema = AVERAGE[config.weights]
    how: dict[str, Any] = {"partial": config.pretrained_partial, "padding": config.padding}
    implied = inspect(file, config.arch, ema=ema, **how)
    classes = implied.num_classes
    if classes is None or config.num_classes not in (None, classes):
        had = f"{classes} classes" if classes else "no classifier"
        raise ConfigError(
            f"--pretrained_from_file {file} has {had}"
            + (f", not --num_classes {config.num_classes}" if classes else "")
            + f", so --mode {config.mode} cannot apply it; train one first (--mode train)"
        )
    arguments: dict[str, Any] = model_arguments(config, classes, implied.arguments)
    model = build_model(arguments.pop("arch"), **arguments, data_format=config.data_format)
    report = load_pretrained(
        model, config.arch, file, strict=config.pretrained_strict, ema=ema, **how
    )
    if random := report.unmatched_model + report.mismatched:
        raise ConfigError(
            f"--pretrained_from_file {file} lacks {len(random)} of the model's tensors, the first"
            f" {random[0]}: results would be those of random weights"
        )
    if ranks.rank() == 0:
        tell("\n".join(report.lines()))
    return Trained(model, file, how_applied(file).get("class_names"))
