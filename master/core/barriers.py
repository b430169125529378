"""`Barrier`: what anybody was told was done lies at or below the position answered (`--wait`).

    all sessions back -> mounts recalled -> servers back or given up
        -> primaries asked -> tails without an answer sealed

After a start who is not back yet may hold something back. Mounts commit and let their windows
land; then the primary of each open tail says how far it has come, which is logged. A tail of
which nobody says that (its primary is away, has restarted, is being fenced) is as long as its
seal will find: that is waited for. What is not certain in time is an error, never a guess.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from gfs import messages as m
from gfs.errors import TimedOut
from gfs.items import CHUNKS, CHUNKS_BY_STATE, Chunk, ChunkKind, ChunkState
from master.core.abandoned import Abandoned
from master.core.engine import Answer, Caller, Engine, Pending
from master.core.seals import Seals

LIMIT_S = 50.0  # a session's lease, then a seal that finds no intact member


@dataclass
class _Barrier:
    """One under way.

    `left` answers are missing before the next thing is done; `look` is called each tick
    while something else is waited for; `tails`: those open when the primaries were asked
    of which it is not known how far they have come.
    """

    pending: Pending
    until_s: float
    look: Callable[[_Barrier], None] | None
    left: int = 0
    over: bool = False
    tails: set[int] = field(default_factory=set)


class Barriers:
    """See the module's text. `log_growth` has the ends given to `grown` logged."""

    def __init__(
        self,
        engine: Engine,
        seals: Seals,
        abandoned: Abandoned,
        *,
        grown: Callable[[list[m.TailGrowth]], None],
        log_growth: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._seals = seals
        self._abandoned = abandoned
        self._grown = grown
        self._log_growth = log_growth
        self._under_way: list[_Barrier] = []

    def begin(self, caller: Caller, ask: m.Barrier) -> None:
        """Answered in this step or a later one."""
        now_s = self._engine.now_s
        pending = Pending(0, caller, ask, now_s)
        self._under_way.append(_Barrier(pending, now_s + LIMIT_S, self._await_sessions))
        self.tick()

    def is_due(self) -> bool:
        """Is `tick` worth a step now?"""
        return bool(self._under_way)

    def tick(self) -> None:
        """Time has passed; sessions, servers and seals may have come along."""
        for barrier in list(self._under_way):
            if barrier.look is not None:
                barrier.look(barrier)
            if not barrier.over and self._engine.now_s >= barrier.until_s:
                self._end(barrier, TimedOut("chunk servers or mounts that hold data do not answer"))

    def _end(self, barrier: _Barrier, answer: Answer) -> None:
        barrier.over = True
        self._under_way.remove(barrier)
        self._engine.answer(barrier.pending, answer)

    def _await_sessions(self, barrier: _Barrier) -> None:
        if self._engine.sessions.gate_open():
            barrier.look = None
            self._recall(barrier)

    def _recall(self, barrier: _Barrier) -> None:
        """Whoever cannot answer is dead, and so is what it held back."""
        writing = {session for found in self._engine.registry.writers.values() for session in found}

        def heard(_: Answer) -> None:
            barrier.left -= 1
            if not barrier.left and not barrier.over:
                barrier.look = self._await_servers
                self._await_servers(barrier)

        barrier.left = 1
        for session in sorted(writing):
            barrier.left += 1
            self._engine.order_session(session, m.Recall([]), heard)
        heard(m.Ok())

    def _await_servers(self, barrier: _Barrier) -> None:
        """A primary that went away comes back, or its tails are sealed, in two seconds."""
        tails = self._open_tails()
        primaries = {chunk.members[0].server for chunk in tails.values() if chunk.members}
        if not any(self._abandoned.is_awaited(server) for server in primaries):
            barrier.look = None
            self._ask_primaries(barrier, set(tails))

    def _ask_primaries(self, barrier: _Barrier, tails: set[int]) -> None:
        engine = self._engine

        def heard(answer: Answer) -> None:
            barrier.left -= 1
            if isinstance(answer, m.Growth):
                self._told(barrier, answer.growth)
            if not barrier.left and not barrier.over:
                barrier.look = self._await_seals
                self._await_seals(barrier)

        barrier.tails = tails
        barrier.left = 1
        for server in engine.servers.live:
            barrier.left += 1
            engine.order_server(server, m.ReportGrowth([]), heard)
        heard(m.Ok())

    def _open_tails(self) -> dict[int, Chunk]:
        tables = self._engine.tables
        keys = tables.by_index(CHUNKS_BY_STATE, ChunkState.OPEN)
        chunks: dict[int, Chunk | None] = {int(key[0]): tables.get(CHUNKS, key) for key in keys}
        return {
            handle: chunk
            for handle, chunk in chunks.items()
            if chunk is not None and chunk.kind is ChunkKind.TAIL
        }

    def _told(self, barrier: _Barrier, growth: list[m.TailGrowth]) -> None:
        """Logged at once: a seal that begins later makes these reports old."""
        for report in growth:
            chunk = self._chunk(report.handle)
            if chunk is not None and chunk.version == report.version:
                barrier.tails.discard(report.handle)
        self._grown(growth)
        self._log_growth()

    def _chunk(self, handle: int) -> Chunk | None:
        found: Chunk | None = self._engine.tables.get(CHUNKS, (handle,))
        return found

    def _await_seals(self, barrier: _Barrier) -> None:
        for handle in sorted(barrier.tails):
            chunk = self._chunk(handle)
            if chunk is None or chunk.state is not ChunkState.OPEN:
                barrier.tails.discard(handle)
            elif not self._abandoned.waits_for(handle, chunk):
                self._seals.begin(handle)
        if not barrier.tails:
            self._end(barrier, m.BarrierDone(self._engine.epoch, self._engine.position))
