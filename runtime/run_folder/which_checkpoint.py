"""Chooses a run's checkpoint: the best, the newest, or a named one; and those to keep.

`checkpoints/best.json` names the best one. This module imports no TensorFlow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convoy.runtime.run_folder.checkpoint import (
    AnyPath,
    CheckpointError,
    by_step,
    checkpoints_folder,
    complete_checkpoints,
    has_any,
    latest,
    read_state,
    remove,
)
from convoy.runtime.run_folder.marker import MARKER, is_complete
from convoy.utils import strict_json
from convoy.utils.files import path_of, write_atomically
from convoy.utils.text import some


def resolve(model_dir: str | AnyPath, which: str = "best") -> AnyPath:
    """Returns the checkpoint's folder for `--checkpoint`.

    Args:
        model_dir: the run's folder.
        which: "best" (otherwise the newest), "last", the name of a checkpoint's folder, or its
            path.

    Raises:
        CheckpointError: there is no such checkpoint.
    """
    if which in ("best", "last"):
        found = (best(model_dir) if which == "best" else None) or latest(model_dir)
        if found is None:
            kind = "complete " if has_any(model_dir) else ""
            raise CheckpointError(
                f"no {kind}checkpoint in --model_dir {model_dir};"
                " train first,"
                " or name one with --checkpoint"
            )
        return found
    path = path_of(which)
    if "/" not in which.rstrip("/") and not path.exists():
        path = checkpoints_folder(model_dir) / which.rstrip("/")
    if not is_complete(path):
        reason = "is not a complete checkpoint" if path.exists() else "does not exist"
        there = some([folder.name for folder in complete_checkpoints(model_dir)])
        raise CheckpointError(
            f"--checkpoint {which} {reason}; give best, last, a name from --model_dir"
            f" {model_dir} ({there or 'which holds none'}), or a checkpoint's folder"
        )
    return path


def folder_of(path: str | AnyPath) -> AnyPath | None:
    """Returns the checkpoint's folder for a path of weights; None if it is none.

    It is the path itself, or the best of a run's folder. A file or another folder is none.

    Raises:
        CheckpointError: the run has no complete checkpoint.
    """
    path = path_of(path)
    if (path / MARKER).exists():
        return path
    return resolve(path) if (path / "checkpoints").is_dir() else None


def best(model_dir: str | AnyPath) -> AnyPath | None:
    """Returns the checkpoint in `best.json`, or None."""
    path = _named_best(model_dir)
    return path if path is not None and is_complete(path, checksums=True) else None


def _named_best(model_dir: str | AnyPath) -> AnyPath | None:
    try:
        name = json.loads((checkpoints_folder(model_dir) / "best.json").read_text())["checkpoint"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return checkpoints_folder(model_dir) / Path(str(name)).name


def mark_best(model_dir: str | AnyPath, folder: AnyPath, facts: Mapping[str, Any]) -> None:
    """Makes `best.json` name this checkpoint."""
    write_atomically(
        checkpoints_folder(model_dir) / "best.json",
        strict_json.dumps({"checkpoint": folder.name, **facts}, indent=1),
    )


def passed_over(model_dir: str | AnyPath, chosen: AnyPath | None, which: str = "last") -> list[str]:
    """Returns lines about damaged checkpoints that would have been chosen instead of this one.

    Args:
        model_dir: the run's folder.
        chosen: the chosen checkpoint.
        which: what was searched, "best" or "last".

    Returns:
        Lines for the user. They do not mention interrupted saves, which have no marker.
    """
    named = _named_best(model_dir) if which == "best" else None
    if named is not None and named == chosen:
        return []
    after = by_step(chosen) if chosen is not None else (-1, 0)
    there = checkpoints_folder(model_dir).glob("step-*")
    instead = {path for path in there if by_step(path) > after}
    return [
        f"WARNING: the checkpoint {path} is damaged (its files do not match its checksums) and is"
        " passed over"
        for path in sorted(instead | ({named} if named else set()), key=by_step)
        if (path / MARKER).exists() and not is_complete(path, checksums=True)
    ]


def prune(model_dir: str | AnyPath, keep_last: int = 2, keep_best: int = 1) -> None:
    """Removes old checkpoints and remains of broken saves.

    Args:
        model_dir: the run's folder.
        keep_last: number of newest checkpoints to keep.
        keep_best: number of best ones to keep, by `score` in their `state.json`.
    """
    whole = complete_checkpoints(model_dir)
    scored = [(score, path) for path in whole if (score := _score(path)) is not None]
    ranked = [path for _, path in sorted(scored, key=lambda pair: -pair[0])]
    keep = {*whole[-keep_last:], *ranked[:keep_best], best(model_dir)}
    for path in checkpoints_folder(model_dir).glob("step-*"):
        if path not in keep and path.is_dir():
            remove(path)


def _score(path: AnyPath) -> float | None:
    """Returns a checkpoint's evaluation result, or None if it was not evaluated."""
    try:
        return read_state(path).get("score")
    except (OSError, ValueError):
        return None
