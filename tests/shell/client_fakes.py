"""A master and a chunk server in this process, over loopback, that fail when told to.

They speak real frames and keep just enough state to judge a client: chunks are
bytearrays, files are lists of committed ranges. A fault is one-shot: a function
asked for each request of a kind, taken out when it has struck.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
import trio

from gfs import messages as m
from gfs.checksum import crc32c
from gfs.client.client import Client, open_client
from gfs.client.settings import Callbacks, ClientSettings
from gfs.connection import Connection
from gfs.errors import (
    ChunkFull,
    Fenced,
    GfsError,
    NotFound,
    NotPrimary,
    Refused,
    SequenceGap,
    TooLarge,
    Unreachable,
    Unsupported,
)
from gfs.handshake import accept, listen, serve
from gfs.ids import MIB
from gfs.items import Extent, Inode
from gfs.messages import Message
from gfs.open_flags import writes

KEY = b"k" * 64
CLUSTER = "fake"
FILE_MODE = 0o100644


class Lost(Exception):
    """Raised by a fault: the connection ends instead of an answer."""


Fault = Callable[[Message], bool]


@dataclass
class Faults:
    """One-shot troubles by kind of message: refuse, lose before, lose after."""

    before: list[tuple[type[Message], GfsError | None]] = field(default_factory=list)
    after: list[type[Message]] = field(default_factory=list)

    def strike_before(self, message: Message) -> None:
        for at, (kind, error) in enumerate(self.before):
            if isinstance(message, kind):
                del self.before[at]
                raise error if error is not None else Lost
        return

    def strike_after(self, message: Message) -> None:
        for at, kind in enumerate(self.after):
            if isinstance(message, kind):
                del self.after[at]
                raise Lost


class Fake:
    """What both have: a listener, and answers that faults come before or after."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.seen: list[Message] = []
        self.connections: list[Connection] = []
        # Requests of these kinds wait for `let_go`.
        self.hold: type[Message] | tuple[type[Message], ...] | None = None
        self._held: list[tuple[Connection, int, Message, memoryview | None]] = []
        self._listeners = listen("127.0.0.1:0")
        host, port = self._listeners[0].getsockname()
        self.address = f"{host}:{port}"

    async def run(self) -> None:
        try:
            await serve(self._listeners, self._handle)
        finally:
            for listener in self._listeners:
                listener.close()

    async def _handle(self, connection: Connection) -> None:
        await accept(connection, key=KEY, cluster=CLUSTER, epoch=1, keyless=False)
        self.connections.append(connection)
        await connection.run(self._on_message)

    def _on_message(
        self, connection: Connection, request: int, message: Message, payload: memoryview | None
    ) -> None:
        self.seen.append(message)
        asked = message.operation if isinstance(message, m.Mutate) else message
        if self.hold is not None and isinstance(asked, self.hold):
            self._held.append((connection, request, message, payload))
        else:
            self._answer(connection, request, message, payload)

    def let_go(self) -> None:
        """Decide what was held, and hold no more."""
        self.hold, held = None, self._held
        self._held = []
        for one in held:
            self._answer(*one)

    def _answer(
        self, connection: Connection, request: int, message: Message, payload: memoryview | None
    ) -> None:
        asked = message.operation if isinstance(message, m.Mutate) else message
        try:
            self.faults.strike_before(asked)
            answer = self.answer(message, payload)
            self.faults.strike_after(asked)
        except Lost:
            connection.close(Unreachable("fault"))
            return
        content = None
        if isinstance(answer, tuple):
            answer, content = answer
        connection.reply(request, answer, content)

    def answer(
        self, message: Message, payload: memoryview | None
    ) -> Message | tuple[Message, bytes]:
        raise NotImplementedError

    def cut(self) -> None:
        """End all connections."""
        for connection in self.connections:
            connection.close(Unreachable("cut"))
        self.connections.clear()


@dataclass
class Replica:
    """A chunk at its only member."""

    version: int
    data: bytearray = field(default_factory=bytearray)
    writers: dict[int, int] = field(default_factory=dict)
    synced: int = 0
    fenced: bool = False


