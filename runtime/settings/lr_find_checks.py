"""Checks of `--mode lr_find` that need no TensorFlow."""

from __future__ import annotations

from convoy.runtime.settings.config import Config
from convoy.utils.distributed import ranks
from convoy.utils.errors import ConfigError

LEAST_UPDATES = 20


def check_lr_find(config: Config) -> None:
    """Rejects flags that make no sense in this mode.

    Raises:
        ConfigError: there is such a flag, or the job is elastic.
    """
    if config.mode != "lr_find":
        return
    if config.resume_checkpoint:
        raise ConfigError(
            "--resume_checkpoint has no effect in --mode lr_find, which trains from the start:"
            " leave it out; --pretrained_from_file takes a run's weights"
        )
    if config.prof is not None and config.prof < LEAST_UPDATES:
        raise ConfigError(f"--prof {config.prof}: a range test needs {LEAST_UPDATES} updates")
    if ranks.elastic():
        raise ConfigError("--mode lr_find is not for elastic jobs: start it without --min-np")
