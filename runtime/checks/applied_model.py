"""Checks flags of eval, predict and export against the model that they apply. No TensorFlow."""

from __future__ import annotations

from convoy.runtime.run_folder.checkpoint import AnyPath, read_state
from convoy.runtime.settings.config import Config
from convoy.utils.errors import ConfigError

_SETTLED = ("arch", "num_classes", "activation", "bn_epsilon", "padding")
"""Flags that decide what a model computes, and so belong to its weights. Dropout and the like do
nothing outside training, and another image size is a fair question.
"""


def check_applied(config: Config, checkpoint: AnyPath) -> None:
    """Refuses flags that ask for another model than the checkpoint holds: it would be applied as it
    was trained, and the answer taken for that of the model that was asked for.

    Args:
        config: settings, in which those of the checkpoint's run are the defaults.
        checkpoint: a complete one's folder.

    Raises:
        ConfigError: naming the first such flag.
    """
    try:
        trained = read_state(checkpoint)["model"]
    except (OSError, ValueError, KeyError):
        return  # damaged: who loads it says how
    for name in _SETTLED:
        asked, has = getattr(config, name), trained.get(name)
        if None not in (asked, has) and asked != has:
            raise ConfigError(
                f"--{name} {asked}: {checkpoint} was trained with {has}, and is applied as it was"
                f" trained: leave --{name} out"
            )
