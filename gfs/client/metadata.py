"""The link to the master: one session, requests that survive reconnections.

A read is asked again after a reconnection. A mutation carries a number of the
session and is sent again with the same number until it is answered, so the
master can give the first outcome again. A *refusal* is not logged by the
master, so a mutation refused for now (not ready, too few servers) is asked
anew under a new number; otherwise its number would hold back the window.

Order after a reconnection: OpenSession with what this process still holds
(directories, opens, writers), then everything unanswered in its first order.

A session that the master has ended is *dead*: everything fails with `DeadSession`
until the owner calls `reopen`.
"""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec
import trio

from gfs.client.cache_lease import CacheLease
from gfs.client.dialling import dial_master
from gfs.client.doubt import Doubts
from gfs.client.obeying import Orders
from gfs.client.settings import ClientSettings, GroupsOf, groups_of_process
from gfs.client.waiting import Waiting, pause
from gfs.connection import Connection
from gfs.errors import (
    DeadSession,
    GfsError,
    ProtocolError,
    Refused,
    RemoteProtocolError,
    TryAgain,
    Unreachable,
    UsageError,
)
from gfs.messages import (
    Access,
    Actor,
    CloseSession,
    Done,
    GroupsNeeded,
    Message,
    Mutate,
    OpenSession,
    Operation,
    Renew,
    Renewed,
    SessionOpened,
)

log = logging.getLogger(__name__)

IN_FLIGHT_MAX = 1000  # the master remembers 1,024 numbers above the lowest unanswered
BACKOFF_MIN_S, BACKOFF_MAX_S = 0.05, 0.25  # a restarted master is there within a second
SWEEP_S = 0.5  # how exactly time limits are kept
HOPELESS = (Refused, ProtocolError)  # at the first connection

Declared = tuple[Sequence[int], Sequence[int], Sequence[int]]
_M = TypeVar("_M", bound=Message)


