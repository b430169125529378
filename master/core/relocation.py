"""Live bytes are brought together: out of chunks that are mostly dead, of small tails, of
files in very many pieces. One mechanism for all three, one move at a time.

    walk -> candidates -> a new chunk is logged (sealed, of known length, nobody refers to it)
         -> chunk servers build it from ranges of others -> records swap the extents: one for
            each 2,000 that refer to these chunks, one a second

relocating.py says what moves. A file in too many pieces is gone through from begin to end,
some of it a move, also while it is written: what a write has made of a piece meanwhile stays as
the write left it. It then rests for four times as long as its bytes took, so that a file written
at random for ever takes a fifth of what may be moved. A chunk that loses its last reference so is
condemned and goes ten minutes later, like any other. A master that dies in between leaves a
chunk without references, which goes the same way. Nothing is moved while copies are missing,
nor faster than space is levelled.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

from gfs import messages as m
from gfs.items import (
    CHUNKS,
    EXTENTS,
    EXTENTS_BY_HANDLE,
    INODES,
    Chunk,
    ChunkKind,
    ChunkState,
    Inode,
    Key,
)
from master.core import relocating, replication
from master.core.decision import Decision
from master.core.engine import Answer, Engine, OnAnswer
from master.core.relocating import Places, Range, Scattered, Swap, range_of
from master.core.repair import Repair

WALKED_AT_ONCE = 500  # chunks, and four times as many extents, in one round
SMALL_TAIL_BYTES = 1 << 20
FOUND_MAX = 10_000
REST = 4  # times as long as a file's bytes took, before it is gone through again


@dataclass
class _Wish:
    """What is to be moved, and in which part of which file it lies, if it is one's."""

    ranges: list[Range] = field(default_factory=list)
    ino: int = 0
    first: int = 0
    last: int = 0


@dataclass
class _Move:
    """A new chunk being built, then referred to."""

    handle: int
    wish: _Wish
    places: Places
    awaited: set[int]  # servers that build it
    built: dict[int, int] = field(default_factory=dict)  # server -> checksum
    swap: Swap | None = None


