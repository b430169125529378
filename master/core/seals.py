"""Seals under way, and who waits for them: sealing.py decides, this drives."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from gfs import messages
from gfs.items import CHUNKS, Chunk, ChunkState
from master.core import sealing
from master.core.engine import Answer, Engine, OnAnswer, Pending
from master.core.finishing import Finishing
from master.core.sealing import Seal

HEARD_WITHIN_S = 0.75  # two heartbeats and a bit


class Seals:
    """At most one seal a chunk at a time.

    `resume` decides a request anew; those who waited for a seal are decided
    right behind its record, so nothing can come in between.
    """

    def __init__(self, engine: Engine, resume: Callable[[Pending], None]) -> None:
        self._engine = engine
        self._resume = resume
        self._running: dict[int, Seal] = {}
        self._parked: defaultdict[int, list[Callable[[int], None]]] = defaultdict(list)
        self.finishing = Finishing(engine)

    def __len__(self) -> int:
        return len(self._running)

    def is_running(self, handle: int) -> bool:
        return handle in self._running

    def park(self, handle: int, pending: Pending) -> None:
        """Decide `pending` anew once the chunk is sealed; begins the seal."""

        def sealed(position: int) -> None:
            if position:
                pending.positions.add(position)
            self._resume(pending)

        self.when_sealed(handle, sealed)

    def when_sealed(self, handle: int, call: Callable[[int], None]) -> None:
        """Call with the seal's position once the chunk is sealed, 0 if it was; begins the seal."""
        self._parked[handle].append(call)
        self.begin(handle)

    def begin(self, handle: int) -> None:
        """Start sealing unless that is under way or done."""
        engine = self._engine
        if handle in self._running:
            return
        chunk: Chunk | None = engine.tables.get(CHUNKS, (handle,))
        if chunk is None or chunk.state is not ChunkState.OPEN:
            self._release(handle, 0)
            return
        seal: Seal = engine.system(
            "seal-begin",
            lambda decision: sealing.begin(decision, handle, chunk, engine.now_s),
        )
        seal.never_away = frozenset(
            server
            for server, live in engine.servers.live.items()
            if chunk.created_epoch == engine.epoch
            and live.registered_position < chunk.created_position
        )
        self._running[handle] = seal
        self._ask(seal)
        seal.returning = len(seal.awaited) < min(2, len(seal.members))

    def _on_fenced(self, seal: Seal, server: int) -> OnAnswer:
        def fenced(answer: Answer) -> None:
            seal.answered(server, answer if isinstance(answer, messages.FencedAt) else None)
            self._try_finish(seal)

        return fenced

    def tick(self) -> None:
        """Time alone may decide a seal; members that came back since are fenced too."""
        for seal in list(self._running.values()):
            self._try_finish(seal)
            if seal.handle in self._running and self._engine.now_s >= seal.ask_again_s:
                self._ask(seal)
        self.finishing.tick()

    def has_due_work(self, now_s: float) -> bool:
        """Is `tick` worth a step now?"""
        return bool(self._running) or self.finishing.has_due_work(now_s)

    def _ask(self, seal: Seal) -> None:
        """Fence every member that is up and has neither answered nor been asked."""
        engine = self._engine
        seal.ask_again_s = engine.now_s + sealing.ASK_AGAIN_S
        fence = messages.Fence(seal.handle, seal.version, engine.epoch)
        for server in seal.members:
            if server in engine.servers.live and server not in seal.awaited | seal.answers.keys():
                seal.awaited.add(server)
                engine.order_server(server, fence, self._on_fenced(seal, server))

    def _try_finish(self, seal: Seal) -> None:
        if self._running.get(seal.handle) is not seal:
            return
        seal.look_closer(self._engine.tables)
        if not seal.is_decidable(self._engine.now_s, self._responsive()):
            return
        del self._running[seal.handle]
        chunk: Chunk | None = self._engine.tables.get(CHUNKS, (seal.handle,))
        if chunk is None or chunk.state is not ChunkState.OPEN:
            self._release(seal.handle, 0)  # its file was reclaimed meanwhile
            return
        self._engine.system("seal", lambda decision: sealing.finish(decision, seal))
        self._tell_members(seal)
        self._release(seal.handle, self._engine.position)

    def _responsive(self) -> frozenset[int]:
        """Servers that are alive, whatever their disks do."""
        since = self._engine.now_s - HEARD_WITHIN_S
        live = self._engine.servers.live
        return frozenset(server for server, one in live.items() if one.heard_s > since)

    def _tell_members(self, seal: Seal) -> None:
        """Complete members count at once and condense; short ones copy first, and help out."""
        servers, length = self._engine.servers, seal.length()
        for server in seal.members:
            servers.chunk_closed(server)
        for server in seal.complete_members():
            servers.add_replica(server, seal.handle)
            self.finishing.condense(server, seal.handle, seal.version, length)
        for server in seal.short_members():
            servers.add_spare(server, seal.handle)
            self.finishing.copy(server, seal.handle, seal.version, length)

    def _release(self, handle: int, position: int) -> None:
        for call in self._parked.pop(handle, []):
            call(position)
