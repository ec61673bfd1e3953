"""Finds flags without effect: users who give one expect an effect.

Each flag's declaration names the modes that use it. Only flags of the command line count: files and
recipes serve several modes. Of these, a flag that repeats the run's value misleads nobody.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from convoy.runtime.settings.config import Config
from convoy.runtime.settings.flag_facts import inherited, used_in
from convoy.runtime.settings.modes import RUN_MODES
from convoy.utils.errors import ConfigError

_PATHS = {f.name for f in fields(Config) if f.metadata["path"] == "path"}
_FILES = ("output", "predict_formats")  # of predictions


def check_idle(config: Config, asked: Mapping[str, Any]) -> None:
    """Rejects flags without effect where the result would not be what they ask for.

    Args:
        config: the settings.
        asked: the values of flags, without those that a file or a run sets.

    Raises:
        ConfigError: the message names them.
    """
    if config.mode == "convert" and (idle := asked.keys() - used_in("convert")):
        named = ", ".join(f"--{name}" for name in asked if name in idle)
        raise ConfigError(f"{named}: no effect in --mode convert, which takes weights as they are")
    resumes = config.mode in RUN_MODES and config.resume_checkpoint
    if resumes and asked.get("checkpoint", "last") != "last":
        raise ConfigError(
            f"--checkpoint {config.checkpoint}: --resume_checkpoint continues from the newest"
            " checkpoint. Leave --checkpoint out; or start a new run from the older weights, with"
            " --pretrained_from_file, the checkpoint's folder, and another --model_dir"
        )


def idle_flags(config: Config, asked: Mapping[str, Any], without: Config) -> list[str]:
    """Returns lines about the flags that do nothing.

    Args:
        config: the settings.
        asked: as for `check_idle`.
        without: the settings without them.
    """
    used = used_in(config.mode)
    if config.memory:  # it foresees a training run, whose command people repeat
        used |= used_in(RUN_MODES[0])
    idle = [name for name in asked if name not in used]
    kept = [name for name in idle if config.mode in RUN_MODES and name in inherited()]
    images = [name for name in asked if config.image and name in _FILES]
    page = [name for name in asked if name == "output" and config.mode == "report"]
    found = {
        f"with --mode {config.mode}": [name for name in idle if name not in kept],
        f"with --mode {config.mode}; kept for the modes that apply its checkpoint": kept,
        "with --image, whose answer is printed": images,
        "without --runs": [] if config.runs else page,
    }
    lines = []
    for where, names in found.items():
        names = [n for n in names if not _is_same(n, asked[n], getattr(without, n))]
        if names:
            does = "does" if len(names) == 1 else "do"
            lines.append(f"convoy: {_listed(names)} {does} nothing {where}")
    return lines


def _listed(names: Sequence[str]) -> str:
    *first, last = (f"--{name}" for name in names)
    return f"{', '.join(first)} and {last}" if first else last


def _is_same(name: str, value: Any, other: Any) -> bool:
    """Returns whether two values of a flag are equal, or paths of the same place."""
    if name in _PATHS and isinstance(value, str) and isinstance(other, str):
        return os.path.abspath(value) == os.path.abspath(other)
    return bool(value == other)
