"""Chooses a run's checkpoint: the best, the newest, or a named one; and those to keep.

`checkpoints/best.json` names the best one. If that file or that checkpoint is missing or damaged,
the scores of the others decide. Scores can be compared only if they were found in the same way: by
the same metric and on the same images (`judged` in `score.json`). Imports no TensorFlow.
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
from convoy.runtime.run_folder.ranking import LOSS
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
    """Returns the checkpoint in `best.json`, otherwise the one with the best score, or None."""
    named = _named_best(model_dir)
    if named is not None and is_complete(named, checksums=True):
        return named
    ranked = next(iter(_ranked(model_dir).values()), [])
    return next((path for path in ranked if is_complete(path, checksums=True)), None)


def _named_best(model_dir: str | AnyPath) -> AnyPath | None:
    name = best_facts(model_dir).get("checkpoint")
    return checkpoints_folder(model_dir) / Path(str(name)).name if name else None


def best_facts(model_dir: str | AnyPath) -> dict[str, Any]:
    """Returns the content of `best.json`; nothing if it is missing or damaged."""
    try:
        return dict(json.loads((checkpoints_folder(model_dir) / "best.json").read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def mark_best(model_dir: str | AnyPath, folder: AnyPath, facts: Mapping[str, Any]) -> None:
    """Makes `best.json` name this checkpoint."""
    write_atomically(
        checkpoints_folder(model_dir) / "best.json",
        strict_json.dumps({"checkpoint": folder.name, **facts}, indent=1),
    )


def passed_over(model_dir: str | AnyPath, chosen: AnyPath | None, which: str = "last") -> list[str]:
    """Returns lines about what was wrong with checkpoints that should have been chosen instead.

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
    lines = _about_best(model_dir, named) if which == "best" else []
    if lines and chosen is not None and read_state(chosen).get("score") is not None:
        return [
            f"{lines[0]}: using {chosen.name}, which has the best result of those that are left"
        ]
    after = by_step(chosen) if chosen is not None else (-1, 0)
    there = sorted(checkpoints_folder(model_dir).glob("step-*"), key=by_step)
    newer = [path for path in there if by_step(path) > after and path != named]
    return lines + [_damaged(path) for path in newer if _is_damaged(path)]


def _about_best(model_dir: str | AnyPath, named: AnyPath | None) -> list[str]:
    """Returns a line about a best checkpoint that cannot be used; none if nothing was evaluated."""
    file = checkpoints_folder(model_dir) / "best.json"
    if named is None:
        lost = file.exists() or bool(_ranked(model_dir))
        text = f"WARNING: {file}, which names the best checkpoint, is missing or damaged"
        return [text] if lost else []
    if _is_damaged(named):
        return [_damaged(named)]
    return [f"WARNING: {file} names {named.name}, which is not there or not complete"]


def _damaged(path: AnyPath) -> str:
    return (
        f"WARNING: the checkpoint {path} is damaged (its files do not match its checksums) and is"
        " passed over"
    )


def _is_damaged(path: AnyPath) -> bool:
    return (path / MARKER).exists() and not is_complete(path, checksums=True)


def prune(model_dir: str | AnyPath, keep_last: int = 2, keep_best: int = 1) -> None:
    """Removes old checkpoints and remains of broken saves.

    Args:
        model_dir: the run's folder.
        keep_last: number of newest checkpoints to keep.
        keep_best: number of best ones to keep, by their scores. If a run was resumed with another
            metric or other images, as many of the earlier evaluations are kept as well.
    """
    keep = {*complete_checkpoints(model_dir)[-keep_last:], best(model_dir)}
    for ranked in _ranked(model_dir).values():
        keep.update(ranked[:keep_best])
    for path in checkpoints_folder(model_dir).glob("step-*"):
        if path not in keep and path.is_dir():
            remove(path)


def _ranked(model_dir: str | AnyPath) -> dict[str, list[AnyPath]]:
    """Returns the evaluated checkpoints, best first, by the way of evaluation, the newest first."""
    found: dict[str, list[tuple[float, float, AnyPath]]] = {}
    for path in reversed(complete_checkpoints(model_dir)):
        try:
            state = read_state(path)
        except (OSError, ValueError):
            continue
        if state.get("score") is not None:
            judged = strict_json.dumps(state.get("judged"), sort_keys=True)
            loss = LOSS.score(state.get("metrics") or {}, state.get("better_weights", "raw"))
            found.setdefault(judged, []).append((-state["score"], -loss, path))
    # The order of `ranking.Rank`; of equal ones the earlier is the better.
    return {
        judged: [path for *_, path in sorted(scored, key=lambda one: (*one[:2], by_step(one[2])))]
        for judged, scored in found.items()
    }
