"""A real master in this process: core, log, state and loop over loopback, on a disk with moods."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from gfs import messages as m
from gfs.connection import Connection
from gfs.disk import Disk, File, PosixDisk, make_directory
from gfs.errors import GfsError, StorageFailed
from gfs.handshake import dial, listen, serve
from gfs.ids import MIB
from gfs.messages import Message
from master.checking import Problem, check_tables
from master.core.decision import Policy
from master.core.master import Master
from master.ledger import Ledger
from master.server import Server

KEY = b"k" * 64
CLUSTER = "0123456789abcdef"
ROOT = m.Actor(0, 0, groups=())
NS = 1_000_000_000
POLICY = Policy(64 * MIB, 3, 2, 600 * NS, 600 * NS, 3600 * NS)


class MoodyFile:
    """Delegates; `fdatasync` takes its time or fails as the disk says."""

    def __init__(self, file: File, disk: MoodyDisk) -> None:
        self._file = file
        self._disk = disk

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)

    def fdatasync(self) -> None:
        self._disk.syncs += 1
        if self._disk.sync_s:
            time.sleep(self._disk.sync_s)  # in the ledger's thread
        if self._disk.broken:
            raise StorageFailed("fdatasync: Input/output error")
        self._file.fdatasync()


class MoodyDisk(PosixDisk):
    """A real disk that can be made slow, full or broken."""

    def __init__(self) -> None:
        self.sync_s = 0.0
        self.full = self.broken = False
        self.syncs = 0

    def open(self, path: Path, *, create: bool = False, exclusive: bool = False) -> File:
        file = super().open(path, create=create, exclusive=exclusive)
        return MoodyFile(file, self)  # type: ignore[return-value]

    def free_bytes(self, path: Path) -> tuple[int, int]:
        free, total = super().free_bytes(path)
        return (0 if self.full else free), total


@dataclass
class Running:
    """One master that serves, and how to reach it."""

    server: Server
    core: Master
    ledger: Ledger
    unix: str
    address: str
    scope: trio.CancelScope
    clients: list[Connection] = field(default_factory=list)


@contextlib.asynccontextmanager
async def master(directory: Path, disk: Disk, *, lease_s: float = 20.0) -> AsyncIterator[Running]:
    """Serve until the block ends; then as after kill -9, but with the files closed."""
    make_directory(disk, directory)
    ledger = Ledger(directory, disk, CLUSTER, segment_bytes=4 * MIB, uid=0, gid=0)
    core = Master(
        ledger.state,
        ledger.state.reader(),
        policy=POLICY,
        epoch=ledger.epoch,
        position=ledger.position,
        last_time_ns=ledger.last_time_ns,
        random=random.SystemRandom(),
        lease_s=lease_s,
        safe_start_s=60.0,
        now_s=trio.current_time(),
        record_at=ledger.record_at,
    )
    server = Server(ledger, core, key=KEY, cluster=CLUSTER)
    unix = str(directory / "socket")
    listeners = listen("127.0.0.1:0", unix)
    address = "{}:{}".format(*listeners[0].getsockname()[:2])
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.run)
            nursery.start_soon(partial(serve, listeners, server.handle, silence_limit_s=1.5))
            yield Running(server, core, ledger, unix, address, nursery.cancel_scope)
            nursery.cancel_scope.cancel()
    finally:
        for listener in listeners:
            listener.close()
        problems: list[Problem] = []
        check_tables(ledger.state, problems.append)
        ledger.close()
    assert problems == []


class RawClient:
    """Frames and nothing else: no retries, no cache; acknowledges what `on_ask` says True to."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.session = 0
        self.number = 0
        self.asked: list[Message] = []
        self.requests: list[int] = []
        self.on_ask: Callable[[Message], bool] = lambda _: True

    async def run(self) -> None:
        await self.connection.run(self._on_message)

    def _on_message(
        self, connection: Connection, request: int, message: Message, _: memoryview | None
    ) -> None:
        self.asked.append(message)
        if self.on_ask(message):
            connection.reply(request, m.Ok())
        else:
            self.requests.append(request)

    def acknowledge(self) -> None:
        requests, self.requests = self.requests, []
        for request in requests:
            self.connection.reply(request, m.Ok())

    async def open(self, mount: str = "/m", session: int = 0) -> m.SessionOpened:
        opened = await self.connection.call(m.OpenSession(session, "host", mount, 1, 0))
        assert isinstance(opened, m.SessionOpened)
        self.session = opened.session
        return opened

    def mutation(self, operation: m.Operation, number: int = 0, low: int = 0) -> m.Mutate:
        if not number:
            self.number += 1
            number = self.number
        return m.Mutate(number, low or number, ROOT, operation)

    async def mutate(self, operation: m.Operation, number: int = 0, low: int = 0) -> m.Done:
        done = await self.connection.call(self.mutation(operation, number, low), timeout_s=10)
        assert isinstance(done, m.Done), done
        return done

    async def create(self, name: bytes) -> m.Done:
        return await self.mutate(m.Create(1, name, 0o644, 0))

    async def lookup(self, name: bytes) -> m.Entry:
        entry = await self.connection.call(m.Lookup(1, name, ROOT), timeout_s=10)
        assert isinstance(entry, m.Entry)
        return entry

    def pipeline(self, messages: list[Message]) -> list[Message | GfsError | None]:
        """Send all in one burst; the list fills as answers come."""
        answers: list[Message | GfsError | None] = [None] * len(messages)

        def keep(at: int, answer: Message | GfsError, _: memoryview | None) -> None:
            answers[at] = answer

        with self.connection.corked():
            for at, message in enumerate(messages):
                self.connection.request(message, partial(keep, at))
        return answers


@contextlib.asynccontextmanager
async def client(
    running: Running, *, unix: bool = True, key: bytes = KEY, role: str = "client"
) -> AsyncIterator[RawClient]:
    """A connection for the time of the block."""
    path = running.unix if unix else ""
    async with client_at(running.address, unix=path, key=key, role=role) as raw:
        yield raw


@contextlib.asynccontextmanager
async def client_at(
    address: str, *, unix: str, key: bytes = KEY, cluster: str = CLUSTER, role: str = "client"
) -> AsyncIterator[RawClient]:
    """A connection to whoever serves there, for the time of the block."""
    connection = await dial(address, unix=unix, key=key, cluster=cluster, role=role)
    raw = RawClient(connection)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(raw.run)
        try:
            yield raw
        finally:
            connection.close()


async def until(true: Callable[[], bool], limit_s: float = 5.0) -> None:
    """Wait for something that must come."""
    with trio.fail_after(limit_s):
        while not true():  # noqa: ASYNC110 - what is waited for has no event
            await trio.sleep(0.005)
