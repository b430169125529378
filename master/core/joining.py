"""Sessions at the master: opened, taken up again after a loss, closed."""

from __future__ import annotations

from collections import OrderedDict

from gfs import messages as m
from gfs.errors import DeadSession, GfsError
from gfs.ids import ROOT_INO
from gfs.items import LANDED, SESSIONS, Session
from master.core.coherence import Stale
from master.core.confining import Confines
from master.core.decision import Decision
from master.core.engine import Caller, Engine, Pending, Send
from master.core.granting import Sight, confine
from master.core.machine import Machine
from master.core.sessions import LiveSession
from master.core.transaction import MARK
from master.core.upkeep import Upkeep

_SESSION_BITS = 62


class Joining:
    """Inside a step, like all of the machine."""

    def __init__(self, engine: Engine, machine: Machine, upkeep: Upkeep) -> None:
        self._engine = engine
        self._machine = machine
        self._upkeep = upkeep

    def open(
        self, caller: Caller, ask: m.OpenSession, cluster: str, granted: m.Access | None = None
    ) -> tuple[int, list[Send]]:
        """Begin or resume; returns the session (0 = refused) and what it must get again.

        A session that resumes has declared what it holds before anything of it is
        decided. Its answer leaves with the step. `granted`: by the master's exports, which
        count anew each time; None is everything.
        """
        engine = self._engine
        pending = Pending(0, caller, ask, engine.now_s)
        try:
            if ask.session and engine.tables.get(SESSIONS, (ask.session,)) is None:
                raise DeadSession("the session has ended")
            confines = confine(ask, granted, self._sight())
        except GfsError as error:
            engine.answer(pending, error)
            if ask.session and engine.sessions.exists(ask.session):
                self._upkeep.end_session(ask.session)
                self.after_end()
            return 0, []
        session = ask.session or self._begin(ask)
        again = engine.unanswered(session)
        self._take_up(session, ask, pending, confines)
        opened = m.SessionOpened(
            session,
            engine.epoch,
            engine.sessions.lease_s,
            engine.policy.chunk_bytes,
            cluster,
            engine.committed_position,
            engine.policy.goal,
            limits=[] if confines is None else confines.limits,
            root=0 if confines is None or confines.root == ROOT_INO else confines.root,
        )
        engine.answer(pending, opened)
        if engine.sessions.gate_open():
            self._upkeep.adopt_orphans()
            self._machine.resume_waiting()
        return session, again

    def _sight(self) -> Sight:
        engine = self._engine
        return Sight(
            engine.queries,
            engine.registry,
            engine.reader,
            lambda: engine.committed_moves,
            engine.tables,
            lambda: engine.moves,
        )

    def _begin(self, ask: m.OpenSession) -> int:
        session = self._engine.random.getrandbits(_SESSION_BITS) | 1

        def put(decision: Decision) -> None:
            item = Session(decision.epoch, ask.host, ask.mount, ask.pid, ask.uid, decision.now_ns)
            decision.tx.put(SESSIONS, (session,), item)

        self._engine.system("session-open", put)
        return session

    def _take_up(
        self, session: int, ask: m.OpenSession, pending: Pending, confines: Confines | None
    ) -> None:
        """What it declares is all it holds; what it asked before counts if it asks again."""
        engine = self._engine
        live = engine.sessions.live.get(session)
        was_here = live is not None
        if live is None:
            landed = OrderedDict(
                (int(key[1]), item.position) for key, item in engine.tables.range(LANDED, session)
            )
            low = landed.pop(MARK, 1)
            live = LiveSession(session, ask.host, ask.mount, 0.0, low, landed)
            engine.sessions.add(live)
        live.turn += 1
        live.confines = confines
        if confines is not None:
            ask = self._declared(live, confines, ask, pending)
        engine.sessions.renew(session, engine.now_s)
        registry = engine.registry
        for directory in ask.directories:
            registry.add_interest(session, directory)
        newly, let_go = registry.declare(session, ask.opens, ask.writers)
        self._machine.locks.declare(session, ask.locks)
        if was_here:  # else nobody caches anything yet
            pending.session, pending.uncache = session, newly
        self._machine.reopen_created(live, ask.unanswered)
        engine.let_go(let_go)

    def _declared(
        self, live: LiveSession, confines: Confines, ask: m.OpenSession, pending: Pending
    ) -> m.OpenSession:
        """What it reaches of what it declares; the rest it drops before it is answered."""
        engine = self._engine
        confines.session = live.session
        ask, lost = confines.declared(ask)
        if lost:
            stale = Stale({(ino, b"") for ino in lost}, lost)
            pending.tokens.add(engine.tell(live.session, stale, engine.committed_position))
        return ask

    def close(self, session: int, caller: Caller, ask: m.CloseSession) -> None:
        """The client is done; it has flushed before."""
        self._engine.answer(Pending(0, caller, ask, self._engine.now_s), m.Ok())
        if session:
            self._upkeep.end_session(session)
            self.after_end()

    def after_end(self) -> None:
        """Less to wait for: a session, or the time when this master is in charge."""
        if self._engine.sessions.gate_open():
            self._upkeep.adopt_orphans()
            self._machine.resume_waiting()
