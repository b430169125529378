"""Shadow masters as the master knows them: who is registered, how far each has come.

A registered shadow may be promoted, so from then on two rules hold.

- Without heartbeats of a majority of the chunk servers nothing is answered (promotion).
- What is answered is on the disk of every shadow that keeps up (GFS §2.6.3: the log is
  flushed locally and remotely before an answer). One that has not confirmed a record
  within `CONFIRM_S`, or whose connection ends, is *behind*: nobody waits for it until it
  has caught up. What it lacks then a promotion finds out from the chunk servers.

    absent --FollowLog--> behind --has all that is committed--> keeps up
    keeps up --late, or gone--> behind
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from gfs.items import META, SERVERS, Meta
from master.core.decision import Decision
from master.core.engine import Engine
from master.core.promotion import hears_majority
from master.core.tables import ReadTables

SHADOWS_KEY = (b"shadows",)
CONFIRM_S = 1.0
SERVERS_MAX = 10_000


@dataclass
class Follower:
    """A shadow that follows now.

    Attributes:
      position: the last record on its disk.
      heard_s: when it last said so.
    """

    address: str
    position: int
    heard_s: float
    keeps_up: bool = False


def registered(tables: ReadTables) -> dict[int, str]:
    """Shadows in the state, and their addresses."""
    known: Meta | None = tables.get(META, SHADOWS_KEY)
    if known is None:
        return {}
    assert isinstance(known.value, bytes)
    return dict(msgspec.msgpack.decode(known.value, type=list[tuple[int, str]]))


class Shadows:
    """See the module's text. Inside and outside of steps, but `register` and `forget`.

    `own`: what this directory was registered as when it was a shadow; nobody waits for it.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.registered = registered(engine.tables)
        self.followers: dict[int, Follower] = {}
        self.own = 0
        self._waits_since_s: float | None = None  # the oldest answer that is held back

    # --- the durable list

    def register(self, shadow: int, address: str) -> None:
        """From now on it may be promoted; a record, if that is new."""
        if self.registered.get(shadow) != address:
            self._write({**self.registered, shadow: address})

    def forget(self, shadow: int) -> None:
        """It does not come back."""
        self.followers.pop(shadow, None)
        if shadow in self.registered:
            self._write({one: at for one, at in self.registered.items() if one != shadow})

    def _write(self, shadows: dict[int, str]) -> None:
        content = msgspec.msgpack.encode(sorted(shadows.items()))

        def put(decision: Decision) -> None:
            decision.tx.put(META, SHADOWS_KEY, Meta(content))

        self._engine.system("shadows", put)
        self.registered = shadows

    # --- how far they are

    def heard(self, shadow: int, address: str, position: int, now_s: float) -> None:
        """It has all up to `position` on its disk."""
        known = self.followers.get(shadow)
        if known is None:
            known = self.followers[shadow] = Follower(address, position, now_s)
        known.address, known.position, known.heard_s = address, position, now_s
        if position >= self._engine.committed_position:
            known.keeps_up = True

    def gone(self, shadow: int) -> None:
        """Its connection ended."""
        self.followers.pop(shadow, None)

    def confirmed(self) -> int:
        """Up to where all shadows that keep up have the log; without any, all of it."""
        kept = [one.position for one in self.followers.values() if one.keeps_up]
        return min([self._engine.committed_position, *kept])

    # --- when an answer may leave

    def hears_majority(self, now_s: float) -> bool:
        """Always true while nobody could be promoted."""
        if not self.registered:
            return True
        engine = self._engine
        known = [int(key[0]) for key, _ in engine.reader.scan(SERVERS, limit=SERVERS_MAX)]
        heard = {server: live.heard_s for server, live in engine.servers.live.items()}
        return hears_majority(known, heard, now_s)

    def may_leave(self, position: int, now_s: float) -> bool:
        """May answers that depend on records up to `position` be given?"""
        if self.confirmed() >= position:
            self._waits_since_s = None
            return True
        if self._waits_since_s is None:
            self._waits_since_s = now_s
        elif now_s - self._waits_since_s > CONFIRM_S:
            for one in self.followers.values():
                one.keeps_up = one.keeps_up and one.position >= position
        return self.confirmed() >= position

    def status(self, now_s: float) -> list[dict[str, object]]:
        """A line a shadow, for people."""
        committed = self._engine.committed_position
        found: list[dict[str, object]] = []
        for shadow, address in sorted(self.registered.items()):
            if shadow == self.own:
                continue
            live = self.followers.get(shadow)
            found.append(
                {
                    "shadow": f"{shadow:016x}",
                    "address": live.address if live else address,
                    "alive": live is not None,
                    "keeps_up": live is not None and live.keeps_up,
                    "position": live.position if live else 0,
                    "behind": committed - live.position if live else None,
                    "heard_s": round(now_s - live.heard_s, 1) if live else None,
                }
            )
        return found
