"""Ends a process: exit codes, the last message, and exits that wait for no other rank."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from convoy.utils.distributed import ranks
from convoy.utils.text import tell
from convoy.utils.watchdog import watchdog

EXIT_ERROR, EXIT_REFUSED, EXIT_SOME_FAILED, EXIT_INTERRUPTED = 1, 2, 3, 130


def tell_of_failed_evaluations(number: int) -> None:
    """Says on rank 0 how many evaluations could not be made."""
    times = "one evaluation" if number == 1 else f"{number} evaluations"
    if ranks.rank() == 0:
        say(
            f"{times} failed, as listed above; training continued, and the weights are saved."
            " Repair the images; --resume_checkpoint then evaluates the last weights"
        )


def is_first() -> bool:
    """Returns whether this is rank 0, also before Horovod has started."""
    return not (ranks.rank() or watchdog.rank())


def say(text: str) -> None:
    """Prints a line on stderr, which begins with the program's name and the rank."""
    rank = ranks.rank() if ranks.size() > 1 else watchdog.rank()
    prefix = "convoy: " if rank is None else f"convoy (rank {rank}): "
    tell(prefix + text)


def fail(text: str, code: int = EXIT_ERROR) -> int:
    """Reports to the user and the other ranks.

    All ranks may fail alike, by the same data or by Ctrl-C: then one of them prints the text. The
    others find that out while Horovod's threads in them report its end, which nobody needs. An
    elastic job outlives its processes, and another one may fail alike hours later: each prints.
    """
    with _silent() if ranks.size() > 1 else nullcontext():
        if not ranks.elastic() and not watchdog.is_first_to_say(text):
            watchdog.fail(text)
            return leave(code)
    say(text)
    watchdog.fail(text)
    return leave(code)


@contextmanager
def _silent() -> Iterator[None]:
    """Drops what any thread prints on standard error in the block."""
    try:
        own = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    try:
        with open(os.devnull, "wb") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(own, 2)
        os.close(own)


def leave(code: int) -> int:
    """Returns the exit code; with several ranks, or in an elastic job, exits at once.

    Skips Horovod's shutdown: the other ranks are blocked in an exchange with a failed one. Exiting
    breaks it, and they end too.
    """
    if ranks.size() > 1 or ranks.elastic():
        exit_now(code)
    return code


def exit_now(code: int) -> None:
    """Ends the process without running exit handlers."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