class FakeChunkServer(Fake):
    """A chain of one. `lies`: what it gives to readers does not match its checksum."""

    def __init__(self, server: int) -> None:
        super().__init__()
        self.member = m.ChainMember(server, self.address)
        self.replicas: dict[int, Replica] = {}
        self.chunk_bytes = MIB
        self.lies = False

    def answer(
        self, message: Message, payload: memoryview | None
    ) -> Message | tuple[Message, bytes]:
        if isinstance(message, m.TailEnds):
            ends = [
                len(self.replicas[h].data) if h in self.replicas else -1 for h in message.handles
            ]
            return m.TailEndsAre(ends, [0] * len(ends))
        if isinstance(message, m.ReportBad):
            return m.Ok()
        if isinstance(message, m.Join):
            replica = self.replicas.setdefault(message.handle, Replica(message.version))
            self.chunk_bytes = message.chunk_bytes
            self._check(replica, message.version)
            return m.Joined(["boot"], len(replica.data))
        handle = getattr(message, "handle", 0)
        if handle not in self.replicas:
            raise NotPrimary("join first")
        replica = self.replicas[handle]
        if isinstance(message, m.Read):
            content = bytes(replica.data[message.offset : message.offset + message.length])
            if self.lies:
                return m.ReadData(crc32c(content) ^ 1), content
            return m.ReadData(crc32c(content)), content
        assert isinstance(message, m.Append | m.RecordAppend | m.Sync)
        self._check(replica, message.version)
        if isinstance(message, m.Sync):
            replica.synced = len(replica.data)
            return m.Appended(len(replica.data))
        assert payload is not None
        assert crc32c(payload) == message.checksum
        if len(replica.data) + len(payload) > self.chunk_bytes:
            raise ChunkFull("full")
        if isinstance(message, m.Append):
            if message.offset != len(replica.data):
                raise Fenced("an append before this one failed")
            replica.data += payload
            return m.Appended(len(replica.data))
        return self._records(replica, message, payload)

    def _check(self, replica: Replica, version: int) -> None:
        if replica.fenced or version < replica.version:
            raise Fenced("fenced")
        replica.version = version

    def _records(self, replica: Replica, message: m.RecordAppend, payload: memoryview) -> Message:
        last = replica.writers.get(message.writer, 0)
        if message.first <= last:
            return m.RecordsAppended(-1, len(replica.data))
        if message.first != last + 1:
            raise SequenceGap("gap")
        offset = len(replica.data)
        replica.data += payload
        replica.writers[message.writer] = message.first + message.count - 1
        if message.sync:
            replica.synced = len(replica.data)
        return m.RecordsAppended(offset, len(replica.data))


@dataclass
class FakeFile:
    """Committed content of an inode, and its tail."""

    extents: list[tuple[int, Extent]] = field(default_factory=list)
    size: int = 0
    version: int = 0
    tail: int = 0
    tail_offset: int = 0
    mtimes: list[int] = field(default_factory=list)


