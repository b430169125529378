"""What a shadow master answers: reads, as of the last record it has followed (GFS §5.1.3).

Nothing of it may be cached: nobody is told when it changes. Where chunks are the shadow
knows from the chunk servers, which report to it too.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from gfs import messages as m
from gfs.errors import ReadOnly
from gfs.items import INODES, Chunk, ChunkState
from gfs.messages import ChainMember, Message, ReplicaReport
from gfs.permissions import NeedGroups
from master.core.chunks import Chunks
from master.core.confining import Confines, changes
from master.core.granting import Sight, confine
from master.core.queries import Queries
from master.core.registry import Registry
from master.core.servers import LiveServer, Servers, agrees
from master.core.sessions import Sessions
from master.core.tables import ReadTables

_AWAITED = {-1}  # a session that never comes: what is read may not be cached


class Reported(Servers):
    """Replicas as they were reported, judged when somebody asks: the state may lag behind."""

    def __init__(self) -> None:
        super().__init__()
        self.reports: dict[int, dict[int, ReplicaReport]] = {}

    def register(self, server: LiveServer) -> None:
        super().register(server)
        self.reports[server.member.server] = {}

    def remove(self, server: int) -> None:
        super().remove(server)
        self.reports.pop(server, None)

    def take(self, server: int, report: m.ReportReplicas) -> None:
        """A batch of a block report."""
        known = self.reports.get(server)
        if known is not None:
            known.update((replica.handle, replica) for replica in report.replicas)
            for handle in report.gone:
                known.pop(handle, None)

    def members_of(self, handle: int, chunk: Chunk) -> list[ChainMember]:
        if chunk.state is ChunkState.OPEN:
            return super().members_of(handle, chunk)
        return [
            live.member
            for server, live in self.live.items()
            if (report := self.reports[server].get(handle)) is not None and agrees(report, chunk)
        ]


class ShadowReads:
    """Answers for everybody; `applied` gives epoch and position of what is read."""

    def __init__(
        self,
        reader: ReadTables,
        servers: Reported,
        *,
        chunk_bytes: int,
        goal: int,
        applied: Callable[[], tuple[int, int]],
    ) -> None:
        self._reader = reader
        self._servers = servers
        self._chunk_bytes = chunk_bytes
        self._goal = goal
        self._applied = applied
        sessions = Sessions(set(_AWAITED), lease_s=0.0, now_s=0.0)
        chunks = Chunks(servers, random.Random(0))
        self._queries = Queries(reader, Registry(), chunks, sessions)

    def confine(self, ask: m.OpenSession, granted: m.Access) -> Confines | None:
        """What a session that opens may not do; raises as `granting.confine`."""
        reader, at = self._reader, lambda: self._position
        return confine(ask, granted, Sight(self._queries, Registry(), reader, at, reader, at))

    def answer(self, message: Message, confines: Confines | None = None) -> Message:
        """The answer to a read, of a session with these restrictions.

        Raises:
          ReadOnly: it would change something. GfsError: the refusal.
        """
        handler = _HANDLERS.get(type(message))
        if handler is None:
            raise ReadOnly(
                f"{type(message).__name__}: this is a shadow master, changes are the master's"
            )
        try:
            if confines is not None:
                message = confines.require(confines.inward(message), in_step=False)
                answer: Message = confines.outward(handler(self, message))
                return answer
            return handler(self, message)
        except NeedGroups:
            return m.GroupsNeeded()

    @property
    def _position(self) -> int:
        return self._applied()[1]

    def _open(self, ask: m.Open) -> Message:
        if changes(ask.flags):
            raise ReadOnly("a shadow master opens for reading alone")
        self._queries.check_open(ask)
        return self._queries.opened(self._position, 0, ask)

    def _filesystem(self, ask: m.StatFilesystem) -> Message:
        self._queries.inode(ask.ino)
        total, free = self._servers.space()
        goal = max(1, min(self._goal, len(self._servers.live)))
        files = self._reader.count(INODES)
        return m.FilesystemStat(total // goal, free // goal, files, self._chunk_bytes)

    def _locate(self, ask: m.Locate) -> Message:
        return m.Locations(self._queries.locations(ask.handles))

    def _renew(self, _: m.Renew) -> Message:
        return m.Renewed(*self._applied())


def _ok(_: ShadowReads, __: Message) -> Message:
    return m.Ok()


_HANDLERS: dict[type[Message], Callable[[ShadowReads, Any], Message]] = {
    m.Lookup: lambda self, ask: self._queries.lookup(self._position, 0, ask),
    m.GetAttributes: lambda self, ask: self._queries.attributes(self._position, 0, ask.inos),
    m.ReadDirectory: lambda self, ask: self._queries.listing(self._position, 0, ask),
    m.Open: ShadowReads._open,
    m.CloseFiles: _ok,
    m.GetLayout: lambda self, ask: self._queries.layout(self._position, 0, ask),
    m.Locate: ShadowReads._locate,
    m.Walk: lambda self, ask: self._queries.walk(self._position, 0, ask),
    m.PathOf: lambda self, ask: m.PathIs(self._queries.path(ask.ino, ask.top)),
    m.DropInterest: _ok,
    m.Renew: ShadowReads._renew,
    m.ListTrash: lambda self, ask: self._queries.trash(ask),
    m.LookInTrash: lambda self, ask: self._queries.look_in_trash(self._position, ask),
    m.ListSnapshots: lambda self, ask: self._queries.snapshots(ask),
    m.StatFilesystem: ShadowReads._filesystem,
    m.CloseSession: _ok,
}
