"""Live bytes are brought together: out of chunks that are mostly dead, of small tails, of
files in very many pieces. One mechanism for all three, one move at a time.

    walk -> candidates -> a new chunk is logged (sealed, of known length, nobody refers to it)
         -> chunk servers build it from ranges of others -> one record swaps the extents

relocating.py says what moves. A chunk that loses its last reference so is condemned and goes
ten minutes later, like any other. A master that dies in between leaves a chunk without
references, which goes the same way. Nothing is moved while copies are missing, nor faster
than space is levelled.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gfs import messages as m
from gfs.items import (
    CHUNKS,
    EXTENTS,
    EXTENTS_BY_HANDLE,
    Chunk,
    ChunkKind,
    ChunkState,
    Extent,
    Key,
)
from master.core import relocating, replication
from master.core.decision import Decision
from master.core.engine import Answer, Engine, OnAnswer
from master.core.relocating import EXTENTS_MAX, Places, Range, Scattered
from master.core.repair import Repair

WALKED_AT_ONCE = 500  # chunks, and four times as many extents, in one round
SMALL_TAIL_BYTES = 1 << 20
FOUND_MAX = 10_000


@dataclass
class _Move:
    """A new chunk being built."""

    handle: int
    places: Places
    awaited: set[int]  # servers that build it
    built: dict[int, int] = field(default_factory=dict)  # server -> checksum


class Relocation:
    """`run` once a second, not in the first minute after a start."""

    def __init__(self, engine: Engine, repair: Repair) -> None:
        self._engine = engine
        self._repair = repair
        self._chunks_after: Key | None = None
        self._extents_after: Key | None = None
        self._sparse: dict[int, None] = {}  # chunks, in the order found
        self._tails: dict[int, None] = {}
        self._files: dict[int, None] = {}
        self._scattered = self._new_walk()
        self._move: _Move | None = None
        self._next_s = engine.now_s
        self.moved_bytes_total = self.swapped_total = self.failed_total = 0

    def _new_walk(self) -> Scattered:
        policy = self._engine.policy
        return Scattered(extents=policy.scattered_extents, mean_bytes=policy.scattered_mean_bytes)

    def run(self) -> None:
        """Look at some more chunks and extents; begin a move if that is allowed and wanted."""
        self._walk_chunks()
        self._walk_extents()
        idle = self._repair.is_idle and not self._repair.copies
        if self._move is None and idle and self._engine.now_s >= self._next_s:
            self._begin()

    # --- candidates

    def _walk_chunks(self) -> None:
        engine = self._engine
        page = engine.tables.scan(CHUNKS, after=self._chunks_after, limit=WALKED_AT_ONCE)
        self._chunks_after = page[-1][0] if len(page) == WALKED_AT_ONCE else None
        for key, chunk in page:
            if not self._is_settled(chunk) or len(self._sparse) + len(self._tails) > FOUND_MAX:
                continue
            if chunk.references * 2 < chunk.length:
                self._sparse[int(key[0])] = None
            elif chunk.kind is ChunkKind.TAIL and chunk.length < SMALL_TAIL_BYTES:
                self._tails[int(key[0])] = None

    def _is_settled(self, chunk: Chunk | None) -> bool:
        """Sealed and in use for long enough that nobody asks any more what landed in it."""
        engine = self._engine
        return (
            chunk is not None
            and chunk.state is ChunkState.SEALED
            and chunk.references > 0
            and engine.now_ns - chunk.sealed_ns >= engine.policy.reclaim_delay_ns
        )

    def _walk_extents(self) -> None:
        limit = 4 * WALKED_AT_ONCE
        page = self._engine.tables.scan(EXTENTS, after=self._extents_after, limit=limit)
        self._extents_after = page[-1][0] if len(page) == limit else None
        found = [self._scattered.look(key, extent) for key, extent in page]
        if self._extents_after is None:
            found.append(self._scattered.finish())
        for ino in filter(None, found):
            if len(self._files) < FOUND_MAX:
                self._files[ino] = None

    # --- a move

    def _begin(self) -> None:
        ranges: list[Range] = []
        if self._files:
            ino = next(iter(self._files))
            del self._files[ino]
            ranges = self._of_file(ino)
        elif self._sparse:
            ranges = self._of_chunks(self._sparse, at_least=1)
        elif len(self._tails) > 1:
            ranges = self._of_chunks(self._tails, at_least=2)
        if ranges:
            self._order(Places(ranges))

    def _of_file(self, ino: int) -> list[Range]:
        """The file's extents in sealed chunks, in its own order, as many as fit."""
        ranges: dict[Range, None] = {}
        size = 0
        for _, extent in self._engine.tables.range(EXTENTS, ino, limit=EXTENTS_MAX):
            one = _range_of(extent)
            size += one.length
            if size > self._engine.policy.chunk_bytes:
                break
            if self._is_settled(self._chunk(extent.handle)):
                ranges[one] = None
        return list(ranges) if len(ranges) > 1 else []

    def _of_chunks(self, found: dict[int, None], *, at_least: int) -> list[Range]:
        """Live ranges of as many of these chunks as fit into a new one."""
        ranges: list[Range] = []
        size = extents = chunks = 0
        for handle in list(found):
            keys = self._engine.tables.by_index(EXTENTS_BY_HANDLE, handle, limit=EXTENTS_MAX + 1)
            live = relocating.joined(
                _range_of(extent)
                for key in keys
                if (extent := self._engine.tables.get(EXTENTS, key)) is not None
            )
            size += sum(one.length for one in live)
            extents += len(keys)
            full = size > self._engine.policy.chunk_bytes or extents > EXTENTS_MAX
            if full and chunks:
                break
            del found[handle]
            if not full and self._is_settled(self._chunk(handle)):
                ranges += live
                chunks += 1
        return ranges if chunks >= at_least else []

    def _chunk(self, handle: int) -> Chunk | None:
        found: Chunk | None = self._engine.tables.get(CHUNKS, (handle,))
        return found

    def _order(self, places: Places) -> None:
        """Log the new chunk and have it built by as many servers as its goal says."""
        engine, sites = self._engine, self._repair.sites()
        pieces, goal = [], 1
        for one in places.ranges:
            chunk = self._chunk(one.handle)
            source = replication.choose_source(
                engine.servers.holders(one.handle), sites, streams=engine.policy.repair_streams
            )
            if source is None or chunk is None:
                return
            member = engine.servers.live[source].member
            pieces.append(m.Piece(member, one.handle, chunk.version, one.start, one.length))
            goal = max(goal, chunk.goal)
        targets: list[int] = []
        while len(targets) < goal:
            able = replication.targets(targets, sites, length=places.length)
            target = replication.choose_target(able, targets, sites, streams=1 << 30)
            if target is None:
                break
            targets.append(target)
        if len(targets) < min(goal, engine.policy.write_min):
            return
        handle = engine.draw_handle()

        def begin(decision: Decision) -> None:
            chunk = Chunk(
                1, ChunkKind.PRIVATE, ChunkState.SEALED, goal, places.length,
                created_epoch=decision.epoch, created_position=decision.position,
                sealed_ns=decision.now_ns,
            )  # fmt: skip
            decision.tx.create(CHUNKS, (handle,), chunk)

        self._repair.hidden.add(handle)
        engine.system("relocate-begin", begin)
        self._move = move = _Move(handle, places, set(targets))
        self._next_s = engine.now_s + places.length / max(1, engine.policy.rebalance_bytes_per_s)
        for target in targets:
            order = m.BuildReplica(handle, 1, pieces, engine.epoch)
            engine.order_server(target, order, self._on_built(move, target))

    def _on_built(self, move: _Move, server: int) -> OnAnswer:
        def built(answer: Answer) -> None:
            move.awaited.discard(server)
            if isinstance(answer, m.Condensed):
                move.built[server] = answer.checksum
            if not move.awaited:
                self._finish(move)

        return built

    def _finish(self, move: _Move) -> None:
        """All have answered: swap if enough of them have built the same."""
        engine = self._engine
        self._move = None
        self._repair.hidden.discard(move.handle)
        engine.servers.changed.add(move.handle)
        enough = min(engine.policy.write_min, engine.policy.goal)
        checksums = set(move.built.values())
        if len(checksums) != 1 or len(move.built) < enough:
            self.failed_total += 1
            return
        (checksum,) = checksums
        for server in move.built:
            engine.servers.add_replica(server, move.handle)
        swapped: int = engine.system(
            relocating.OPERATION,
            lambda decision: relocating.swap(decision, move.handle, move.places, checksum),
        )
        self.swapped_total += swapped
        self.moved_bytes_total += move.places.length if swapped else 0

    def statistics(self) -> dict[str, object]:
        """For `gfs status` and metrics."""
        return {
            "sparse_chunks": len(self._sparse),
            "small_tails": len(self._tails),
            "scattered_files": len(self._files),
            "running": int(self._move is not None),
            "moved_bytes_total": self.moved_bytes_total,
            "swapped_extents_total": self.swapped_total,
            "failed_total": self.failed_total,
        }


def _range_of(extent: Extent) -> Range:
    return Range(extent.handle, extent.chunk_offset, extent.chunk_offset + extent.length)
