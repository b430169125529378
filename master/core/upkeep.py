"""What the master does of itself: sessions end, garbage goes, old facts are dropped.

Each run does a bounded amount, so that no request waits long behind it, and
nothing destructive happens in the first minute after a start.
"""

from __future__ import annotations

from msgspec.structs import replace

from gfs import messages as m
from gfs.items import (
    CHUNKS,
    CHUNKS_BY_SESSION,
    CHUNKS_BY_STATE,
    SESSIONS,
    WRITERS,
    Chunk,
    ChunkKind,
    ChunkState,
    Key,
)
from master.core import extents, removal, strays
from master.core.decision import Decision
from master.core.engine import Answer, Engine
from master.core.locks import Locks
from master.core.purging import Purging
from master.core.quota_counting import count_some
from master.core.seals import Seals

BATCH = 500  # items looked at in one run
WRITERS_BATCH = 100  # tables of up to 4,096 writers
EXTENTS_BATCH = 10_000  # given back in one record
SAFE_START_S = 60.0


class Upkeep:
    """Called from the machine's tick, inside a step."""

    def __init__(self, engine: Engine, seals: Seals, locks: Locks, *, safe_start_s: float) -> None:
        self._engine = engine
        self._seals = seals
        self._locks = locks
        self._safe_start_s = safe_start_s
        self._scan_after: Key | None = None
        self._purging = Purging(engine)

    # --- sessions

    def end_session(self, session: int) -> None:
        """Closed, or its lease ran out: what it held is free, its open chunks are sealed."""
        engine = self._engine

        def end(decision: Decision) -> None:
            decision.tx.delete(SESSIONS, (session,))
            self._locks.delete_all(decision, session)

        engine.sessions.remove(session)
        engine.let_go(engine.registry.end(session))
        engine.system("session-end", end)
        for key in engine.tables.by_index(CHUNKS_BY_SESSION, session):
            chunk: Chunk | None = engine.tables.get(CHUNKS, key)
            if chunk is not None and chunk.state is ChunkState.OPEN:
                self._seals.begin(int(key[0]))
        engine.give_up_orders(session=session)
        self._locks.end_session(session)
        engine.end_connection(session)

    def expire_sessions(self) -> None:
        for session in self._engine.sessions.expired(self._engine.now_s):
            self.end_session(session)

    def reclaim_orphans(self) -> None:
        """Open-unlinked files whose last holder has closed."""
        engine = self._engine
        if not engine.sessions.gate_open():
            return
        due = sorted(engine.closed_orphans)[:BATCH]
        held = {ino for ino in due if engine.registry.is_open(ino)}
        engine.closed_orphans -= held
        due = [ino for ino in due if ino not in held]
        if due:
            engine.system("reclaim", lambda decision: _reclaim_orphans(decision, due))
            engine.closed_orphans -= {ino for ino in due if ino not in engine.orphans}

    def adopt_orphans(self) -> None:
        """After a restart, once all sessions are back: nobody holds these any more."""
        engine = self._engine
        engine.closed_orphans |= {ino for ino in engine.orphans if not engine.registry.is_open(ino)}

    # --- quotas

    def count_quotas(self) -> None:
        """A piece of what lies below directories whose quotas are new."""
        if self.has_to_count():
            self._engine.system("quota", count_some)

    def has_to_count(self) -> bool:
        """Is there a quota that does not know yet what it counts?"""
        return bool(self._engine.realms.counting) and self._engine.sessions.gate_open()

    # --- garbage

    def may_destroy(self) -> bool:
        """Has the first minute after the start passed?"""
        return self._engine.now_s - self._engine.started_s >= self._safe_start_s

    def run(self) -> None:
        """One bounded round of everything that is slow."""
        if not self.may_destroy():
            return
        self._delete_condemned()
        self._sweep_chunks()
        self._drop_writers()
        self._purging.run()

    def log_condensed(self) -> None:
        """Checksums of sealed chunks, as their members computed them."""
        finishing = self._seals.finishing
        found, finishing.condensed = finishing.condensed, {}
        if found:
            self._engine.system("condensed", lambda decision: _log_checksums(decision, found))

    def _delete_condemned(self) -> None:
        engine = self._engine
        due: list[int] = []
        for key in engine.tables.by_index(CHUNKS_BY_STATE, ChunkState.CONDEMNED, limit=BATCH):
            chunk: Chunk | None = engine.tables.get(CHUNKS, key)
            if chunk and engine.now_ns - chunk.condemned_ns >= engine.policy.reclaim_delay_ns:
                due.append(int(key[0]))
        if not due:
            return

        def delete(decision: Decision) -> None:
            for handle in due:
                decision.tx.delete(CHUNKS, (handle,))
            strays.note_deleted(decision, due)

        by_server: dict[int, list[int]] = {}
        for handle in due:
            chunk = engine.tables.get(CHUNKS, (handle,))
            members = {member.server for member in chunk.members} if chunk else set()
            for server in sorted({*engine.servers.forget_chunk(handle), *members}):
                by_server.setdefault(server, []).append(handle)
        engine.system("delete-chunks", delete)
        for server, handles in by_server.items():
            engine.order_server(server, m.DeleteReplicas(handles, engine.epoch), _ignore)

    def _sweep_chunks(self) -> None:
        """A slow walk over all chunks: sealed ones that never got a reference are condemned."""
        engine = self._engine
        page = engine.tables.scan(CHUNKS, after=self._scan_after, limit=BATCH)
        self._scan_after = page[-1][0] if len(page) == BATCH else None
        due = [
            key
            for key, chunk in page
            if chunk.state is ChunkState.SEALED
            and not chunk.references
            and engine.now_ns - chunk.sealed_ns >= engine.policy.reclaim_delay_ns
            and not engine.sessions.exists(chunk.session)
        ]
        for key, chunk in page:
            private = chunk.state is ChunkState.OPEN and chunk.kind is ChunkKind.PRIVATE
            if private and not engine.sessions.exists(chunk.session):
                # A master that died between the end of a session and this seal left it.
                self._seals.begin(int(key[0]))

        def condemn(decision: Decision) -> None:
            for key in due:
                chunk: Chunk = decision.tx.get(CHUNKS, key)
                decision.tx.put(CHUNKS, key, extents.condemned(chunk, decision.now_ns))

        if due:
            engine.system("condemn", condemn)

    def _drop_writers(self) -> None:
        """Dedup facts of tails sealed long ago: whoever asks later gets EIO."""
        engine = self._engine
        page = engine.tables.scan(WRITERS, limit=WRITERS_BATCH)
        age = engine.policy.reclaim_delay_ns
        due = [key for key, facts in page if engine.now_ns - facts.sealed_ns >= age]

        def drop(decision: Decision) -> None:
            for key in due:
                decision.tx.delete(WRITERS, key)

        if due:
            engine.system("forget-writers", drop)


def _ignore(_: Answer) -> None:
    """A server that misses the order reports the replica when it is back (strays.py)."""


def _reclaim_orphans(decision: Decision, inos: list[int]) -> None:
    budget = EXTENTS_BATCH
    for ino in inos:
        if budget > 0:
            budget -= removal.reclaim_orphan(decision, ino, budget)


def _log_checksums(decision: Decision, found: dict[int, int]) -> None:
    for handle, checksum in found.items():
        chunk: Chunk | None = decision.tx.get(CHUNKS, (handle,))
        if chunk is not None and chunk.state is ChunkState.SEALED and not chunk.checksum:
            decision.tx.put(CHUNKS, (handle,), replace(chunk, checksum=checksum))
