"""Sends a rank's wishes with its gradients, and grants those of all ranks after a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from convoy.runtime.train.after_step import FinishedStep
from convoy.utils.signals import Requests, Wishes

if TYPE_CHECKING:
    from convoy.utils.distributed.elastic import Memory  # imports Horovod


class WishesOfRanks:
    """Saves, stops and regroups within an epoch if any rank asked; all ranks act alike.

    Args:
        requests: this rank's requests.
        memory: for an elastic job: it is due for a commit, or has heard of other hosts.
        save: saves the state; to the disk, or only to the memory of an elastic job.
        stop: saves and raises Preempted. It gets the number of the step.
    """

    def __init__(
        self,
        requests: Requests,
        memory: Memory | None,
        save: Callable[[bool], None],
        stop: Callable[[int], None],
    ) -> None:
        self._requests, self._memory, self._save, self._stop = requests, memory, save, stop
        self._left = Wishes()

    def own(self) -> Wishes:
        """Returns the wishes that this rank sends with its next gradients."""
        stop, save = self._requests.wishes()
        return Wishes(stop, save, bool(self._memory and self._memory.hosts_changed()))

    def after_step(self, done: FinishedStep) -> None:
        """Grants the wishes of the step, except in an epoch's last step, whose end saves more.

        Raises:
            Preempted: a rank asked to stop, and everything is saved.
        """
        asked = done.result.granted
        if done.ends_epoch:
            self._left = asked
            return
        due = bool(self._memory and self._memory.due(done.number))
        if any(asked) or due:
            self._save(asked.stop or asked.save)
        if asked.stop:
            self._stop(done.number)
        if asked.regroup and self._memory:
            self._memory.regroup()

    def take_left(self) -> Wishes:
        """Returns the wishes of the epoch's last step, and forgets them."""
        left, self._left = self._left, Wishes()
        return left
