"""Runs rank 0's side of the watchdog: it receives signs from all ranks and judges them.

Standard library only.
"""

from __future__ import annotations

import hmac
import json
import secrets
import selectors
import threading
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from convoy.utils.watchdog.both_sides import ADDRESS, LEFT, TROUBLE, Watchdog
from convoy.utils.watchdog.heartbeats import Link, listen
from convoy.utils.watchdog.roster import (
    FAILED,
    GONE,
    Peer,
    Roster,
    Sign,
    Verdict,
    absent,
    verdict_on,
)


class Hub(Watchdog):
    """Rank 0's side.

    Args:
        size: the number of ranks.
        one_host: whether all of them run on one host.

    Attributes:
        address: the text with which the others connect.
    """

    def __init__(self, who: dict[str, Any], size: int, *, one_host: bool, **options: Any) -> None:
        super().__init__(who, **options)
        self._writing = threading.Lock()  # guards the address
        self._token, self._outcome = secrets.token_hex(16), dict[str, Any]()
        self._listener, places = listen(one_host)
        self.address = json.dumps({"places": places, "token": self._token, "who": who})
        self._roster, self._links = Roster(self.seconds), dict[int, Link]()
        self._roster.peers[0] = Peer(self.who, 0.0, 0.0)
        self._size, self._left, self._asked_at = size, list[Peer](), 0.0
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._now, self._next = 0.0, 0.0
        self._thread.start()

    def _run(self) -> None:
        while not self.stopping.is_set():
            ready = self._selector.select(max(0.0, min(self._next - self._now, self._round())))
            self._now, slept = self.clock.look()
            if slept > self.seconds / 2:
                self._roster.begin_anew(self._now)
            for key, _ in ready:
                if key.fileobj is self._listener:
                    self._accept()
                elif not self._hear(*key.data):
                    self._next = 0.0  # the end of a rank is judged at once
            if self._now < self._next:
                continue
            self._next = self._now + self._round()
            self._roster.seconds = self.seconds
            self._roster.hear(0, self.sign, self._now)
            self._tell_sign()
            verdict = self._roster.judge(self._now)
            if not verdict and not self._met.is_set():
                verdict = self._find_together()
            if verdict:
                self._tell(verdict=asdict(verdict))
                self._leave_note(verdict=asdict(verdict))
                self.end(verdict, say=True)

    def _find_together(self) -> Verdict | None:
        """Does one round before all ranks have met."""
        if not self.searched.is_set():
            with suppress(OSError), self._writing:  # the store may not be available yet
                if not self.stopping.is_set():  # must not overwrite what `stop` puts there
                    self._put(ADDRESS, self.address)
                self.searched.set()
        missing, here = self.missing(), self._roster.come_as_far(1)
        if self.stopped_by:
            self._decide(stop=self.stopped_by)
        elif len(here) == self._size:
            self._decide(go=True)
        elif self._left and here:  # somebody waits for a rank that has left
            return verdict_on(GONE, self._left, lambda _: LEFT)
        elif missing and self._now > self.start_seconds:
            return absent(missing, self.start_seconds)
        elif missing and self._now > self._asked_at + 1:
            self._asked_at = self._now
            with suppress(OSError):
                if text := self._get(TROUBLE):
                    self._decide(off=text)
        return None

    def _decide(self, **outcome: Any) -> None:
        self._outcome = outcome
        self._tell(**outcome)
        self._settle(outcome)

    def _tell_sign(self) -> None:
        self._tell(beat=asdict(self.sign))

    def _tell(self, **message: Any) -> None:
        for link in list(self._links.values()):
            link.send(**message)

    def missing(self) -> set[int]:
        """See `Watchdog.missing`."""
        left = {peer.who["rank"] for peer in self._left}
        return set(range(self._size)) - set(self._roster.peers) - left

    def ask_to_stop(self, name: str) -> None:
        """See `Watchdog.ask_to_stop`."""
        self.stopped_by = self.stopped_by or name

    def _accept(self) -> None:
        with suppress(OSError):
            link = Link(self._listener.accept()[0])
            self._selector.register(link, selectors.EVENT_READ, (link, [None]))

    def _hear(self, link: Link, rank: list[int | None]) -> bool:
        """Processes received messages; returns whether the link is still open.

        `rank` holds the link's rank once it has identified itself.
        """
        try:
            for message in link.receive():
                if rank[0] is None:
                    rank[0] = self._admit(link, message)
                elif rank[0] in self._roster.peers:
                    self._take(rank[0], message)
        # the last three: not one of our processes
        except (EOFError, KeyError, TypeError, ValueError):
            self._selector.unregister(link)
            link.close()
            if rank[0] is not None and rank[0] in self._roster.peers:
                self._links.pop(rank[0], None)
                self._roster.peers[rank[0]].gone = True
            return False
        return True

    def _take(self, rank: int, message: dict[str, Any]) -> None:
        peer = self._roster.peers[rank]
        if "failed" in message:
            peer.failed, self._next = f"stopped by an error: {message['failed']}", 0.0
        elif "stop" in message:
            self.ask_to_stop(str(message["stop"]))
        elif "bye" in message and not peer.failed:
            del self._roster.peers[rank]
            if not self._met.is_set():
                self._left.append(peer)
        elif "count" in message:
            sign = Sign(*(message[name] for name in ("count", "doing", "limit", "silence")))
            self._roster.hear(rank, sign, self._now)

    def _admit(self, link: Link, hello: dict[str, Any]) -> int:
        who = hello.get("who", {})
        token = str(hello.get("token")).encode(errors="replace")
        if not hmac.compare_digest(token, self._token.encode()):
            raise EOFError
        rank = int(who["rank"])
        self._links[rank] = link
        self._roster.peers[rank] = Peer(who, self._now, self._now)
        link.send(welcome=self.who)
        if self._outcome:
            link.send(**self._outcome)
        return rank

    def fail(self, text: str) -> None:
        """Tells the others that this rank ends with an error that it has reported."""
        why = f"stopped by an error: {text}"
        self._tell(verdict=asdict(verdict_on(FAILED, [self._roster.peers[0]], lambda _: why)))

    def stop(self) -> None:
        """Leaves in good order."""
        self.stopping.set()
        self._tell(bye=True)
        self._leave_note(**({"stop": self.stopped_by} if self.stopped_by else {}))

    def _leave_note(self, **why: Any) -> None:
        """Leaves a note for ranks that arrive after this one has gone."""
        if self.missing() and "go" not in self._outcome:
            with suppress(OSError), self._writing:
                self._put(ADDRESS, json.dumps({"who": self.who, **why}))
