"""The connection to the master: registration, block report, heartbeats, orders.

It is tried for ever. A master of a lower epoch than one obeyed before is refused;
a higher epoch is made durable before it is obeyed. Heartbeats have a task of
their own that never waits for the disk: a server that is alive but slow must
not look dead.

Source: GFS §2.6.2 (chunk servers report, the master keeps no locations).
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable, Iterator

import trio

from chunkd.core.machine import Machine
from chunkd.directory import DataDirectory
from chunkd.obeyed import ObeyedFile
from chunkd.orders import Orders
from chunkd.store import Store
from chunkd.workers import Workers
from gfs import messages
from gfs.connection import Connection
from gfs.errors import GfsError, RemoteProtocolError, StaleVersion, Unreachable
from gfs.handshake import dial

log = logging.getLogger(__name__)

HEARTBEAT_S = 0.3
GROWTH_S = 5.0  # each tail at most once in
REPORT_BATCH = 2000
BACKOFF_MIN_S, BACKOFF_MAX_S = 0.05, 1.0
SILENCE_S = 5.0  # a master that says nothing is dialled anew


class MasterLink:
    """See the module's text. `run` never ends by itself.

    Attributes:
      registered: the master in charge knows all our replicas.
    """

    def __init__(
        self, machine: Machine, store: Store, orders: Orders, obeyed: ObeyedFile,
        workers: Workers, *, member: messages.ChainMember, http: str, master: str,
        master_unix: str, key: bytes, cluster: str,
    ) -> None:  # fmt: skip
        self.machine = machine
        self.store = store
        self.orders = orders
        self.registered = False
        self.committed = obeyed.saved.committed
        self._obeyed = obeyed
        self._workers = workers  # one thread: saves must not overtake each other
        self._member = member
        self._http = http
        self._master = master
        self._master_unix = master_unix
        self._key = key
        self._cluster = cluster
        self._reported: dict[int, tuple[int, float]] = {}  # tail -> end, when
        self._save_wanted = trio.Event()
        self.verified_ns: Callable[[], int] = lambda: 0  # of Heartbeat
        self._news: set[DataDirectory] = set()
        self._news_wanted = trio.Event()

    def directory_changed(self, directory: DataDirectory) -> None:
        """What is in it counts no more, or again: the master hears of it next."""
        self._news.add(directory)
        self._news_wanted.set()

    async def run(self) -> None:
        """Keep a connection to the master."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_committed)
            pause_s = BACKOFF_MIN_S
            while True:
                try:
                    await self._serve_one()
                    pause_s = BACKOFF_MIN_S
                except GfsError as error:
                    log.info("master.lost %s: %s", self._master, error)
                if self.registered:
                    self.registered, pause_s = False, BACKOFF_MIN_S
                await trio.sleep(pause_s * random.uniform(0.5, 1.0))
                pause_s = min(BACKOFF_MAX_S, pause_s * 2)

    async def _serve_one(self) -> None:
        unix = self._master_unix if self._master_unix and _is_there(self._master_unix) else ""
        connection = await dial(
            self._master, unix=unix, key=self._key, cluster=self._cluster, role="chunkd",
            silence_limit_s=SILENCE_S,
        )  # fmt: skip
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._lead, connection, nursery)
                await connection.run(lambda *what: self._on_message(nursery, *what))
                nursery.cancel_scope.cancel()
        except* GfsError as group:
            raise Unreachable("; ".join(map(str, group.exceptions))) from None
        finally:
            connection.close()
        if connection.closed is not None:
            raise connection.closed

    async def _lead(self, connection: Connection, nursery: trio.Nursery) -> None:
        """Register, report everything, then send heartbeats."""
        try:
            await self._register(connection)
        except GfsError as error:
            connection.close(error)
            return
        self.registered = True
        nursery.start_soon(self._tell_news, connection)
        log.info("master.registered address=%s epoch=%d", self._master, self.machine.epoch)
        while True:
            connection.post(self._heartbeat())
            await trio.sleep(HEARTBEAT_S)

    async def _register(self, connection: Connection) -> None:
        free, total = self.store.room()
        directories = [str(directory.path) for directory in self.store.directories]
        answer = await connection.call(
            messages.RegisterServer(
                self._member, self.machine.boot, self._http, total, free,
                self.committed, self.machine.epoch, directories,
            )
        )  # fmt: skip
        if not isinstance(answer, messages.ServerRegistered):
            raise RemoteProtocolError(f"{type(answer).__name__} is no answer to a registration")
        await self._obey_epoch(answer.epoch)
        for batch, complete in _batches(list(self.store.reports())):
            await connection.call(messages.ReportReplicas(batch, complete))

    async def _tell_news(self, connection: Connection) -> None:
        """Report the replicas of directories that failed, hang or are back."""
        try:
            while True:
                await self._news_wanted.wait()
                self._news_wanted = trio.Event()
                news, self._news = self._news, set()
                for directory in news:
                    await self._tell(connection, directory)
        except GfsError as error:
            connection.close(error)  # the next registration reports everything

    async def _tell(self, connection: Connection, directory: DataDirectory) -> None:
        found = self.store.in_directory(directory)
        if directory.health.is_hung:
            handles = [replica.handle for replica in found]
            for start in range(0, len(handles), REPORT_BATCH):
                gone = handles[start : start + REPORT_BATCH]
                await connection.call(messages.ReportReplicas([], False, gone))
            return
        for batch, _ in _batches([self.store.report(replica) for replica in found]):
            await connection.call(messages.ReportReplicas(batch, False))

    async def _obey_epoch(self, epoch: int) -> None:
        if epoch < self.machine.epoch:
            log.warning("master.old epoch=%d obeyed=%d", epoch, self.machine.epoch)
            raise StaleVersion(f"a master of epoch {self.machine.epoch} has been obeyed")
        if epoch > self.machine.epoch:
            await self._workers.run(lambda: self._obeyed.save(epoch, self.committed))
            self.machine.epoch = max(epoch, self.machine.epoch)

    def _on_message(
        self,
        nursery: trio.Nursery,
        connection: Connection,
        request: int,
        message: messages.Message,
        payload: memoryview | None,
    ) -> None:
        if isinstance(message, messages.HeartbeatAnswer):
            if message.epoch < self.machine.epoch:
                raise StaleVersion("an older master's heartbeat")
            if message.committed > self.committed:
                self.committed = message.committed
                self._save_wanted.set()
        elif self.orders.knows(message):
            nursery.start_soon(self.orders.obey, connection, request, message)
        else:
            raise RemoteProtocolError(f"{type(message).__name__} is no order")

    async def _keep_committed(self) -> None:
        """Make the committed position durable as it rises, one save at a time."""
        while True:
            await self._save_wanted.wait()
            self._save_wanted = trio.Event()
            epoch, committed = self.machine.epoch, self.committed
            try:
                await self._workers.run(lambda: self._obeyed.save(epoch, committed))  # noqa: B023
            except GfsError as error:
                self.store.note_failure(self.store.directories[0], error)

    def _heartbeat(self) -> messages.Heartbeat:
        free, total = self.store.room()
        return messages.Heartbeat(
            free, total, self._growth(), sorted(self.store.bad), self.store.failing(),
            self.verified_ns(),
        )  # fmt: skip

    def _growth(self) -> list[messages.TailGrowth]:
        """Tails that grew since they were last told, each at most once in 5 s."""
        now = trio.current_time()
        told: list[messages.TailGrowth] = []
        current = self.machine.growth([])
        for tail in current:
            end, when = self._reported.get(tail.handle, (0, -GROWTH_S))
            if tail.end != end and now - when >= GROWTH_S:
                self._reported[tail.handle] = (tail.end, now)
                told.append(tail)
        if len(self._reported) > 2 * len(current):
            known = {tail.handle for tail in current}
            self._reported = {key: had for key, had in self._reported.items() if key in known}
        return told


def _is_there(path: str) -> bool:
    return os.path.exists(path)


def _batches(
    reports: list[messages.ReplicaReport],
) -> Iterator[tuple[list[messages.ReplicaReport], bool]]:
    for start in range(0, max(1, len(reports)), REPORT_BATCH):
        yield reports[start : start + REPORT_BATCH], start + REPORT_BATCH >= len(reports)
