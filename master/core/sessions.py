"""Sessions of mounts and clients: leases, who is back, what landed.

A session is durable (an item); its lease and its volatile part are not.

    absent --open--> live --lease runs out, or closed--> dead
    at a master's start: awaited --resumed--> live, or --term over--> dead

Dedup of requests: a number that landed is answered from its record; one below
the low mark, or of a dead session, is refused (protocols.md "Operation log").
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from gfs.errors import Overloaded, Refused
from master.core.confining import Confines

NUMBERS_MAX = 1024  # unanswered at once, and results kept in memory
NUMBER_LIMIT = 1 << 62  # keys of the tables end there


@dataclass
class LiveSession:
    """Volatile part of a session.

    `landed` maps request numbers to positions of their records; numbers below
    `low` will not come again. `created`: of those, what made a file: inode, and
    whether it was opened for writing. `turn` rises each time the session is taken
    up: what waits and came by an older connection is asked again by the new one.
    """

    session: int
    host: str
    mount: str
    lease_until_s: float
    low: int = 1
    landed: OrderedDict[int, int] = field(default_factory=OrderedDict)
    created: dict[int, tuple[int, bool]] = field(default_factory=dict)
    turn: int = 0
    confines: Confines | None = None  # what it may do; None: everything

    def position_of(self, number: int, low: int) -> int | None:
        """Where the request landed, or None: decide it.

        Raises:
          Refused: the number lies below the mark, or the mark above the number.
          Overloaded: more numbers in flight than are kept.
        """
        if not self.low <= number < NUMBER_LIMIT or low > number:
            raise Refused(f"request {number} with mark {low}, the low mark is {self.low}")
        if number - low >= NUMBERS_MAX:
            raise Overloaded(f"more than {NUMBERS_MAX} requests in flight")
        self.raise_mark(low)
        return self.landed.get(number)

    def raise_mark(self, low: int) -> None:
        """All numbers below `low` have been answered and will not come again."""
        if low <= self.low:
            return
        gone: Iterable[int] = range(self.low, low)
        if low - self.low > len(self.landed):
            gone = [number for number in self.landed if number < low]
        for number in gone:
            self.landed.pop(number, None)
            self.created.pop(number, None)
        self.low = low


class Sessions:
    """All live sessions, and those a restarted master still waits for."""

    def __init__(self, awaited: set[int], *, lease_s: float, now_s: float) -> None:
        self.live: dict[int, LiveSession] = {}
        self.awaited = awaited
        self.lease_s = lease_s
        self.gate_until_s = now_s + lease_s if awaited else now_s
        self.closed = False  # another master may be in charge: see master.core.shadows

    def add(self, live: LiveSession) -> None:
        self.live[live.session] = live
        self.awaited.discard(live.session)

    def remove(self, session: int) -> None:
        self.live.pop(session, None)
        self.awaited.discard(session)

    def exists(self, session: int) -> bool:
        """Live, or awaited after a restart."""
        return session in self.live or session in self.awaited

    def renew(self, session: int, now_s: float, low: int = 0) -> bool:
        """False: there is no such session (any more). `low`: all below was answered."""
        live = self.live.get(session)
        if live is None:
            return False
        live.lease_until_s = now_s + self.lease_s
        live.raise_mark(min(low, NUMBER_LIMIT))
        return True

    def extend(self, seconds: float) -> None:
        """The master itself did nothing for so long: it may have renewals unread.

        Longer leases here are always safe, because a mount stops trusting its caches by its
        own clock; a shorter one would end sessions that have done nothing wrong.
        """
        self.gate_until_s += seconds
        for live in self.live.values():
            live.lease_until_s += seconds

    def expired(self, now_s: float) -> list[int]:
        """Sessions whose lease ran out, and awaited ones after the term."""
        found = [s for s, live in self.live.items() if live.lease_until_s <= now_s]
        if self.awaited and now_s >= self.gate_until_s:
            found += sorted(self.awaited)
        return found

    def marks(self) -> list[int] | None:
        """Positions of the oldest request of each that may come again; None: not all are back."""
        if not self.gate_open():
            return None
        return [min(live.landed.values()) for live in list(self.live.values()) if live.landed]

    def gate_open(self) -> bool:
        """May mutations be decided: is everybody back, or the term over?"""
        return not self.awaited and not self.closed
