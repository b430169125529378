"""Replicas of sealed chunks on their way to be whole: condensed, or copied first.

A member that has all of a sealed chunk condenses it; one that lacks the end, or
missed the seal, copies from one that has it. What fails is ordered again while
both are up; a server that is away begins anew with its block report.
"""

from __future__ import annotations

from dataclasses import dataclass

from gfs import messages
from gfs.items import CHUNKS, Chunk, ChunkState
from master.core.engine import Answer, Engine, OnAnswer

RETRY_S = 1.0
RETRY_MAX_S = 30.0
CONDENSE_TRIES = 3  # then it copies, if anybody has the chunk


@dataclass
class _Unfinished:
    """A replica whose copy failed, or could not begin."""

    due_s: float
    tries: int = 0
    has_all: bool = False  # condense it; else it must copy


class Finishing:
    """See the module's text.

    Attributes:
      condensed: handle -> checksum as its members computed it, to be logged.
    """

    def __init__(self, engine: Engine) -> None:
        self.condensed: dict[int, int] = {}
        self._engine = engine
        self._under_way: dict[int, list[int]] = {}  # handle -> servers with an order
        self._unfinished: dict[tuple[int, int], _Unfinished] = {}  # (server, handle)

    def condense(self, server: int, handle: int, version: int, length: int) -> None:
        """The member has it all: its side log becomes block checksums."""
        order = messages.Condense(handle, version, length, self._engine.epoch)
        self._engine.order_server(server, order, self._on_condensed(handle, server, has_all=True))
        self._under_way.setdefault(handle, []).append(server)

    def copy(self, server: int, handle: int, version: int, length: int) -> None:
        """The member lacks the end, or all: it fetches it from one that has it."""
        servers = self._engine.servers
        sources = (servers.member(holder) for holder in servers.sources(handle) if holder != server)
        source = next((member for member in sources if member is not None), None)
        if source is None:  # who has it has not reported yet
            self._try_later(server, handle)
            return
        order = messages.CopyReplica(handle, version, length, source, self._engine.epoch)
        self._engine.order_server(server, order, self._on_condensed(handle, server))
        self._under_way.setdefault(handle, []).append(server)

    def under_way(self, handle: int) -> set[int]:
        """Servers that are just getting what they lack of the chunk."""
        return set(self._under_way.get(handle, ()))

    def _ended(self, server: int, handle: int) -> None:
        self._under_way[handle].remove(server)
        if not self._under_way[handle]:
            del self._under_way[handle]
        self._engine.servers.changed.add(handle)

    def learned(self, handle: int, checksum: int) -> None:
        """A sealed member tells its checksum in a report: the answer to the seal was lost."""
        self.condensed.setdefault(handle, checksum)

    def _on_condensed(self, handle: int, server: int, *, has_all: bool = False) -> OnAnswer:
        def condensed(answer: Answer) -> None:
            self._ended(server, handle)
            if isinstance(answer, messages.Condensed):
                self._unfinished.pop((server, handle), None)
                if self._is_right(handle, answer.checksum):
                    self._engine.servers.add_replica(server, handle)
            else:
                self._try_later(server, handle, has_all=has_all)

        return condensed

    def _is_right(self, handle: int, checksum: int) -> bool:
        """Members are bit-identical: whose checksum was heard first has said what is right."""
        chunk: Chunk | None = self._engine.tables.get(CHUNKS, (handle,))
        logged = chunk.checksum if chunk is not None else 0
        return checksum == (logged or self.condensed.setdefault(handle, checksum))

    def _try_later(self, server: int, handle: int, *, has_all: bool = False) -> None:
        unfinished = self._unfinished.setdefault((server, handle), _Unfinished(0.0))
        unfinished.tries += 1
        unfinished.has_all = has_all
        pause_s = min(RETRY_S * unfinished.tries, RETRY_MAX_S)
        unfinished.due_s = self._engine.now_s + pause_s

    def has_due_work(self, now_s: float) -> bool:
        """Is `tick` worth a step now?"""
        return any(now_s >= unfinished.due_s for unfinished in self._unfinished.values())

    def tick(self) -> None:
        """Order again what is due."""
        for (server, handle), unfinished in list(self._unfinished.items()):
            if self._engine.now_s < unfinished.due_s:
                continue
            chunk: Chunk | None = self._engine.tables.get(CHUNKS, (handle,))
            if chunk is None or not self._lacks(server, handle, chunk.goal):
                del self._unfinished[server, handle]
            elif chunk.state is ChunkState.SEALED:
                unfinished.due_s = float("inf")  # until its answer
                # Whoever may be the only one with all of it has nobody to copy from.
                alone = not self._engine.servers.holders(handle)
                condense = alone or (unfinished.has_all and unfinished.tries <= CONDENSE_TRIES)
                again = self.condense if condense else self.copy
                again(server, handle, chunk.version, chunk.length)
            else:
                del self._unfinished[server, handle]

    def _lacks(self, server: int, handle: int, goal: int) -> bool:
        """Is it still without a whole replica, and others with too few?"""
        servers = self._engine.servers
        holders = servers.holders(handle)
        return server in servers.live and server not in holders and len(holders) < goal
