"""Warns before the first step if a batch will not fit into a host's memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

import keras

from convoy.runtime.fitted.auto_batch import SHARE, on_each_host
from convoy.runtime.fitted.foreseen_memory import KNOWN_ERROR, Foresight, bytes_of_a_number
from convoy.runtime.settings.config import Config
from convoy.runtime.settings.flags import AUTO, batch_number
from convoy.utils.distributed import ranks
from convoy.utils.errors import ConfigError
from convoy.utils.machine.garbage import without_garbage_collection
from convoy.utils.machine.gpus import visible_gpus
from convoy.utils.machine.resources import free_memory, memory_with_swap, resident_memory

_HOPELESS = 1.5
"""A batch is refused if it takes this many times a host's whole memory, with swap."""
_GIB = 2**30
_LESS = ("none", "norms", "blocks")


@dataclass(frozen=True)
class Shortage:
    """A host's lack of memory.

    Attributes:
        missing: bytes that are needed and not free.
        hopeless: whether the whole host has far too little.
        text: what to tell the user, with the way out.
    """

    missing: float
    hopeless: bool
    text: str


def memory_warning(config: Config, model: keras.Model) -> str:
    """Returns a line if the batch clearly does not fit. "" if it may fit.

    All ranks must call it, before the first step.

    A GPU refuses by itself what does not fit.

    Raises:
        ConfigError: it takes far more than a host has.
    """
    with without_garbage_collection():  # after a model was built, one takes half a second
        found = on_each_host(lambda: _shortage(config, model, ranks.local_size()))
    if not (short := [one for one in found if one is not None]):
        return ""
    worst = max(short, key=lambda one: (one.hopeless, one.missing))
    if worst.hopeless:
        ranks.on_rank0(lambda: _refuse(worst.text))
    return f"WARNING: {worst.text}"


def _refuse(text: str) -> NoReturn:
    raise ConfigError(text)


def available_memory(on_host: int) -> float:
    """Returns the bytes that each of a host's processes may have, with what it has now."""
    return free_memory() / on_host + resident_memory()


def _shortage(config: Config, model: keras.Model, on_host: int) -> Shortage | None:
    if visible_gpus() > 0:
        return None
    foresight = Foresight(config, model, bytes_of_a_number(), gpu=False)
    free = available_memory(on_host)
    batch = batch_number(config.train_batch_size)
    needed = foresight.peak(batch, config.recompute).total
    if needed * (1 - KNOWN_ERROR) <= free:
        return None
    most = memory_with_swap() / on_host
    hopeless = needed > _HOPELESS * most
    whose = f" for each of {on_host} processes" if on_host > 1 else ""
    has = f"{most / _GIB:.1f} GiB in all" if hopeless else f"{free / _GIB:.1f} GiB free"
    return Shortage(
        needed - free,
        hopeless,
        f"--train_batch_size {batch} needs about {needed / _GIB:.1f} GiB, and there are {has}"
        f"{whose}: {_way_out(config, foresight, batch, SHARE * free)}",
    )


def _way_out(config: Config, foresight: Foresight, batch: int, room: float) -> str:
    ways = []
    if fits := min(foresight.largest_batch(config.recompute, room), batch - 1):
        ways.append(f"--train_batch_size {fits} fits")
    more = _LESS[_LESS.index(config.recompute) + 1 :] if config.recompute in _LESS else ("blocks",)
    taken = {how: foresight.peak(batch, how).total for how in more}
    if how := next((how for how in more if taken[how] <= room), None):
        ways.append(
            f"with --recompute {how} this batch takes {taken[how] / _GIB:.1f} GiB ({AUTO} finds it)"
        )
    elif not fits and "blocks" in more and (fits := foresight.largest_batch("blocks", room)):
        ways.append(f"--recompute blocks with --train_batch_size {fits} fits")
    return ", and ".join(ways) or "lower --image_size, or choose a smaller --arch"
