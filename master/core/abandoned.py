"""Open chunks whose chain is broken while nobody writes: sealed, so that they are whole again.

The length that all members have acknowledged is known to the primary alone, in
memory. Once a member has restarted or is gone, the next append would seal the
tail; if none comes, a reader would wait for ever, so the master does it here.

A member that is away is waited for first: who misses the seal has a replica
that does not count. A private chunk is its writer's business while it writes; one
that has committed bytes and an idle writer would keep a copy too few until the next write.
The same holds for chunks that began with fewer members than their goal, because
servers were away: once there are enough, they are sealed, and so can be copied.
"""

from __future__ import annotations

from gfs.items import CHUNKS, CHUNKS_BY_STATE, SERVERS, Chunk, ChunkKind, ChunkState, Key
from master.core.engine import Engine, scan_all
from master.core.seals import Seals
from master.core.servers import LiveServer

RETURN_WAIT_S = 2.0
LOOKED_AT_ONCE = 200  # open chunks in one round


class Abandoned:
    """Told by the fleet who is lost, back, or has lost its place in a chain."""

    def __init__(self, engine: Engine, seals: Seals) -> None:
        self._engine = engine
        self._seals = seals
        self._away = {int(key[0]): engine.now_s for key, _ in scan_all(engine.tables, SERVERS)}
        self._broken: dict[int, float] = {}  # chunks with a member that restarted, since when
        self._in_the_way: set[int] = set()  # those of them that a drained directory has to lose
        self._narrow: dict[int, float] = {}  # open with too few members, seen first
        self._look_after: Key | None = None

    def lost(self, server: int) -> None:
        self._away[server] = self._engine.now_s

    def back(self, live: LiveServer) -> None:
        """It has reported all its replicas; a chain that it should be in and is not cannot work.

        That is so when nobody has appended before it restarted, and when its disk lost the replica.
        """
        server = live.member.server
        if self._away.pop(server, None) is None:
            return
        for handle, chunk in self._open_chunks():
            late = handle < live.first_new_handle and handle not in live.reported_handles
            if late and any(member.server == server for member in chunk.members):
                self.broken(handle)

    def broken(self, handle: int, *, outgoing: bool = False) -> None:
        """A member of this open chunk has restarted: it takes no appends.

        `outgoing`: its replica is to leave a data directory, which only what is sealed can.
        """
        self._broken.setdefault(handle, self._engine.now_s)
        if outgoing:
            self._in_the_way.add(handle)

    def is_awaited(self, server: int) -> bool:
        """Is it away, or back and has not reported all it has?"""
        return server in self._away

    def waits_for(self, handle: int, chunk: Chunk) -> bool:
        """Is the tail about to be sealed here, once a member has had time to return?"""
        away = any(member.server in self._away for member in chunk.members)
        return away or handle in self._broken

    def is_due(self, now_s: float) -> bool:
        """Is `tick` worth a step now?"""
        return bool(self._broken) or any(self._overdue(server, now_s) for server in self._away)

    def _overdue(self, server: int, now_s: float) -> bool:
        back = server in self._engine.servers.live  # only its report is missing
        return not back and now_s - self._away[server] >= RETURN_WAIT_S

    def tick(self) -> None:
        """Seal what has been waited for long enough."""
        now_s = self._engine.now_s
        overdue = {server for server in self._away if self._overdue(server, now_s)}
        if overdue:
            for server in overdue:
                del self._away[server]  # looked for once each time it goes
            self._seal_all_of(overdue)
        for handle, since_s in list(self._broken.items()):
            chunk: Chunk | None = self._engine.tables.get(CHUNKS, (handle,))
            if chunk is None or now_s - since_s >= RETURN_WAIT_S or self._all_live(chunk):
                del self._broken[handle]
                self._seal(handle, chunk)

    def slow_round(self) -> None:
        """A page of the open chunks: does one have fewer members than there could be?"""
        engine = self._engine
        if self._look_after is None:  # what was sealed meanwhile is forgotten
            self._narrow = {h: since for h, since in self._narrow.items() if self._is_open(h)}
        found = engine.tables.by_index(
            CHUNKS_BY_STATE, ChunkState.OPEN, after=self._look_after, limit=LOOKED_AT_ONCE
        )
        self._look_after = found[-1] if len(found) == LOOKED_AT_ONCE else None
        usable = self._usable_servers()
        for key in found:
            handle, chunk = int(key[0]), engine.tables.get(CHUNKS, key)
            if chunk is None or len(chunk.members) >= min(chunk.goal, usable):
                self._narrow.pop(handle, None)
                continue
            since_s = self._narrow.setdefault(handle, engine.now_s)
            if engine.now_s - since_s >= engine.policy.repair_delay_s:
                del self._narrow[handle]
                self._seal(handle, chunk)

    def _is_open(self, handle: int) -> bool:
        chunk: Chunk | None = self._engine.tables.get(CHUNKS, (handle,))
        return chunk is not None and chunk.state is ChunkState.OPEN

    def _usable_servers(self) -> int:
        """How many could take a chunk now."""
        servers, least = self._engine.servers, self._engine.policy.chunk_bytes
        able = servers.candidates(servers.suspected(self._engine.now_s))
        return sum(one.free_bytes >= least for one in able)

    def _all_live(self, chunk: Chunk) -> bool:
        return all(member.server in self._engine.servers.live for member in chunk.members)

    def _seal_all_of(self, servers: set[int]) -> None:
        for handle, chunk in self._open_chunks():
            if any(member.server in servers for member in chunk.members):
                self._seal(handle, chunk)

    def _open_chunks(self) -> list[tuple[int, Chunk]]:
        tables = self._engine.tables
        found = tables.by_index(CHUNKS_BY_STATE, ChunkState.OPEN)
        chunks = ((int(key[0]), tables.get(CHUNKS, key)) for key in found)
        return [(handle, chunk) for handle, chunk in chunks if chunk is not None]

    def _seal(self, handle: int, chunk: Chunk | None) -> None:
        needed = handle in self._in_the_way
        self._in_the_way.discard(handle)
        if chunk is not None and (needed or chunk.kind is ChunkKind.TAIL or chunk.references):
            self._seals.begin(handle)
