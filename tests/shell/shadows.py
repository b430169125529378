"""Shadows, chunk servers that only vote, and a network that cuts, in this process."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from gfs import messages as m
from gfs.connection import Connection
from gfs.disk import Disk
from gfs.errors import GfsError, StaleVersion
from gfs.handshake import dial
from gfs.ids import MIB
from gfs.items import TABLES
from gfs.messages import Message
from gfs.sections import MasterConfig
from master.core.tables import ReadTables
from master.leading import until_in_charge
from master.ledger import Ledger, apply_payload
from master.opening import Opened
from master.promoting import Lead
from master.state import MemoryTables
from tests.shell.master_server import CLUSTER, KEY, until

Rows = list[tuple[str, object, object]]


def rows(tables: ReadTables) -> Rows:
    """Everything in the tables."""
    return [(name, key, item) for name in TABLES for key, item in tables.scan(name, limit=10**6)]


def rows_at(ledger: Ledger, position: int) -> Rows:
    """What a log says was there at a position, from its first record on."""
    tables = MemoryTables()
    tables.begin()
    for record in ledger.log.scan(1):
        if record.position <= position:
            apply_payload(tables, record.payload)
    tables.commit()
    found = rows(tables)
    tables.close()
    return found


@dataclass
class RunningShadow:
    """A shadow that serves; `lead` once it has been promoted."""

    opened: Opened
    unix: str
    lead: Lead | None = None

    @property
    def position(self) -> int:
        return int(self.opened.ledger.state.position)


@contextlib.asynccontextmanager
async def shadow(directory: Path, disk: Disk, follow: str = "") -> AsyncIterator[RunningShadow]:
    """A process that is not in charge yet; it ends as by kill -9."""
    unix = str(directory) + ".sock"
    config = MasterConfig(
        data_dir=str(directory), cluster_id=CLUSTER, follow=follow, unix=unix,
        log_segment_bytes=4 * MIB,
    )  # fmt: skip
    running = RunningShadow(Opened(config, disk), unix)

    async def serve() -> None:
        running.lead = await until_in_charge(running.opened, KEY)

    try:
        async with trio.open_nursery() as nursery:
            Path(unix).unlink(missing_ok=True)
            nursery.start_soon(serve)
            await until(lambda: running.lead is not None or Path(unix).exists())
            yield running
            nursery.cancel_scope.cancel()
    finally:
        running.opened.ledger.close()
        running.opened.close()


class Voter:
    """What a chunk server remembers of masters, and nothing else of one."""

    def __init__(self, server: int) -> None:
        self.server = server
        self.epoch = 0
        self.heard = (0, 0)
        self.refused: list[GfsError] = []

    @contextlib.asynccontextmanager
    async def at(self, unix: str) -> AsyncIterator[Connection]:
        """Registered there for the time of the block."""
        connection = await dial("", unix=unix, key=KEY, cluster=CLUSTER, role="chunkd")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.run, self._on_message)
            try:
                await self._register(connection)
                nursery.start_soon(self._beat, connection)
                yield connection
            finally:
                connection.close()
                nursery.cancel_scope.cancel()

    async def _register(self, connection: Connection) -> None:
        member = m.ChainMember(self.server, f"127.0.0.1:{self.server}")
        ask = m.RegisterServer(
            member, "boot", "", MIB, MIB, self.heard[1], self.epoch, heard_epoch=self.heard[0]
        )
        answer = await connection.call(ask, timeout_s=5)
        assert isinstance(answer, m.ServerRegistered)
        if answer.leads:
            self.epoch = max(self.epoch, answer.epoch)
            self.heard = max(self.heard, (answer.epoch, answer.committed))
        await connection.call(m.ReportReplicas([], True), timeout_s=5)

    async def _beat(self, connection: Connection) -> None:
        while connection.closed is None:
            connection.post(m.Heartbeat(MIB, MIB, []))
            await trio.sleep(0.05)

    def _on_message(
        self, connection: Connection, request: int, message: Message, _: memoryview | None
    ) -> None:
        if isinstance(message, m.HeartbeatAnswer):
            self.heard = max(self.heard, (message.epoch, message.committed))
        elif isinstance(message, m.Promise):
            if message.epoch and message.epoch <= self.epoch:
                raise StaleVersion("promised")
            self.epoch = max(self.epoch, message.epoch)
            connection.reply(request, m.Promised(self.epoch, *self.heard))
        else:
            connection.reply(request, m.Ok())


@contextlib.asynccontextmanager
async def cutting(target: str, seed: int, longest: int) -> AsyncIterator[str]:
    """A way to `target` whose connections end after so many bytes, drawn up to `longest`."""
    host, port = target.rsplit(":", 1)
    draw = random.Random(seed)

    async def one(near: trio.SocketStream) -> None:
        far = await trio.open_tcp_stream(host, int(port))
        async with near, far, trio.open_nursery() as nursery:

            async def copy(source: trio.SocketStream, sink: trio.SocketStream, left: int) -> None:
                with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    while left > 0 and (some := await source.receive_some(min(left, 4096))):
                        await sink.send_all(some)
                        left -= len(some)
                nursery.cancel_scope.cancel()

            nursery.start_soon(copy, near, far, 10**9)
            nursery.start_soon(copy, far, near, draw.randint(100, longest))

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, one, 0, host="127.0.0.1"))
        try:
            yield f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        finally:
            nursery.cancel_scope.cancel()
