"""The master's loop: gather, decide, log, commit, answer.

Reads are answered as they arrive, from committed state. Everything else waits
in the inbox for the next step; what arrives while a group is being synced is
the next group, so groups grow with the load by themselves.

One task owns the state's writing connection; an exception in it ends the
process, because nobody may be answered after a failed sync or commit.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial

import trio

from gfs import messages as m
from gfs.connection import Connection
from gfs.errors import (
    DeadSession,
    GfsError,
    NotReady,
    RemoteProtocolError,
    StorageFailed,
    Unreachable,
)
from gfs.handshake import accept
from gfs.items import META
from gfs.messages import Message
from gfs.records import Record
from master import directory_drains
from master.connections import Peer, Peers
from master.core.engine import Caller, Pending, Ready, Send
from master.core.exports import OPERATORS, Exports
from master.core.machine import UNNUMBERED
from master.core.master import Master
from master.core.start import LOST_KEY
from master.following import Following
from master.fsck import Fsck
from master.holding import Holding
from master.inspection import Inspection
from master.ledger import Ledger

log = logging.getLogger(__name__)

TICK_S = 0.05
GROUP_MAX = 512  # requests decided in one step
SPACE_CHECK_S = 0.1
LOOK_ELSEWHERE_S = 10.0

Work = Callable[[], None]


class Server:
    """Joins connections, core and ledger."""

    def __init__(
        self,
        ledger: Ledger,
        core: Master,
        *,
        key: bytes,
        cluster: str,
        exports: Exports | None = None,
    ) -> None:
        self._ledger = ledger
        self._core = core
        self._key = key
        self._cluster = cluster
        self._exports = exports or Exports()
        self._peers = Peers()
        changed = NotReady("the exports have changed")
        self._exports.on_change = partial(self._peers.close_clients, changed)
        self._inspection = Inspection(core, ledger, cluster)
        self._fsck = Fsck(core, ledger, self._order, self._do)
        self._inbox: list[Work] = []
        self._wake = trio.Event()
        self._has_room = True
        self._room_checked_s = 0.0
        self._nursery: trio.Nursery | None = None
        self._in_burst = self._stepping = False
        self._fatal: BaseException | None = None
        self.steps_total = self.records_total = self.requests_total = 0
        self._in_charge_s = trio.current_time()
        self._holding = Holding(core, self._release)
        self.following = Following(
            ledger, core.shadows, cluster, do=self._do, confirmed=self._holding.let_go
        )

    # --- connections

    async def handle(self, connection: Connection) -> None:
        """One connection, from handshake to its end."""
        role = await accept(
            connection,
            key=self._key,
            cluster=self._cluster,
            epoch=self._ledger.epoch,
            keyless=False,
        )
        peer = self._peers.add(connection, role)
        on_message = {"chunkd": self._on_server, "shadow": self._on_shadow}.get(
            role, self._on_client
        )
        if role == "shadow":
            self.following.add(peer)
        connection.after_burst = self._after_burst
        try:
            await connection.run(partial(on_message, peer))
        finally:
            self._peers.remove(peer)
            if role == "shadow":
                self.following.remove(peer)
            if peer.server:
                self._do(partial(self._server_lost, peer.server))

    def _server_lost(self, server: int) -> None:
        if self._peers.of_server(server) is None:
            log.warning("server.lost server=%016x", server)
            self._core.fleet.lost(server)

    def _do(self, work: Work) -> None:
        """In the next step: at the end of a burst of requests, else as soon as may be."""
        self._inbox.append(work)
        if not self._in_burst:
            self._wake.set()

    def _after_burst(self) -> None:
        """Decide at once while the disk is quick: spares a task switch each way."""
        self._in_burst = False
        if not self._inbox:
            return
        if self._stepping or not self._ledger.syncs_quickly:
            self._wake.set()
            return
        try:
            records = self._decide(self._take_work())
            self._ledger.commit_now(records)
            self._answer(records)
        except BaseException as error:
            self._fatal = error  # not this connection's to survive
            self._wake.set()
        if self._inbox:
            self._wake.set()

    def _on_client(
        self,
        peer: Peer,
        connection: Connection,
        request: int,
        message: Message,
        payload: memoryview | None,
    ) -> None:
        self.requests_total += 1
        self._in_burst = True
        caller = (peer.number, request)
        kind = type(message)
        if kind in OPERATORS:
            self._exports.require_operator(connection.host)
        if isinstance(message, m.Mutate):
            self._do(partial(self._mutate, peer, caller, message))
        elif isinstance(message, UNNUMBERED):
            self._do(partial(self._change, peer, caller, message))
        elif isinstance(message, m.OpenSession):
            self._do(partial(self._open_session, peer, caller, message))
        elif isinstance(message, m.CloseSession):
            self._do(partial(self._core.joining.close, peer.session, caller, message))
        elif isinstance(message, m.Barrier):
            self._do(partial(self._core.fleet.barriers.begin, caller, message))
        elif isinstance(message, m.ForgetShadow):
            self._do(partial(self._forget_shadow, caller, message))
        elif isinstance(message, m.Drain):
            self._do(partial(self._core.fleet.draining.order, caller, message))
        elif kind in (m.ClusterStatus, m.CheckFilesystem, m.DrainDirectory):
            assert self._nursery is not None
            self._nursery.start_soon(self._answer_inspection, caller, message)
        else:
            self._read(peer, caller, message)

    def _read(self, peer: Peer, caller: Caller, message: Message) -> None:
        if type(message) is m.Renew:
            assert isinstance(message, m.Renew)
            sessions = self._core.engine.sessions
            if not sessions.renew(peer.session, trio.current_time(), message.low):
                raise DeadSession("the session has ended")
        answer = self._core.machine.try_read(peer.session, message)
        if answer is None:
            self._do(partial(self._core.machine.read, peer.session, caller, message))
        else:
            peer.connection.reply(caller[1], answer)

    def _mutate(self, peer: Peer, caller: Caller, message: m.Mutate) -> None:
        self._core.machine.mutate(peer.session, caller, message, has_room=self._has_room)

    def _change(self, peer: Peer, caller: Caller, message: Message) -> None:
        self._core.machine.change(peer.session, caller, message, has_room=self._has_room)

    def _open_session(self, peer: Peer, caller: Caller, message: m.OpenSession) -> None:
        try:
            granted = self._exports.access_of(peer.connection.host, message.mount)
            session, again = self._core.joining.open(caller, message, self._cluster, granted)
        except GfsError as error:
            self._peers.reply(caller, error)
            return
        if session:
            self._peers.bind_session(peer, session)
            for send in again:
                self._send(send)

    async def _answer_inspection(self, caller: Caller, message: Message) -> None:
        answer: Message
        try:
            if isinstance(message, m.CheckFilesystem):
                answer = await self._fsck.answer(message)
            elif isinstance(message, m.DrainDirectory):
                answer = await directory_drains.pass_on(self._core.engine, self._order, message)
            else:
                answer = await self._inspection.answer()
        except GfsError as error:
            self._peers.reply(caller, error)
        else:
            self._peers.reply(caller, answer)

    async def _order(self, server: int, message: Message, timeout_s: float) -> Message:
        """Ask a chunk server outside of any step."""
        connection = self._peers.of_server(server)
        if connection is None:
            raise Unreachable(f"chunk server {server:016x} is not connected")
        return await connection.call(message, timeout_s=timeout_s)

    def _on_shadow(
        self,
        peer: Peer,
        connection: Connection,
        request: int,
        message: Message,
        payload: memoryview | None,
    ) -> None:
        if isinstance(message, m.StepDown):
            log.warning("master.steps-down shadow=%s", connection.peer)
            self._do(partial(self._step_down, (peer.number, request), message))
        else:
            self.following.on_message(peer, request, message)

    def _forget_shadow(self, caller: Caller, message: m.ForgetShadow) -> None:
        self._core.shadows.forget(message.shadow)
        engine = self._core.engine
        engine.answer(Pending(0, caller, message, engine.now_s), m.Ok())

    def _step_down(self, caller: Caller, message: m.StepDown) -> None:
        """Nothing is decided from now on; what was is handed on first, then the end is told."""
        self._core.step_down()
        engine = self._core.engine
        answer = m.SteppedDown(engine.epoch, engine.position)
        engine.answer(Pending(0, caller, message, engine.now_s), answer)

    def _on_server(
        self,
        peer: Peer,
        connection: Connection,
        request: int,
        message: Message,
        payload: memoryview | None,
    ) -> None:
        caller = (peer.number, request)
        if isinstance(message, m.RegisterServer):
            self._do(partial(self._register, peer, caller, message))
        elif not peer.server:
            raise NotReady("register first")
        elif isinstance(message, m.Heartbeat):
            self._core.fleet.heartbeat(peer.server, message, trio.current_time())
            engine = self._core.engine
            # Not what no shadow may have yet: a promotion would miss it, and nobody was told.
            connection.post(m.HeartbeatAnswer(engine.epoch, self._core.shadows.confirmed()))
        elif isinstance(message, m.ReportReplicas):
            self._do(partial(self._report, peer.server, caller, message))
        else:
            raise RemoteProtocolError(f"{type(message).__name__} from a chunk server")

    def _register(self, peer: Peer, caller: Caller, message: m.RegisterServer) -> None:
        self._refuse_lost_history(message)
        server = message.member.server
        if self._peers.of_server(server) not in (None, peer.connection):
            self._core.fleet.lost(server)
        try:
            self._core.fleet.register(caller, message)
        except GfsError as error:
            self._peers.reply(caller, error)
            return
        self._peers.bind_server(peer, server)
        self._core.machine.resume_waiting()
        log.info("server.registered server=%016x address=%s", server, message.member.address)

    def _report(self, server: int, caller: Caller, message: m.ReportReplicas) -> None:
        try:
            self._core.fleet.report(server, caller, message)
        except GfsError as error:
            self._peers.reply(caller, error)

    def _refuse_lost_history(self, message: m.RegisterServer) -> None:
        """A server that has heard of more than our log holds: we are an old copy.

        Going on would hand out inode numbers and handles a second time, and judge
        chunks that this history does not know. Nobody is answered; the process ends.
        """
        engine = self._core.engine
        lost = engine.reader.get(META, LOST_KEY)
        lost_on_purpose = lost is not None and message.heard_epoch < int(lost.value)
        unknown = message.highest_committed > engine.position and not lost_on_purpose
        if message.epoch > engine.epoch:
            raise StorageFailed(
                f"chunk server {message.member.server:016x} obeys epoch {message.epoch}: this"
                f" master, of epoch {engine.epoch}, has been superseded: it is not the newest copy"
            )
        if unknown:
            raise StorageFailed(
                f"chunk server {message.member.server:016x} has heard of position"
                f" {message.highest_committed} in epoch {message.epoch}; this log ends at"
                f" {engine.position} in epoch {engine.epoch}: it is not the newest copy"
            )

    # --- steps

    async def run(self) -> None:
        """Decide for ever, hearing connections between steps. Raises what makes it impossible."""
        async with trio.open_nursery() as nursery:
            self._nursery = self.following.nursery = nursery
            nursery.start_soon(self._ticks)
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                while self._inbox and self._fatal is None:
                    await self._step()
                    await trio.lowlevel.checkpoint()
                if self._fatal is not None:
                    raise self._fatal

    async def _ticks(self) -> None:
        while True:
            await trio.sleep(TICK_S)
            now_s = trio.current_time()
            self._core.notice(now_s, self._peers.silent_for())
            self.following.tick()
            self._let_clients_look(now_s)
            self._holding.let_go()
            if self._core.has_due_work(now_s):
                self._do(self._core.tick)

    def _let_clients_look(self, now_s: float) -> None:
        """Who waits for a master that is not in charge dials anew: there may be another."""
        if self._core.in_charge(now_s):
            self._in_charge_s = now_s
        elif now_s - self._in_charge_s > LOOK_ELSEWHERE_S:
            self._in_charge_s = now_s
            self._peers.close_clients(NotReady("not in charge"))

    async def _step(self) -> None:
        self._stepping = True
        records = self._decide(self._take_work())
        await self._ledger.commit(records)
        self._answer(records)
        self._stepping = False

    def _take_work(self) -> list[Work]:
        work, self._inbox = self._inbox[:GROUP_MAX], self._inbox[GROUP_MAX:]
        return work

    def _decide(self, work: list[Work]) -> list[Record]:
        now_s = trio.current_time()
        if now_s - self._room_checked_s > SPACE_CHECK_S:
            self._check_room(now_s)
        self._ledger.begin()
        self._core.begin(now_s, time.time_ns())
        for item in work:
            item()
        return self._core.take_records()

    def _answer(self, records: list[Record]) -> None:
        self.steps_total += 1
        self.records_total += len(records)
        self.following.offer()
        self._holding.release(self._core.committed())

    def _check_room(self, now_s: float) -> None:
        self._room_checked_s = now_s
        has_room = self._ledger.has_room()
        if has_room != self._has_room:
            log.log(
                logging.INFO if has_room else logging.ERROR,
                "space.%s directory=%s",
                "returned" if has_room else "exhausted",
                self._ledger.directory,
            )
        self._has_room = has_room

    def _release(self, ready: Ready) -> None:
        for session in ready.ended:
            self._peers.close_session(session)
        for send in ready.sends:
            self._send(send)
        for caller, answer in ready.replies:
            self._peers.reply(caller, answer)

    def _send(self, send: Send) -> None:
        """One of the core's own requests; a session without a connection gets it when back."""
        if send.to_server:
            connection = self._peers.of_server(send.to_server)
            if connection is None:
                self._do(partial(self._core.engine.answered, send.token, Unreachable("gone")))
                return
        else:
            connection = self._peers.of_session(send.to_session)
            if connection is None:
                return
        connection.request(send.message, partial(self._answered, send))

    def _answered(self, send: Send, answer: Message | GfsError, payload: memoryview | None) -> None:
        if isinstance(answer, Unreachable) and send.to_session:
            return  # asked again when the session is back; given up when it is dead
        if isinstance(answer, GfsError) and isinstance(send.message, m.Invalidate):
            self._not_dropped(send.to_session, answer)
            return
        replies = self._core.engine.acknowledged(send.token)
        if replies is None:
            self._do(partial(self._core.engine.answered, send.token, answer))
            return
        self._holding.release(Ready(replies=replies))

    def _not_dropped(self, session: int, error: GfsError) -> None:
        """It may still show what it was told to drop: it comes back and is told again."""
        log.warning("invalidate.refused session=%016x error=%s", session, error)
        connection = self._peers.of_session(session)
        if connection is not None:
            connection.close(error)

    def statistics(self) -> dict[str, object]:
        """Figures for people and metrics."""
        return {
            "steps_total": self.steps_total,
            "records_total": self.records_total,
            "requests_total": self.requests_total,
            **self._inspection.statistics(),
        }

    def status(self) -> dict[str, object]:
        """What `gfs status` shows."""
        return self._inspection.status()
