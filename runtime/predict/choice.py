"""Chooses the program that computes answers: `--engine`. Imports no TensorFlow."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from convoy.model.weights import onnx_file
from convoy.runtime.run_folder.checkpoint import CheckpointError, read_state
from convoy.runtime.run_folder.marker import weights_sha256
from convoy.runtime.run_folder.which_checkpoint import resolve
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.images import eval_crop, image_size
from convoy.utils.errors import ConfigError
from convoy.utils.extras import how_to_install
from convoy.utils.files import is_url
from convoy.utils.machine.gpus import visible_gpus

INSIDE = Path("export", onnx_file.NAME)
"""Where `--mode export` writes an ONNX file, in a run's folder."""


class Choice(NamedTuple):
    """What computes the answers.

    Attributes:
        file: the ONNX file for ONNX Runtime; None: TensorFlow.
        class_names: names in the training data, perhaps none; None: those in the file.
        why_not: why it is not ONNX Runtime; "" if nobody may ask.
        lacks_export: whether only the file is missing for ONNX Runtime.
    """

    file: Path | None
    class_names: list[str] | None = None
    why_not: str = ""
    lacks_export: bool = False


def choose(config: Config) -> Choice:
    """Returns the program for a mode of `settings.modes.ENGINE_MODES`, as `--engine` says.

    Raises:
        ConfigError: `--engine onnx` cannot be followed.
    """
    file = config.pretrained_from_file
    if onnx_file.is_onnx(file):
        return Choice(Path(str(file)))
    if config.engine == "tensorflow":
        return Choice(None)
    if config.mode == "eval" and config.engine == "auto":
        return Choice(None)  # the figures of training's own evaluation, to the last digit
    if config.engine == "auto" and visible_gpus():
        return Choice(None, why_not="there is a GPU")
    try:
        found = _export_of_run(config)
    except _Unfit as reason:
        if config.engine == "onnx":
            raise ConfigError(f"--engine onnx: {reason}") from None
        if find_spec("tensorflow") is None:
            raise ConfigError(
                f"TensorFlow is not installed ({how_to_install('cpu')}), and ONNX Runtime cannot be"
                f" used: {reason}"
            ) from None
        return Choice(None, why_not=str(reason), lacks_export=isinstance(reason, _NoFile))
    return found


class _Unfit(Exception):
    """There is no export that gives the answers that were asked for; the text says why."""


class _NoFile(_Unfit):
    """There is no export at all."""


def _export_of_run(config: Config) -> Choice:
    """Returns the run's export, if it has the checkpoint's weights and the right size."""
    how = "--mode export --export_format onnx writes one"
    if config.pretrained_from_file:
        raise _NoFile(f"{config.pretrained_from_file} is no ONNX file ({how})")
    if is_url(config.model_dir):
        raise _Unfit("ONNX files are read from local folders alone")
    file = Path(config.model_dir) / INSIDE
    if not file.is_file():
        raise _NoFile(f"there is no {file} ({how})")
    if lacking := lacks_runtime() or needs_tensorflow(config):
        raise _Unfit(lacking)
    try:
        checkpoint = resolve(config.model_dir, config.checkpoint)
        state = read_state(checkpoint)
        said, settings = onnx_file.facts(file), onnx_file.settings(file)
    except (CheckpointError, ConfigError, OSError, ValueError) as error:
        raise _Unfit(str(error)) from error
    weights = config.weights
    if weights == "auto":
        weights = state.get("better_weights", "raw")
    if said.get("weights_sha256") != weights_sha256(checkpoint, weights):
        raise _Unfit(
            f"{file} was made of {said.get('source')}, and not of the {weights} weights of"
            f" {checkpoint.name}: export again with --overwrite, or name the file itself with"
            " --pretrained_from_file"
        )
    if settings["image_size"] != image_size(config):
        raise _Unfit(
            f"{file} takes images of {settings['image_size']} px, not --image_size"
            f" {image_size(config)}"
        )
    return Choice(file, state.get("class_names") or [])


def needs_tensorflow(config: Config) -> str:
    """Says why squares of photographs cannot be made without TensorFlow; "" if they can."""
    if eval_crop(config).arithmetic != "tensorflow":
        return ""
    return f"--evaluation_like {config.evaluation_like} decodes and resizes with TensorFlow"


def lacks_runtime() -> str:
    """Says how to install ONNX Runtime; "" if it is there."""
    if find_spec("onnxruntime") is not None:
        return ""
    return f"ONNX Runtime is not installed: {how_to_install('predict')}"
