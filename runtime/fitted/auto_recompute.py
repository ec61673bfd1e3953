"""Finds `--recompute auto`: as little as lets a batch fit into memory.

It trains a few steps in a separate process, as `auto_batch.py` does. No TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from convoy.runtime.fitted.auto_batch import TrialError, Trials, memory_room, on_each_host
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.flags import AUTO, batch_number
from convoy.runtime.settings.recomputation import share_of_first
from convoy.utils.distributed import ranks
from convoy.utils.watchdog import watchdog

_GIB = 2**30
_MARGIN = 1.1
"""Factor on what blocks must save, as the share of each is only computed."""


@dataclass(frozen=True)
class FoundRecompute:
    """The result of the search.

    Attributes:
        how: value of `--recompute`.
        blocks: how many blocks are computed again wholly; -1: nothing is computed again.
        why: why it is not less, for people.
    """

    how: str | int
    blocks: int
    why: str

    def line(self) -> str:
        """Returns the line for people."""
        return f"convoy: --recompute {AUTO} is {self.how}: {self.why}"


def find_recompute(config: Config) -> FoundRecompute:
    """Returns the largest result of a job's hosts; one process per host searches.

    All ranks must call it.

    Raises:
        TrialError: the batch does not fit, or training failed for another reason.
    """
    watchdog.rest("looking for the least to compute again")
    found = on_each_host(lambda: _look(config, ranks.local_size()))
    return max(found, key=lambda one: one.blocks)


def _look(config: Config, on_host: int) -> FoundRecompute:
    batch = batch_number(config.train_batch_size)
    with Trials(config) as trials:
        return least(config, lambda how: trials.peak(batch, how), memory_room(on_host))


def least(config: Config, peak: Callable[[str | int], int | None], room: float) -> FoundRecompute:
    """Returns the least recomputation that fits.

    Args:
        config: the flags.
        peak: memory in bytes of a value of `--recompute`; None: more than available.
        room: bytes that may be taken; infinite on a GPU, which refuses what does not fit.

    Raises:
        TrialError: not even all blocks fit.
    """
    taken: dict[str | int, float] = {}

    def fits(how: str | int) -> bool:
        found = peak(how)
        taken[how] = float("inf") if found is None else float(found)
        return found is not None and found <= room

    def why(less: str | int) -> str:
        return f"{less} {_takes(taken[less])}{_room(room)}"

    if fits("none"):
        return FoundRecompute("none", -1, f"it {_takes(taken['none'])}{_room(room)}")
    if fits("norms"):
        return FoundRecompute("norms", 0, why("none"))
    shares = share_of_first(config)
    if not fits("blocks"):
        batch = batch_number(config.train_batch_size)
        fewer = f"--train_batch_size (it is {batch}) or " if batch > 1 else ""
        raise TrialError(
            f"--recompute {AUTO}: {why('blocks')}; lower {fewer}--image_size, or choose a smaller"
            " --arch"
        )
    saved = taken["norms"] - taken["blocks"]
    needed = _MARGIN * (taken["norms"] - room) / saved if saved < float("inf") else 0.5
    count = next((n for n, share in enumerate(shares) if share >= needed), len(shares))
    less: str | int = "norms"
    while 0 < count < len(shares) - 1:
        if fits(count):
            return FoundRecompute(count, count, why(less))
        less, count = count, (count + len(shares)) // 2
    return FoundRecompute("blocks", len(shares) - 1, why(less))


def _takes(taken: float) -> str:
    return f"takes {taken / _GIB:.1f} GiB" if taken < float("inf") else "takes too much"


def _room(room: float) -> str:
    return f", and {room / _GIB:.1f} GiB may be taken" if room < float("inf") else ""
