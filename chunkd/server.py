"""A chunk server put together: directories, machine, service, heartbeat, HTTP.

Starts by taking hold of its data directories (any refusal is a `UsageError` or
GfsError before a port is bound), recovers what is in them, then serves until
told to stop; what is in flight then gets `GRACE_S`.
"""

from __future__ import annotations

import logging
import os
import resource
import secrets
import socket
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import trio

from chunkd.askers import Peer
from chunkd.core.health import Health
from chunkd.core.machine import Machine
from chunkd.core.replica import ReplicaState
from chunkd.directory import DataDirectory, read_identity
from chunkd.draining import Draining
from chunkd.formats import Identity
from chunkd.heartbeat import MasterLink
from chunkd.lanes import Lanes
from chunkd.links import SILENCE_S, Links
from chunkd.masters import Masters
from chunkd.obeyed import ObeyedFiles
from chunkd.orders import Orders
from chunkd.passing import ReplicaPasser
from chunkd.scrub import Scrubber
from chunkd.service import DataService
from chunkd.store import Store
from chunkd.watch import Watch
from chunkd.workers import Workers
from gfs.buffers import BufferPool
from gfs.config import ChunkdConfig
from gfs.connection import Connection
from gfs.disk import Disk
from gfs.errors import StorageFailed, UsageError
from gfs.handshake import accept, host_id, listen, load_key, serve
from gfs.ids import BLOCK_BYTES, MIB
from gfs.masters import places
from gfs.messages import ChainMember
from gfs.serving import common_application, serve_http

log = logging.getLogger(__name__)

GRACE_S = 2.0
UNIX_PATH_BYTES_MAX = 107
SERVER_ID_BITS = 53  # a JSON number holds it


