"""Gathers the processes of an elastic job through the launcher's key-value store.

Horovod would do this itself, but in a thread whose errors end the process: when its host has left
the job, or when another process died during start-up. So we do it here, and start Horovod only when
all processes of a round are known to be there.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from contextlib import suppress

from convoy.utils.distributed.launcher_store import Store

_PLACE = ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE", "CROSS_RANK", "CROSS_SIZE")
_store = Store()  # horovodrun's store
_PATIENCE = 60  # seconds that a process may take to start before the others request another round


class Removed(RuntimeError):
    """The job has no place for this process any more; the others continue without it."""


def gather(again: bool = False) -> None:
    """Waits for all processes, then sets Horovod's variables for this one's rank and their number.

    Args:
        again: ask the launcher for a place first. It answers once each process of the last round
            has asked too, or has ended. A process's first place is in its environment already.

    Raises:
        Removed: the launcher has no place for this process.
        OSError: the launcher is gone.
    """
    while again or not _all_here():
        _take_place()
        again = not _all_here()


def tell(error: str) -> None:
    """Stores the message that ends the job, for the other processes."""
    _store.put("error", error)


def told() -> str | None:
    """Returns the message that ended another process, and so the job."""
    return _store.get("error")


def _take_place() -> None:
    host, slot = os.environ["HOROVOD_HOSTNAME"], os.environ["HOROVOD_LOCAL_RANK"]
    _store.put(f"asked-{os.environ['HOROVOD_RANK']}", "1")
    warning = threading.Timer(_PATIENCE, _name_the_silent)
    warning.daemon = True
    warning.start()
    try:
        answer = _store.await_place(f"{host}:{slot}") or "-1"
    finally:
        warning.cancel()
    numbers = answer.split(",")
    if numbers[0] == "-1":
        raise Removed(f"{host} is no longer one of the job's hosts; the others continue without it")
    for name, number in zip(_PLACE, numbers, strict=True):
        os.environ[f"HOROVOD_{name}"] = number
    os.environ["HOROVOD_ELASTIC"] = "0"  # otherwise Horovod would ask once more, and wait forever


def _all_here() -> bool:
    """Returns whether all processes came in time.

    Rank 0 decides and tells the others, so that all agree.
    """
    rank, size = int(os.environ["HOROVOD_RANK"]), int(os.environ["HOROVOD_SIZE"])
    me = f"process {os.getpid()} on {os.environ['HOROVOD_HOSTNAME']}"
    _store.put(f"here-{rank}", me)
    waiting = {f"here-{r}" for r in range(size)} if rank == 0 else {"all-here"}
    deadline = time.monotonic() + _PATIENCE + (10 if rank else 0)
    while waiting := {key for key in waiting if _store.get(key) is None}:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    if rank == 0:
        _store.put("all-here", "1")
    return True


def _name_the_silent() -> None:
    """Names the processes for which the launcher waits before it answers any other."""
    with suppress(OSError):
        silent = [
            f"rank {rank} ({_store.get(f'here-{rank}')})"
            for rank in range(int(os.environ["HOROVOD_SIZE"]))
            if _store.get(f"asked-{rank}") is None
        ]
        print(
            "convoy: horovodrun gives new places once each process has asked for one, or has ended."
            f" No answer from: {', '.join(silent) or 'none'}. End any that hang (kill -9), and the"
            " others continue; if none hangs, there are fewer hosts than --min-np asks for",
            file=sys.stderr,
            flush=True,
        )
