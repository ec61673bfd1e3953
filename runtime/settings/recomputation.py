"""Says what `--recompute` means for an architecture. No TensorFlow."""

from __future__ import annotations

from itertools import accumulate

from convoy.model.arithmetic import maps_by_block
from convoy.model.catalog import get_arch
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.flags import AUTO
from convoy.utils.distributed import ranks
from convoy.utils.errors import ConfigError

NEARLY_FREE = "norms"
"""What `auto` looks for a batch with, if that is to be found too."""


def share_of_first(config: Config) -> list[float]:
    """Returns which share of all blocks' activations the largest 0, 1, 2, … blocks have."""
    sizes = maps_by_block(get_arch(config.arch), config.image_size).values()
    sums = list(accumulate(sorted(sizes, reverse=True), initial=0))
    return [part / sums[-1] for part in sums]


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
    if how == AUTO:
        raise TypeError(f"--recompute {how}: what it means should have been found")
    return largest_blocks(config)[: None if how == "blocks" else int(how)]


def check_recompute(config: Config) -> None:
    """Refuses more blocks than there are, and auto where nothing measures.

    Raises:
        ConfigError: the text says why.
    """
    if config.recompute == AUTO and (ranks.elastic() or "benchmark" in config.mode):
        raise ConfigError(
            f"--recompute {AUTO} is not for elastic jobs or benchmarks: give none, norms, blocks"
            " or a number"
        )
    if isinstance(config.recompute, int):
        count = len(largest_blocks(config))
        if config.recompute > count:
            raise ConfigError(
                f"--recompute {config.recompute}: {config.arch} has {count} blocks; "
                "--recompute blocks means all"
            )
