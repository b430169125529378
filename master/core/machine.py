"""The master's machine: requests and answers in, records and messages out; nothing awaited.

    begin(now)                        a step: any number of the calls below
    mutate, read, open_session, ...   decide; records are applied to the open transaction
    take_records() -> records         the caller writes them to the log, syncs it, commits
    committed() -> Ready              answers and orders, which had to wait for that

Everything volatile lives in the small machines joined here: sessions, registry
(opens, interest), servers, seals. A request that must wait (for a seal, a
recall, servers, sessions after a restart) is parked and later decided anew
from nothing, so no decision is ever half done.

Modelled on etcd's raft: same state and same input give the same output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from gfs import messages as m
from gfs.errors import (
    DeadSession,
    GfsError,
    NoSpace,
    NotReady,
    TooFewServers,
    TooLarge,
)
from gfs.items import INODES
from gfs.messages import Done, GroupsNeeded, Message, Mutate
from gfs.open_flags import writes
from gfs.permissions import NeedGroups
from gfs.records import Record
from master.core import access, extents
from master.core.charging import charge
from master.core.decision import (
    Decision,
    NeedsCuts,
    NeedsRecall,
    NeedsSeal,
    NeedsSeals,
    NeedsServers,
    Suspend,
)
from master.core.engine import Answer, Caller, Engine, Pending
from master.core.locks import Locks
from master.core.operations import LIMITED, apply_operation, operation_name
from master.core.reading import Reading
from master.core.requests import as_of, parents_of, record_actor, shown, translate
from master.core.seals import Seals
from master.core.sessions import LiveSession
from master.core.snapshots import Preparing
from master.core.transaction import fits

SERVERS_WAIT_S = 60.0  # below the handler limit of a mount
UNNUMBERED = (m.TakeLock, m.DropLock, m.NoteAccess)
_CREATE = "create"  # as `operation_name` has it
_RESULT_DECODER = msgspec.msgpack.Decoder(Done)
_RESULT_ENCODER = msgspec.msgpack.Encoder()


class Machine:
    """See the module's text.

    Args:
      record_at: the record at a position, from the log.
    """

    def __init__(self, engine: Engine, *, record_at: Callable[[int], Record]) -> None:
        self.engine = engine
        self.seals = Seals(engine, self._resume)
        self.preparing = Preparing(engine, self.seals.when_sealed, self._resume)
        self.locks = Locks(engine, self._finish)
        self.reading = Reading(engine, self.locks)
        self._record_at = record_at
        self._at_gate: list[Pending] = []
        self._for_servers: list[Pending] = []
        self._cutting: list[Pending] = []  # truncations that go on with the next tick

    # --- mutations

    def mutate(
        self, session: int, caller: Caller, message: Mutate, *, has_room: bool = True
    ) -> None:
        """A numbered mutation of a session; without room on disk only what landed before."""
        engine = self.engine
        pending = Pending(session, caller, message, engine.now_s)
        live = engine.sessions.live.get(session)
        if live is None:
            engine.answer(pending, DeadSession("the session has ended"))
            return
        pending.turn = live.turn
        running = engine.in_flight.get((session, message.number))
        if running is not None:  # asked again over a new connection
            running.caller, running.turn = caller, live.turn
            return
        try:
            if live.position_of(message.number, message.low) is None and not has_room:
                raise NoSpace("the master's disk is full")
        except GfsError as error:
            engine.answer(pending, error)
            return
        try:
            translate(pending, live)
        except GfsError as error:
            engine.answer(pending, error)
            return
        pending.number = message.number
        engine.in_flight[session, message.number] = pending
        self._when_open(pending, self._decide)

    def _decide(self, pending: Pending) -> None:
        message = pending.message
        assert isinstance(message, Mutate)
        live = self._asker(pending)
        if live is None:
            return
        landed = live.landed.get(message.number)
        if landed is not None:
            self._replay(pending, live, message.operation, landed)
            return
        operation = message.operation
        if pending.confines is not None:
            try:
                pending.confines.require(operation, in_step=True)
            except GfsError as error:
                self._finish(pending, error)
                return
        if self.preparing.holds(pending, operation):
            return
        if live.mount:
            for parent in parents_of(operation):
                self.engine.registry.add_interest(pending.session, parent)
        decision = self.engine.decision(pending.session, message.actor)
        pending.uncache, decision.recalled = decision.uncache, pending.recalled
        try:
            self.locks.require(message.fences)
            done = apply_operation(self.engine.chunks, decision, operation)
            kind = type(operation)
            changes = charge(decision, limited=kind in LIMITED, known=kind is m.Rename)
        except NeedGroups:
            self._finish(pending, GroupsNeeded())
        except Suspend as why:
            self._park(pending, why)
        except GfsError as error:
            self._finish(pending, error)
        else:
            if live.mount and type(operation) is m.MakeNode and done.entry is not None:
                # A directory is complete in the cache of the mount that made it.
                self.engine.registry.add_interest(pending.session, done.entry.ino)
            self._record(decision, changes, pending, message, live, done)

    def _asker(self, pending: Pending) -> LiveSession | None:
        """The session that still waits for the answer; None: the request is over.

        What a session asked over a connection that it has replaced since, and has not
        asked again, is not decided: nobody would hear what it then holds open.
        """
        live = self.engine.sessions.live.get(pending.session)
        if live is None:
            self._finish(pending, DeadSession("the session has ended"))
            return None
        if pending.turn != live.turn:
            self._finish(pending, NotReady("asked over a connection that has been replaced"))
            return None
        return live

    def _replay(self, pending: Pending, live: LiveSession, operation: Message, landed: int) -> None:
        """The first outcome, from its record.

        A file that it created is open. If an earlier master decided it, nobody has told
        this session what changed since, so it drops what the answer shows before that comes.
        """
        engine = self.engine
        try:
            done = _RESULT_DECODER.decode(self._record_at(landed).result)
        except GfsError as error:
            self._finish(pending, error)
            return
        ino = done.entry.ino if done.entry else 0
        if isinstance(operation, m.Create) and engine.tables.get(INODES, (ino,)):
            engine.registry.add_open(pending.session, ino, writing=writes(operation.flags))
        if landed <= engine.first_position and live.mount:
            if isinstance(operation, m.MakeNode) and ino:
                engine.registry.add_interest(pending.session, ino)
            stale = shown(operation, done)
            token = engine.tell(pending.session, stale, engine.committed_position)
            pending.tokens.add(token)
        self._finish(pending, done)

    def reopen_created(self, live: LiveSession, numbers: Iterable[int]) -> None:
        """A session is taken up: files that it made and has not heard of yet are open.

        Else their last name could go, and they with it, before it asks again.
        """
        engine = self.engine
        for number in numbers:
            found = live.created.get(number) or self._created_before(live, number)
            if found is not None and engine.tables.get(INODES, (found[0],)) is not None:
                engine.registry.add_open(live.session, found[0], writing=found[1])

    def _created_before(self, live: LiveSession, number: int) -> tuple[int, bool] | None:
        """By an earlier master: only the request, when it comes, says whether for writing."""
        landed = live.landed.get(number)
        if landed is None or landed > self.engine.first_position:
            return None
        try:
            record = self._record_at(landed)
        except GfsError:
            return None
        if record.operation != _CREATE:
            return None
        entry = _RESULT_DECODER.decode(record.result).entry
        return None if entry is None else (entry.ino, False)

    def _record(
        self,
        decision: Decision,
        changes: list[Any],
        pending: Pending,
        message: Mutate,
        live: LiveSession,
        done: Done,
    ) -> None:
        engine = self.engine
        if not changes:
            # Nothing to log. What it read may be as new as the last record decided.
            pending.positions.add(engine.position)
            self._finish(pending, as_of(done, engine.position))
            return
        actor = message.actor
        record = Record(
            decision.position,
            engine.epoch,
            engine.now_ns,
            operation_name(message.operation),
            record_actor(actor, live, pending.said),
            changes,
            pending.session,
            message.number,
            message.low,
            _RESULT_ENCODER.encode(done),
            copy=decision.copy,
        )
        if not fits(record):
            self._finish(pending, TooLarge(f"{len(changes)} changes do not fit one record"))
            return
        engine.append(record)
        live.landed[message.number] = record.position
        operation = message.operation
        if type(operation) is m.Create and done.entry is not None:
            live.created[message.number] = (done.entry.ino, writes(operation.flags))
        pending.positions.add(record.position)
        self._finish(pending, done)

    def _finish(self, pending: Pending, answer: Answer) -> None:
        if pending.confines is not None:
            answer = pending.confines.outward(answer)
        self.engine.answer(pending, answer)
        self.preparing.over(pending)

    # --- waiting

    def _park(self, pending: Pending, why: Suspend) -> None:
        if isinstance(why, NeedsSeal):
            self.engine.servers.suspect(why.suspects, self.engine.now_s)
            self.seals.park(why.handle, pending)
        elif isinstance(why, NeedsSeals):
            self.preparing.wait(pending, why)
        elif isinstance(why, NeedsRecall):
            self._recall(pending, why)
        elif isinstance(why, NeedsCuts):
            self._cut(pending, why.ino, why.size)
        elif self.engine.now_s - pending.asked_s > SERVERS_WAIT_S:
            self._finish(pending, TooFewServers("too few chunk servers are up"))
        else:
            assert isinstance(why, NeedsServers)
            self._for_servers.append(pending)

    def _cut(self, pending: Pending, ino: int, size: int) -> None:
        """A piece now, the rest later: others need not wait for all of it."""
        self.engine.system("truncate-some", lambda d: extents.cut_some(d, ino, size))
        pending.positions.add(self.engine.position)
        self._cutting.append(pending)

    def has_due_work(self) -> bool:
        """Is `resume_waiting` worth a step now?"""
        return bool(self._cutting)

    def _recall(self, pending: Pending, why: NeedsRecall) -> None:
        """Ask all these sessions; the request goes on when the last has answered or died."""
        inos = why.inos
        left = set(inos)

        def recalled(session: int) -> Callable[[Answer], None]:
            def on_answer(_: Answer) -> None:
                left.discard(session)
                pending.recalled.update((session, ino) for ino in inos[session])
                if not left:
                    self._resume(pending)

            return on_answer

        for session in sorted(inos):
            self.engine.order_session(session, m.Recall(inos[session], why.kept), recalled(session))

    def _resume(self, pending: Pending) -> None:
        if isinstance(pending.message, Mutate):
            self._decide(pending)
        elif isinstance(pending.message, UNNUMBERED):
            self._change(pending)
        else:
            self._read(pending)

    def resume_waiting(self) -> None:
        """Servers came, time passed or sessions are back: look again at what waits."""
        if self.engine.sessions.gate_open():
            at_gate, self._at_gate = self._at_gate, []
            for pending in at_gate:
                self._resume(pending)
        self.locks.serve()
        for pending, error in self.preparing.overdue():
            self._finish(pending, error)
        waiting = [*self._cutting, *self._for_servers]
        self._cutting, self._for_servers = [], []
        for pending in waiting:
            self._resume(pending)

    # --- changes that mean the same when they are asked for again

    def change(
        self, session: int, caller: Caller, message: Message, *, has_room: bool = True
    ) -> None:
        """One of `UNNUMBERED`; without room on disk only what gives back."""
        pending = self._unnumbered(session, caller, message)
        if pending is None:
            return
        if not has_room and not isinstance(message, m.DropLock):
            self._finish(pending, NoSpace("the master's disk is full"))
        else:
            self._when_open(pending, self._change)

    def _change(self, pending: Pending) -> None:
        message = pending.message
        if self._asker(pending) is None:
            return
        try:
            if pending.confines is not None:
                message = pending.confines.require(message, in_step=True)
            if isinstance(message, m.TakeLock):
                self.locks.take(pending, message)
            elif isinstance(message, m.DropLock):
                self.locks.drop(pending, message)
            else:
                assert isinstance(message, m.NoteAccess)
                self._finish(pending, access.note(self.engine, pending.session, message))
        except NeedGroups:
            self._finish(pending, GroupsNeeded())
        except GfsError as error:
            self._finish(pending, error)

    # --- reads that may have to wait

    def try_read(self, session: int, message: Message) -> Message | None:
        """Answer a read at once if it can be, outside of any step; None: `read` it in one.

        Raises:
          GfsError: the refusal.
        """
        confines = self._live(session).confines
        try:
            if confines is None:
                return self.reading.answer(session, message, in_step=False)
            inward = confines.require(confines.inward(message), in_step=False)
            answer: Message = confines.outward(self.reading.answer(session, inward, in_step=False))
            return answer
        except Suspend:
            return None
        except NeedGroups:
            return GroupsNeeded()

    def read(self, session: int, caller: Caller, message: Message) -> None:
        """A read that recalls writers or stops others from caching first."""
        pending = self._unnumbered(session, caller, message)
        if pending is not None:
            self._when_open(pending, self._read)

    def _unnumbered(self, session: int, caller: Caller, message: Message) -> Pending | None:
        """A request in the master's terms; None if it was refused."""
        live = self.engine.sessions.live.get(session)
        turn = live.turn if live is not None else 0
        pending = Pending(session, caller, message, self.engine.now_s, turn=turn)
        try:
            translate(pending, live)
        except GfsError as error:
            self.engine.answer(pending, error)
            return None
        return pending

    def _when_open(self, pending: Pending, go_on: Callable[[Pending], None]) -> None:
        """Now, or when all sessions from before this master's start are back or over."""
        if self.engine.sessions.gate_open():
            go_on(pending)
        else:
            self._at_gate.append(pending)

    def _live(self, session: int) -> LiveSession:
        """Who has no session could be registered as holder, and never be told to let go."""
        live = self.engine.sessions.live.get(session)
        if live is None:
            raise DeadSession("no session is open on this connection")
        return live

    def _read(self, pending: Pending) -> None:
        if self._asker(pending) is None:
            return
        message = pending.message
        try:
            if pending.confines is not None:  # reads are of what is committed
                message = pending.confines.require(message, in_step=False)
            answer = self.reading.answer(
                pending.session,
                message,
                in_step=True,
                uncache=pending.uncache,
                recalled=pending.recalled,
            )
        except NeedGroups:
            self._finish(pending, GroupsNeeded())
        except Suspend as why:
            self._park(pending, why)
        except GfsError as error:
            self._finish(pending, error)
        else:
            self._finish(pending, answer)