class Relocation:
    """`run` once a second, not in the first minute after a start."""

    def __init__(self, engine: Engine, repair: Repair) -> None:
        self._engine = engine
        self._repair = repair
        self._chunks_after: Key | None = None
        self._extents_after: Key | None = None
        self._sparse: dict[int, None] = {}  # chunks, in the order found
        self._tails: dict[int, None] = {}
        self._files: dict[int, int] = {}  # inode -> offset from where it is gone through
        self._resting: dict[int, float] = {}  # inode -> until when
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
        if self._move is not None and self._move.swap is not None:
            self._swap_some(self._move, self._move.swap)
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
        now_s = self._engine.now_s
        self._resting = {ino: until for ino, until in self._resting.items() if until > now_s}
        for ino in filter(None, found):
            if len(self._files) < FOUND_MAX and ino not in self._resting:
                self._files.setdefault(ino, 0)

    # --- a move

    def _begin(self) -> None:
        wish = _Wish()
        if self._files:
            wish = self._of_file(next(iter(self._files)))
        elif self._sparse:
            wish = self._of_chunks(self._sparse, at_least=1)
        elif len(self._tails) > 1:
            wish = self._of_chunks(self._tails, at_least=2)
        if wish.ranges:
            self._order(wish, Places(wish.ranges))

    def _of_file(self, ino: int) -> _Wish:
        """Some extents of the file from where it has been gone through."""
        engine = self._engine
        page = engine.tables.range(
            EXTENTS, ino, after=self._files[ino] - 1, limit=relocating.EXTENTS_MAX
        )
        movable = functools.cache(self._is_movable)
        found = relocating.window(page, movable, bytes_max=engine.policy.chunk_bytes)
        if found.whole:
            del self._files[ino]
            inode: Inode | None = engine.tables.get(INODES, (ino,))
            took_s = (inode.stored if inode else 0) / self._rate
            self._resting[ino] = engine.now_s + REST * took_s
        else:
            self._files[ino] = found.last + 1
        return _Wish(found.ranges, ino, found.first, found.last)

    def _is_movable(self, handle: int) -> bool:
        """May a scattered file's bytes leave this chunk? Of tails somebody may still ask."""
        chunk = self._chunk(handle)
        return chunk is not None and (chunk.kind is ChunkKind.PRIVATE or self._is_settled(chunk))

    @property
    def _rate(self) -> int:
        return max(1, self._engine.policy.rebalance_bytes_per_s)

    def _of_chunks(self, found: dict[int, None], *, at_least: int) -> _Wish:
        """Live ranges of as many of these chunks as fit into a new one.

        Of a chunk that more refer to than can be moved at once, some; the rest is found again.
        """
        ranges: list[Range] = []
        size = extents = chunks = 0
        for handle in list(found):
            keys = self._engine.tables.by_index(
                EXTENTS_BY_HANDLE, handle, limit=relocating.EXTENTS_MAX
            )
            live = relocating.joined(
                range_of(extent)
                for key in keys
                if (extent := self._engine.tables.get(EXTENTS, key)) is not None
            )
            size += sum(one.length for one in live)
            extents += len(keys)
            full = size > self._engine.policy.chunk_bytes or extents > relocating.EXTENTS_MAX
            if full and chunks:
                break
            del found[handle]
            if self._is_settled(self._chunk(handle)):
                ranges += live
                chunks += 1
        return _Wish(ranges if chunks >= at_least else [])

    def _chunk(self, handle: int) -> Chunk | None:
        found: Chunk | None = self._engine.tables.get(CHUNKS, (handle,))
        return found

    def _order(self, wish: _Wish, places: Places) -> None:
        """Log the new chunk and have it built by as many servers as its goal says."""
        engine, sites = self._engine, self._repair.sites()
        goal = 1
        sources: dict[int, tuple[m.ChainMember, int]] = {}  # who has it, of which version
        for one in places.handles:
            chunk = self._chunk(one)
            if chunk is None:
                return
            holders = self._holders(one, chunk)
            source = replication.choose_source(holders, sites, streams=engine.policy.repair_streams)
            if source is None:
                return
            sources[one] = engine.servers.live[source].member, chunk.version
            goal = max(goal, chunk.goal)
        pieces = [
            m.Piece(
                sources[one.handle][0], one.handle, sources[one.handle][1], one.start, one.length
            )
            for one in places.ranges
        ]
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
        self._move = move = _Move(handle, wish, places, set(targets))
        self._next_s = engine.now_s + places.length / self._rate
        for target in targets:
            order = m.BuildReplica(handle, 1, pieces, engine.epoch)
            engine.order_server(target, order, self._on_built(move, target))

    def _holders(self, handle: int, chunk: Chunk) -> list[int]:
        """Who can be asked for bytes that files refer to: of an open chunk each member has them."""
        if chunk.state is ChunkState.OPEN:
            return [member.server for member in chunk.members]
        return self._engine.servers.holders(handle)

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
        self._repair.hidden.discard(move.handle)
        engine.servers.changed.add(move.handle)
        enough = min(engine.policy.write_min, engine.policy.goal)
        checksums = set(move.built.values())
        if len(checksums) != 1 or len(move.built) < enough:
            self._move = None
            self.failed_total += 1
            return
        (checksum,) = checksums
        for server in move.built:
            engine.servers.add_replica(server, move.handle)
        wish = move.wish
        move.swap = Swap(
            move.handle, move.places, checksum, ino=wish.ino, first=wish.first, last=wish.last
        )
        self._swap_some(move, move.swap)

    def _swap_some(self, move: _Move, swap: Swap) -> None:
        """One record; the move ends with the last."""
        swapped: int = self._engine.system(relocating.OPERATION, swap.page)
        self.swapped_total += swapped
        if swap.done:
            self._move = None
            self.moved_bytes_total += move.places.length

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
