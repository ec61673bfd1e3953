"""Applies `--defaults data`: chooses settings that nobody gave for the data of a training run.

The rules are in `rules.py`; `data_facts.py` reads their inputs. A resumed run keeps the settings
chosen at its start, even if its data have changed. No TensorFlow.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from convoy.dataloader.errors import DataError
from convoy.model.catalog import get_arch
from convoy.runtime.fitted.data_facts import facts_of
from convoy.runtime.fitted.rules import CHOSEN, fitted
from convoy.runtime.run_folder import checkpoint
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.flags import AUTO
from convoy.runtime.settings.modes import RUN_MODES
from convoy.runtime.settings.paths_of_runs import load_run_config
from convoy.utils.distributed import ranks
from convoy.utils.distributed.ranks import launched_processes
from convoy.utils.errors import ConfigError
from convoy.utils.text import wrapped

_SAME = {"crop_padding": "crop_pct"}  # the same setting under another name


@dataclass(frozen=True)
class Choice:
    """Settings that replace the documents', by flag.

    Attributes:
        values: the settings.
        kept: whether a resumed run had them before, so that nothing was chosen now.
    """

    values: dict[str, Any] = field(default_factory=dict)
    kept: bool = False

    @property
    def origin(self) -> str:
        """Returns where the values come from, in words that follow "is"."""
        return "kept from the run's start" if self.kept else "chosen for these data"

    def text(self) -> str:
        """Returns the choices for people, in lines that fit a terminal."""
        more = "a flag changes it" if self.kept else "--defaults documents leaves it"
        pairs = ", ".join(f"{name}={value}" for name, value in self.values.items())
        return wrapped(f"convoy: {self.origin} (docs/defaults.md; {more}): {pairs}")


def choose(config: Config, given: Collection[str]) -> Choice:
    """Chooses settings for the data, or takes those that a resumed run began with.

    Args:
        config: a checked config, with the documents' settings for flags that are not given.
        given: the flags that the user, a file or a recipe set.

    Raises:
        ConfigError: the data cannot be read.
    """
    if config.mode not in (*RUN_MODES, "lr_find"):
        return Choice()
    before = settings_of_the_run(config) if config.resume_checkpoint else None
    taken = {name for name in CHOSEN if name in given or _SAME.get(name) in given}
    measured = {"train_batch_size"} if config.train_batch_size == AUTO else set()
    taken -= measured  # until it is known, the rest is chosen without it
    if config.n_stages > 1 or config.train_image_size:
        taken |= {"image_size"}  # the other sizes must fit it
    if before is not None:
        names = set(CHOSEN) - taken if before.defaults == "data" else measured
        return Choice(_kept(before, names, config, given), kept=True)
    if config.defaults != "data" or ranks.elastic():
        return Choice()  # elastic jobs' processes come and go, and would not choose alike
    try:
        facts = facts_of(config, config.nproc or launched_processes())
    except DataError as error:
        raise ConfigError(str(error)) from error
    values = {name: getattr(config, name) for name in {*given, *taken} - measured}
    chosen = fitted(facts, get_arch(config.arch).resolution, values)
    return Choice({name: value for name, value in chosen.items() if name not in measured})


def _kept(
    before: Config, names: Collection[str], config: Config, given: Collection[str]
) -> dict[str, Any]:
    """Returns what a resumed run keeps of its settings `before`: `names`, unless others change."""
    kept: dict[str, Any] = {}
    if "exif_orientation" not in given and before.exif_orientation != config.exif_orientation:
        kept = {"exif_orientation": before.exif_orientation}
    if ranks.elastic():  # it chose nothing
        return kept
    if "defaults" not in given and before.defaults != config.defaults:
        return kept | {"defaults": before.defaults}
    return kept | {name: value for name, value in asdict(before).items() if name in names}


def settings_of_the_run(config: Config) -> Config | None:
    """Returns the settings of a resumed run that has already saved."""
    with suppress(OSError, ConfigError, checkpoint.CheckpointError):
        if whole := checkpoint.complete_checkpoints(config.model_dir):
            return load_run_config(whole[-1] / "config.yaml")[0]
    return None
