"""One data directory that is being emptied: what is moved next, what has nowhere to go. Pure.

    sealed, sound   moved to another directory of this server; the master need not know of it
    no room there   told the master as *outgoing*: another server gets a copy, then ours goes
    open            told the master as outgoing: it has it sealed
    bad             the master has it made anew by itself; begun elsewhere, ours is put aside

Source: GFS §4.3 (copies are made before those that go are given up).
"""

from __future__ import annotations

from collections.abc import Sequence

from chunkd.core.replica import Replica, ReplicaState

RETRY_S = 5.0  # until room is looked for again
TELL_S = 5.0  # what is open is told again: a seal may not have come about


class Drain:
    """See the module's text. Times are monotonic seconds.

    Attributes:
      replicas_left, bytes_left: what is still in the directory, or on its way there.
      homeless: sealed replicas that this server has no room for elsewhere.
    """

    def __init__(self) -> None:
        self.replicas_left = self.bytes_left = 0
        self.homeless: set[int] = set()
        self._again_s: dict[int, float] = {}
        self._told: set[int] = set()
        self._told_s = 0.0

    def look(self, replicas: Sequence[Replica], arriving: int) -> None:
        """What is there now; so many copies more were begun before the order came."""
        self.replicas_left = len(replicas) + arriving
        self.bytes_left = sum(replica.end for replica in replicas)
        here = {replica.handle for replica in replicas}
        self.homeless &= here
        self._again_s = {handle: at_s for handle, at_s in self._again_s.items() if handle in here}

    def to_move(self, replicas: Sequence[Replica], now_s: float) -> list[Replica]:
        """Those to be moved within the server now, in the order of their handles."""
        return sorted(
            (
                replica
                for replica in replicas
                if replica.state is ReplicaState.SEALED
                and not replica.bad
                and self._again_s.get(replica.handle, now_s) <= now_s
            ),
            key=lambda replica: replica.handle,
        )

    def moved(self, replica: Replica) -> bool:
        """It lies elsewhere now. True: the master thinks that it had to go."""
        self.replicas_left -= 1
        self.bytes_left -= replica.end
        self._again_s.pop(replica.handle, None)
        self.homeless.discard(replica.handle)
        return replica.handle in self._told

    def not_moved(self, replica: Replica, now_s: float, *, no_room: bool) -> None:
        """It stays for the time being."""
        self._again_s[replica.handle] = now_s + RETRY_S
        if no_room:
            self.homeless.add(replica.handle)

    def is_outgoing(self, replica: Replica) -> bool:
        """Is the master to see to it?"""
        return replica.state is not ReplicaState.SEALED or replica.handle in self.homeless

    def has_news(self, replicas: Sequence[Replica], now_s: float) -> bool:
        """Is the master to be told of these now? It is if this says so."""
        outgoing = {replica.handle for replica in replicas if self.is_outgoing(replica)}
        again = len(outgoing) > len(self.homeless) and now_s - self._told_s >= TELL_S
        if outgoing == self._told and not again:
            return False
        self._told, self._told_s = outgoing, now_s
        return True
