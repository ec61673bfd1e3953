"""Runs one contender in a process that computes only on request.

    python -m benchmarks.harness.contender MODULE:FUNCTION '{"argument": …}'

turns.py starts this process. FUNCTION returns a `Contender`. Requests are lines of JSON on standard
input, answers are lines of JSON on standard output: the answer to `{"turn": 5}` has the time of
five iterations. An exception is reported as an answer too; the process then ends, with a traceback
on standard error.
"""

from __future__ import annotations

import ctypes
import glob
import importlib
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TextIO


@dataclass(frozen=True)
class Contender:
    """A program, or a way to use one, that is compared with others.

    Attributes:
        turn: runs the given number of iterations and waits until they end. It returns the seconds
            to count, or None to count the whole call.
        items: images (or other items that the row counts) per iteration.
        facts: information to save with the results: versions, parameters.
        measures: returns further figures; called after each turn.
    """

    turn: Callable[[int], float | None]
    items: int = 1
    facts: dict[str, Any] = field(default_factory=dict)
    measures: Callable[[], dict[str, float]] = dict


def peak_mib() -> float:
    """Returns this process's peak memory so far in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def cpu_seconds() -> float:
    """Returns the CPU time so far of this process and its children, in seconds.

    The children are all other processes in its session. Their time is known to 0.01 s only.
    """
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = time.process_time() + ended.ru_utime + ended.ru_stime
    session, own, tick = os.getsid(0), str(os.getpid()), os.sysconf("SC_CLK_TCK")
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(path) as file:
                fields = file.read().rpartition(")")[2].split()  # names may have spaces
        except OSError:
            continue  # the process has ended
        if int(fields[3]) == session and path.split("/")[2] != own:
            # user and system time, also of children that have ended
            total += sum(map(int, fields[11:15])) / tick
    return total


def main() -> None:
    # Libraries print to standard output: send that to standard error, and keep it for answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    end_with_parent()
    try:
        answer(answers)
    except Exception as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=answers)
        raise


def end_with_parent() -> None:
    """Makes Linux kill this process when its parent ends, even while it is stopped.

    The process has its own session, so it would otherwise stay and keep its memory (also the
    GPU's) forever.
    """
    if sys.platform == "linux":
        set_parent_death_signal = 1  # man 2 prctl
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def answer(answers: TextIO) -> None:
    """Makes the contender, and answers requests until standard input ends."""
    module, function = sys.argv[1].split(":")
    start = time.perf_counter()
    try:
        made = getattr(importlib.import_module(module), function)(**json.loads(sys.argv[2]))
    except ModuleNotFoundError as error:
        print(json.dumps({"missing": error.name}), file=answers)
        return
    ready = {"facts": made.facts, "items": made.items, "begin_s": time.perf_counter() - start}
    print(json.dumps(ready), file=answers)
    for line in sys.stdin:
        count = json.loads(line)["turn"]
        cpu, wall = cpu_seconds(), time.perf_counter()
        own = made.turn(count)
        seconds = time.perf_counter() - wall if own is None else own
        cpu = cpu_seconds() - cpu
        figures = {"seconds": seconds, "cpu_s": cpu, "peak_mib": peak_mib(), **made.measures()}
        print(json.dumps(figures), file=answers)


if __name__ == "__main__":
    main()
