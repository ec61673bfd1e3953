"""Keeps a run's state: in checkpoints on the disk and, in an elastic job, in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from convoy.dataloader.data_loader import DataLoader
from convoy.runtime.run_folder.background_saver import Saver
from convoy.runtime.run_folder.checkpoint import Checkpoint
from convoy.runtime.run_folder.ownership import Owner
from convoy.runtime.settings.config import Config
from convoy.runtime.train.sizes import Last, Sizes
from convoy.runtime.train.state import Commit, snapshot
from convoy.runtime.train.step import TrainState
from convoy.runtime.train.sums import Sums
from convoy.utils.distributed import ranks
from convoy.utils.signals import Requests
from convoy.utils.watchdog import watchdog

if TYPE_CHECKING:
    from convoy.utils.distributed.elastic import Memory  # imports Horovod


class Keeper:
    """Keeps the state of a run. Every rank has one, and calls the same methods at the same places.

    Args:
        state: the state to keep.
        memory: for an elastic job: receives commits (`utils.distributed.elastic.Memory`).
        requests: its timer triggers saves; only rank 0's does.
        owner: rank 0's claim to the run's folder, required for writing there.
        sizes: stored in checkpoints.
        last: the last epoch and the last step of this launch.
        warn: called with the text of a failure.

    Attributes:
        saver: on rank 0, if there are checkpoints.
    """

    def __init__(
        self,
        config: Config,
        state: TrainState,
        *,
        memory: Memory | None,
        requests: Requests,
        owner: Owner | None,
        sizes: Sizes,
        last: Last,
        warn: Callable[[str], None],
    ) -> None:
        self.config, self.state, self.memory = config, state, memory
        self._requests, self._owner = requests, owner
        self._sizes, self._last = sizes, last
        self.saver = None
        if ranks.rank() == 0 and not config.no_checkpoints:
            self.saver = Saver(
                config.model_dir,
                keep_last=None if config.gather_checkpoints else config.keep_checkpoints,
                keep_best=config.keep_best,
                warn=warn,
                check=owner.check if owner else lambda: None,
            )
        requests.save_every(config.checkpoint_every_minutes if self.saver else None)

    def save(
        self,
        data: DataLoader,
        metrics: dict[str, float],
        sums: Sums | None = None,
        to_disk: bool = True,
    ) -> None:
        """Starts to save the present state, also in the memory of an elastic job, or only there.

        Args:
            data: the training loader.
            metrics: see `snapshot`.
            sums: see `snapshot`.
            to_disk: False: only in memory.
        """
        to_disk &= not self.config.no_checkpoints
        if not (to_disk or self.memory):
            return
        with watchdog.patient("saving a checkpoint"):
            whole = bool(self.memory or self.saver)
            contents = snapshot(self.state, self.config, data, metrics, sums, whole)
            if to_disk:
                self._requests.saved()
            if contents is not None:
                self._keep(contents, to_disk)

    def _keep(self, contents: Checkpoint, to_disk: bool) -> None:
        contents.state["images_per_step"] = self._sizes.images_per_step
        contents.state["steps_per_epoch"] = self._sizes.steps_per_epoch
        if self.memory:
            self.memory.contents = Commit(contents, self._last)
            self.memory.reached = self.state.step
        if to_disk and self.saver:
            self.saver.save(contents)

    def secure(self) -> None:
        """Waits until the last save is on the disk or has failed, which does not end training."""
        if self.config.no_checkpoints:
            return
        watchdog.rest("writing a checkpoint")
        on_disk = ranks.on_rank0(self.saver.settle if self.saver else lambda: False)
        self._requests.at_stake &= not on_disk

    def add_score(self, facts: Mapping[str, Any], is_best: bool, to_disk: bool) -> None:
        """Adds an evaluation's facts to the newest commit, and checkpoint if `to_disk`.

        Both must have the present state.
        """
        if self.memory and self.memory.contents:
            saved = self.memory.contents.saved
            saved.state = {**saved.state, **facts}
        if to_disk and self.saver:
            of = {name: getattr(self.state, name) for name in ("step", "epoch", "offset")}
            self.saver.add_score(of, facts, self.state.best if is_best else None)

    def name_best(self) -> None:
        """Makes `best.json` name the best so far, if it is damaged or names another."""
        if self.saver and self.state.best:
            self.saver.name_best(self.state.best)

    def finish(self, stopping: bool = False) -> None:
        """Waits for the last save, and tries once more if it failed.

        Args:
            stopping: a signal came; tell a run that waits for the folder that it will be free.

        Raises:
            CheckpointError: the final state could not be saved.
        """
        watchdog.rest("writing the last checkpoint")
        if stopping:
            self._requests.stopping()
            if self._owner:
                self._owner.ending()
        ranks.on_rank0(self.saver.finish if self.saver else lambda: None)
        self._requests.at_stake = False

    def abandon(self) -> None:
        """Lets a running save finish, but ignores failures: for runs that end with an error."""
        if self.saver:
            watchdog.rest("ending a save after an error")
            self.saver.abandon()
