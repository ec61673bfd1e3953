"""Checks the places that a mode writes into, before anything is computed. No TensorFlow."""

from __future__ import annotations

import os
from pathlib import Path

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
    output = config.output if config.mode == "export" else None
    if output and not is_url(output) and Path(output).is_file():
        raise ConfigError(f"--output {output} is a file, and exports need a folder: name one")
