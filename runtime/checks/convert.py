"""Checks `--mode convert` without TensorFlow: its source and its target."""

from __future__ import annotations

from pathlib import Path

from convoy.runtime.settings.config import Config
from convoy.runtime.settings.modes import AVERAGE
from convoy.utils.errors import ConfigError
from convoy.utils.files import is_url


def check_convert(config: Config) -> None:
    """Checks the source and the target.

    Raises:
        ConfigError: the conversion would fail.
    """
    from convoy.model.catalog import get_arch
    from convoy.model.weights import WeightFileError, check_target, inspect
    from convoy.runtime.run_folder.checkpoint import CheckpointError
    from convoy.runtime.run_folder.which_checkpoint import resolve

    if not config.output:
        raise ConfigError("--mode convert needs --output, a .safetensors, .keras or .weights.h5")
    try:
        check_target(config.output, config.weight_names, get_arch(config.arch).family)
    except ValueError as error:
        named = "" if config.weight_names == Config.weight_names else ", --weight_names"
        raise ConfigError(f"--output{named}: {error}") from error
    if Path(config.output).exists() and not config.overwrite:
        raise ConfigError(f"--output {config.output} exists already: replace it with --overwrite")
    if config.weights == "both":
        raise ConfigError("--weights both is for reports: convert raw and ema one after the other")
    file = config.pretrained_from_file
    if any(is_url(path) for path in (file or config.model_dir, config.checkpoint) if path):
        raise ConfigError("--mode convert reads local files only: copy the checkpoint here first")
    if not file and config.padding:
        raise ConfigError("--padding is for files that do not say it; a run's checkpoint does")
    try:
        inspect(
            file or str(resolve(config.model_dir, config.checkpoint)),
            config.arch,
            ema=AVERAGE[config.weights],
            padding=config.padding,
            partial=config.pretrained_partial,
        )
    except (WeightFileError, CheckpointError) as error:
        raise ConfigError(str(error)) from error
