"""Checks the places that a mode writes into, before anything is computed. No TensorFlow."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from convoy.dataloader.errors import DataError
from convoy.dataloader.sources.advice import folders_of_classes
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.flag_facts import used_in
from convoy.runtime.settings.modes import TRAINING_MODES
from convoy.utils.errors import ConfigError
from convoy.utils.files import is_url
from convoy.utils.places import PlaceError, spare_checkpoints

_WRITTEN = ("output", "report_dir", "cache_dir", "xla_cache")


def check_outputs(config: Config) -> None:
    """Rejects places that must not be written, or cannot be.

    Raises:
        ConfigError: the message names the flag.
    """
    written = [name for name in _WRITTEN if name in used_in(config.mode)]
    if config.mode in TRAINING_MODES or config.pretrained_from_file:  # else it only names the run
        written.append("model_dir")
    try:
        for name in written:
            if path := getattr(config, name):
                spare_checkpoints(path, f"--{name}")
        if "log_filename" in used_in(config.mode):
            log = os.path.join(config.model_dir, config.log_filename)
            spare_checkpoints(log, "--log_filename")
    except PlaceError as error:
        raise ConfigError(str(error)) from error
    if config.mode in TRAINING_MODES and config.data_dir and not is_url(config.model_dir):
        _spare_classes(config.model_dir, config.data_dir)
    output = config.output if config.mode == "export" else None
    if output and not is_url(output) and Path(output).is_file():
        raise ConfigError(f"--output {output} is a file, and exports need a folder: name one")


def _spare_classes(model_dir: str, data_dir: str) -> None:
    """Refuses a run's folder that would be taken for a class of its own data."""
    place = os.path.realpath(model_dir)
    with suppress(DataError, OSError):  # the loader tells these
        for folder in folders_of_classes(data_dir):
            if os.path.commonpath((place, real := os.path.realpath(folder))) == real:
                raise ConfigError(
                    f"--model_dir {model_dir} lies among the class folders in {folder}, where it"
                    " would be taken for a class: choose another --model_dir"
                )
