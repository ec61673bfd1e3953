"""`--defaults data`: the settings that nobody gave, chosen for the data of a training run.

The rules are in `fitting.py`, what they go by is read by `data_facts.py`. A run that goes on keeps
what was chosen when it began, whatever has become of its data. No TensorFlow.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from convoy.dataloader.errors import DataError
from convoy.model.catalog import get_arch
from convoy.runtime.fitted.data_facts import facts_of
from convoy.runtime.fitted.rules import CHOSEN, fitted
from convoy.runtime.run_folder import checkpoint
from convoy.runtime.settings.config import Config, load_config
from convoy.runtime.settings.flags import AUTO
from convoy.utils.distributed import ranks
from convoy.utils.distributed.ranks import launched_processes
from convoy.utils.errors import ConfigError
from convoy.utils.text import wrapped

_SAME = {"crop_padding": "crop_pct"}  # the same setting under another name


def choose(config: Config, given: Collection[str]) -> dict[str, Any]:
    """Settings that replace the documents', by flag.

    Args:
        config: checked, with the documents' settings where nothing is given.
        given: the flags that the user, a file or a recipe set.

    Raises:
        ConfigError: the data cannot be read.
    """
    if config.mode not in ("train", "train_and_eval", "lr_find"):
        return {}
    before = settings_of_the_run(config) if config.resume_checkpoint else None
    kept: dict[str, Any] = {}
    if before and "exif_orientation" not in given:
        turned = before.exif_orientation
        kept = {"exif_orientation": turned} if turned != config.exif_orientation else {}
    if ranks.elastic():  # processes come and go, and would not choose alike
        return kept
    taken = {name for name in CHOSEN if name in given or _SAME.get(name) in given}
    measured = {"train_batch_size"} if config.train_batch_size == AUTO else set()
    taken -= measured  # until it is found, the rest is chosen as without
    if config.n_stages > 1 or config.train_image_size:
        taken |= {"image_size"}  # with which the other sizes have to go
    if before is not None:
        if "defaults" not in given and before.defaults != config.defaults:
            return kept | {"defaults": before.defaults}
        names = set(CHOSEN) - taken if before.defaults == "data" else measured
        return kept | {name: value for name, value in asdict(before).items() if name in names}
    if config.defaults != "data":
        return {}
    try:
        facts = facts_of(config, config.nproc or launched_processes())
    except DataError as error:
        raise ConfigError(str(error)) from error
    values = {name: getattr(config, name) for name in {*given, *taken} - measured}
    chosen = fitted(facts, get_arch(config.arch).resolution, values)
    return {name: value for name, value in chosen.items() if name not in measured}


def told(chosen: Mapping[str, Any]) -> str:
    """What was chosen, for people, in lines that a terminal has room for."""
    pairs = ", ".join(f"{name}={value}" for name, value in chosen.items())
    text = f"chosen for these data (docs/defaults.md; --defaults documents leaves it): {pairs}"
    return wrapped(f"convoy: {text}")


def settings_of_the_run(config: Config) -> Config | None:
    """The settings with which a run goes on that has saved already."""
    with suppress(OSError, ConfigError, checkpoint.CheckpointError):
        if whole := checkpoint.complete_checkpoints(config.model_dir):
            return load_config(whole[-1] / "config.yaml")
    return None
