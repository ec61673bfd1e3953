"""Saves and reads checkpoints, which are either complete or absent.

A checkpoint is a folder `model_dir/checkpoints/step-00001234`:

    model.safetensors      the model's weights, by Keras path
    ema.safetensors        their moving average, when there is one
    optimizer.safetensors  the optimizer's variables
    ranks.safetensors in mid-epoch: each rank's own state, one row per rank
    state.json             position, best result, how the model is built, class names
    config.yaml            the run's settings
    COMPLETE.json          written last: size and SHA-256 of every other file (`marker.py`)
    score.json             after evaluation: its result, which weights are better, the best so far
                           (`utils/score_file.py`)

`model_dir` may be a URL, such as gs://bucket/run (`utils/files.py`). Object stores cannot rename,
and nothing here relies on it: the marker is the commit.

A folder without a marker that matches its files is not a checkpoint and is never read. Nothing here
executes what it reads: safetensors, JSON and YAML contain only data. `which_checkpoint.py` chooses
among a run's checkpoints. This module imports no TensorFlow.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from convoy.runtime.run_folder.marker import MARKER, is_complete, write_marker
from convoy.utils import strict_json
from convoy.utils.errors import UserError
from convoy.utils.files import (
    Remote,
    path_of,
    remove_tree,
    save_tensors,
    sync,
)
from convoy.utils.score_file import with_score, write_score

AnyPath = Path | Remote

FORMAT = 1
ARRAYS = ("model", "ema", "optimizer", "ranks")
_NAME = re.compile(r"step-(\d+)(?:-(\d+))?")


class CheckpointError(UserError, RuntimeError):
    """A checkpoint is missing, damaged or does not fit. The text says which and what to do."""


@dataclass
class Checkpoint:
    """The contents of a checkpoint: arrays by name, and the JSON state."""

    model: dict[str, np.ndarray]
    ema: dict[str, np.ndarray] = field(default_factory=dict)
    optimizer: dict[str, np.ndarray] = field(default_factory=dict)
    ranks: dict[str, np.ndarray] = field(default_factory=dict)
    state: dict[str, Any] = field(default_factory=dict)
    config: str = ""
    path: AnyPath | None = None


def save(model_dir: str | AnyPath, checkpoint: Checkpoint) -> AnyPath:
    """Writes a checkpoint named after `state["step"]` and returns its folder.

    A complete checkpoint of this step stays. If it is at the same position in the data, there is
    nothing to do. If not (a run continued with other batches, or an older version saved the end of
    an epoch before taking its sums), the new one gets a number after its name.

    Raises:
        CheckpointError: the disk is full or not writable. Earlier checkpoints do not change.
    """
    try:
        if (folder := find(model_dir, checkpoint.state)) is not None:
            return folder
        folder = _free_folder(model_dir, checkpoint.state["step"])
    except (OSError, ValueError) as error:
        raise _not_saved(checkpoints_folder(model_dir), error) from error
    try:
        is_first = not folder.parent.exists()
        remove_tree(folder)  # left by an interrupted save
        folder.mkdir(parents=True)
        for name in ARRAYS:
            arrays = getattr(checkpoint, name)
            if arrays:
                _save_arrays(arrays, folder / f"{name}.safetensors")
        state = checkpoint.state | {"format": FORMAT}
        (folder / "state.json").write_text(strict_json.dumps(state, indent=1))
        (folder / "config.yaml").write_text(checkpoint.config)
        write_marker(folder)
        # Sync before `prune` removes an older one: a power failure must not lose both.
        sync(folder.parent)
        if is_first:
            sync(folder.parent.parent)
    except Exception as error:  # safetensors has its own I/O errors; all mean the same
        remove_tree(folder)
        raise _not_saved(folder, error) from error
    return folder


def _not_saved(folder: AnyPath, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"could not save the checkpoint {folder}: {error}; earlier checkpoints are untouched."
        " Free some space or choose another --model_dir, then continue with --resume_checkpoint"
    )


def find(model_dir: str | AnyPath, state: Mapping[str, Any]) -> AnyPath | None:
    """Returns the complete checkpoint of this step at the same position in the data, or None."""
    for folder in checkpoints_folder(model_dir).glob(f"step-{state['step']:08d}*"):
        if is_complete(folder, checksums=True) and same_place(read_state(folder), state):
            return folder
    return None


def same_place(state: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Returns whether two states are at the same step and the same position in the data."""
    return all(state.get(name) == other.get(name) for name in ("step", "epoch", "offset"))


