"""Judges each rank by its signs of life, without threads or sockets."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from convoy.utils.watchdog.heartbeats import neighbour_is_stopped

GONE, SILENT, STUCK, FAILED = "gone", "silent", "stuck", "failed"
_DEADLOCK = 10  # times the limit, if no rank moves at all
HUSH = 6.0
"""Factor on the usual time of silence while libraries may hold a rank's interpreter."""


@dataclass(frozen=True)
class Sign:
    """A rank's report about its main thread.

    Attributes:
        count: number of marks passed.
        doing: activity since the last mark, in words.
        limit: seconds that others may have to wait; None: no limit.
        silence: factor on the usual time without a sign; see `HUSH`.
    """

    count: int = 0
    doing: str = "starting"
    limit: float | None = None
    silence: float = 1.0


STARTING = Sign(silence=HUSH)


@dataclass
class Peer:
    """Rank 0's view of a rank; times are from `heartbeats.AwakeClock`."""

    who: dict[str, Any]
    heard: float
    moved: float
    sign: Sign = STARTING
    gone: bool = False
    failed: str = ""

    def __str__(self) -> str:
        return f"rank {self.who['rank']} on host {self.who['host']}"


@dataclass(frozen=True)
class Verdict:
    """The reason why the job ends, and the identities of the ranks to blame."""

    kind: str
    text: str
    culprits: list[dict[str, Any]]


class Roster:
    """Keeps and judges all ranks that have arrived and have not left."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.peers = seconds, dict[int, Peer]()
        self._lead, self._since = 0, -math.inf

    def come_as_far(self, count: int) -> set[int]:
        """Returns the ranks that have passed at least `count` marks."""
        return {rank for rank, peer in self.peers.items() if peer.sign.count >= count}

    def hear(self, rank: int, sign: Sign, now: float) -> None:
        """Records a sign of life."""
        peer = self.peers[rank]
        peer.heard = now
        if sign != peer.sign:
            peer.sign, peer.moved = sign, now
        if sign.count > self._lead:
            self._lead, self._since = sign.count, now

    def begin_anew(self, now: float) -> None:
        """Restarts all clocks after the judge itself was stopped for long.

        The others were perhaps stopped too, and nobody is to blame for signs that it has not
        received since.
        """
        for peer in self.peers.values():
            peer.heard = peer.moved = now
        self._since = now

    def judge(self, now: float) -> Verdict | None:
        """Returns what is wrong, most obvious first, or None."""
        peers = [self.peers[rank] for rank in sorted(self.peers)]
        if failed := [p for p in peers if p.failed]:
            return verdict_on(FAILED, failed, lambda p: p.failed)
        if gone := [p for p in peers if p.gone]:
            return verdict_on(GONE, gone, lambda p: f"process gone; last seen {p.sign.doing}")
        if silent := [p for p in peers if is_silent(p, now - p.heard, self.seconds)]:
            return verdict_on(SILENT, silent, lambda p: no_sign(now - p.heard, p.sign.doing))

        def late(peer: Peer) -> float:
            return now - max(peer.moved, self._since) if peer.sign.count < self._lead else 0.0

        limited = [(p, p.sign.limit) for p in peers if p.sign.limit is not None]
        if stuck := [p for p, limit in limited if late(p) > limit]:
            ahead = max(peers, key=lambda p: p.sign.count)
            return verdict_on(
                STUCK,
                stuck,
                lambda p: (
                    f"has not come as far as the others ({ahead.sign.doing}), who have waited for"
                    f" {late(p):.0f} s; last seen {p.sign.doing}"
                ),
            )
        if peers and len(limited) == len(peers):
            still = now - max(p.moved for p in peers)
            if still > _DEADLOCK * max(limit for _, limit in limited):
                why = f"has not moved for {still:.0f} s, nor has any other; last seen "
                return verdict_on(STUCK, peers, lambda p: why + p.sign.doing)
        return None


def is_silent(peer: Peer, seconds: float, limit: float) -> bool:
    """Returns whether a rank without a sign for `seconds` is lost.

    A rank that may be silent for longer is not lost while its process is visible and not stopped.
    """
    if seconds <= limit:
        return False
    return seconds > limit * peer.sign.silence or neighbour_is_stopped(peer.who)


def absent(ranks: Collection[int], seconds: float) -> Verdict:
    """Returns the verdict on ranks that have not started."""
    them = f"rank {min(ranks)} has" if len(ranks) == 1 else f"{len(ranks)} ranks have"
    which = "" if len(ranks) == 1 else f" ({', '.join(map(str, sorted(ranks)[:8]))}, …)"
    return Verdict(GONE, f"{them} not started within {seconds:.0f} s{which}", [])


def no_sign(seconds: float, doing: str = "") -> str:
    """Describes a silence in words."""
    text = f"no sign of life for {seconds:.0f} s: it is frozen, or cut off from the network"
    return text + (f"; last seen {doing}" if doing else "")


def verdict_on(kind: str, blamed: list[Peer], why: Callable[[Peer], str]) -> Verdict:
    """Blames these ranks, each for its own reason."""
    text = "; ".join(f"{peer}: {why(peer)}" for peer in blamed[:4])
    if len(blamed) > 4:
        text += f"; and {len(blamed) - 4} more"
    return Verdict(kind, text, [peer.who for peer in blamed])
