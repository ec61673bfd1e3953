"""What the watchdogs of all ranks have in common; rank 0's is in `hub`, the others' in `member`.

A thread of each process runs from the process's first moments to its end. At first the ranks look
for each other: rank 0 leaves its address in a store and the others connect. Before all have come to
`Watchdog.meet`, nobody goes on to what waits for the others without end. Standard library only.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from convoy.utils.watchdog.heartbeats import AwakeClock, kill_neighbour
from convoy.utils.watchdog.roster import FAILED, HUSH, SILENT, STARTING, Sign, Verdict

GRACE = 2.0
"""Seconds that the main thread is left after a verdict, to finish a file."""
PATIENCE = 10.0
"""Seconds until it is told that others are waited for which have not started."""
_SLOWER = 3  # how many times its last step's time a rank may be late
ROUND = 0.1
"""Seconds between two looks while ranks look for each other."""
ADDRESS, TROUBLE, TOLD = "watchdog", "no-watchdog", "told-"  # in the store
_APART = 0.1
"""Seconds between two ranks that look whether something is told."""

LEFT = "ended before all ranks had started"

Put, Get = Callable[[str, str], None], Callable[[str], "str | None"]


class Watchdog:
    """What both sides have in common.

    Args:
        who: this rank's `identity`, and its rank.
        seconds: without a sign of life, or of waiting for a rank, that end the job.
        start_seconds: that ranks may start after each other.
        put, get: leave a text where all ranks find it, and find it; both raise OSError where that
            place does not answer.
        leave: ends the process.

    Attributes:
        trouble: why there is no watchdog after all: rank 0 cannot be reached from everywhere.
        stopped_by: the signal that stopped the job before it began.
        searched: set once this rank has found rank 0 or knows that it cannot; on rank 0, once its
            address is where the others look for it.
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
        """Sets `seconds`, which flags may say later than the watchdog begins."""
        self.seconds, self.period = seconds, min(1.0, seconds / 10)
        self.clock.longest = 3 * self.period

    def mark(
        self,
        doing: str,
        times: float | None = 1.0,
        usual: float | None = None,
        seconds: float | None = None,
    ) -> None:
        """See `watchdog.mark`; `seconds` in place of the watchdog's."""
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
        """Lets the others have this rank's sign at once."""
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
        """Waits until all ranks have come here, or it is known why they do not: `trouble`,
        `stopped_by`.

        Args:
            asked: names the signal that asks this rank to stop; "" for none.
            say: is told once, after `PATIENCE`, whom this rank waits for.
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
        """The ranks that have not started, as far as this one knows."""
        raise NotImplementedError

    def ask_to_stop(self, name: str) -> None:
        """Asks all ranks to stop before they begin."""
        raise NotImplementedError

    def is_first_to_say(self, what: str) -> bool:
        """See `watchdog.is_first_to_say`."""
        time.sleep(min(_APART * self.who["rank"], 1.0))
        with suppress(OSError):
            if self._get(TOLD + what):
                return False
            self._put(TOLD + what, str(self.who["rank"]))
        return True

    def _settle(self, outcome: dict[str, Any]) -> None:
        """Takes what rank 0 has found: {"go": true}, {"stop": signal} or {"off": trouble}."""
        self.stopped_by, self.trouble = outcome.get("stop", ""), outcome.get("off", "")
        if self.trouble:
            self.stopping.set()
        self._met.set()

    def wait_for_verdict(self, seconds: float) -> bool:
        """Whether there is one, after so long at most."""
        return self._judged.wait(seconds)

    def end(self, verdict: Verdict, say: bool) -> None:
        """Says why, and ends this process and frozen ones beside it."""
        if self.verdict is not None or self.stopping.is_set():
            return
        self.verdict = verdict
        if say and verdict.kind != FAILED:  # an error is told by the rank that had it
            self._say(verdict.text)
        self._judged.set()
        time.sleep(GRACE)
        # Not before: to those who have not judged yet, the frozen rank would be one that is gone.
        if verdict.kind == SILENT:
            for culprit in verdict.culprits:
                kill_neighbour(culprit)
        if self.stopping.is_set():  # this rank had an end of its own meanwhile
            return
        if say and verdict.kind == FAILED:
            self._say(verdict.text)
        self._leave(1)

    def _say(self, text: str) -> None:
        # One write: the lines of several processes must not mix.
        with suppress(OSError, ValueError):
            sys.stderr.write(f"convoy (rank {self.who['rank']}): {text}. The job ends\n")
            sys.stderr.flush()

    def _round(self) -> float:
        """Seconds from one round of the thread to the next."""
        return self.period if self._met.is_set() else min(ROUND, self.period)

    def _run(self) -> None:
        raise NotImplementedError
