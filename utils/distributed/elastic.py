"""Horovod's side of elastic jobs: what survives a change of processes, and the loop around it.

Like `utils.distributed.ranks` this may import Horovod; it is imported in elastic jobs only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import tensorflow as tf
from horovod.common.elastic import State, run_fn
from horovod.common.exceptions import HorovodInternalError, HostsUpdatedInterrupt

from convoy.utils.distributed import gathering, ranks

T = TypeVar("T")


class Memory(State):
    """What a process keeps while the others come and go.

    Args:
        every: steps from one commit to the next.

    Attributes:
        contents: the last commit, picklable; None before the first. Rank 0 is always among the
            oldest processes, and every change begins with its commit on all ranks.
        reached: the step that training had reached.
        lost: whether the last change was a process that died, and not a change of hosts.
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
        """Whether to commit after this step, which training has reached."""
        self.reached = step
        return step % self.every == 0

    def hosts_changed(self) -> bool:
        """Whether the launcher has told this process (it tells rank 0) that hosts came or went."""
        return self._hosts_changed

    def regroup(self) -> None:
        """To be called by every rank after the same step, after a commit: ends this attempt."""
        raise HostsUpdatedInterrupt(skip_sync=False)

    # What Horovod calls.

    def on_hosts_updated(self, timestamp: float, update_res: Any) -> None:
        self._hosts_changed = True

    def restore(self) -> None:
        """A rank was lost. Training starts from `contents` again, unless that rank said why."""
        self.lost = True
        if error := gathering.told():
            raise ranks.DistributedError(f"ended with {error}")

    def sync(self) -> None:
        with _lost_ranks():
            self.contents = ranks.broadcast_object(self.contents)

    def on_reset(self) -> None:
        """Nothing: `_rejoin` did it before Horovod began anew, so that no news is lost."""

    def about_to_change(self) -> None:
        """Notes how things stand, before the processes gather again."""
        self.size_before = ranks.size()
        self._hosts_changed = False


def run(attempt: Callable[[], T], memory: Memory, forget: Callable[[], None]) -> T:
    """Runs `attempt`, and again after each change of the processes, until it ends.

    Args:
        attempt: goes on from `memory.contents`. Its first exchange comes after Horovod's own.
        memory: see there.
        forget: called between two attempts, to free what the last one left.

    Raises:
        gathering.Removed: this process has no place in the job any more.
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
    """Turns TensorFlow's errors of Horovod's operations into Horovod's own."""
    try:
        yield
    except (tf.errors.UnknownError, tf.errors.AbortedError) as error:
        if "horovod" not in error.message.lower():
            raise
        raise HorovodInternalError(error.message) from None
