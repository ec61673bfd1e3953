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
import hmac
import os
import secrets
import selectors
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any

from convoy.utils.heartbeats import Link, identity, kill_neighbour, listen
from convoy.utils.roster import (
    FAILED,
    GONE,
    SILENT,
    Peer,
    Roster,
    Sign,
    Verdict,
    no_sign,
    verdict_on,
)

GRACE = 2.0
"""Seconds that the main thread is left after a verdict, to finish a file."""
_SLOWER = 3  # how many times its last step's time a rank may be late


class Watchdog:
    """One rank's side; `start` makes it, and the functions below use it.

    Args:
        who: this rank's `identity`, and its rank.
        seconds: without a sign of life, or of waiting for a rank, that end the job.
        leave: ends the process.
    """

    def __init__(
        self, who: dict[str, Any], seconds: float, leave: Callable[[int], Any] = os._exit
    ) -> None:
        self.who, self.seconds, self.sign = who, seconds, Sign()
        self.period = min(1.0, seconds / 10)
        self.verdict: Verdict | None = None
        self._leave, self._judged, self.stopping = leave, threading.Event(), threading.Event()
        self._usual = 0.0

    def mark(self, doing: str, times: float | None = 1.0, usual: float | None = None) -> None:
        """See `mark` below."""
        if usual is not None:
            self._usual = usual
        limit = times and times * max(self.seconds, _SLOWER * self._usual)
        self.sign = Sign(self.sign.count + 1, doing, limit)

    def rest(self, doing: str) -> None:
        """See `rest` below."""
        self.sign = Sign(self.sign.count, doing, None)

    @contextmanager
    def patient(self, doing: str) -> Iterator[None]:
        """See `patient` below."""
        before = self.sign
        self.rest(doing)
        try:
            yield
        finally:
            self.sign = before

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
        if say and verdict.kind == FAILED:
            self._say(verdict.text)
        self._leave(1)

    def _say(self, text: str) -> None:
        # One write: the lines of several processes must not mix.
        with suppress(OSError, ValueError):
            sys.stderr.write(f"convoy (rank {self.who['rank']}): {text}. The job ends\n")
            sys.stderr.flush()

    def _timer(self) -> Callable[[], float]:
        """A function that tells how long this process slept beyond what it meant to."""
        last = time.monotonic()

        def slept() -> float:
            nonlocal last
            now, before = time.monotonic(), last
            last = now
            return now - before if now - before > 3 * self.period else 0.0

        return slept


class Hub(Watchdog):
    """Rank 0's side: hears all, and judges once `watching` is set."""

    def __init__(self, *args: Any, one_host: bool, **options: Any) -> None:
        super().__init__(*args, **options)
        self.watching = threading.Event()
        self.token = secrets.token_hex(16)
        self._listener, self.places = listen(one_host)
        now = time.monotonic()
        self._roster, self._links = Roster(self.seconds), dict[int, Link]()
        self._roster.peers[0] = Peer(self.who, now, now)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="convoy-watchdog", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        slept, next_round = self._timer(), 0.0
        while not self.stopping.is_set():
            for key, _ in self._selector.select(max(0.0, next_round - time.monotonic())):
                if key.fileobj is self._listener:
                    self._accept()
                elif not self._hear(*key.data):
                    next_round = 0.0  # the end of a rank is judged at once
            if (now := time.monotonic()) < next_round:
                continue
            next_round = now + self.period
            self._roster.forgive(slept(), now)
            self._roster.hear(0, self.sign, now)
            for link in list(self._links.values()):
                link.send(beat=True)
            if self.watching.is_set() and (verdict := self._roster.judge(now)):
                for link in self._links.values():
                    link.send(verdict=asdict(verdict))
                self.end(verdict, say=True)

    def _accept(self) -> None:
        with suppress(OSError):
            link = Link(self._listener.accept()[0])
            self._selector.register(link, selectors.EVENT_READ, (link, [None]))

    def _hear(self, link: Link, rank: list[int | None]) -> bool:
        """Takes what has come, and returns whether the link still stands; `rank` holds whose it
        is, once it has proved to be one.
        """
        try:
            for message in link.receive():
                if rank[0] is None:
                    rank[0] = self._admit(link, message)
                elif "bye" in message:
                    self._roster.peers.pop(rank[0], None)
                elif rank[0] not in self._roster.peers:
                    continue
                elif "failed" in message:
                    self._roster.peers[rank[0]].failed = str(message["failed"])
                else:
                    sign = Sign(message["count"], message["doing"], message["limit"])
                    self._roster.hear(rank[0], sign, time.monotonic())
        except (EOFError, KeyError):
            self._selector.unregister(link)
            link.close()
            if rank[0] is not None and rank[0] in self._roster.peers:
                self._links.pop(rank[0], None)
                self._roster.peers[rank[0]].gone = True
            return False
        return True

    def _admit(self, link: Link, hello: dict[str, Any]) -> int:
        who = hello.get("who", {})
        token = str(hello.get("token")).encode(errors="replace")
        if not hmac.compare_digest(token, self.token.encode()):
            raise EOFError
        rank, now = int(who["rank"]), time.monotonic()
        self._links[rank] = link
        self._roster.peers[rank] = Peer(who, now, now)
        link.send(welcome=self.who)
        return rank

    def fail(self, text: str) -> None:
        """Lets the others know that this rank ends by an error it has told of."""
        verdict = verdict_on(FAILED, [self._roster.peers[0]], lambda p: f"stopped: {text}")
        for link in list(self._links.values()):
            link.send(verdict=asdict(verdict))

    def stop(self) -> None:
        """This rank leaves in good order."""
        self.stopping.set()
        for link in list(self._links.values()):
            link.send(bye=True)