def boot_id() -> str:
    """Changes when this machine starts anew: unsynced bytes live as long as it."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


class Holdings(NamedTuple):
    """The data directories that could be taken hold of, and whose they are."""

    directories: list[DataDirectory]
    absent: list[str]  # the others, each with the reason
    server: int
    cluster: str


def open_directories(config: ChunkdConfig, disk: Disk) -> Holdings:
    """Take hold of all data directories whose disks work; the first says whose they are.

    Raises:
      UsageError: none is named, or the cluster's id is not known.
      StorageFailed: no disk works.
      GfsError: a stranger's, in use, or of a newer format.
    """
    if not config.data_dirs:
        raise UsageError("no data directory: --data-dirs DIR (may be given more than once)")
    known = _find_identity(config.data_dirs, disk)
    cluster = config.cluster_id or (known.cluster if known else "")
    if not cluster:
        raise UsageError("a new data directory needs the cluster's id: --cluster-id ID")
    server = known.server if known else secrets.randbits(SERVER_ID_BITS) | 1
    found: list[DataDirectory] = []
    absent: list[str] = []
    try:
        for index, name in enumerate(config.data_dirs):
            try:
                directory = DataDirectory.open(
                    Path(name), disk, cluster=cluster, server=server, index=index
                )
            except StorageFailed as error:
                log.error("disk.failed directory=%s: %s", name, error)
                absent.append(f"{name}: {error}")
                continue
            found.append(directory)
            directory.reserve(config.reserve_bytes)
            directory.health = Health(hung_s=config.disk_hung_s)
        if not found:
            raise StorageFailed("; ".join(absent))
    except BaseException:
        for directory in found:
            directory.close()
        raise
    return Holdings(found, absent, server, cluster)


def _find_identity(names: list[str], disk: Disk) -> Identity | None:
    """What the first directory that says it belongs to; those that cannot be read are not asked."""
    for name in names:
        with suppress(StorageFailed):
            found = read_identity(Path(name).absolute(), disk)
            if found is not None:
                return found
    return None


class ChunkServer:
    """See the module's text. Create, then `run` once.

    Attributes:
      address, http: bound HOST:PORT, once `run` has told `task_status`.
    """

    def __init__(self, config: ChunkdConfig, disk: Disk) -> None:
        self.config = config
        if not config.master:
            raise UsageError("where is the master? --master HOST:PORT")
        if not config.key_file:
            raise UsageError("the cluster's key is needed: --key-file FILE")
        self.key = load_key(Path(config.key_file))
        holdings = open_directories(config, disk)
        self.directories, self.server = holdings.directories, holdings.server
        self.cluster = holdings.cluster
        self.address = self.http = ""
        self.machine = Machine(boot=boot_id())
        self.store = Store(self.directories, self.machine, holdings.absent)
        self.scrubbers: list[Scrubber] = []
        self.stop = trio.Event()
        self._live: dict[Connection, Peer] = {}
        self._service: DataService | None = None
        self._masters: Masters | None = None
        self._links: list[MasterLink] = []
        try:
            self.obeyed = ObeyedFiles.open(self.directories)
            self.machine.epoch = self.obeyed.saved.epoch
            self.store.load()
        except BaseException:
            self.store.close()
            raise

    @property
    def unix(self) -> str:
        """Path of our Unix socket; "" where the default would be too long for the system."""
        path = self.config.unix or str(self.directories[0].path / "chunkd.sock")
        if len(os.fsencode(path)) <= UNIX_PATH_BYTES_MAX:
            return path
        if self.config.unix:
            raise UsageError(f"{path}: longer than {UNIX_PATH_BYTES_MAX} bytes for a Unix socket")
        return ""

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `stop` is set or this is cancelled.

        Raises:
          UsageError: an address cannot be bound.
        """
        raise_descriptor_limit()
        unix = self.unix
        listeners = listen(self.config.address, unix)
        host, port = listeners[0].getsockname()[:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lanes, obey_worker = Lanes(self.directories), Workers("obey", 1)
        try:
            async with trio.open_nursery() as nursery:
                await self._start(nursery, lanes, obey_worker, unix)
                nursery.start_soon(self._serve, listeners)
                log.info("chunkd.serving server=%d address=%s", self.server, self.address)
                task_status.started()
                await self.stop.wait()
                await self._finish(listeners)
                nursery.cancel_scope.cancel()
        finally:
            lanes.stop()
            obey_worker.stop()
            for listener in listeners:
                listener.close()
            with suppress(OSError):
                if unix:
                    os.unlink(unix)
            self.obeyed.close()
            self.store.close()

    async def _start(
        self, nursery: trio.Nursery, lanes: Lanes, obey_worker: Workers, unix: str
    ) -> None:
        config = self.config
        self._pool = BufferPool(MIB + 2 * BLOCK_BYTES)  # a frame, or the blocks around a read
        own_host = host_id()
        member = ChainMember(
            self.server, config.advertise or self.address, unix, own_host, config.rack
        )
        links = Links(
            nursery, key=self.key, cluster=self.cluster, host_id=own_host, pool=self._pool
        )
        service = self._service = DataService(
            self.machine, self.store, links, lanes=lanes, pool=self._pool
        )
        ReplicaPasser(self.machine, self.store, service.reading, nursery).attach(service)
        orders = Orders(self.machine, self.store, service, links, lanes)
        draining = Draining(
            self.store, orders, service.reading, lanes, on_change=self._directory_changed
        )
        nursery.start_soon(draining.run)
        if config.http:
            app = common_application(
                daemon="chunkd", key=self.key, health=self.health, statistics=self.statistics
            )
            self.http = await nursery.start(serve_http, app, config.http, config.http_unix)
        masters = self._masters = Masters(self.machine, self.obeyed, obey_worker)
        nursery.start_soon(masters.keep)
        for place in places(config.master, config.master_unix):
            link = MasterLink(
                self.machine, self.store, orders, masters, member=member, http=self.http,
                place=place, key=self.key, cluster=self.cluster,
            )  # fmt: skip
            link.verified_ns, link.drains = self._verified_ns, draining.report
            self._links.append(link)
            nursery.start_soon(link.run)
        for directory in self.directories if config.scrub_period_s else ():
            scrubber = Scrubber(
                directory, self.store, service.reading, lanes.of(directory).scrub,
                period_s=config.scrub_period_s, bytes_per_s_max=config.scrub_bytes_per_s,
            )  # fmt: skip
            self.scrubbers.append(scrubber)
            nursery.start_soon(scrubber.run)
        nursery.start_soon(Watch(self.store, service, lanes, self._directory_changed).run)

    def _directory_changed(self, directory: DataDirectory) -> None:
        for link in self._links:
            link.directory_changed(directory)

    async def _serve(self, listeners: list[Any]) -> None:
        await serve(listeners, self._handle, pool=self._pool, silence_limit_s=10 * SILENCE_S)

    async def _handle(self, connection: Connection) -> None:
        assert self._service is not None
        role = await accept(
            connection, key=self.key, cluster=self.cluster, epoch=self.machine.epoch, keyless=False
        )
        peer = Peer(role)
        self._live[connection] = peer
        try:
            await connection.run(partial(self._service.on_message, peer))
        finally:
            del self._live[connection]

    async def _finish(self, listeners: list[Any]) -> None:
        """Take no more callers; let answers of what is in flight leave."""
        for listener in listeners:
            with suppress(OSError):  # not closed: a task waits on the descriptor
                listener.shutdown(socket.SHUT_RDWR)
        deadline = trio.current_time() + GRACE_S
        while self._busy() and trio.current_time() < deadline:  # noqa: ASYNC110
            await trio.sleep(0.01)

    def _busy(self) -> bool:
        return any(
            connection.queued_bytes or peer.in_flight for connection, peer in self._live.items()
        )

    # --- for people

    def health(self) -> Mapping[str, object]:
        """Facts of /health; not ok while the master does not know us or a disk fails."""
        failing = self.store.failing()
        registered = any(link.registered for link in self._links)
        return {
            "ok": registered and not failing,
            "server": self.server,
            "registered": registered,
            "failing": failing,
        }

    def statistics(self) -> Mapping[str, object]:
        """Numbers of /statistics and /metrics."""
        free, total = self.store.room()
        replicas = self.machine.replicas.values()
        sealed = sum(replica.state is ReplicaState.SEALED for replica in replicas)
        counters = self._service.counters if self._service else None
        return {
            "server": self.server,
            "epoch": self.machine.epoch,
            "committed": self._masters.heard[1] if self._masters else 0,
            "free_bytes": free,
            "disk_bytes": total,
            "replicas_sealed": sealed,
            "replicas_open": len(replicas) - sealed,
            "replicas_bad": len(self.store.bad),
            "scrub": self._scrubbed(),
            "stored_bytes": sum(replica.end for replica in replicas),
            "data": {name: getattr(counters, name) for name in getattr(counters, "__slots__", ())},
        }

    def _verified_ns(self) -> int:
        """The begin of the last whole pass, of the directory where that is longest ago."""
        return min((one.progress.last_began_ns for one in self.scrubbers), default=0)

    def _scrubbed(self) -> Mapping[str, object]:
        found = [scrubber.progress for scrubber in self.scrubbers]
        return {
            "blocks": sum(one.blocks for one in found),
            "bad": sum(one.bad for one in found),
            "verified_ns": self._verified_ns(),
            "last_blocks": sum(one.last_blocks for one in found),
            "last_bad": sum(one.last_bad for one in found),
            "behind": sum(scrubber.is_behind for scrubber in self.scrubbers),
        }


def raise_descriptor_limit() -> None:
    """An open replica holds two descriptors; take what the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
