"""Private chunks: leased from the master, joined by their chain, sealed in the end.

One `ChunkSource` serves all chunk writers of a process and keeps a spare chunk
ready when asked, so that a full chunk does not make its writer wait.
"""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Callable, Sequence

import trio

from gfs.client.metadata import MasterLink
from gfs.client.parts import Part
from gfs.client.peers import ChunkServers
from gfs.connection import Connection
from gfs.errors import (
    DeadSession,
    GfsError,
    MemberFailed,
    RemoteProtocolError,
    Unreachable,
)
from gfs.messages import Actor, Allocate, Join, Lease, Message, SealChunk

log = logging.getLogger(__name__)

PAUSE_S = 0.2  # between attempts to find a chain that works


class OpenChunk:
    """A leased chunk whose chain was asked to join."""

    __slots__ = ("connection", "end", "error", "in_flight", "lease", "on_error")

    def __init__(self, lease: Lease, connection: Connection) -> None:
        self.lease = lease
        self.connection = connection
        self.end = 0
        self.in_flight: deque[Part] = deque()
        self.error: GfsError | None = None
        self.on_error: Callable[[OpenChunk, GfsError], None] | None = None

    def fail(self, error: GfsError) -> None:
        """The chunk takes no more; the owner is told once."""
        if self.error is None:
            self.error = error
            if self.on_error is not None:
                self.on_error(self, error)

    def suspects(self) -> list[int]:
        """Servers that seem to have failed, for the master."""
        return suspects_of(self.error, self.lease, self.connection)


def suspects_of(error: GfsError | None, lease: Lease, connection: Connection | None) -> list[int]:
    """Which members of the chain an error speaks against."""
    members = [member.server for member in lease.members]
    if isinstance(error, MemberFailed):
        named = re.search(r"server (\d+)", str(error))
        return [server for server in members if named and server == int(named[1])]
    if isinstance(error, Unreachable) and (connection is None or connection.closed is not None):
        return members[:1]
    return []


class ChunkSource:
    """Leases new private chunks and seals old ones; keeps one spare ready when asked to."""

    def __init__(
        self,
        link: MasterLink,
        servers: ChunkServers,
        nursery: trio.Nursery,
        actor: Actor,
        *,
        goal: int = 0,
        timeout_s: float = 80.0,
    ) -> None:
        self.nursery = nursery
        self.timeout_s = timeout_s
        self._link = link
        self._servers = servers
        self._actor = actor
        self._goal = goal
        self._spare: OpenChunk | None = None
        self._open: dict[OpenChunk, None] = {}  # in this order, as all that the simulation runs
        self._making_spare = False

    def make_ready(self) -> None:
        """Have a spare chunk soon; no-op when there is one."""
        if self._spare is None and not self._making_spare:
            self._making_spare = True
            self.nursery.start_soon(self._make_spare)

    async def _make_spare(self) -> None:
        try:
            self._spare = await self._new()
        except GfsError as error:
            log.info("spare.none why=%s", error)
        finally:
            self._making_spare = False

    async def take(self) -> OpenChunk:
        """An open chunk with nothing in it.

        Raises:
          GfsError: the master refuses (no space), or no chain worked in time.
        """
        spare, self._spare = self._spare, None
        if spare is not None:
            if spare.error is None and spare.connection.closed is None:
                return spare
            self.nursery.start_soon(self.seal, spare)
        deadline = trio.current_time() + self.timeout_s
        while True:
            try:
                return await self._new()
            except (Unreachable, MemberFailed, DeadSession):  # a dead one may be opened anew
                if trio.current_time() + PAUSE_S > deadline:
                    raise
            await trio.sleep(PAUSE_S)

    async def _new(self) -> OpenChunk:
        done = await self._link.mutate(Allocate(self._goal), self._actor, timeout_s=self.timeout_s)
        lease = done.lease
        if lease is None or not lease.members:
            raise RemoteProtocolError("the master gave a chunk without a chain")
        try:
            connection = await self._servers.get(lease.members[0])
        except GfsError as error:
            suspects = [lease.members[0].server]
            await self._seal_lease(lease, suspects)
            raise Unreachable(str(error)) from error
        chunk = OpenChunk(lease, connection)

        def on_joined(answer: Message | GfsError, _: memoryview | None) -> None:
            if isinstance(answer, GfsError):
                chunk.fail(answer)

        self._open[chunk] = None
        connection.request(join(lease, tail=False), on_joined)
        return chunk

    async def seal(self, chunk: OpenChunk) -> int:
        """Seal at the master; what lies below the length returned has landed (0 in doubt)."""
        self._open.pop(chunk, None)
        return await self._seal_lease(chunk.lease, chunk.suspects())

    async def _seal_lease(self, lease: Lease, suspects: Sequence[int]) -> int:
        operation = SealChunk(lease.handle, lease.version, list(suspects))
        self._distrust(suspects)
        try:
            done = await self._link.mutate(operation, self._actor, timeout_s=self.timeout_s)
        except GfsError as error:
            log.info("chunk.seal handle=%016x failed: %s", lease.handle, error)
            return 0
        if done.sealed is None or done.sealed.handle != lease.handle:
            return 0
        return done.sealed.length

    def _distrust(self, suspects: Sequence[int]) -> None:
        """Give up all chains with these servers at once, not one after the other's silence."""
        for chunk in list(self._open):
            for member in chunk.lease.members:
                if member.server in suspects and chunk.error is None:
                    chunk.fail(MemberFailed(f"server {member.server}: it failed in another chain"))

    def has_open(self, handle: int) -> bool:
        """Is it a chunk of this process that is not being sealed yet?"""
        return any(chunk.lease.handle == handle for chunk in self._open)

    def forget_spare(self) -> None:
        """The session that leased it is dead."""
        self._spare = None
        self._open.clear()


def join(lease: Lease, *, tail: bool) -> Join:
    """The message that makes the chain of a lease."""
    return Join(
        handle=lease.handle,
        version=lease.version,
        epoch=lease.epoch,
        tail=tail,
        chunk_bytes=lease.chunk_bytes,
        chain=lease.members[1:],
    )
