"""Chunk servers as the master knows them now: who is up, who holds what.

All of it is volatile: servers register and report (GFS §2.6.2), so after a
restart this fills by itself. A replica counts when its report agrees with the
chunk table: same version, and for sealed chunks same length.

A *spare* does not count, but is better than nothing: a replica with a bad block,
one whose directory fails, one that lacks the end of a sealed chunk or has missed its
seal. Readers, and copies, are sent to it while no server has a whole one; once the chunk
is at its goal it is deleted (repair.py). Each of its blocks is verified when it is read,
and a chain acknowledges only what all of its members have, so below its end a spare
has whatever was acknowledged.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from gfs.items import Chunk, ChunkState
from gfs.messages import ChainMember, DirectoryDrain, ReplicaReport
from master.core.placement import Candidate

WANTED_MAX = 10_000
SUSPECTED_S = 5.0  # longer than it takes to find out that a server hangs


@dataclass
class LiveServer:
    """A registered chunk server; gone from the table when its connection ends."""

    member: ChainMember
    boot: str
    free_bytes: int
    total_bytes: int
    http: str
    registered_position: int = 0  # log position when it did
    heard_s: float = 0.0  # last heartbeat, master's clock
    first_new_handle: int = 0  # chunks with lower ones are older than its process
    reported: bool = False  # the block report is complete
    reported_handles: set[int] = field(default_factory=set)  # by that report, until it is
    replicas: set[int] = field(default_factory=set)
    spares: set[int] = field(default_factory=set)
    outgoing: set[int] = field(default_factory=set)  # those of `replicas` that have to go
    draining: bool = False  # its replicas count no more toward the goal
    open_chunks: int = 0
    errors: list[str] = field(default_factory=list)  # data directories that are out
    drains: list[DirectoryDrain] = field(default_factory=list)
    verified_ns: int = 0  # since then it has verified every block; 0: not yet

    @property
    def takes_nothing(self) -> bool:
        """It has room for nothing because its disks do not work, not because they are full."""
        return bool(self.errors) and not self.free_bytes


class Servers:
    """Live servers and locations of sealed chunks.

    Attributes:
      changed: chunks that gained or lost a replica since repair has looked at them.
      wanted: chunks that clients asked for anew, as one does whose read has failed.

    Invariant: a server is in `_holders[handle]` iff handle is in its `replicas`, in
    `_spares[handle]` iff it is in its `spares`; never in both.
    """

    def __init__(self) -> None:
        self.live: dict[int, LiveServer] = {}
        self.changed: set[int] = set()
        self.wanted: set[int] = set()
        self._suspected_until_s: dict[int, float] = {}
        self._holders: defaultdict[int, list[int]] = defaultdict(list)
        self._spares: defaultdict[int, list[int]] = defaultdict(list)

    def register(self, server: LiveServer) -> None:
        self.remove(server.member.server)
        self.live[server.member.server] = server

    def remove(self, server: int) -> None:
        """It is down: its replicas do not count until it reports again."""
        gone = self.live.pop(server, None)
        if gone is not None:
            for handle in gone.replicas:
                _take_out(self._holders, handle, server)
            for handle in gone.spares:
                _take_out(self._spares, handle, server)

    def add_replica(self, server: int, handle: int) -> None:
        """It counts from now on."""
        live = self.live.get(server)
        if live is not None and handle not in live.replicas:
            self.drop_replica(server, handle)
            live.replicas.add(handle)
            self._holders[handle].append(server)

    def add_spare(self, server: int, handle: int) -> None:
        """It does not count, or no more, but may be read while no other can."""
        live = self.live.get(server)
        if live is not None and handle not in live.spares:
            self.drop_replica(server, handle)
            live.spares.add(handle)
            self._spares[handle].append(server)

    def drop_replica(self, server: int, handle: int) -> None:
        """It is gone, or of no use."""
        live = self.live.get(server)
        if live is not None and (handle in live.replicas or handle in live.spares):
            live.replicas.discard(handle)
            live.spares.discard(handle)
            live.outgoing.discard(handle)
            self.changed.add(handle)
        _take_out(self._holders, handle, server)
        _take_out(self._spares, handle, server)

    def forget_chunk(self, handle: int) -> list[int]:
        """The chunk is deleted; returns who has files of it."""
        had = [*self._holders.get(handle, ()), *self._spares.get(handle, ())]
        for server in had:
            self.drop_replica(server, handle)
        return had

    def holders(self, handle: int) -> list[int]:
        """Live servers with a good replica of a sealed chunk."""
        return self._holders.get(handle, [])

    def set_outgoing(self, server: int, handle: int, *, outgoing: bool) -> None:
        """Has the server another place for this replica, now that its directory is emptied?"""
        live = self.live.get(server)
        if live is None or (handle in live.outgoing) == outgoing:
            return
        if outgoing and handle in live.replicas:
            live.outgoing.add(handle)
        else:
            live.outgoing.discard(handle)
        self.changed.add(handle)

    def staying(self, handle: int) -> list[int]:
        """Holders whose copies count toward the goal: neither they nor their disks are drained."""
        live = self.live
        return [
            server
            for server in self.holders(handle)
            if not live[server].draining and handle not in live[server].outgoing
        ]

    def outgoing(self, handle: int) -> list[int]:
        """Holders that have no place for it but a data directory that is being emptied."""
        return [s for s in self.holders(handle) if handle in self.live[s].outgoing]

    def spares(self, handle: int) -> list[int]:
        """Live servers with a replica of a sealed chunk that does not count."""
        return self._spares.get(handle, [])

    def sources(self, handle: int) -> list[int]:
        """Whom to read a sealed chunk from: who holds it, else who has some of it."""
        return self.holders(handle) or self.spares(handle)

    def members_of(self, handle: int, chunk: Chunk) -> list[ChainMember]:
        """Who can serve reads of the chunk now."""
        if chunk.state is ChunkState.OPEN:
            ids: Iterable[int] = (member.server for member in chunk.members)
        else:
            ids = self.sources(handle)
        return [self.live[server].member for server in ids if server in self.live]

    def want(self, handles: Iterable[int]) -> None:
        """A client asks where these are: what is short of copies among them is copied first."""
        if len(self.wanted) < WANTED_MAX:
            fresh = set(handles) - self.wanted
            self.wanted |= fresh
            self.changed |= fresh

    def member(self, server: int) -> ChainMember | None:
        live = self.live.get(server)
        return live.member if live else None

    def suspect(self, servers: Iterable[int], now_s: float) -> None:
        """A client saw these failing: new chunks go elsewhere for a while if they can."""
        for server in servers:
            self._suspected_until_s[server] = now_s + SUSPECTED_S

    def suspected(self, now_s: float) -> list[int]:
        """Servers under suspicion, the latest last."""
        if self._suspected_until_s:
            still = {s: until for s, until in self._suspected_until_s.items() if until > now_s}
            self._suspected_until_s = still
        return sorted(self._suspected_until_s, key=self._suspected_until_s.__getitem__)

    def candidates(self, exclude: Iterable[int] = ()) -> list[Candidate]:
        """Servers that may take a new chunk."""
        out = set(exclude)
        return [
            Candidate(server, live.member.rack, live.free_bytes, live.open_chunks)
            for server, live in self.live.items()
            if server not in out and not live.draining
        ]

    def chunk_closed(self, server: int) -> None:
        """An open chunk of it was sealed: placement may give it more."""
        live = self.live.get(server)
        if live is not None:
            live.open_chunks = max(0, live.open_chunks - 1)

    def space(self) -> tuple[int, int]:
        """(total, free) bytes over live servers, before division by the goal."""
        return (
            sum(live.total_bytes for live in self.live.values()),
            sum(live.free_bytes for live in self.live.values()),
        )


def _take_out(lists: defaultdict[int, list[int]], handle: int, server: int) -> None:
    servers = lists.get(handle)
    if servers and server in servers:
        servers.remove(server)
        if not servers:
            del lists[handle]


def agrees(report: ReplicaReport, chunk: Chunk | None) -> bool:
    """May this replica count as a copy of the sealed chunk?"""
    return (
        chunk is not None
        and chunk.state is ChunkState.SEALED
        and report.sealed
        and report.version == chunk.version
        and report.length == chunk.length
        and same_bytes(chunk, report.checksum)
    )


def same_bytes(chunk: Chunk, checksum: int) -> bool:
    """Is this the checksum that was logged, as far as both are known?"""
    return not chunk.checksum or not checksum or checksum == chunk.checksum
