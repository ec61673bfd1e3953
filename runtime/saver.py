"""Saving in the background: training waits for copies of the arrays, not for the disk.

One save is in flight at a time. Its folder has no marker until it is whole, so a reader, or a run
that resumes after a crash, never sees a part of it (`runtime/checkpoint.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from convoy.runtime import checkpoint
from convoy.runtime.checkpoint import AnyPath, Checkpoint, CheckpointError
from convoy.utils.files import path_of


@dataclass
class _Save:
    """What to write, kept until it is known to be on the disk."""

    contents: Checkpoint
    best: dict[str, Any] | None


class Saver:
    """Writes a run's checkpoints in a thread; used on rank 0.

    A save that fails is reported and training goes on: the next one may find room. Only the end of
    training insists (`finish`).

    Args:
        model_dir: the run's folder.
        keep_last, keep_best: how many of the newest and of the best evaluated checkpoints stay;
            `keep_last` None keeps all.
        warn: takes the text of a failure.
    """

    def __init__(
        self,
        model_dir: str | AnyPath,
        *,
        keep_last: int | None = 2,
        keep_best: int = 1,
        warn: Callable[[str], None] = print,
    ) -> None:
        self.model_dir, self.keep_last, self.keep_best = path_of(model_dir), keep_last, keep_best
        self._warn = warn
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="convoy-save")
        self._flying: tuple[_Save, Future] | None = None
        self._failed: _Save | None = None

    def save(self, contents: Checkpoint, best: dict[str, Any] | None = None) -> None:
        """Begins to write a checkpoint, after the one before it has ended.

        Args:
            contents: arrays that nobody changes any more.
            best: the facts of `best.json`, if this is the best so far.
        """
        self.settle()
        # A best that could not be written is not the best on the disk: forget it, do not retry.
        save = _Save(contents, best)
        self._flying = save, self._pool.submit(self._write, save)

    def finish(self) -> None:
        """Waits for the last save, and tries once more if it failed.

        Raises:
            CheckpointError: what the run ended with could not be kept.
        """
        self.settle()
        try:
            if self._failed is not None:
                self._write(self._failed)
        finally:
            self._pool.shutdown()

    def abandon(self) -> None:
        """Lets a save in flight end, without insisting: for runs that end by an error."""
        with suppress(CheckpointError, OSError):
            if self._flying is not None:
                self._flying[1].result()
        self._pool.shutdown(wait=False)

    def settle(self) -> None:
        """Waits for the save in flight. If it fails, that is reported, and `finish` tries again."""
        if self._flying is None:
            return
        (save, future), self._flying, self._failed = self._flying, None, None
        try:
            future.result()
        except CheckpointError as error:
            self._failed = save
            self._warn(f"WARNING: {error}. Training goes on and will try again at the next save")

    def _write(self, save: _Save) -> None:
        folder = checkpoint.save(self.model_dir, save.contents)
        if save.best is not None:
            checkpoint.mark_best(self.model_dir, folder, save.best)
        if self.keep_last is not None:
            checkpoint.prune(self.model_dir, self.keep_last, self.keep_best)
