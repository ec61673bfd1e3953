"""Opens the data of the flags. Imports no TensorFlow."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

from convoy.dataloader.sources.find import find_source
from convoy.dataloader.sources.held_out import division
from convoy.dataloader.sources.source import Source
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.flag_facts import having
from convoy.runtime.settings.flags import Fact
from convoy.utils.distributed import ranks
from convoy.utils.text import tell as say

logger = logging.getLogger("convoy.data")


def open_split(config: Config, split: str, tell: Callable[[Source], None] | None = None) -> Source:
    """Opens one split of `--data_dir`.

    Args:
        config: the flags.
        split: "train" or "validation".
        tell: see `dataloader.sources.find.find_source`.

    Raises:
        DataError: see `find_source`.
    """
    held_out = division(config.validation_fraction, config.validation_seed)
    where = (config.data_dir, split, config.dataset, config.first_label)
    return find_source(*where, tell, held_out, alone=config.mode != "train_and_eval")


def say_found(source: Source) -> None:
    """Prints on rank 0, among the run's own lines, what data were found; warns of oddities."""
    if ranks.rank() == 0:
        say(source.found, sys.stdout)
        for note in source.notes:
            logger.warning("%s", note)


def for_these_data(run: dict[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    """Adapts a run's settings for applying it to data that are not divided as its own.

    Args:
        run: settings by flag.
        asked: the flags given for this launch.
    """
    own, given = run.get("data_dir"), asked.get("data_dir")
    if own is None or given is None or os.path.realpath(own) == os.path.realpath(given):
        return run
    return {name: value for name, value in run.items() if name not in having(Fact.DIVISION)}
