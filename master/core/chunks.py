"""New chunks, their leases, and how they are described to clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from gfs.errors import NoSpace, NotFound, Refused, TooFewServers
from gfs.items import CHUNKS, SERVERS, Chunk, ChunkKind, ChunkState, Member
from gfs.messages import Allocate, Done, Lease, Located, SealChunk, Sealed
from master.core import placement
from master.core.decision import Decision, NeedsSeal, NeedsServers
from master.core.sealing import FIRST_VERSION
from master.core.servers import Servers
from master.core.tables import ReadTables

if TYPE_CHECKING:
    from random import Random

GOAL_MAX = 16


class Chunks:
    """Decisions that need to know which servers are up."""

    def __init__(self, servers: Servers, random: Random) -> None:
        self._servers = servers
        self._random = random

    def allocate(self, decision: Decision, op: Allocate) -> Done:
        """A private chunk leased to the asking session."""
        handle, chunk = self.new_chunk(decision, ChunkKind.PRIVATE, goal=op.goal)
        decision.tx.create(CHUNKS, (handle,), replace(chunk, session=decision.session))
        done = decision.done()
        return replace(done, lease=self.lease(decision, handle, chunk))

    def new_chunk(self, decision: Decision, kind: ChunkKind, *, goal: int) -> tuple[int, Chunk]:
        """Handle and item of a new open chunk; not yet put.

        Raises:
          NeedsServers: too few are up; wait for them.
        """
        goal = min(goal or decision.policy.goal, GOAL_MAX)
        # scan() and not the live ones: a cluster of three that lost two is not a cluster of one
        known = len(decision.tx.scan(SERVERS, limit=goal + 1))
        needed = placement.members_needed(goal, decision.policy.write_min, known)
        chosen = self._choose(decision, goal, needed)
        members = [Member(server, self._servers.live[server].boot) for server in chosen]
        for server in chosen:
            self._servers.live[server].open_chunks += 1
        return decision.draw_handle(), Chunk(
            FIRST_VERSION,
            kind,
            ChunkState.OPEN,
            goal,
            members=members,
            created_epoch=decision.epoch,
            created_position=decision.position,
        )

    def _choose(self, decision: Decision, goal: int, needed: int) -> list[int]:
        """Servers nobody suspects; if these are too few, those suspected longest ago, too.

        Raises:
          NeedsServers: too few are up. NoSpace: enough are, but they are full.
        """
        suspected = self._servers.suspected(decision.now_s)
        for acquitted in range(len(suspected) + 1):
            try:
                return placement.choose(
                    self._servers.candidates(suspected[acquitted:]),
                    goal=goal,
                    needed=needed,
                    chunk_bytes=decision.policy.chunk_bytes,
                    random=self._random,
                )
            except TooFewServers:
                continue
        working = [live for live in self._servers.live.values() if not live.takes_nothing]
        if len(working) >= needed:
            raise NoSpace("the chunk servers are full")
        raise NeedsServers

    def lease(self, decision: Decision, handle: int, chunk: Chunk) -> Lease:
        """The lease as the client gets it.

        Raises:
          NeedsSeal: a member is not up, so the chain cannot work any more.
        """
        members = []
        for member in chunk.members:
            address = self._servers.member(member.server)
            if address is None:
                raise NeedsSeal(handle, (member.server,))
            members.append(address)
        return Lease(handle, chunk.version, decision.epoch, decision.policy.chunk_bytes, members)

    def seal_private(self, decision: Decision, op: SealChunk) -> Done:
        """The session is done with its chunk, or a member of it failed."""
        chunk: Chunk | None = decision.tx.get(CHUNKS, (op.handle,))
        if chunk is None:
            raise NotFound(f"chunk {op.handle:016x} does not exist")
        if chunk.session != decision.session:
            raise Refused(f"chunk {op.handle:016x} is not leased to this session")
        if chunk.state is ChunkState.OPEN:
            raise NeedsSeal(op.handle, tuple(op.suspects))
        return replace(decision.done(), sealed=Sealed(op.handle, chunk.length))

    def located(self, tables: ReadTables, handle: int) -> Located | None:
        """Where to read the chunk, or None when it does not exist."""
        chunk: Chunk | None = tables.get(CHUNKS, (handle,))
        if chunk is None:
            return None
        return Located(
            handle,
            chunk.version,
            chunk.state is not ChunkState.OPEN,
            chunk.length,
            self._servers.members_of(handle, chunk),
        )
