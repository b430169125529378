"""Connections to other chunk servers: one each, dialled on demand, usable before it stands.

A link that fails is not mended: everything that waits on it fails, each chain on
it with it, and the next chain to that server dials anew. A server that says
nothing for `SILENCE_S` has failed.
"""

from __future__ import annotations

import logging
from collections import deque

import trio

from gfs.buffers import BufferPool
from gfs.connection import Connection, OnReply, answer_of
from gfs.errors import GfsError, RemoteProtocolError, Unreachable
from gfs.handshake import dial
from gfs.messages import ChainMember, Message
from gfs.outgoing import Payload

log = logging.getLogger(__name__)

SILENCE_S = 1.5
WAITING_BYTES_MAX = 64 * 1024 * 1024  # sent before the connection stands


class Link:
    """One other chunk server. `request` as `Connection.request`, at any time."""

    def __init__(self, member: ChainMember) -> None:
        self.member = member
        self.closed: GfsError | None = None
        self._connection: Connection | None = None
        self._waiting: deque[tuple[Message, OnReply, Payload | None]] = deque()
        self._waiting_bytes = 0

    def request(self, message: Message, on_reply: OnReply, payload: Payload | None = None) -> None:
        """Ask; `on_reply` gets the answer or the error, exactly once, perhaps at once."""
        if self._connection is not None:
            self._connection.request(message, on_reply, payload)
            return
        self._waiting_bytes += len(payload) if payload is not None else 0
        if self.closed is None and self._waiting_bytes > WAITING_BYTES_MAX:
            self.fail(Unreachable(f"{self.member.address}: too much waits for the connection"))
        if self.closed is not None:
            on_reply(Unreachable(str(self.closed)), None)
        else:
            self._waiting.append((message, on_reply, payload))

    async def call(
        self, message: Message, *, timeout_s: float
    ) -> tuple[Message, memoryview | None]:
        """`request` for tasks; raises the error."""
        return await answer_of(
            lambda on_reply: self.request(message, on_reply),
            f"{type(message).__name__} to {self.member.address}",
            timeout_s,
        )

    def stands(self, connection: Connection) -> None:
        """Send what waits."""
        self._connection = connection
        connection.on_close(lambda closed: self.fail(closed.closed or Unreachable("closed")))
        with connection.corked():
            while self._waiting:
                connection.request(*self._waiting.popleft())

    def fail(self, error: GfsError) -> None:
        """Nothing more goes this way."""
        if self.closed is None:
            self.closed = error
        waiting, self._waiting = self._waiting, deque()
        for _, on_reply, _ in waiting:
            on_reply(Unreachable(str(error)), None)


class Links:
    """All links of this server; `nursery` runs their connections."""

    def __init__(
        self, nursery: trio.Nursery, *, key: bytes, cluster: str, host_id: str, pool: BufferPool
    ) -> None:
        self._nursery = nursery
        self._key = key
        self._cluster = cluster
        self._host_id = host_id
        self.pool = pool
        self._links: dict[tuple[int, str], Link] = {}

    def get(self, member: ChainMember) -> Link:
        """The link to a server; a new one if the last has failed."""
        key = (member.server, member.address)
        link = self._links.get(key)
        if link is None or link.closed is not None:
            link = self._links[key] = Link(member)
            self._nursery.start_soon(self._run, link)
        return link

    async def _run(self, link: Link) -> None:
        member = link.member
        unix = member.unix if member.unix and member.host_id == self._host_id else ""
        try:
            connection = await self._dial(member.address, unix)
        except GfsError as error:
            log.info("link.failed server=%d address=%s: %s", member.server, member.address, error)
            link.fail(error)
            return
        link.stands(connection)
        try:
            await connection.run(_refuse)
        finally:
            connection.close()
        log.info("link.ended server=%d: %s", member.server, connection.closed)

    async def _dial(self, address: str, unix: str) -> Connection:
        with trio.move_on_after(SILENCE_S):
            return await dial(
                address, unix=unix, key=self._key, cluster=self._cluster, role="chunkd",
                pool=self.pool, silence_limit_s=SILENCE_S, timeout_s=SILENCE_S,
            )  # fmt: skip
        raise Unreachable(f"{unix or address}: no handshake within {SILENCE_S} s")

    def statistics(self) -> dict[str, int]:
        return {"links": sum(link.closed is None for link in self._links.values())}


def _refuse(
    connection: Connection, request: int, message: Message, payload: memoryview | None
) -> None:
    raise RemoteProtocolError(f"{type(message).__name__} does not come this way")
