"""Real chunk servers for tests: processes with a master that only listens, and a small client."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import trio

from chunkd.server import ChunkServer
from gfs import messages
from gfs.buffers import BufferPool
from gfs.checksum import crc32c
from gfs.config import ChunkdConfig
from gfs.connection import Connection
from gfs.disk import Disk, PosixDisk
from gfs.errors import GfsError
from gfs.handshake import accept, create_key, dial, host_id, listen, load_key, serve
from gfs.ids import CHUNK_BYTES
from gfs.readiness import Ready, read

CLUSTER = "test-cluster"
START_S = 20.0


class ChunkdProcess:
    """One `python -m chunkd`."""

    def __init__(self, directory: Path, key_file: Path, master: str, *extra: str) -> None:
        self.directory = directory
        self.ready_file = directory.with_suffix(".ready")
        self.log_file = directory.with_suffix(".log")
        self.command = [
            sys.executable, "-m", "chunkd", "--data-dirs", str(directory),
            "--key-file", str(key_file), "--cluster-id", CLUSTER, "--master", master,
            "--ready-file", str(self.ready_file), *extra,
        ]  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None
        self.ready = Ready(pid=0)

    def spawn(self) -> None:
        """Start it; `wait_ready` comes next."""
        self.ready_file.unlink(missing_ok=True)
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(self.command, stderr=log, stdout=log)

    def wait_ready(self) -> None:
        """Until it serves; shows its log if it ends instead."""
        assert self.process is not None
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            found = read(self.ready_file)
            if found is not None and found.pid == self.process.pid:
                self.ready = found
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.01)
        raise AssertionError(f"chunkd did not start:\n{self.log_file.read_text()}")

    def start(self) -> ChunkdProcess:
        self.spawn()
        self.wait_ready()
        return self

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None

    def terminate(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        code = self.process.wait(10)
        self.process = None
        return code

    def cpu_s(self) -> float:
        """Seconds of CPU so far."""
        assert self.process is not None
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def member(self) -> messages.ChainMember:
        unix = str(self.directory / "chunkd.sock")
        return messages.ChainMember(self.ready.server, self.ready.address, unix, host_id())


class ChunkdTask:
    """A chunk server in this process: quick to start, and its insides can be looked at."""

    def __init__(self, directory: Path, key_file: Path, master: str, **settings: object) -> None:
        self.directory = directory
        self.config = ChunkdConfig(
            data_dirs=[str(directory)], key_file=str(key_file), cluster_id=CLUSTER, master=master,
            http="", **settings,  # type: ignore[arg-type]
        )  # fmt: skip
        self.disk: Disk = PosixDisk()
        self.server: ChunkServer | None = None
        self._scope = trio.CancelScope()
        self._ended = trio.Event()

    async def start(self, nursery: trio.Nursery) -> ChunkdTask:
        self.server = ChunkServer(self.config, self.disk)
        self._scope, self._ended = trio.CancelScope(), trio.Event()
        await nursery.start(self._run)
        return self

    async def _run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        assert self.server is not None
        try:
            with self._scope:
                await self.server.run(task_status=task_status)
        finally:
            self._ended.set()

    async def end(self) -> None:
        """Cut it off, as a crash of the process would."""
        self._scope.cancel()
        await self._ended.wait()

    @property
    def live(self) -> ChunkServer:
        assert self.server is not None
        return self.server

    @property
    def member(self) -> messages.ChainMember:
        unix = str(self.directory / "chunkd.sock")
        return messages.ChainMember(self.live.server, self.live.address, unix, host_id())


class SmallMaster:
    """Takes registrations and lets a test give orders; decides nothing."""

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.epoch = 1
        self.servers: dict[int, Connection] = {}
        self.reported: set[int] = set()  # have been among `servers`
        self.registrations: dict[int, messages.RegisterServer] = {}
        self.replicas: dict[int, dict[int, messages.ReplicaReport]] = {}
        self.beats: dict[int, messages.Heartbeat] = {}
        self.named: dict[Connection, int] = {}
        self.changed = trio.Event()
        self.address = ""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        listeners = listen("127.0.0.1:0")
        self.address = f"127.0.0.1:{listeners[0].getsockname()[1]}"
        task_status.started()
        try:
            await serve(listeners, self._handle)
        finally:
            for listener in listeners:
                listener.close()

    async def _handle(self, connection: Connection) -> None:
        await accept(connection, key=self.key, cluster=CLUSTER, epoch=self.epoch, keyless=False)
        await connection.run(self._on_message)
        self.servers = {key: had for key, had in self.servers.items() if had is not connection}
        self._notify()

    def _on_message(
        self, connection: Connection, request: int, message: object, payload: object
    ) -> None:
        if isinstance(message, messages.RegisterServer):
            server = self.named[connection] = message.member.server
            self.registrations[server] = message
            self.replicas[server] = {}
            connection.reply(request, messages.ServerRegistered(self.epoch, 0.3, CHUNK_BYTES))
        elif isinstance(message, messages.ReportReplicas):
            server = self.named[connection]
            self.replicas[server].update({one.handle: one for one in message.replicas})
            for handle in message.gone:
                self.replicas[server].pop(handle, None)
            connection.reply(request, messages.Ok())
            if message.complete:
                self.servers[server] = connection
                self.reported.add(server)
        elif isinstance(message, messages.Heartbeat):
            self.beats[self.named[connection]] = message
        self._notify()

    def _notify(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    async def wait_for(self, condition: object, timeout_s: float = 10.0) -> None:
        """Until `condition()` holds; looked at whenever a server says something."""
        assert callable(condition)
        with trio.fail_after(timeout_s):
            while not condition():
                await self.changed.wait()

    async def order(self, server: int, message: messages.Message) -> messages.Message:
        """Give an order; raises the refusal."""
        await self.wait_for(lambda: server in self.servers)
        if getattr(message, "epoch", None) == 0:
            message = msgspec.structs.replace(message, epoch=1)
        return await self.servers[server].call(message, timeout_s=20.0)


class Servers:
    """Some chunk servers, their master, and connections of a client."""

    def __init__(self, tmp: Path, nursery: trio.Nursery, master: SmallMaster) -> None:
        self.tmp = tmp
        self.nursery = nursery
        self.master = master
        self.key_file = tmp / "key"
        self.key = load_key(self.key_file)
        self.processes: list[ChunkdProcess] = []
        self.tasks: list[ChunkdTask] = []
        self.pool = BufferPool(1024 * 1024)

    def add(self, *extra: str) -> ChunkdProcess:
        number = len(self.processes) + 1
        process = ChunkdProcess(self.tmp / f"c{number}", self.key_file, self.master.address, *extra)
        self.processes.append(process)
        return process

    async def add_task(self, **settings: object) -> ChunkdTask:
        number = len(self.tasks) + 1
        task = ChunkdTask(self.tmp / f"t{number}", self.key_file, self.master.address, **settings)
        self.tasks.append(task)
        return await task.start(self.nursery)

    @property
    def members(self) -> list[messages.ChainMember]:
        processes = [process.member for process in self.processes]
        return processes + [task.member for task in self.tasks]

    async def connect(
        self,
        process: ChunkdProcess | ChunkdTask,
        *,
        unix: bool = True,
        silence_limit_s: float | None = None,
    ) -> Connection:
        """A client's connection, kept running."""
        member = process.member
        # Before, neither it nor who comes after it in a chain knows which chunks are new.
        await self.master.wait_for(
            lambda: (
                member.server in self.master.servers
                and self.master.reported.issuperset(one.server for one in self.members)
            )
        )
        connection = await dial(
            member.address, unix=member.unix if unix else "", key=self.key, cluster=CLUSTER,
            role="client", pool=self.pool, silence_limit_s=silence_limit_s,
        )  # fmt: skip
        self.nursery.start_soon(connection.run, _ignore)
        return connection


