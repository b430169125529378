"""Locks on inodes: who holds them is logged, who waits is known here alone.

    asked -> waiting, in order of arrival -> held -> released
    a session that ends has neither

A lock that is held is an item and its session's: it survives every restart that the session
survives. Its number, the fence, is epoch and counter, so it only rises, whatever tail of the
log is lost. After a restart who waits asks again, and the order is that of the coming back.

Requests are not numbered: a ticket of the session says which lock is meant, so asking twice
does no harm, and a request that waits for hours holds back no other.

Source: Burrows, "The Chubby lock service" (2006) §2.4: sequencers; a lease held by the session.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from gfs import messages as m
from gfs.errors import GfsError, LockHeld, LockLost, NotReady, Refused, StaleInode
from gfs.ids import draw
from gfs.items import INODES, LOCKS, SESSIONS, Lock, Session
from gfs.messages import Actor
from gfs.permissions import READ, ROOT_UID, WRITE
from master.core.decision import Decision
from master.core.engine import Answer, Engine, Pending, scan_all
from master.core.permissions import require

LOCKS_MAX = 1000  # of one session, held or waited for: its end is one record
LISTED_MAX = 500

Ticket = tuple[int, int]  # session, and its own number
Key = tuple[int, int]  # inode, fence


@dataclass
class Waiter:
    """Somebody who waits; `pending` is replaced when it asks again over a new connection."""

    ticket: Ticket
    ask: m.TakeLock
    since_ns: int
    pending: Pending


class Locks:
    """Called inside a step, except `listing`."""

    def __init__(self, engine: Engine, finish: Callable[[Pending, Answer], None]) -> None:
        self._engine = engine
        self._finish = finish
        self._held: defaultdict[int, dict[int, Key]] = defaultdict(dict)  # by session and ticket
        self._queues: dict[int, list[Waiter]] = {}
        self._waiting: defaultdict[int, dict[int, Waiter]] = defaultdict(dict)
        self._due: dict[int, None] = {}  # inodes of which a lock has become free
        self._fences = 0
        for (ino, fence), lock in scan_all(engine.tables, LOCKS):
            self._held[lock.session][lock.ticket] = (ino, fence)

    # --- what sessions ask

    def take(self, pending: Pending, ask: m.TakeLock) -> None:
        """Answered now, refused now, or later.

        Raises:
          StaleInode, PermissionDenied. LockHeld: it is another's, and `wait` is not wanted.
          NeedGroups
        """
        engine, session = self._engine, pending.session
        held = self._held[session].get(ask.ticket)
        if held is not None:
            self._finish(pending, m.LockTaken(session, held[1]))
            return
        waiter = self._waiting[session].get(ask.ticket)
        if waiter is not None:
            self._finish(waiter.pending, NotReady("asked again"))
            waiter.pending = pending
            return
        decision = engine.decision(session, ask.actor)
        require(decision.inode(ask.ino), ask.actor, READ if ask.shared else WRITE)
        if len(self._held[session]) + len(self._waiting[session]) >= LOCKS_MAX:
            raise Refused(f"a session has at most {LOCKS_MAX} locks")
        waiter = Waiter((session, ask.ticket), ask, engine.now_ns, pending)
        if ask.ino not in self._queues and self._is_free(ask):
            self._grant(waiter)
        elif not ask.wait:
            raise LockHeld("the lock is held")
        else:
            self._queues.setdefault(ask.ino, []).append(waiter)
            self._waiting[session][ask.ticket] = waiter

    def drop(self, pending: Pending, ask: m.DropLock) -> None:
        """Release, or wait no longer; of what is neither nothing happens."""
        self._let_go(pending.session, [ask.ticket], ask.actor)
        self._finish(pending, m.Ok())
        self.serve()

    def declare(self, session: int, tickets: Iterable[int]) -> None:
        """The session is taken up: of what it does not name nobody holds, or waits for, it."""
        named = set(tickets)
        mine = [*self._held.get(session, ()), *self._waiting.get(session, ())]
        self._let_go(session, [ticket for ticket in mine if ticket not in named], Actor(0, 0))
        self.serve()

    def require(self, fences: Iterable[Key]) -> None:
        """Raises LockLost unless all these grants still stand."""
        for ino, fence in fences:
            if self._engine.tables.get(LOCKS, (ino, fence)) is None:
                raise LockLost(f"lock {fence} of inode {ino} is not held any more")

    # --- the end of sessions

    def delete_all(self, decision: Decision, session: int) -> None:
        """In the record that ends the session."""
        for key in self._held.get(session, {}).values():
            decision.tx.delete(LOCKS, key)

    def end_session(self, session: int) -> None:
        """Its locks were deleted with it."""
        for ino, _ in self._held.pop(session, {}).values():
            self._due[ino] = None
        for waiter in list(self._waiting.get(session, {}).values()):
            self._wait_no_longer(waiter)
        self._waiting.pop(session, None)
        self.serve()

    # --- inside

    def serve(self) -> None:
        """Give what has become free to who waits; while nothing may be decided, later."""
        if not self._engine.sessions.gate_open():
            return
        while self._due:
            ino = next(iter(self._due))
            del self._due[ino]
            self._serve(ino)

    def _serve(self, ino: int) -> None:
        queue = self._queues.get(ino, [])
        while queue and self._is_free(queue[0].ask):
            waiter = queue[0]
            self._forget(waiter)
            if self._engine.tables.get(INODES, (ino,)) is None:
                self._finish(waiter.pending, StaleInode("removed while one waited for its lock"))
            else:
                self._grant(waiter)

    def _is_free(self, ask: m.TakeLock) -> bool:
        """Locks held at one time are either one, or all shared."""
        first = self._engine.tables.range(LOCKS, ask.ino, limit=1)
        return not first or (ask.shared and bool(first[0][1].shared))

    def _grant(self, waiter: Waiter) -> None:
        engine, ask, (session, ticket) = self._engine, waiter.ask, waiter.ticket
        self._fences += 1
        key = ask.ino, draw(engine.epoch, self._fences)
        decision = engine.decision(session, ask.actor)
        lock = Lock(session, ticket, ask.shared, engine.now_ns, ask.actor.uid, ask.actor.pid)
        decision.tx.create(LOCKS, key, lock)
        engine.on_behalf("lock", decision)
        self._held[session][ticket] = key
        self._finish(waiter.pending, m.LockTaken(session, key[1]))

    def _let_go(self, session: int, tickets: list[int], actor: Actor) -> None:
        engine = self._engine
        decision = engine.decision(session, actor)
        held = self._held.get(session, {})
        for ticket in tickets:
            key = held.pop(ticket, None)
            if key is not None:
                decision.tx.delete(LOCKS, key)
                self._due[key[0]] = None
            waiter = self._waiting.get(session, {}).get(ticket)
            if waiter is not None:
                self._wait_no_longer(waiter)
        engine.on_behalf("unlock", decision)

    def _wait_no_longer(self, waiter: Waiter) -> None:
        self._forget(waiter)
        self._due[waiter.ask.ino] = None  # who stood behind may share what is held
        self._finish(waiter.pending, LockHeld("it is not waited for any longer"))

    def _forget(self, waiter: Waiter) -> None:
        session, ticket = waiter.ticket
        del self._waiting[session][ticket]
        queue = self._queues[waiter.ask.ino]
        queue.remove(waiter)
        if not queue:
            del self._queues[waiter.ask.ino]

    # --- looking

    def listing(self, ask: m.ListLocks) -> m.LockListing:
        """As of what is committed; who waits for a lock stands behind who holds it."""
        reader = self._engine.reader
        after = (ask.after_ino, ask.after_fence) if ask.after_ino else None
        if ask.ino:
            found = reader.range(LOCKS, ask.ino, after=ask.after_fence, limit=LISTED_MAX)
        else:
            found = reader.scan(LOCKS, after=after, limit=LISTED_MAX)
        listed: list[m.LockState] = []
        for number, (key, lock) in enumerate(found):
            ino, fence = int(key[0]), int(key[1])
            listed.append(self._state(ino, fence, lock))
            is_last = number + 1 == len(found) or found[number + 1][0][0] != ino
            if is_last:
                listed += [self._waits(waiter) for waiter in self._queues.get(ino, ())]
        if not ask.ino and ask.actor.uid != ROOT_UID:
            listed = [one for one in listed if one.uid == ask.actor.uid]
        last = found[-1][0] if found else (0, 0)
        return m.LockListing(listed, len(found) == LISTED_MAX, int(last[0]), int(last[1]))

    def _waits(self, waiter: Waiter) -> m.LockState:
        ask, (session, ticket) = waiter.ask, waiter.ticket
        actor = ask.actor
        lock = Lock(session, ticket, ask.shared, waiter.since_ns, actor.uid, actor.pid)
        return self._state(ask.ino, 0, lock)

    def _state(self, ino: int, fence: int, lock: Lock) -> m.LockState:
        engine = self._engine
        session: Session | None = engine.reader.get(SESSIONS, (lock.session,))
        try:
            path = engine.queries.path(ino)
        except GfsError:
            path = b""
        host, mount = (session.host, session.mount) if session is not None else ("", "")
        return m.LockState(
            ino, path, fence, lock.shared, lock.since_ns,
            lock.session, host, mount, lock.pid, lock.uid,
        )  # fmt: skip
