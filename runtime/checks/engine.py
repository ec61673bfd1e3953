"""Checks `--engine`, and ONNX files that are given as the model. No TensorFlow."""

from __future__ import annotations

from convoy.dataloader.plain.resizing import KINDS
from convoy.model.weights import onnx_file
from convoy.runtime.predict.choice import lacks_runtime, needs_tensorflow
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.evaluation_like import PROGRAMS
from convoy.runtime.settings.images import eval_crop
from convoy.runtime.settings.modes import ENGINE_MODES
from convoy.utils.distributed.launched import launched_processes
from convoy.utils.errors import ConfigError
from convoy.utils.optional import known


def check_engine(config: Config) -> None:
    """Rejects what `--engine` cannot do.

    Raises:
        ConfigError: the message names the flag or the file.
    """
    file, modes = config.pretrained_from_file, " and ".join(ENGINE_MODES)
    if config.mode not in ENGINE_MODES:
        if config.engine != "auto":
            raise ConfigError(f"--engine {config.engine} is for --mode {modes}: leave it out")
        if onnx_file.is_onnx(file):
            raise ConfigError(
                f"--pretrained_from_file {file} is an export, which --mode {modes} apply; --mode"
                f" {config.mode} needs a checkpoint or a weight file"
            )
        return
    onnx = config.engine == "onnx" or onnx_file.is_onnx(file)
    if onnx and (config.report or config.nproc or launched_processes() > 1):
        what = "--report" if config.report else "several processes"
        raise ConfigError(f"an ONNX file is not for {what}: evaluate the checkpoint in TensorFlow")
    if onnx_file.is_onnx(file):
        _check_file(config, known(file))


def _check_file(config: Config, file: str) -> None:
    if config.engine == "tensorflow":
        raise ConfigError(
            f"--engine tensorflow applies checkpoints and weight files, and {file} is an ONNX file:"
            " leave --engine out"
        )
    if lacking := lacks_runtime():
        raise ConfigError(f"{file}: {lacking}")
    said, settings = onnx_file.facts(file), onnx_file.settings(file)
    if config.weights not in ("auto", said.get("weights")):
        raise ConfigError(
            f"--weights {config.weights}: {file} was made of {said.get('source')}: leave --weights"
            " out"
        )
    if config.arch != settings["arch"]:
        raise ConfigError(f"--arch {config.arch}: {file} is {settings['arch']}: leave --arch out")
    if config.image_size not in (None, settings["image_size"]):
        raise ConfigError(
            f"--image_size {config.image_size}: {file} takes images of {settings['image_size']} px:"
            " export again with --image_size, or leave it out"
        )
    _check_pixels(config, file, settings.get("evaluation_like"))


def _check_pixels(config: Config, file: str, like: str | None) -> None:
    """Raises ConfigError if the file's images cannot be prepared here."""
    if like not in (None, *PROGRAMS):
        raise ConfigError(
            f"{file} needs images prepared like {like}, which this version does not know: export"
            " it again"
        )
    if reason := needs_tensorflow(config):
        raise ConfigError(f"{file} cannot be applied: {reason}")
    crop = eval_crop(config)
    if crop.arithmetic == "own" and crop.interpolation not in KINDS:
        raise ConfigError(
            f"{file} needs images resized by {crop.interpolation}, and only {' and '.join(KINDS)}"
            " are known here"
        )
