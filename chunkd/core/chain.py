"""What one member of a chain owes upstream: acknowledgements, joins, syncs.

The theory. Bytes flow down the chain, each member writes and forwards; an
acknowledgement flows up and means "I and everyone after me have written up to
this end". Ends only grow, so an acknowledgement is one number and covers
everything below it. A chain that has once failed stays failed at its version:
whatever waits is refused, the client goes to the master, which fences.

Syncs come in rounds: a round covers what had been appended when it began, and
asks this disk and the next member at the same time. Who comes while a round
is under way waits for the next, so many small synced records share one.

Source: GFS §3.2 (pipelined data flow). Departs: order and data take one path.
"""

from __future__ import annotations

from collections import deque

from msgspec import Struct

from gfs.messages import Appended, Message, RecordsAppended


class Waiting(Struct):
    """Someone upstream who is to be told once `end` is acknowledged (and synced)."""

    end: int
    asker: object
    offset: int = -1
    records: bool = False

    def answer(self, acknowledged: int) -> Message:
        if self.records:
            return RecordsAppended(self.offset, max(self.end, acknowledged))
        return Appended(self.end)


class Chain:
    """One version's chain as seen by one member; the last member has `is_last`.

    Attributes:
      joined: boots of this member and all after it, once they have answered.
      pending: landed here, not acknowledged by all after us; ends ascend.
      unsynced: wait for a sync round that covers their end.
      round_end: end that the round under way covers, or -1.
    """

    __slots__ = (
        "is_last", "joined", "joiners", "local_left", "pending", "remote_left", "round_end",
        "synced", "unsynced",
    )  # fmt: skip

    def __init__(self, *, is_last: bool, boot: str) -> None:
        self.is_last = is_last
        self.joined: list[str] | None = [boot] if is_last else None
        self.joiners: list[object] = []
        self.pending: deque[Waiting] = deque()
        self.unsynced: list[Waiting] = []
        self.synced = -1
        self.round_end = -1
        self.local_left = self.remote_left = False

    def acknowledge(self, end: int) -> list[Waiting]:
        """Everyone whose bytes all members have, in order."""
        pending = self.pending
        released: list[Waiting] = []
        while pending and pending[0].end <= end:
            released.append(pending.popleft())
        return released

    def begin_round(self, end: int) -> bool:
        """Start a sync round for `end` unless one is under way; True if it started."""
        if self.round_end >= 0:
            return False
        self.round_end = end
        self.local_left = True
        self.remote_left = not self.is_last
        return True

    def end_part(self, *, local: bool) -> bool:
        """One half of the round is done; True if the round is."""
        if local:
            self.local_left = False
        else:
            self.remote_left = False
        if self.local_left or self.remote_left or self.round_end < 0:
            return False
        self.synced, self.round_end = max(self.synced, self.round_end), -1
        return True

    def take_synced(self, acknowledged: int) -> list[Waiting]:
        """Everyone whose bytes are on every disk of the chain."""
        ready = min(self.synced, acknowledged)
        released = [waiting for waiting in self.unsynced if waiting.end <= ready]
        if released:
            self.unsynced = [waiting for waiting in self.unsynced if waiting.end > ready]
        return released

    def abandon(self) -> list[object]:
        """Everyone who waits for anything, to be refused; nobody waits any more."""
        askers = [waiting.asker for waiting in self.pending]
        askers += [waiting.asker for waiting in self.unsynced]
        askers += self.joiners
        self.pending.clear()
        self.unsynced, self.joiners = [], []
        return askers