def _free_folder(model_dir: str | AnyPath, step: int) -> AnyPath:
    """Returns a folder for a checkpoint of this step that does not overwrite a complete one."""
    first, number = checkpoints_folder(model_dir) / f"step-{step:08d}", 1
    folder = first
    while is_complete(folder, checksums=True):
        number += 1
        folder = first.with_name(f"{first.name}-{number}")
    return folder


def by_step(folder: AnyPath) -> tuple[int, int]:
    """Sorts by step, and within a step by the number after its name."""
    match = _NAME.fullmatch(folder.name)
    return (int(match[1]), int(match[2] or 1)) if match else (-1, 0)


def add_score(folder: AnyPath, facts: Mapping[str, Any]) -> None:
    """Adds the results of an evaluation to a complete checkpoint.

    Args:
        folder: the checkpoint's.
        facts: values that replace those in its state: `score`, `best`, `better_weights`, `metrics`.

    Raises:
        OSError: it cannot be written; the checkpoint does not change.
    """
    write_score(folder, facts)


def read_state(folder: AnyPath) -> dict[str, Any]:
    """Returns a checkpoint's `state.json` with the results of its evaluation.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    state = json.loads((folder / "state.json").read_text())
    return with_score(folder, state, (folder / "ema.safetensors").exists())


def checkpoints_folder(model_dir: str | AnyPath) -> AnyPath:
    """Returns the folder of a run's checkpoints, whether or not it exists."""
    return path_of(model_dir) / "checkpoints"


def _save_arrays(arrays: dict[str, np.ndarray], file: AnyPath) -> None:
    from safetensors.numpy import save

    metadata = {"format": "convoy"}
    if isinstance(file, Remote):
        file.write_bytes(save(arrays, metadata=metadata))
    else:
        save_tensors(arrays, file, metadata)


def _load_arrays(file: AnyPath) -> dict[str, np.ndarray]:
    from safetensors.numpy import load, load_file

    if not file.exists():
        return {}
    return load(file.read_bytes()) if isinstance(file, Remote) else load_file(file)


def complete_checkpoints(model_dir: str | AnyPath) -> list[AnyPath]:
    """Returns all complete checkpoints of a run, oldest first.

    Raises:
        CheckpointError: the folder cannot be read.
    """
    folder = checkpoints_folder(model_dir)
    try:
        if not folder.is_dir():
            return []
        return [path for path in sorted(folder.glob("step-*"), key=by_step) if is_complete(path)]
    except OSError as error:
        raise CheckpointError(
            f"--model_dir {model_dir} cannot be read ({error.strerror})"
        ) from error


def has_any(model_dir: str | AnyPath) -> bool:
    """Returns whether a run has begun to save there, whether complete, damaged or unfinished."""
    return checkpoints_folder(model_dir).is_dir() and any(
        checkpoints_folder(model_dir).glob("step-*")
    )


def latest(model_dir: str | AnyPath) -> AnyPath | None:
    """Returns the newest checkpoint with correct checksums, or None; skips damaged newer ones."""
    for path in reversed(complete_checkpoints(model_dir)):
        if is_complete(path, checksums=True):
            return path
    return None


def read(path: str | AnyPath) -> Checkpoint:
    """Reads a complete checkpoint.

    Raises:
        CheckpointError: it is damaged, or from a newer version of the program.
    """
    from safetensors import SafetensorError

    path = path_of(path)
    if not is_complete(path, checksums=True):
        raise CheckpointError(
            f"the checkpoint {path} is damaged: its files do not match its checksums; use"
            " another one"
        )
    try:
        state = read_state(path)
        if state.get("format", 0) > FORMAT:
            raise CheckpointError(
                f"the checkpoint {path} was written by a newer version of Convoy; update first"
            )
        arrays = {name: _load_arrays(path / f"{name}.safetensors") for name in ARRAYS}
        return Checkpoint(
            **arrays, state=state, config=(path / "config.yaml").read_text(), path=path
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"the checkpoint {path} cannot be read: {error}") from error


def remove(folder: AnyPath) -> None:
    """Removes a checkpoint, its marker first.

    So an interrupted removal leaves nothing that looks complete.
    """
    (folder / MARKER).unlink(missing_ok=True)
    remove_tree(folder)


def check_writable(model_dir: str | AnyPath, flag: str = "--model_dir") -> None:
    """Creates model_dir, or another flag's folder, and checks that a file can be written there.

    Raises:
        CheckpointError: it cannot.
    """
    folder = path_of(model_dir)
    probe = folder / f".write-test-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"\0" * 4096)
        sync(probe)
        probe.unlink()
    except OSError as error:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
        raise CheckpointError(
            f"{flag} {model_dir} cannot be written ({error.strerror}); choose another"
            " folder or free some space"
        ) from error
