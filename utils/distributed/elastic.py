"""Connects elastic jobs to Horovod: the state that survives a change of processes, and the loop.

Like `utils.distributed.ranks`, this may import Horovod; import it only in elastic jobs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import tensorflow as tf
from horovod.common.elastic import State, run_fn
from horovod.common.exceptions import HorovodInternalError, HostsUpdatedInterrupt

from convoy.utils.distributed import gathering, ranks
from convoy.utils.distributed.horovod_errors import is_horovods

T = TypeVar("T")


class Memory(State):
    """State that a process keeps while others come and go.

    Args:
        every: steps from one commit to the next.

    Attributes:
        contents: the last commit, picklable; None before the first. Rank 0 is always one of the
            oldest processes, and after every change all ranks start from its commit.
        reached: the last step of training.
        lost: whether a process died in the last change, as opposed to a change of hosts.
        size_before: the number of processes before the last change; None before the first.
    """

    def __init__(self, every: int) -> None:
        super().__init__(ranks.broadcast_object, ranks.rank)
        self.every = every
        self.contents: Any = None
        self.reached = 0
        self.lost = False
        self.size_before: int | None = None
        self._hosts_changed = False

    def due(self, step: int) -> bool:
        """Returns whether to commit after this step, which training has reached."""
        self.reached = step
        return step % self.every == 0

    def hosts_changed(self) -> bool:
        """Returns whether the launcher has said that hosts came or went; it tells only rank 0."""
        return self._hosts_changed

    def regroup(self) -> None:
        """Ends this attempt. Every rank must call it after the same step, after a commit."""
        raise HostsUpdatedInterrupt(skip_sync=False)

    # Methods that Horovod calls.

    def on_hosts_updated(self, timestamp: float, update_res: Any) -> None:
        """Records the launcher's report; Horovod calls it from another thread."""
        self._hosts_changed = True

    def restore(self) -> None:
        """Handles the loss of a rank: training restarts from `contents`.

        Raises:
            DistributedError: that rank ended with an error, whose text it left.
        """
        self.lost = True
        if error := gathering.told():
            raise ranks.DistributedError(f"ended with {error}")

    def sync(self) -> None:
        """Gives rank 0's `contents` to all processes, after they have changed."""
        with _lost_ranks():
            self.contents = ranks.broadcast_object(self.contents)

    def on_reset(self) -> None:
        """Does nothing: `_rejoin` did it before Horovod started again, so that no news is lost."""

    def about_to_change(self) -> None:
        """Records the present state before the processes regroup."""
        self.size_before = ranks.size()
        self._hosts_changed = False


def run(attempt: Callable[[], T], memory: Memory, forget: Callable[[], None]) -> T:
    """Runs `attempt`, and again after each change of the processes, until it ends.

    Args:
        attempt: continues from `memory.contents`. Its first exchange comes after Horovod's own.
        memory: see `Memory`.
        forget: called between two attempts, to free memory of the last one.

    Raises:
        gathering.Removed: the job has no place for this process any more.
    """

    def translated(_: Memory) -> T:
        with _lost_ranks():
            return attempt()

    def rejoin() -> None:
        memory.about_to_change()
        forget()
        ranks.rejoin()

    return run_fn(translated, rejoin)(memory)


@contextmanager
def _lost_ranks() -> Iterator[None]:
    """Converts TensorFlow's errors from Horovod operations to Horovod's own errors."""
    try:
        yield
    except (tf.errors.UnknownError, tf.errors.AbortedError) as error:
        if not is_horovods(error):
            raise
        raise HorovodInternalError(error.message) from None
