"""Saves checkpoints in the background: training waits for copies of the arrays, not for the disk.

One save runs at a time. Its folder has no marker until it is complete, so a reader, or a run that
resumes after a crash, never sees a part of it (`runtime/run_folder/checkpoint.py`). The results of
an evaluation are added later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from convoy.runtime.run_folder import checkpoint, which_checkpoint
from convoy.runtime.run_folder.checkpoint import AnyPath, Checkpoint, CheckpointError
from convoy.utils.files import path_of


@dataclass
class _Save:
    """A checkpoint to save; once it is on the disk, `contents` is None and `folder` is set."""

    state: Mapping[str, Any]
    contents: Checkpoint | None = None
    folder: AnyPath | None = None


@dataclass
class _Score:
    """A checkpoint's evaluation results, and the facts for `best.json` if it is the best."""

    save: _Save
    facts: Mapping[str, Any]
    best: Mapping[str, Any] | None


class Saver:
    """Writes a run's checkpoints in a thread; only on rank 0.

    A failed save is reported and training continues: the next one may find room. Only the end of
    training must succeed (`finish`), and only for the weights: if `best.json` cannot be written,
    the run has not failed.

    Args:
        model_dir: the run's folder.
        keep_last, keep_best: number of the newest and of the best evaluated checkpoints to keep;
            `keep_last` None keeps all.
        warn: called with the text of a failure.
        check: called before each write; its exceptions end the run.
    """

    def __init__(
        self,
        model_dir: str | AnyPath,
        *,
        keep_last: int | None = 2,
        keep_best: int = 1,
        warn: Callable[[str], None] = print,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self.model_dir, self.keep_last, self.keep_best = path_of(model_dir), keep_last, keep_best
        self._warn, self._check = warn, check
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="convoy-save")
        self._newest: _Save | None = None
        self._owed: list[_Score] = []  # not on the disk yet
        self._flying: Future | None = None

    def save(self, contents: Checkpoint) -> None:
        """Starts to write a checkpoint after the previous one has finished.

        Nobody may change its arrays any more.
        """
        self.settle()
        # If a save failed and is no longer the newest, its score is of no use.
        self._owed = [score for score in self._owed if score.save.folder is not None]
        self._newest = _Save(contents.state, contents)
        self._flying = self._pool.submit(self._write)

    def add_score(
        self,
        state: Mapping[str, Any],
        facts: Mapping[str, Any],
        best: Mapping[str, Any] | None = None,
    ) -> None:
        """Starts to add the results of an evaluation to a checkpoint.

        Args:
            state: that checkpoint's state, to find it if an earlier launch saved it.
            facts: see `checkpoint.add_score`.
            best: the facts for `best.json`, if it is the best so far.
        """
        self.settle()
        save = self._newest
        if save is None or not checkpoint.same_place(save.state, state):
            save = _Save(state)
        self._owed.append(_Score(save, facts, best))
        if save.contents is None:  # otherwise it waits with the save, which has just failed
            self._flying = self._pool.submit(self._write)

    def name_best(self, best: Mapping[str, Any]) -> None:
        """Makes `best.json` name the best so far, if it is damaged or names another.

        Args:
            best: the best so far, with its `step` and `epoch`, which an earlier launch saved.
        """
        written = which_checkpoint.best_facts(self.model_dir)
        if {name: written.get(name) for name in best} == dict(best):
            return
        try:
            self._check()
            folder = checkpoint.find(self.model_dir, {**best, "offset": 0})
            if folder is not None:
                which_checkpoint.mark_best(self.model_dir, folder, best)
        except (OSError, ValueError) as error:
            self._warn(f"WARNING: the best checkpoint could not be noted ({error})")

    def settle(self) -> bool:
        """Waits for the running save. A failure is reported, and the save is tried again later.

        Returns:
            Whether the newest checkpoint is on the disk.
        """
        if self._flying is not None:
            flying, self._flying = self._flying, None
            try:
                flying.result()
            except CheckpointError as error:
                self._warn(
                    f"WARNING: {error}. Training continues and will try again at the next save"
                )
        return self._newest is not None and self._newest.contents is None

    def finish(self) -> None:
        """Waits for the last save, and tries once more if it failed.

        Raises:
            CheckpointError: the final checkpoint could not be saved.
        """
        self.settle()
        lost = self._newest is not None and self._newest.contents is not None
        try:
            if lost or self._owed:
                self._write()
        except CheckpointError as error:
            if self._newest is not None and self._newest.contents is not None:
                raise
            self._warn(f"WARNING: {error}")
        finally:
            self._pool.shutdown()

    def abandon(self) -> None:
        """Lets a running save finish, but ignores failures: for runs that end with an error."""
        if self._flying is not None:
            self._flying.exception()
        self._pool.shutdown(wait=False)

    def _write(self) -> None:
        """Writes what is not on the disk yet: the weights first, then scores.

        Raises:
            CheckpointError: something could not be written, or old checkpoints could not be
                removed.
        """
        self._check()
        newest = self._newest
        if newest is not None and newest.contents is not None:
            newest.folder = checkpoint.save(self.model_dir, newest.contents)
            newest.contents = None
        while self._owed:
            with _told("the result of an evaluation could not be noted"):
                self._note(self._owed[0])
            self._owed.pop(0)
        if self.keep_last is not None:
            with _told("old checkpoints could not be removed"):
                which_checkpoint.prune(self.model_dir, self.keep_last, self.keep_best)

    def _note(self, score: _Score) -> None:
        folder = score.save.folder or checkpoint.find(self.model_dir, score.save.state)
        if folder is None or not checkpoint.is_complete(folder):
            return  # removed meanwhile as too old
        checkpoint.add_score(folder, score.facts)
        if score.best is not None:
            which_checkpoint.mark_best(self.model_dir, folder, score.best)


@contextmanager
def _told(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{what} ({error})") from error
