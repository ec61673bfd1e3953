"""Says what `--recompute` means for an architecture. No TensorFlow."""

from __future__ import annotations

from convoy.model.arithmetic import maps_by_block
from convoy.model.catalog import get_arch
from convoy.runtime.settings.config import Config
from convoy.utils.errors import ConfigError


def largest_blocks(config: Config) -> list[str]:
    """Returns the names of the architecture's blocks, those first that save most."""
    sizes = maps_by_block(get_arch(config.arch), config.image_size)
    return sorted(sizes, key=lambda name: -sizes[name])


def recomputed_blocks(config: Config) -> list[str] | None:
    """Returns the blocks that are computed again wholly; None if all activations are kept."""
    how = config.recompute
    if how == "none":
        return None
    if how == "norms":
        return []
    return largest_blocks(config)[: None if how == "blocks" else int(how)]


def check_recompute(config: Config) -> None:
    """Refuses more blocks than there are.

    Raises:
        ConfigError: the text says why.
    """
    if isinstance(config.recompute, int):
        count = len(largest_blocks(config))
        if config.recompute > count:
            raise ConfigError(
                f"--recompute {config.recompute}: {config.arch} has {count} blocks; "
                "--recompute blocks means all"
            )
