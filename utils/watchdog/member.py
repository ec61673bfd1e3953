"""Runs the other ranks' side of the watchdog.

They send signs of life to rank 0, and end if it says so or is gone. Standard library only.

Standard library only.
"""

from __future__ import annotations

import json
import selectors
import socket
import time
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from convoy.utils.watchdog.both_sides import ADDRESS, GRACE, LEFT, ROUND, TROUBLE, Watchdog
from convoy.utils.watchdog.heartbeats import Link
from convoy.utils.watchdog.roster import (
    GONE,
    SILENT,
    Peer,
    Sign,
    Verdict,
    absent,
    is_silent,
    no_sign,
    verdict_on,
)


class Member(Watchdog):
    """The side of any rank but 0."""

    def __init__(self, who: dict[str, Any], **options: Any) -> None:
        super().__init__(who, **options)
        self._link: Link | None = None
        self._chief = Peer({}, 0.0, 0.0)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._link = self._find_chief()
        except OSError as error:
            host = self.who["host"]
            text = f"rank {self.who['rank']} on host {host} cannot reach rank 0 ({error})"
            self._settle({"off": text})
            with suppress(OSError):
                self._put(TROUBLE, text)
        self.searched.set()
        if self._link and not self.stopping.is_set():
            self._watch(self._link)

    def _find_chief(self) -> Link | None:
        """Connects to rank 0; returns None if it has left. Raises OSError if it is unreachable."""
        address, trouble = self._find_address(), "no address"
        self._chief.who = address["who"]
        places = address.get("places", [])
        for place in map(tuple, places * 2):  # at first, rank 0 may be just about to end
            link = None
            try:
                link = Link(socket.create_connection(place, timeout=5))
                link.send(token=address["token"], who=self.who)
                self._await_welcome(link)
                return link
            except (OSError, EOFError) as error:
                if link is not None:
                    link.close()
                address = self._find_address()  # rank 0 may have left meanwhile
                refused = isinstance(error, ConnectionRefusedError)
                if refused and place[0] == "127.0.0.1" and "places" in address:
                    self._end_without_chief(GONE, "process gone")
                trouble = f"{place[0]}:{place[1]}: {error or 'refused'}"
        if "places" in address:
            raise OSError(trouble)
        if "verdict" in address or "stop" in address:
            self._obey(address)
        else:
            self._end_as_it_left()
        return None

    def _find_address(self) -> dict[str, Any]:
        while not self.stopping.is_set():
            with suppress(OSError):  # the store may not be available yet
                if text := self._get(ADDRESS):
                    return json.loads(text)
            if self.clock.look()[0] > self.start_seconds:
                self.end(absent({0}, self.start_seconds), say=True)
            time.sleep(ROUND)
        raise OSError("it was not waited for")

    def _await_welcome(self, link: Link) -> None:
        start, welcome = self.clock.look()[0], False
        while not self.stopping.is_set():
            for message in link.receive():
                welcome |= "welcome" in message
                self._obey(message)
            if welcome:
                return
            if is_silent(self._chief, waited := self.clock.look()[0] - start, self.seconds):
                self._end_without_chief(SILENT, no_sign(waited))
            time.sleep(0.01)
        raise OSError("it was not waited for")

    def _watch(self, link: Link) -> None:
        now = next_round = heard = self.clock.look()[0]
        with selectors.DefaultSelector() as selector:
            selector.register(link, selectors.EVENT_READ)
            while not self.stopping.is_set():
                ready = selector.select(max(0.0, min(next_round - now, self._round())))
                now, slept = self.clock.look()
                if slept > self.seconds / 2:
                    heard = now
                if ready:
                    try:
                        messages = link.receive()
                    except EOFError:
                        self._end_without_chief(GONE, "process gone")
                        return
                    heard = now
                    for message in messages:
                        self._obey(message)
                if now < next_round:
                    continue
                next_round = now + self._round()
                self._tell_sign()
                if is_silent(self._chief, now - heard, self.seconds):
                    self._end_without_chief(SILENT, no_sign(now - heard))

    def _tell_sign(self) -> None:
        if self._link:
            self._link.send(**asdict(self.sign))

    def _obey(self, message: dict[str, Any]) -> None:
        if "bye" in message:
            if not self._met.is_set():
                self._end_as_it_left()
            self.stopping.set()
        elif "beat" in message:
            self._chief.sign = Sign(**message["beat"])
        elif "verdict" in message:
            self.end(Verdict(**message["verdict"]), say=False)
        elif not self._met.is_set() and {"go", "stop", "off"} & set(message):
            self._settle(message)

    def _end_as_it_left(self) -> None:
        while not self.sign.count and not self.stopping.wait(ROUND):
            pass  # this rank may be about to end as well, for the same reason
        self._end_without_chief(GONE, LEFT)

    def _end_without_chief(self, kind: str, why: str) -> None:
        # All others notice by themselves that rank 0 is lost.
        say = self.is_first_to_say("lost")
        self.end(verdict_on(kind, [self._chief], lambda _: why), say=say)

    def missing(self) -> set[int]:
        """See `Watchdog.missing`."""
        return set() if self._link else {0}

    def ask_to_stop(self, name: str) -> None:
        """See `Watchdog.ask_to_stop`."""
        if not self.searched.wait(2.0):
            self._settle({"stop": name})  # there is nobody to tell
        elif self._link:
            self._link.send(stop=name)

    def fail(self, text: str) -> None:
        """Tells the others that this rank ends with an error that it has reported."""
        self.searched.wait(GRACE)
        if self._link:
            self._link.send(failed=text)

    def stop(self) -> None:
        """Leaves in good order."""
        self.searched.wait(GRACE)
        self.stopping.set()
        if self._link:
            self._link.send(bye=True)
