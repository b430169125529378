"""The connection to a master: registration, block report, heartbeats, orders.

It is tried for ever. A master of a lower epoch than one obeyed before is refused;
a higher epoch is made durable before it is obeyed. Heartbeats have a task of
their own that never waits for the disk: a server that is alive but slow must
not look dead. A shadow master is told of replicas, again as they change; it gives no
orders, but may ask for the promise that makes it the next master.

Source: GFS §2.6.2 (chunk servers report, the master keeps no locations), §5.1.3 (shadows).
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator

import trio

from chunkd.core.machine import Machine
from chunkd.directory import DataDirectory
from chunkd.masters import Masters
from chunkd.orders import Orders
from chunkd.store import Store
from gfs import messages
from gfs.connection import Connection
from gfs.errors import GfsError, RemoteProtocolError, StaleVersion, Unreachable
from gfs.masters import Caller, MasterPlace, dial_place

log = logging.getLogger(__name__)

HEARTBEAT_S = 0.3
GROWTH_S = 5.0  # each tail at most once in
REPORT_BATCH = 2000
BACKOFF_MIN_S, BACKOFF_MAX_S = 0.05, 0.25  # a restarted master is there within a second
SILENCE_S = 5.0  # a master that says nothing is dialled anew
SHADOW_REPORT_S = 5.0  # between looks at what a shadow has not been told of replicas


class MasterLink:
    """See the module's text. `run` never ends by itself.

    Attributes:
      registered: the master in charge knows all our replicas (False of a shadow).
    """

    def __init__(
        self, machine: Machine, store: Store, orders: Orders, masters: Masters, *,
        member: messages.ChainMember, http: str, place: MasterPlace, key: bytes, cluster: str,
    ) -> None:  # fmt: skip
        self.machine = machine
        self.store = store
        self.orders = orders
        self.registered = False
        self._masters = masters
        self._member = member
        self._http = http
        self._place = place
        self._caller = Caller(key, cluster, "chunkd", SILENCE_S)
        self._taken_in = False  # by a master or a shadow, on this connection
        self._reported: dict[int, tuple[int, float]] = {}  # tail -> end, when
        self.verified_ns: Callable[[], int] = lambda: 0  # of Heartbeat
        self.drains: Callable[[], list[messages.DirectoryDrain]] = list  # of Heartbeat
        self._news: dict[DataDirectory, None] = {}
        self._news_wanted = trio.Event()

    def directory_changed(self, directory: DataDirectory) -> None:
        """What is in it counts no more, or again: the master hears of it next."""
        self._news[directory] = None
        self._news_wanted.set()

    async def run(self) -> None:
        """Keep a connection to the master."""
        pause_s = BACKOFF_MIN_S
        while True:
            try:
                await self._serve_one()
                pause_s = BACKOFF_MIN_S
            except GfsError as error:
                log.info("master.lost %s: %s", self._place.address, error)
            if self._taken_in:
                self.registered, self._taken_in, pause_s = False, False, BACKOFF_MIN_S
            await trio.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(BACKOFF_MAX_S, pause_s * 2)

    async def _serve_one(self) -> None:
        connection = await dial_place(self._place, self._caller)
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
            leads = await self._register(connection)
        except GfsError as error:
            connection.close(error)
            return
        self._taken_in, self.registered = True, leads
        role = "master" if leads else "shadow"
        address, epoch = self._place.address, self.machine.epoch
        log.info("%s.registered address=%s epoch=%d", role, address, epoch)
        tell = self._tell_news if leads else self._keep_reporting
        nursery.start_soon(tell, connection)
        while True:
            connection.post(self._heartbeat(leads))
            await trio.sleep(HEARTBEAT_S)

    async def _register(self, connection: Connection) -> bool:
        """Whether it is the master in charge."""
        free, total = self.store.room()
        directories = [str(directory.path) for directory in self.store.directories]
        answer = await connection.call(
            messages.RegisterServer(
                self._member, self.machine.boot, self._http, total, free,
                self._masters.heard[1], self.machine.epoch, directories, self._masters.heard[0],
                self.machine.first_new_handle or 0,
            )
        )  # fmt: skip
        if not isinstance(answer, messages.ServerRegistered):
            raise RemoteProtocolError(f"{type(answer).__name__} is no answer to a registration")
        if answer.leads:
            await self._masters.obey(answer.epoch, answer.committed)
            if self.machine.first_new_handle is None:
                self.machine.first_new_handle = answer.first_new_handle
        for batch, complete in _batches(list(self.store.reports())):
            await connection.call(messages.ReportReplicas(batch, complete))
        return answer.leads

    async def _tell_news(self, connection: Connection) -> None:
        """Report the replicas of directories that failed, hang, are back or are drained."""
        try:
            while True:
                await self._news_wanted.wait()
                self._news_wanted = trio.Event()
                news, self._news = self._news, {}
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

    async def _keep_reporting(self, connection: Connection) -> None:
        """What has changed since a shadow was told; it hears of no seal or copy otherwise."""
        told = {report.handle: report for report in self.store.reports()}
        while connection.closed is None:
            await trio.sleep(SHADOW_REPORT_S)
            now = {report.handle: report for report in self.store.reports()}
            changed = [report for handle, report in now.items() if told.get(handle) != report]
            gone = [handle for handle in told if handle not in now]
            told = now
            if changed or gone:
                try:
                    await connection.call(messages.ReportReplicas(changed, True, gone))
                except GfsError as error:
                    connection.close(error)

    def _on_message(
        self,
        nursery: trio.Nursery,
        connection: Connection,
        request: int,
        message: messages.Message,
        payload: memoryview | None,
    ) -> None:
        if isinstance(message, messages.HeartbeatAnswer):
            try:
                self._masters.told(message.epoch, message.committed)
            except StaleVersion as error:
                connection.close(error)  # dialled anew, it learns from us that it is over
        elif isinstance(message, messages.Promise):
            nursery.start_soon(self._promise, connection, request, message)
        elif connection.peer_leads and self.orders.knows(message):
            nursery.start_soon(self.orders.obey, connection, request, message)
        else:
            raise RemoteProtocolError(f"{type(message).__name__} is no order")

    async def _promise(
        self, connection: Connection, request: int, message: messages.Promise
    ) -> None:
        try:
            with trio.CancelScope(shield=True):  # what is being written down counts
                promised = await self._masters.promise(message)
        except GfsError as error:
            connection.refuse(request, error)
        else:
            connection.reply(request, promised)

    def _heartbeat(self, leads: bool) -> messages.Heartbeat:
        free, total = self.store.room()
        growth = self._growth() if leads else []
        return messages.Heartbeat(
            free, total, growth, sorted(self.store.bad), self.store.failing(), self.verified_ns(),
            self.drains(),
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


def _batches(
    reports: list[messages.ReplicaReport],
) -> Iterator[tuple[list[messages.ReplicaReport], bool]]:
    for start in range(0, max(1, len(reports)), REPORT_BATCH):
        yield reports[start : start + REPORT_BATCH], start + REPORT_BATCH >= len(reports)
