"""Ends a job of several processes when one of them dies, freezes or gets stuck.

Ranks that exchange gradients wait for each other without end, and Horovod's own stall check says
nothing when a rank submits nothing at all. So each rank has a thread that sends rank 0 a sign of
life, with what its main thread is doing and how many places (`mark`) it has passed; rank 0 answers.
Every rank passes the same places, so one that is behind while another waits is late. Rank 0 judges
all, itself included; that rank 0 is silent, the others find. Standard library only.

A thread's signs tell that the process runs. Whether its main thread moves is judged only from a
`mark` with a limit to the next or to `rest`, and not where it is `patient`: compiling, saving and
whatever else stands between two loops may take as long as it takes.
"""

from __future__ import annotations

import atexit
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from convoy.utils.watchdog.heartbeats import identity
from convoy.utils.watchdog.hub import Hub
from convoy.utils.watchdog.member import Member

_dog: Hub | Member | None = None
_data_seconds = 600.0


def start(rank: int, size: int, seconds: float, *, one_host: bool, **options: Any) -> str:
    """Starts this rank's watchdog, and returns at once; every rank has to come here.

    Args:
        seconds: see `limit`.
        one_host: whether all ranks run on one.
        **options: `start_seconds`, `put` and `get`; see `watcher.Watchdog`.

    Returns:
        on rank 0 its address, which it also puts where the others find it.
    """
    global _dog
    who = identity() | {"rank": rank}
    if rank == 0:
        _dog = Hub(who, size, one_host=one_host, seconds=seconds, **options)
    else:
        _dog = Member(who, seconds=seconds, **options)
    atexit.register(_dog.stop)
    return _dog.address if isinstance(_dog, Hub) else ""


def rank() -> int | None:
    """This rank; None before `start`."""
    return _dog.who["rank"] if _dog else None


def limit(seconds: float) -> None:
    """Without a sign of life, or of waiting for a rank, that end the job; 0: any time."""
    if _dog:
        _dog.limit(seconds or math.inf)


def limit_data(seconds: float) -> None:
    """Of waiting for a rank that waits for its data."""
    global _data_seconds
    _data_seconds = seconds


def meet(asked: Callable[[], str], say: Callable[[str], None]) -> tuple[str, str]:
    """Waits until all ranks have come here; see `watcher.Watchdog.meet`.

    Returns:
        why there is no watchdog after all, and the signal that stopped the job before it began: ""
        where that is not so.
    """
    if _dog is None:
        return "", ""
    _dog.meet(asked, say)
    return _dog.trouble, _dog.stopped_by


def search() -> str:
    """Waits until this rank has found rank 0, or is itself to be found; returns why it cannot."""
    if _dog is None:
        return ""
    _dog.searched.wait()
    return _dog.trouble


def mark(
    doing: str,
    times: float | None = 1.0,
    usual: float | None = None,
) -> None:
    """The main thread passes a place that every rank passes, in the same order.

    Args:
        doing: what it does from here on, for messages.
        times: how often the watchdog's time it may take to the next mark while others wait; None:
            any time.
        usual: seconds that a step took lately; slow steps lengthen the limit.
    """
    if _dog:
        _dog.mark(doing, times, usual)


def await_data(doing: str) -> None:
    """As `mark`, where the main thread waits for data from here on, for which it has a time of its
    own: disks may be slow for minutes, and a process that waits is not frozen.
    """
    if _dog:
        _dog.mark(doing, seconds=_data_seconds)


def rest(doing: str) -> None:
    """From here to the next mark the main thread may take any time."""
    if _dog:
        _dog.rest(doing)


@contextmanager
def hushed(doing: str) -> Iterator[None]:
    """As `patient`, for calls into libraries that may hold the interpreter, and with it this rank's
    thread, for minutes, as GPUs do that are slow to start.
    """
    if _dog is None:
        yield
        return
    with _dog.hushed(doing):
        yield


@contextmanager
def patient(doing: str) -> Iterator[None]:
    """Within it the main thread may take any time. No marks inside."""
    if _dog is None:
        yield
        return
    with _dog.patient(doing):
        yield


def fail(text: str) -> None:
    """To be called before this rank ends by an error, so that the others end too, and quietly."""
    if _dog:
        _dog.fail(text)


def stop() -> None:
    """To be called before this rank leaves in good order but without Python's usual end, which does
    this: the others must not take it for lost.
    """
    if _dog:
        _dog.stop()


def is_first_to_say(what: str) -> bool:
    """Whether no other rank has said what all find at about the same time."""
    return _dog is None or _dog.is_first_to_say(what)


def has_spoken(wait: float = 3.0) -> bool:
    """Whether another rank's end explains an exchange that broke off: it is told already then."""
    return _dog is not None and _dog.wait_for_verdict(wait)
