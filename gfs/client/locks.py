"""Locks of the cluster: held for the length of a block, and never longer than the lease.

    async with client.locks.lock(ino, actor) as held:
        ...                       # cancelled when the lock may be lost
    # LockLost is raised here if it was

A lock is the session's. Nobody else gets it before the master has ended the session, which
it does not before the lease, as this process counts it, is over. So the block is cancelled
while a quarter of the lease is left: that long it has to stop. What it wrote through this
client is committed before the lock is given up; if the session is lost, what was not
committed by then is given up instead, since the next holder may have begun.

Not covered: a process that stands still (SIGSTOP, a frozen virtual machine) past its lease
and then writes elsewhere before it looks at its clock. For that there is `fence`: a number
that rises with every grant, to be handed to whoever can compare.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import trio

from gfs.client.metadata import MasterLink
from gfs.errors import DeadSession, GfsError, LockHeld, LockLost
from gfs.messages import Actor, DropLock, LockTaken, Ok, TakeLock

STOP_SHARE = 0.25  # of the lease, left when the block is cancelled
WATCH_S = 0.1
RELEASE_S = 5.0  # a release that takes longer goes on behind the block
AGAIN_S = 0.5


class HeldLock:
    """A lock that this process holds, as far as it can know.

    Attributes:
      ino: of what is locked. fence: rises with every grant of this lock.
      lost: it may be another's by now. over: the block has ended.
    """

    def __init__(self, link: MasterLink, ask: TakeLock, taken: LockTaken) -> None:
        self.ino = ask.ino
        self.ticket = ask.ticket
        self.shared = ask.shared
        self.fence = taken.fence
        self.lost = False
        self.over = False
        self._link = link
        self._session = taken.session

    @property
    def lease_s(self) -> float:
        """How long a lease is when it has just been renewed."""
        return self._link.lease_s

    def left_s(self) -> float:
        """Seconds for which nobody else can get it; 0 if somebody may have it."""
        if self._link.session != self._session or self._link.dead is not None:
            return 0.0
        return max(0.0, self._link.lease.session_left())

    def require(self) -> None:
        """Call before what must not happen after the lock is lost.

        Raises:
          LockLost: the lease is over, or too near its end to begin anything.
        """
        if self.lost or self.left_s() <= self._link.lease_s * STOP_SHARE:
            self.lost = True
            raise LockLost("the lock may be another's: its lease could not be renewed")


class Locks:
    """All locks of one client.

    Args:
      flush: commits everything that was written through this client.

    Attributes:
      held: by ticket; until the master has been told that they are not.
    """

    def __init__(
        self, link: MasterLink, nursery: trio.Nursery, flush: Callable[[], Awaitable[None]]
    ) -> None:
        self.held: dict[int, HeldLock] = {}
        self._link = link
        self._nursery = nursery
        self._flush = flush
        self._tickets = 0

    @asynccontextmanager
    async def lock(
        self,
        ino: int,
        actor: Actor,
        *,
        shared: bool = False,
        wait: bool = True,
        timeout_s: float = math.inf,
    ) -> AsyncIterator[HeldLock]:
        """Hold the lock of an inode for the block; see the module's text.

        Raises:
          LockHeld: another has it, and `wait` is False, or `timeout_s` is over.
          LockLost: after the block, which was cancelled.
          Refused: no permission, no such inode.
        """
        self._tickets += 1
        ask = TakeLock(ino, self._tickets, shared, wait, actor)
        held = await self._take(ask, timeout_s)
        self.held[held.ticket] = held
        try:
            with trio.CancelScope() as scope:
                self._nursery.start_soon(self._watch, held, scope)
                yield held
                await self._flush()
            if held.lost:
                raise LockLost("the lock's lease could not be renewed in time")
        finally:
            held.over = True
            await self._release(ask, 0.0 if held.lost else RELEASE_S)

    async def _take(self, ask: TakeLock, timeout_s: float) -> HeldLock:
        taken: LockTaken | None = None
        try:
            with trio.move_on_after(timeout_s):
                taken = await self._ask(ask)
        finally:
            if taken is None:
                await self._release(ask, RELEASE_S)
        if taken is None:
            raise LockHeld("the lock was not to be had in time")
        return HeldLock(self._link, ask, taken)

    async def _ask(self, ask: TakeLock) -> LockTaken:
        while True:
            self._link.tickets[ask.ticket] = None  # a session that ends takes them with it
            try:
                return await self._link.ask(ask, LockTaken, timeout_s=math.inf)
            except DeadSession:
                if self._link.dead is not None:  # and no other session is opened
                    raise

    async def _watch(self, held: HeldLock, scope: trio.CancelScope) -> None:
        """Cancel the block in time."""
        while not held.over:
            try:
                held.require()
            except LockLost:
                scope.cancel()
                return
            await trio.sleep(WATCH_S)

    async def _release(self, ask: TakeLock, wait_s: float) -> None:
        """Not to be cancelled: a lock that nobody knows of is held as long as the session."""
        done = trio.Event()
        self._nursery.start_soon(self._drop, self._link.session, ask, done)
        with trio.CancelScope(shield=True), trio.move_on_after(wait_s):
            await done.wait()

    async def _drop(self, session: int, ask: TakeLock, done: trio.Event) -> None:
        """When all is committed; until the master has heard it, or the session is another."""
        link = self._link
        try:
            if ask.ticket in self.held:
                await self._flush()
            link.tickets.pop(ask.ticket, None)  # a new connection would let go of it as well
            while link.session == session and link.dead is None:
                with suppress(GfsError):
                    await link.ask(DropLock(ask.ticket, ask.actor), Ok)
                    return
                await trio.sleep(AGAIN_S)
        finally:
            link.tickets.pop(ask.ticket, None)
            self.held.pop(ask.ticket, None)
            done.set()
