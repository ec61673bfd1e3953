"""Rejects a new run in the folder of an older one."""

from __future__ import annotations

from convoy.runtime.settings.config import Config
from convoy.runtime.settings.modes import RUN_MODES
from convoy.utils.errors import ConfigError


def fresh_model_dir(config: Config) -> None:
    """Checks that a new run will not mix its checkpoints with an older run's, or even remove them.

    Raises:
        ConfigError: it would.
    """
    from convoy.runtime.run_folder.checkpoint import (
        CheckpointError,
        checkpoints_folder,
        complete_checkpoints,
    )
    from convoy.runtime.run_folder.marker import MARKER

    begins = config.mode in RUN_MODES and not config.resume_checkpoint
    if not begins or config.no_checkpoints:
        return
    try:
        found = complete_checkpoints(config.model_dir)
    except CheckpointError as error:
        raise ConfigError(str(error)) from error
    if found:
        raise ConfigError(
            f"--model_dir {config.model_dir} already holds checkpoints: continue from them with"
            " --resume_checkpoint, or choose another folder"
        )
    # A save that was interrupted has no marker, and holds nothing that could be restored.
    damaged = [
        p for p in checkpoints_folder(config.model_dir).glob("step-*") if (p / MARKER).exists()
    ]
    if damaged:
        raise ConfigError(
            f"--model_dir {config.model_dir} holds damaged checkpoints ({damaged[0].name}), which a"
            " new run would remove: choose another folder, or move them away"
        )