class Member(Watchdog):
    """The side of any other rank.

    Raises:
        OSError: rank 0 cannot be reached.
    """

    def __init__(
        self, *args: Any, places: list[tuple[str, int]], token: str, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self._link, self._chief = self._connect(places, token)
        self._thread = threading.Thread(target=self._run, name="convoy-watchdog", daemon=True)
        self._thread.start()

    def _connect(self, places: list[tuple[str, int]], token: str) -> tuple[Link, dict[str, Any]]:
        trouble = "no address"
        for place in map(tuple, places):
            try:
                link = Link(socket.create_connection(place, timeout=5))
                link.send(token=token, who=self.who)
                until = time.monotonic() + 10
                while time.monotonic() < until:
                    for message in link.receive():
                        if "welcome" in message:
                            return link, message["welcome"]
                    time.sleep(0.01)
                trouble = f"{place[0]}:{place[1]}: no answer"
            except (OSError, EOFError) as error:
                trouble = f"{place[0]}:{place[1]}: {error or 'refused'}"
        raise OSError(trouble)

    def _run(self) -> None:
        slept, next_round, heard = self._timer(), 0.0, time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(self._link, selectors.EVENT_READ)
            while not self.stopping.is_set():
                if selector.select(max(0.0, next_round - time.monotonic())):
                    try:
                        messages = self._link.receive()
                    except EOFError:
                        self._end_without_chief(GONE, "process gone")
                        return
                    heard = time.monotonic()
                    for message in messages:
                        self._obey(message)
                if (now := time.monotonic()) < next_round:
                    continue
                next_round = now + self.period
                heard = min(heard + slept(), now)
                self._link.send(**asdict(self.sign))
                if now - heard > self.seconds:
                    self._end_without_chief(SILENT, no_sign(now - heard))

    def _obey(self, message: dict[str, Any]) -> None:
        if "bye" in message:
            self.stopping.set()
        elif "verdict" in message:
            self.end(Verdict(**message["verdict"]), say=False)

    def _end_without_chief(self, kind: str, why: str) -> None:
        chief = Peer(self._chief, 0.0, 0.0)
        self.end(verdict_on(kind, [chief], lambda _: why), say=True)

    def fail(self, text: str) -> None:
        """Lets the others know that this rank ends by an error it has told of."""
        self._link.send(failed=text)

    def stop(self) -> None:
        """This rank leaves in good order."""
        self.stopping.set()
        self._link.send(bye=True)


_dog: Hub | Member | None = None


def start(
    rank: int,
    seconds: float,
    *,
    one_host: bool,
    share: Callable[[Any], Any],
    gather: Callable[[Any], list[Any]],
) -> str:
    """Starts this rank's watchdog; every rank has to come here.

    Args:
        seconds: see `Watchdog`.
        one_host: whether all ranks run on one.
        share, gather: give every rank rank 0's object, and those of all.

    Returns:
        "", or why there is none: rank 0 could not be reached from everywhere.
    """
    global _dog
    who, trouble = identity() | {"rank": rank}, ""
    dog: Hub | Member | None = None
    if rank == 0:
        dog = Hub(who, seconds, one_host=one_host)
    places, token = share((dog.places, dog.token) if isinstance(dog, Hub) else None)
    if rank:
        try:
            dog = Member(who, seconds, places=places, token=token)
        except OSError as error:
            trouble = f"rank {rank} on host {who['host']} cannot reach rank 0 ({error})"
    if troubles := [text for text in gather(trouble) if text]:
        if dog is not None:
            dog.stop()
        return troubles[0]
    if isinstance(dog, Hub):
        dog.watching.set()
    atexit.register(dog.stop)
    _dog = dog
    return ""


def mark(doing: str, times: float | None = 1.0, usual: float | None = None) -> None:
    """The main thread passes a place that every rank passes, in the same order.

    Args:
        doing: what it does from here on, for messages.
        times: how often the watchdog's time it may take to the next mark while others wait; None:
            any time.
        usual: seconds that a step took lately; slow steps lengthen the limit.
    """
    if _dog:
        _dog.mark(doing, times, usual)


def rest(doing: str) -> None:
    """From here to the next mark the main thread may take any time."""
    if _dog:
        _dog.rest(doing)


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


def has_spoken(wait: float = 3.0) -> bool:
    """Whether another rank's end explains an exchange that broke off: it is told already then."""
    return _dog is not None and _dog.wait_for_verdict(wait)