class MasterLink:
    """See the module's text. Start `run` in a nursery before use.

    Attributes:
      session, epoch, cluster, chunk_bytes, goal, notice, limits: as the master said.
      lease: for how long cached metadata may be trusted. dead: why the session ended, or None.
      tickets: of locks held or asked for. fences: of locks on which all mutations depend.
      doubts: own mutations that may still land. requests_total: sent, but for renewals.
      orders: what the master asks, and who obeys.
      declare, on_dead, on_reconnected, on_new_epoch, on_resumed, groups_of: the owner's;
      before_mutation: called before one is sent, to send what must go first.
      on_unheard: a read's question and the answer that came after its asker had gone.
    """

    def __init__(self, settings: ClientSettings) -> None:
        self._settings = settings
        self.session = self._root = self.epoch = 0
        self.cluster = settings.cluster
        self.chunk_bytes = self.goal = 0
        self.notice = ""
        self.limits: list[Access] = []
        self.lease, self.lease_s = CacheLease(), 0.0
        self.lease.on_void = self._lease_void
        self.dead: DeadSession | None = None
        self.declare: Callable[[], Declared] = lambda: ((), (), ())
        self.orders = Orders()
        self.on_dead: Callable[[], None] = lambda: None
        self.on_reconnected: Callable[[], None] = lambda: None
        self.on_new_epoch: Callable[[], None] = lambda: None
        self.on_resumed: Callable[[], None] = lambda: None
        self.before_mutation: Callable[[Operation], None] = lambda _: None
        self.on_unheard: Callable[[Message, Message | GfsError], None] = lambda *_: None
        self.groups_of: GroupsOf = groups_of_process
        self.tickets: dict[int, None] = {}
        self.fences: list[tuple[int, int]] = []
        self.reconnections, self.requests_total, self._closing = 0, 0, False
        self._connection: Connection | None = None
        self._waiting: dict[Waiting, None] = {}
        self.doubts = Doubts()
        self._numbers: dict[int, Waiting] = {}  # unanswered, ascending
        self._next_number = 1
        self._room = trio.Event()
        self._revive = trio.Event()

    # --- asking

    async def read(self, message: Message, *, timeout_s: float | None = None) -> Message:
        """Ask what changes nothing; asked again over reconnections.

        Raises:
          Refused: the master's answer. TimedOut: none in time. DeadSession.
        """
        limit_s = self._settings.request_timeout_s if timeout_s is None else timeout_s
        deadline = trio.current_time() + limit_s
        pause_s = BACKOFF_MIN_S
        while True:
            try:
                answer = await self._ask(message, deadline)
            except TryAgain as error:
                pause_s = await pause(error, pause_s, deadline)
                continue
            if type(answer) is not GroupsNeeded:
                return answer
            message = msgspec.structs.replace(
                message, actor=self._with_groups(getattr(message, "actor", None))
            )

    async def ask(self, message: Message, kind: type[_M], *, timeout_s: float | None = None) -> _M:
        """`read` that insists on the kind of the answer."""
        answer = await self.read(message, timeout_s=timeout_s)
        if not isinstance(answer, kind):
            raise RemoteProtocolError(f"{kind.__name__} expected, got {type(answer).__name__}")
        return answer

    async def mutate(
        self, operation: Operation, actor: Actor, *, timeout_s: float | None = None
    ) -> Done:
        """Have a mutation logged, once, whatever connections do meanwhile.

        Raises:
          Refused, TryAgain of the ask-the-master kind: nothing was changed.
          TimedOut: the outcome is unknown. DeadSession.
        """
        limit_s = self._settings.mutation_timeout_s if timeout_s is None else timeout_s
        deadline = trio.current_time() + limit_s
        pause_s = BACKOFF_MIN_S
        while True:
            try:
                answer = await self._mutate_once(operation, actor, deadline)
            except TryAgain as error:
                pause_s = await pause(error, pause_s, deadline)
                continue
            if type(answer) is Done:
                return answer
            if type(answer) is not GroupsNeeded:
                raise RemoteProtocolError(f"Done expected, got {type(answer).__name__}")
            actor = self._with_groups(actor)

    async def _mutate_once(self, operation: Operation, actor: Actor, deadline: float) -> Message:
        while self._next_number - self._low() >= IN_FLIGHT_MAX:
            if (low := self._low()) in self.doubts:
                del self._numbers[low]  # others need the room; it stays in doubt
            else:
                await self._room.wait()
        self.before_mutation(operation)
        number = self._next_number
        self._next_number += 1
        mutate = Mutate(number, min(self._low(), number), actor, operation, self.fences)
        waiting = Waiting(mutate, deadline)
        self._numbers[number] = waiting
        try:
            return await self._answer(waiting)
        finally:
            waiting.expire()  # if the caller was cancelled
            if waiting.expired and waiting.sent and self._numbers.get(number) is waiting:
                self.doubts.begin(number, waiting, operation, lambda: self._free(number, waiting))
            else:
                self._free(number, waiting)

    def _free(self, number: int, waiting: Waiting) -> None:
        if self._numbers.get(number) is waiting:  # else it is of a session before this one
            del self._numbers[number]
        self._room.set()
        self._room = trio.Event()

    def _low(self) -> int:
        return next(iter(self._numbers), self._next_number)

    def _with_groups(self, actor: Actor | None) -> Actor:
        if actor is None or actor.groups is not None:
            raise RemoteProtocolError("groups asked for that were given, or cannot be")
        groups = self.groups_of(actor.pid)
        return Actor(actor.uid, actor.gid, actor.pid, groups)

    async def _ask(self, message: Message, deadline: float) -> Message:
        waiting = Waiting(message, deadline)
        try:
            return await self._answer(waiting)
        finally:
            waiting.expire()  # if the caller was cancelled
            if waiting.expired:
                waiting.on_late = lambda answer: self.on_unheard(message, answer)

    async def _answer(self, waiting: Waiting) -> Message:
        if self.dead is not None:
            waiting.finish(DeadSession(str(self.dead)))
        self.requests_total += 1
        self._waiting[waiting] = None
        try:
            if waiting.answer is None:
                self._send(waiting)
            await waiting.event.wait()
        finally:
            self._waiting.pop(waiting, None)
        answer = waiting.answer
        assert answer is not None
        if isinstance(answer, GfsError):
            raise answer
        return answer

    def tell(self, message: Message) -> bool:
        """Send what a reconnection would make superfluous (it declares anew); no answer kept.

        False: there is no session to tell it in now.
        """
        if self._connection is None:
            return False
        self.requests_total += 1
        self._connection.request(message, lambda *_: None)
        return True

    def _send(self, waiting: Waiting) -> None:
        connection = self._connection
        if connection is None:
            return  # sent when the session is open again

        def on_reply(answer: Message | GfsError, _: memoryview | None) -> None:
            if isinstance(answer, Unreachable) and connection.closed is not None:
                return  # sent again on the next connection
            if isinstance(answer, DeadSession):
                self._die(answer)
            waiting.finish(answer)

        message = waiting.message
        if type(message) is Mutate:
            message.low = self._low()
        waiting.sent = True
        connection.request(message, on_reply)

    # --- the connection's life

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Connect, serve, reconnect, for ever; `started` once the session is open.

        Raises:
          GfsError, UsageError: the first connection is hopeless or did not come in time.
        """
        limit_s = self._settings.connect_timeout_s
        give_up = trio.current_time() + limit_s if limit_s is not None else float("inf")
        pause_s = BACKOFF_MIN_S
        async with trio.open_nursery() as nursery:
            self.orders.nursery = nursery
            nursery.start_soon(self._sweep)
            nursery.start_soon(self.lease.watch)
            while True:
                if self.dead is not None:
                    await self._revive.wait()
                opened_before = self.reconnections
                try:
                    await self._live(task_status)
                except (GfsError, UsageError) as error:
                    first = self.reconnections == 0 and not self.session
                    hopeless = isinstance(error, (*HOPELESS, UsageError))
                    if first and (hopeless or trio.current_time() >= give_up):
                        raise
                    log.info("master.lost why=%s", error)
                if self.reconnections > opened_before:  # the master served us
                    pause_s = BACKOFF_MIN_S
                await trio.sleep(pause_s)
                pause_s = min(pause_s * 2, BACKOFF_MAX_S)

    async def _live(self, task_status: trio.TaskStatus[None]) -> None:
        connection = await dial_master(self._settings, self.epoch)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.run, self.orders.on_message)
            try:
                if self.epoch and connection.peer_epoch != self.epoch:
                    # What the old master had still to invalidate died with it. The new one
                    # decides nothing before we are back, so nothing stale may come back.
                    self.doubts.end_all()
                    self.on_new_epoch()
                await self._open_session(connection)
            except GfsError as error:
                connection.close(error)
                if isinstance(error, DeadSession):
                    self._die(error)
            except BaseException:
                connection.close()
                raise
            else:
                self._connection = connection
                for waiting in [*self._late(), *self._waiting]:
                    self._send(waiting)
                if self.reconnections:
                    self.on_reconnected()
                else:
                    task_status.started()
                self.reconnections += 1
        self._connection = None
        if connection.closed is not None:
            raise connection.closed

    def _late(self) -> list[Waiting]:
        """Of those in doubt, what may be asked again: numbers the master still keeps."""
        return [late for late in self.doubts.waiting() if late in self._numbers.values()]

    async def _open_session(self, connection: Connection) -> None:
        directories, opens, writers = self.declare()
        granted = self.lease.ask()
        opened = await connection.call(
            OpenSession(
                session=self.session,
                host=platform.node(),
                mount=self._settings.mount,
                pid=os.getpid(),
                uid=os.getuid(),
                directories=list(directories),
                opens=list(opens),
                writers=list(writers),
                unanswered=list(self._numbers),
                wish=self._settings.wish,
                root=self._root,
                locks=list(self.tickets),
            ),
            timeout_s=self._settings.request_timeout_s,
        )
        if not isinstance(opened, SessionOpened):
            raise RemoteProtocolError(f"SessionOpened expected, got {type(opened).__name__}")
        self.session, self.epoch = opened.session, opened.epoch
        self.cluster, self.chunk_bytes, self.goal = opened.cluster, opened.chunk_bytes, opened.goal
        self.lease_s, self.notice = opened.lease_s, opened.notice
        self.limits, self._root = opened.limits, opened.root
        granted(opened.lease_s)
        log.info("session.open session=%d epoch=%d", self.session, self.epoch)

    async def _sweep(self) -> None:
        """Time limits of requests, and the renewal of the lease each third of it."""
        renewed_at = trio.current_time()
        while True:
            await trio.sleep(min(SWEEP_S, self.lease_s / 6) if self.lease_s else SWEEP_S)
            now = trio.current_time()
            for waiting in [waiting for waiting in self._waiting if waiting.deadline < now]:
                waiting.expire()
            if self._connection is not None and now - renewed_at >= self.lease_s / 3:
                renewed_at = now
                self._renew(self._connection)

    def _renew(self, connection: Connection) -> None:
        granted = self.lease.ask()

        def on_reply(answer: Message | GfsError, _: memoryview | None) -> None:
            if isinstance(answer, Renewed):
                self.epoch = answer.epoch
                granted(self.lease_s)
            elif isinstance(answer, DeadSession):
                self._die(answer)

        connection.request(Renew(self._low()), on_reply)

    def _lease_void(self) -> None:
        self.on_resumed()
        if self._connection is not None:
            self._renew(self._connection)

    def _die(self, error: DeadSession) -> None:
        if self.dead is not None or self._closing:
            return
        log.error("session.dead session=%d why=%s", self.session, error)
        self.dead = error
        self.lease.session_ended()
        for waiting in list(self._waiting):
            waiting.finish(DeadSession(str(error)))
        if self._connection is not None:
            self._connection.close(error)
        self.doubts.end_all()
        self.on_dead()

    def reopen(self) -> None:
        """After death: begin a new session; `declare` is asked what goes into it."""
        self.dead = None
        self.session = self._root = 0
        self._next_number = 1
        self._numbers.clear()
        self.tickets.clear()
        self._revive.set()
        self._revive = trio.Event()

    async def close(self, timeout_s: float = 2.0) -> None:
        """End the session at the master, if it can be told in time."""
        connection = self._connection
        if connection is None or self.dead is not None:
            return
        self._closing = True
        try:
            await connection.call(CloseSession(), timeout_s=timeout_s)
        except GfsError as error:
            log.info("session.close failed: %s", error)
