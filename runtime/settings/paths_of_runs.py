"""Resolves the relative paths in a run's `config.yaml`, which start from where it was made.

So a run's folder can be used from any folder, and its data are still found. No TensorFlow.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from convoy.runtime.settings.config import MADE_IN, Config, load_config
from convoy.runtime.settings.settings_file import read_settings
from convoy.utils.errors import ConfigError
from convoy.utils.files import Remote, is_url, path_of
from convoy.utils.places import expand_home


def load_run_config(path: Path | Remote) -> tuple[Config, str]:
    """Reads a run's `config.yaml` and resolves its relative paths.

    A relative path is looked for in the folder where the run was made. If the whole project has
    moved, it is also looked for in the folder from which `--model_dir` still names the run's
    folder. If it is in neither, it does not change.

    Args:
        path: the file, in the run's folder or in one of its checkpoints.

    Returns:
        The settings, and their origin in words for errors, such as "from runs/b0/config.yaml, made
            in /home/ada".

    Raises:
        ConfigError: see `load_config`.
    """
    config, words = load_config(path), f"from {path}"
    roots = []
    if MADE_IN in (settings := read_settings(path)):
        roots.append(Path(str(settings[MADE_IN].value)))
        words += f", made in {roots[0]}"
    if isinstance(path, Path) and (moved := _project(config, path)):
        roots.append(moved)
    changes: dict[str, Any] = {}
    for f in fields(Config):
        value = getattr(config, f.name)
        if f.metadata["path"] != "path" or not isinstance(value, str):
            continue
        if os.path.isabs(value) or is_url(value):
            continue
        with suppress(OSError):
            found = next((root / value for root in roots if (root / value).exists()), None)
            changes |= {f.name: str(found)} if found else {}
    return config.with_(**changes), words


def moved_paths(file: str, written: Mapping[str, Any], resumes: bool) -> dict[str, str]:
    """Returns the resolved paths of a run's `config.yaml` that is given as `--config`, by flag.

    Only paths that differ from the written ones are returned; none for other files.

    Args:
        file: the value of `--config`.
        written: the file's settings.
        resumes: whether the run is resumed. Then `model_dir` is the folder of the file.
    """
    path = path_of(expand_home(file, "--config"))
    try:
        if isinstance(path, Remote) or MADE_IN not in read_settings(path):
            return {}
        found, _ = load_run_config(path)
    except (ConfigError, OSError):
        return {}
    meant = {f.name: getattr(found, f.name) for f in fields(Config) if f.metadata["path"] == "path"}
    del meant["model_dir"]  # a new run's is relative to the current folder
    if resumes and (path.parent / "checkpoints").is_dir():
        meant["model_dir"] = str(path.parent)
    return {
        name: value
        for name, value in meant.items()
        if isinstance(written.get(name), str) and not _is_same(value, written[name])
    }


def _is_same(one: str, other: str) -> bool:
    """Returns whether two paths, seen from the current folder, lead to the same place."""
    if one == other:
        return True
    with suppress(OSError):
        return os.path.samefile(one, other)
    return False


def _project(config: Config, path: Path) -> Path | None:
    """Returns the folder from which `--model_dir` names the run's present folder, or None."""
    run = path.resolve().parent
    if run.parent.name == "checkpoints":
        run = run.parent.parent
    named = Path(config.model_dir)
    if named.is_absolute() or ".." in named.parts or is_url(config.model_dir):
        return None
    count = len(named.parts)
    return run.parents[count - 1] if count and run.parts[-count:] == named.parts else None
