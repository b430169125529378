"""Live connections to chunk servers, one each, dialled when first needed.

A server on this host (equal host id) is reached by its Unix socket, others by
TCP. A connection whose server says nothing for 1.5 s is given up, and so is a
dial; whoever asked tries another replica or seals. Nothing here retries.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import trio

from gfs.buffers import BufferPool
from gfs.connection import Connection
from gfs.errors import GfsError, Unreachable, Unsupported
from gfs.handshake import dial, host_id
from gfs.ids import MIB
from gfs.messages import ChainMember, Message

log = logging.getLogger(__name__)

SILENCE_LIMIT_S = 1.5
AVOID_S = 5.0  # a server that just failed is asked last for so long


class ChunkServers:
    """Connections by server id; share one among all readers and writers of a process."""

    def __init__(
        self,
        nursery: trio.Nursery,
        *,
        key: bytes | None,
        cluster: str,
        host: str = "",
        silence_limit_s: float = SILENCE_LIMIT_S,
    ) -> None:
        self.cluster = cluster
        self.host = host or host_id()
        self.pool = BufferPool(MIB)
        self._nursery = nursery
        self._key = key
        self._silence_limit_s = silence_limit_s
        self._connections: dict[int, Connection] = {}
        self._dialling: dict[int, trio.Event] = {}
        self._failures: dict[int, tuple[float, GfsError]] = {}

    def is_local(self, member: ChainMember) -> bool:
        """Whether its Unix socket can be reached from here."""
        return bool(member.unix) and member.host_id == self.host

    def get_nowait(self, member: ChainMember) -> Connection | None:
        """The live connection, if there is one."""
        connection = self._connections.get(member.server)
        return connection if connection is not None and connection.closed is None else None

    async def get(self, member: ChainMember) -> Connection:
        """The connection to `member`, dialled if need be (at most 1.5 s).

        Raises:
          Unreachable: nobody answers there.
          GfsError: the handshake was refused.
        """
        server = member.server
        while True:
            connection = self.get_nowait(member)
            if connection is not None:
                return connection
            dialling = self._dialling.get(server)
            if dialling is None:
                return await self._dial(member)
            await dialling.wait()
            if server in self._failures and self.get_nowait(member) is None:
                raise type(self._failures[server][1])(str(self._failures[server][1]))

    async def _dial(self, member: ChainMember) -> Connection:
        done = self._dialling[member.server] = trio.Event()
        try:
            with trio.move_on_after(self._silence_limit_s):
                connection = await dial(
                    member.address,
                    unix=member.unix if self.is_local(member) else "",
                    key=self._key,
                    cluster=self.cluster,
                    role="client",
                    pool=self.pool,
                    silence_limit_s=self._silence_limit_s,
                )
                self._connections[member.server] = connection
                self._failures.pop(member.server, None)
                connection.on_close(lambda ended: self._ended(member.server, ended))
                self._nursery.start_soon(connection.run, _no_questions)
                return connection
            raise Unreachable(f"{member.address}: no handshake within {self._silence_limit_s} s")
        except GfsError as error:
            self.suspect(member.server, error)
            raise
        finally:
            del self._dialling[member.server]
            done.set()

    def _ended(self, server: int, connection: Connection) -> None:
        if self._connections.get(server) is connection:
            del self._connections[server]
        if connection.closed is not None:
            self.suspect(server, connection.closed)
            log.info("peer.lost server=%d why=%s", server, connection.closed)

    def suspect(self, server: int, error: GfsError) -> None:
        """Ask this server last for a while."""
        self._failures[server] = (trio.current_time(), error)

    def order(self, members: Sequence[ChainMember]) -> list[ChainMember]:
        """Members in the order to try: this host first, those that just failed last."""
        if not self._failures and len(members) < 2:
            return list(members)
        fresh = trio.current_time() - AVOID_S

        def rank(member: ChainMember) -> tuple[bool, bool]:
            failed = self._failures.get(member.server)
            return (failed is not None and failed[0] > fresh, not self.is_local(member))

        return sorted(members, key=rank)

    def close(self) -> None:
        """End all connections."""
        for connection in list(self._connections.values()):
            connection.close()


def _no_questions(
    _connection: Connection, _request: int, message: Message, _payload: memoryview | None
) -> None:
    raise Unsupported(f"a client does not answer {type(message).__name__}")
