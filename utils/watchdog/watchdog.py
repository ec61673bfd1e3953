"""Ends a job of several processes if one of them dies, freezes or gets stuck.

Ranks that exchange gradients wait for each other without a limit, and Horovod's own stall check
reports nothing if a rank submits nothing at all. So a thread of each rank sends signs of life to
rank 0, with the main thread's activity and the number of places (`mark`) it has passed; rank 0
answers. Every rank passes the same places, so a rank that is behind while another waits is late.
Rank 0 judges all ranks, including itself; the others notice if rank 0 is silent. Standard library
only.

A thread's signs show only that the process runs. Whether its main thread moves is judged only from
a `mark` with a limit to the next mark or to `rest`, and not while it is `patient`: compiling,
saving and other work between two loops may take any time.
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
    """Starts this rank's watchdog, and returns at once; every rank must call it.

    Args:
        rank: this one's.
        size: number of ranks.
        seconds: see `limit`.
        one_host: whether all ranks run on one host.
        **options: `start_seconds`, `put` and `get`; see `both_sides.Watchdog`.

    Returns:
        on rank 0 its address, which it also puts into the store for the others.
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
    """Returns this rank; None before `start`."""
    return _dog.who["rank"] if _dog else None


def limit(seconds: float) -> None:
    """Sets the limit without a sign of life, or of waiting for a rank, after which the job ends.

    Args:
        seconds: the limit; 0: none.
    """
    if _dog:
        _dog.limit(seconds or math.inf)


def limit_data(seconds: float) -> None:
    """Sets the limit for waiting for a rank that waits for its data."""
    global _data_seconds
    _data_seconds = seconds


def meet(asked: Callable[[], str], say: Callable[[str], None]) -> tuple[str, str]:
    """Waits until all ranks have called this; see `both_sides.Watchdog.meet`.

    Returns:
        why there is no watchdog after all, and the signal that stopped the job before it began;
        each "" if not so.
    """
    if _dog is None:
        return "", ""
    _dog.meet(asked, say)
    return _dog.trouble, _dog.stopped_by


def search() -> str:
    """Waits until this rank has found rank 0, or can be found; returns why this failed, or ""."""
    if _dog is None:
        return ""
    _dog.searched.wait()
    return _dog.trouble


def mark(
    doing: str,
    times: float | None = 1.0,
    usual: float | None = None,
) -> None:
    """Records that the main thread passes a place that every rank passes, in the same order.

    Args:
        doing: its next activity, for messages.
        times: factor on the watchdog's limit for the time to the next mark while others wait; None:
            no limit.
        usual: seconds per recent step; slow steps raise the limit.
    """
    if _dog:
        _dog.mark(doing, times, usual)


def await_data(doing: str) -> None:
    """Like `mark`, if the main thread next waits for data.

    This has its own limit: disks may be slow for minutes, and a waiting process is not frozen.
    """
    if _dog:
        _dog.mark(doing, seconds=_data_seconds)


def rest(doing: str) -> None:
    """Removes the limit for the main thread until the next mark."""
    if _dog:
        _dog.rest(doing)


@contextmanager
def hushed(doing: str) -> Iterator[None]:
    """Like `patient`, for calls that may block this rank's own thread for minutes.

    Libraries may hold the interpreter so long, for example while GPUs start slowly.
    """
    if _dog is None:
        yield
        return
    with _dog.hushed(doing):
        yield


@contextmanager
def patient(doing: str) -> Iterator[None]:
    """Removes the limit for the main thread within the block. Do not call `mark` inside."""
    if _dog is None:
        yield
        return
    with _dog.patient(doing):
        yield


def fail(text: str) -> None:
    """Tells the others that this rank ends with an error, so that they end too, without messages.

    Call it before the end.
    """
    if _dog:
        _dog.fail(text)


def stop() -> None:
    """Ends the watch before this rank leaves in good order without Python's usual exit.

    Python's exit calls it too. Without it the others would take this rank for lost.
    """
    if _dog:
        _dog.stop()


def is_first_to_say(what: str) -> bool:
    """Returns whether no other rank has yet reported something that all notice at the same time.

    Args:
        what: the message, or a word for what happened.
    """
    return _dog is None or _dog.is_first_to_say(what)


def has_spoken(wait: float = 3.0) -> bool:
    """Returns whether another rank's end, already reported, explains a failed exchange.

    Args:
        wait: seconds to wait for news of it.
    """
    return _dog is not None and _dog.wait_for_verdict(wait)
