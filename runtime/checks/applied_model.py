"""Checks flags of eval, predict and export against the model that they apply. No TensorFlow."""

from __future__ import annotations

from convoy.runtime.run_folder.checkpoint import AnyPath, read_state
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.flag_facts import having
from convoy.runtime.settings.flags import Fact
from convoy.utils.errors import ConfigError


def check_applied(config: Config, checkpoint: AnyPath) -> None:
    """Rejects flags that ask for a different model from the checkpoint's.

    The checkpoint would be applied as trained, and its answer mistaken for that of the requested
    model.

    Args:
        config: settings, with those of the checkpoint's run as defaults.
        checkpoint: the folder of a complete checkpoint.

    Raises:
        ConfigError: the message names the first such flag.
    """
    try:
        trained = read_state(checkpoint)["model"]
    except (OSError, ValueError, KeyError):
        return  # damaged: loading it reports how
    for name in having(Fact.MODEL):
        asked, has = getattr(config, name), trained.get(name)
        if None not in (asked, has) and asked != has:
            raise ConfigError(
                f"--{name} {asked}: {checkpoint} was trained with {has}, and is applied as it was"
                f" trained: leave --{name} out"
            )