class FakeMaster(Fake):
    """One client's master.

    Attributes:
      release_next: the next ResolveTail leases the same chunk again instead of sealing.
      commit_pieces_max: a batch of more ranges is refused as a whole.
      refuse_commit: error codes for the next committed files, one each.
      writers: inodes that the client may commit to: it opened them for writing.
      lives: False = sessions are dead.
    """

    def __init__(self, servers: list[FakeChunkServer], chunk_bytes: int = MIB) -> None:
        super().__init__()
        self.servers = servers
        self.chunk_bytes = chunk_bytes
        self.files: dict[int, FakeFile] = {}
        self.writers: set[int] = set()
        self.homes: dict[int, FakeChunkServer] = {}
        self.copies: dict[int, list[FakeChunkServer]] = {}  # asked before the home
        self.sealed: dict[int, int] = {}
        self.batches: list[m.Commit] = []
        self.release_next = False
        self.refuse_commit: list[str] = []
        self.commit_pieces_max = 1 << 30
        self.position = 0
        self.sessions_opened: list[m.OpenSession] = []
        self._landed: dict[int, Message] = {}
        self._next_handle = 100
        self._next_ino = 10

    def answer(
        self, message: Message, payload: memoryview | None
    ) -> Message | tuple[Message, bytes]:
        if isinstance(message, m.Mutate):
            if message.number not in self._landed:
                self.position += 1
                done = self._mutate(message.operation)
                self._landed[message.number] = msgspec.structs.replace(done, position=self.position)
            return self._landed[message.number]
        if isinstance(message, m.OpenSession):
            self.sessions_opened.append(message)
            self.writers = set(message.writers)
            if not message.session:
                self._landed.clear()
            return m.SessionOpened(
                message.session or len(self.sessions_opened), 1, 20.0,
                self.chunk_bytes, CLUSTER, self.position, 1,
            )  # fmt: skip
        if isinstance(message, m.Open):
            return self._open(message.ino, message.flags)
        if isinstance(message, m.GetAttributes):
            return m.Entries(self.position, [self.entry(ino) for ino in message.inos])
        if isinstance(message, m.GetLayout):
            file = self.files[message.ino]
            return m.Layout(self.position, file.version, file.size, *self._layout(file))
        if isinstance(message, m.Locate):
            return m.Locations([self._located(handle) for handle in message.handles])
        if isinstance(message, m.Renew):
            return m.Renewed(1, self.position)
        if isinstance(message, m.CloseFiles):
            self.writers -= set(message.written)
            return m.Ok()
        if isinstance(message, m.CloseSession):
            return m.Ok()
        if isinstance(message, m.PathOf):
            return m.PathIs(b"/file")
        raise Unsupported(type(message).__name__)

    def new_file(self) -> int:
        self._next_ino += 1
        self.files[self._next_ino] = FakeFile()
        return self._next_ino

    def entry(self, ino: int) -> m.Entry:
        file = self.files[ino]
        inode = Inode(FILE_MODE, 0, 0, 1, file.size, 0, 0, 0)
        inode.data_version, inode.tail, inode.tail_offset = (
            file.version,
            file.tail,
            file.tail_offset,
        )
        return m.Entry(self.position, ino, inode)

    def _open(self, ino: int, flags: int) -> m.Opened:
        if writes(flags):
            self.writers.add(ino)
        extents, chunks = self._layout(self.files[ino])
        return m.Opened(self.entry(ino), extents, chunks, True, False)

    def _layout(self, file: FakeFile) -> tuple[list[m.LaidOut], list[m.Located]]:
        shown = self._flatten(file)
        handles = {extent.handle for _, extent in shown} | ({file.tail} if file.tail else set())
        return (
            [m.LaidOut(offset, extent) for offset, extent in shown],
            [self._located(handle) for handle in handles],
        )

    def _flatten(self, file: FakeFile) -> list[tuple[int, Extent]]:
        """Later extents hide earlier ones; cut to the size."""
        shown: list[tuple[int, int, int, int]] = []  # start, end, handle, chunk offset
        for offset, extent in file.extents:
            end = offset + extent.length
            cut: list[tuple[int, int, int, int]] = []
            for start, stop, handle, at in shown:
                if start < offset:
                    cut.append((start, min(stop, offset), handle, at))
                if stop > end:
                    first = max(start, end)
                    cut.append((first, stop, handle, at + first - start))
            shown = [*cut, (offset, end, extent.handle, extent.chunk_offset)]
        return [
            (start, Extent(min(stop, file.size) - start, handle, at))
            for start, stop, handle, at in sorted(shown)
            if start < min(stop, file.size)
        ]

    def _located(self, handle: int) -> m.Located:
        home = self.homes[handle]
        sealed = handle in self.sealed
        members = [copy.member for copy in self.copies.get(handle, [])] + [home.member]
        return m.Located(handle, 1, sealed, self.sealed.get(handle, 0), members)

    def content(self, ino: int) -> bytes:
        """What a reader of committed content sees."""
        file = self.files[ino]
        result = bytearray(file.size)
        for offset, extent in self._flatten(file):
            data = self.homes[extent.handle].replicas[extent.handle].data
            result[offset : offset + extent.length] = data[
                extent.chunk_offset : extent.chunk_offset + extent.length
            ]
        if file.tail:
            result = result[: file.tail_offset] + self.homes[file.tail].replicas[file.tail].data
        return bytes(result)

    # --- mutations

    def _mutate(self, operation: Message) -> m.Done:
        if isinstance(operation, m.Allocate):
            return m.Done(0, lease=self._new_chunk())
        if isinstance(operation, m.Commit):
            if sum(len(file.ranges) for file in operation.files) > self.commit_pieces_max:
                raise TooLarge("the record is too large")
            self.batches.append(operation)
            return m.Done(0, committed=[self._commit(file) for file in operation.files])
        if isinstance(operation, m.SealChunk):
            return m.Done(0, sealed=m.Sealed(operation.handle, self._seal(operation.handle)))
        if isinstance(operation, m.Create):
            ino = self.new_file()
            self.writers.add(ino)
            return m.Done(0, entry=self.entry(ino))
        if isinstance(operation, m.SetAttributes):
            return self._truncate(operation)
        if isinstance(operation, m.OpenTail):
            return self._tail(operation.ino, 0)
        if isinstance(operation, m.ResolveTail):
            return self._resolve(operation)
        raise NotFound(type(operation).__name__)

    def _new_chunk(self) -> m.Lease:
        self._next_handle += 1
        handle = self._next_handle
        home = self.servers[handle % len(self.servers)]
        self.homes[handle] = home
        home.replicas[handle] = Replica(1)
        return m.Lease(handle, 1, 1, self.chunk_bytes, [home.member])

    def _seal(self, handle: int) -> int:
        replica = self.homes[handle].replicas[handle]
        replica.fenced = True
        self.sealed.setdefault(handle, len(replica.data))
        return self.sealed[handle]

    def _commit(self, file: m.FileCommit) -> m.Committed:
        if self.refuse_commit and (code := self.refuse_commit.pop(0)):
            return m.Committed(file.ino, code, None)
        target = self.files.get(file.ino)
        if target is None:
            return m.Committed(file.ino, "stale-inode", None)
        if file.ino not in self.writers:
            return m.Committed(file.ino, "not-permitted", None)
        for laid in file.ranges:
            limit = len(self.homes[laid.extent.handle].replicas[laid.extent.handle].data)
            assert laid.extent.chunk_offset + laid.extent.length <= limit, "committed too early"
            target.extents.append((laid.file_offset, laid.extent))
            target.size = max(target.size, laid.file_offset + laid.extent.length)
        target.version += 1
        target.mtimes.append(file.mtime_ns)
        return m.Committed(file.ino, "", self.entry(file.ino))

    def _truncate(self, operation: m.SetAttributes) -> m.Done:
        file = self.files[operation.ino]
        assert operation.size is not None
        size = operation.size
        kept = [(at, extent) for at, extent in self._flatten(file) if at < size]
        file.extents = [
            (at, Extent(min(extent.length, size - at), extent.handle, extent.chunk_offset))
            for at, extent in kept
        ]
        file.size = size
        file.version += 1
        return m.Done(0, entry=self.entry(operation.ino))

    def seal_tail(self, ino: int) -> None:
        """As a commit, a truncate or another client's doubt does."""
        file = self.files[ino]
        length = self._seal(file.tail)
        file.extents.append((file.tail_offset, Extent(length, file.tail, 0)))
        file.size = max(file.size, file.tail_offset + length)
        file.tail = 0

    def _tail(self, ino: int, last: int) -> m.Done:
        file = self.files[ino]
        if not file.tail:
            file.tail, file.tail_offset = self._new_chunk().handle, file.size
        home = self.homes[file.tail]
        version = home.replicas[file.tail].version
        lease = m.Lease(file.tail, version, 1, self.chunk_bytes, [home.member])
        return m.Done(0, entry=self.entry(ino), tail=m.Tail(last, lease, file.tail_offset))

    def _resolve(self, operation: m.ResolveTail) -> m.Done:
        replica = self.homes[operation.handle].replicas[operation.handle]
        last = replica.writers.get(operation.writer, 0)
        file = self.files[operation.ino]
        if self.release_next and file.tail == operation.handle:
            self.release_next = False
            replica.version += 1
            return self._tail(operation.ino, last)
        if file.tail == operation.handle:
            self.seal_tail(operation.ino)
        if operation.handle not in self.sealed:
            raise Refused("not a tail")
        return self._tail(operation.ino, last)


@dataclass
class World:
    """A client, its master and its chunk servers."""

    client: Client
    master: FakeMaster
    servers: list[FakeChunkServer]


@asynccontextmanager
async def world(
    *,
    servers: int = 1,
    chunk_bytes: int = MIB,
    write_back_bytes: int = 64 * MIB,
    callbacks: Callbacks | None = None,
) -> AsyncIterator[World]:
    """All of it running, the client connected."""
    async with trio.open_nursery() as nursery:
        chunks = [FakeChunkServer(number + 1) for number in range(servers)]
        master = FakeMaster(chunks, chunk_bytes)
        for fake in (master, *chunks):
            nursery.start_soon(fake.run)
        settings = ClientSettings(
            master=master.address,
            key=KEY,
            connect_timeout_s=5,
            write_back_bytes=write_back_bytes,
            mutation_timeout_s=20,
        )
        async with open_client(settings, callbacks=callbacks) as client:
            yield World(client, master, chunks)
        nursery.cancel_scope.cancel()
