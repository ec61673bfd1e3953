"""Implements the common part of all ranks' watchdogs; see `hub` (rank 0) and `member` (the others).

A thread of each process runs from the process's first moments to its end. At first the ranks find
each other: rank 0 puts its address into a store, and the others connect. Until all ranks have
called `Watchdog.meet`, none continues to anything that waits for the others without a limit.
Standard library only.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias

from convoy.utils.watchdog.heartbeats import AwakeClock, kill_neighbour
from convoy.utils.watchdog.roster import FAILED, HUSH, SILENT, STARTING, Sign, Verdict

GRACE = 2.0
"""Seconds that the main thread has after a verdict, to finish a file."""
PATIENCE = 10.0
"""Seconds before it names the ranks that have not started."""
_SLOWER = 3  # how many times its last step's time a rank may be late
ROUND = 0.1
"""Seconds between two rounds while ranks look for each other."""
ADDRESS, TROUBLE, TOLD = "watchdog", "no-watchdog", "told-"  # keys in the store
_APART = 0.1
"""Seconds between two ranks' checks of whether a message was shown."""
_STORE_SECONDS = 2.0
"""Longest time that such a check takes."""

LEFT = "ended before all ranks had started"

Put: TypeAlias = Callable[[str, str], None]
Get: TypeAlias = "Callable[[str], str | None]"


class Watchdog:
    """The common part of both sides.

    Args:
        who: this rank's `identity`, and its rank.
        seconds: time without a sign of life, or of waiting for a rank, after which the job ends.
        start_seconds: time that ranks may start after each other.
        put, get: write and read a text in the ranks' common store; both raise OSError if it does
            not answer.
        leave: ends the process.

    Attributes:
        trouble: why there is no watchdog after all: some rank cannot reach rank 0.
        stopped_by: the signal that stopped the job before it began.
        searched: set when this rank has found rank 0 or knows that it cannot; on rank 0, when its
            address is in the store.
    """

    def __init__(
        self,
        who: dict[str, Any],
        *,
        seconds: float,
        start_seconds: float,
        put: Put,
        get: Get,
        leave: Callable[[int], Any] = os._exit,
    ) -> None:
        self.who, self.sign, self.start_seconds = who, STARTING, start_seconds
        self.trouble = self.stopped_by = ""
        self.verdict: Verdict | None = None
        self._put, self._get, self._leave = put, get, leave
        self._met, self._judged, self.stopping = (threading.Event() for _ in range(3))
        self.searched = threading.Event()
        self._usual = 0.0
        self.clock = AwakeClock(3.0)
        self.seconds = self.period = 0.0
        self.limit(seconds)
        self._thread = threading.Thread(target=self._run, name="convoy-watchdog", daemon=True)

    def limit(self, seconds: float) -> None:
        """Sets `seconds`, which flags may give after the watchdog has started."""
        self.seconds, self.period = seconds, min(1.0, seconds / 10)
        self.clock.longest = 3 * self.period

    def mark(
        self,
        doing: str,
        times: float | None = 1.0,
        usual: float | None = None,
        seconds: float | None = None,
    ) -> None:
        """See `watchdog.mark`; `seconds` overrides the watchdog's."""
        if usual is not None:
            self._usual = usual
        limit = times and times * max(seconds or self.seconds, _SLOWER * self._usual)
        self.sign = Sign(self.sign.count + 1, doing, limit)

    def rest(self, doing: str) -> None:
        """See `watchdog.rest`."""
        self.sign = Sign(self.sign.count, doing, None)

    @contextmanager
    def hushed(self, doing: str) -> Iterator[None]:
        """See `watchdog.hushed`."""
        before = self.sign
        self.sign = Sign(before.count, doing, None, HUSH)
        self._tell_sign()
        try:
            yield
        finally:
            self.sign = before

    def _tell_sign(self) -> None:
        """Sends this rank's sign to the others at once."""
        raise NotImplementedError

    @contextmanager
    def patient(self, doing: str) -> Iterator[None]:
        """See `watchdog.patient`."""
        before = self.sign
        self.rest(doing)
        try:
            yield
        finally:
            self.sign = before

    def meet(self, asked: Callable[[], str], say: Callable[[str], None]) -> None:
        """Waits until all ranks have called this, or have failed to (`trouble`, `stopped_by`).

        Args:
            asked: returns the name of the signal that asks this rank to stop; "" for none.
            say: called once, after `PATIENCE`, with the ranks that this one waits for.
        """
        self.mark("waiting for the other ranks to start", None, None)
        waited = 0.0
        while not self._met.wait(ROUND):
            waited += ROUND
            if name := asked():
                self.ask_to_stop(name)
            due = waited - ROUND < PATIENCE <= waited and not self._judged.is_set()
            if due and (missing := self.missing()):
                say(", ".join(f"rank {rank}" for rank in sorted(missing)[:8]))

    def missing(self) -> set[int]:
        """Returns the ranks that have not started, as far as this one knows."""
        raise NotImplementedError

    def ask_to_stop(self, name: str) -> None:
        """Asks all ranks to stop before they begin."""
        raise NotImplementedError

    def is_first_to_say(self, what: str) -> bool:
        """See `watchdog.is_first_to_say`."""
        time.sleep(min(_APART * self.who["rank"], 1.0))
        key = TOLD + hashlib.sha256(what.encode(errors="replace")).hexdigest()[:16]
        others: list[str | None] = []

        def ask() -> None:
            with suppress(OSError):
                others.append(self._get(key))
                if not any(others):
                    self._put(key, str(self.who["rank"]))

        asking = threading.Thread(target=ask, name="convoy-told", daemon=True)
        asking.start()
        asking.join(_STORE_SECONDS)  # a launcher that is frozen must not keep a message back
        return not any(others)

    def _settle(self, outcome: dict[str, Any]) -> None:
        """Applies rank 0's outcome: {"go": true}, {"stop": signal} or {"off": trouble}."""
        self.stopped_by, self.trouble = outcome.get("stop", ""), outcome.get("off", "")
        if self.trouble:
            self.stopping.set()
        self._met.set()

    def wait_for_verdict(self, seconds: float) -> bool:
        """Waits up to `seconds`; returns True if there is a verdict."""
        return self._judged.wait(seconds)

    def end(self, verdict: Verdict, say: bool) -> None:
        """Reports the reason, and ends this process and frozen ones on this host."""
        if self.verdict is not None or self.stopping.is_set():
            return
        self.verdict = verdict
        if say and verdict.kind != FAILED:  # the rank that had an error reports it itself
            self._say(verdict.text)
        self._judged.set()
        time.sleep(GRACE)
        # Kill only after the grace period; earlier, ranks without a verdict yet would report the
        # frozen rank as gone.
        if verdict.kind == SILENT:
            for culprit in verdict.culprits:
                kill_neighbour(culprit)
        if self.stopping.is_set():  # meanwhile this rank ended by itself
            return
        if say and verdict.kind == FAILED:
            self._say(verdict.text)
        self._leave(1)

    def _say(self, text: str) -> None:
        # One write, so that lines of several processes do not mix.
        with suppress(OSError, ValueError):
            sys.stderr.write(f"convoy (rank {self.who['rank']}): {text}. The job ends\n")
            sys.stderr.flush()

    def _round(self) -> float:
        """Returns the seconds between two rounds of the thread."""
        return self.period if self._met.is_set() else min(ROUND, self.period)

    def _run(self) -> None:
        raise NotImplementedError