def _ignore(connection: object, request: int, message: object, payload: object) -> None:
    raise AssertionError("nobody asks a client")


@asynccontextmanager
async def in_process(tmp: Path, count: int = 3, **settings: object) -> AsyncIterator[Servers]:
    """`count` chunk servers within this process."""
    create_key(tmp / "key")
    master = SmallMaster(load_key(tmp / "key"))
    async with trio.open_nursery() as nursery:
        await nursery.start(master.run)
        servers = Servers(tmp, nursery, master)
        for _ in range(count):
            await servers.add_task(**settings)
        yield servers
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def running(tmp: Path, count: int = 3, *extra: str) -> AsyncIterator[Servers]:
    """`count` chunk servers that are ready; all are ended."""
    create_key(tmp / "key")
    master = SmallMaster(load_key(tmp / "key"))
    async with trio.open_nursery() as nursery:
        await nursery.start(master.run)
        servers = Servers(tmp, nursery, master)
        try:
            for _ in range(count):
                servers.add(*extra).spawn()
            for process in servers.processes:
                await trio.to_thread.run_sync(process.wait_ready)
            yield servers
        finally:
            for process in servers.processes:
                process.kill()
            nursery.cancel_scope.cancel()


async def join_tail(
    connection: Connection, handle: int, members: list[messages.ChainMember], *,
    version: int = 1, epoch: int = 1,
) -> messages.Joined:  # fmt: skip
    """Join a tail chunk's chain."""
    message = messages.Join(handle, version, epoch, True, CHUNK_BYTES, members[1:])
    answer = await connection.call(message)
    assert isinstance(answer, messages.Joined)
    return answer


async def append_records(
    connection: Connection, handle: int, first: int, payload: bytes, *, writer: int = 7,
    count: int = 1, version: int = 1, sync: bool = False,
) -> messages.RecordsAppended:  # fmt: skip
    """One batch of records."""
    message = messages.RecordAppend(handle, version, writer, first, count, crc32c(payload), sync)
    answer = await connection.call(message, payload, timeout_s=10)
    assert isinstance(answer, messages.RecordsAppended)
    return answer


class Stream:
    """Pipelined private appends to one chunk, as a client makes them."""

    def __init__(
        self, connection: Connection, handle: int, members: list[messages.ChainMember]
    ) -> None:
        self.connection = connection
        self.handle = handle
        self.members = members
        self.end = self.acknowledged = 0
        self.error: GfsError | None = None
        self._moved = trio.Event()

    def join(self, *, version: int = 1, epoch: int = 1) -> None:
        """Sent, not waited for; appends may follow at once."""
        self.connection.request(
            messages.Join(self.handle, version, epoch, False, CHUNK_BYTES, self.members[1:]),
            self._on_reply,
        )

    def append(self, payload: bytes | memoryview, checksum: int | None = None) -> None:
        if checksum is None:
            checksum = crc32c(payload)
        message = messages.Append(self.handle, 1, self.end, checksum)
        self.end += len(payload)
        self.connection.request(message, self._on_reply, payload)

    def _on_reply(self, answer: messages.Message | GfsError, _: object) -> None:
        if isinstance(answer, GfsError):
            self.error = self.error or answer
        elif isinstance(answer, messages.Appended):
            self.acknowledged = max(self.acknowledged, answer.end)
        self._moved.set()

    async def wait(self, window: int = 0) -> None:
        """Until at most `window` bytes are unacknowledged; raises the first error."""
        while self.end - self.acknowledged > window and self.error is None:
            self._moved = trio.Event()
            await self._moved.wait()
        if self.error is not None:
            raise self.error


def own_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
