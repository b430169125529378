"""When trash goes for good: after its time, or oldest first while space is short.

What is given up is reclaimed a bounded record at a time, so a tree of any size leaves
without anybody waiting for it; nothing of it can be undeleted from the first record on.
Space comes back ten minutes later, with the chunks: what is on its way counts as free
here, else one short moment would cost all of the trash.
"""

from __future__ import annotations

from collections import deque
from heapq import nsmallest

from gfs.items import CHUNKS, CHUNKS_BY_STATE, INODES, TRASH, Chunk, ChunkState, Inode, Key, Trash
from gfs.records import ExtentChange
from master.core import removal
from master.core.decision import Decision
from master.core.engine import Engine
from master.core.trash import RECLAIM_BATCH

PAGE = 500  # entries looked at in one round
PAGE_SHORT = 5000  # while space is short
CONDEMNED_MAX = 5000  # chunks counted as space to come
_SETTLE_S = 30.0  # after the chunks have gone, until servers report it


class Purging:
    """One round a second, from the upkeep."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._after: Key | None = None
        self._oldest: list[tuple[int, int]] = []  # (deleted_ns, inode) of this pass
        self._freed: deque[tuple[float, int]] = deque()  # (when, bytes of all copies)

    def run(self) -> None:
        """Find what is due, and reclaim some of it."""
        engine = self._engine
        wanted = self._wanted_bytes()
        page_size = PAGE_SHORT if wanted > 0 else PAGE
        page = engine.tables.scan(TRASH, after=self._after, limit=page_size)
        self._after = page[-1][0] if len(page) == page_size else None
        self._doom_due([(int(key[0]), item) for key, item in page])
        if wanted > 0:
            found = [(item.deleted_ns, int(key[0])) for key, item in page]
            self._oldest = nsmallest(PAGE_SHORT, [*self._oldest, *found])
            if self._after is None and not engine.doomed:
                self._doom_oldest(wanted)
        if self._after is None or wanted <= 0:
            self._oldest = []
        if engine.doomed:
            engine.system("purge-trash", self._reclaim)

    def _doom_due(self, page: list[tuple[int, Trash]]) -> None:
        engine = self._engine
        for ino, item in page:
            if engine.now_ns - item.deleted_ns >= engine.policy.trash_keep_ns:
                engine.doomed[ino] = None

    def _doom_oldest(self, wanted: int) -> None:
        """As many files as make up `wanted` bytes; a tree tells only while it goes."""
        for _, ino in self._oldest:
            inode: Inode | None = self._engine.tables.get(INODES, (ino,))
            self._engine.doomed[ino] = None
            wanted -= inode.stored * self._copies() if inode is not None else 0
            if wanted <= 0 or inode is None or inode.is_directory:
                return

    def _wanted_bytes(self) -> int:
        """How much must go to be above the bound, less what is going already."""
        engine = self._engine
        total, free = engine.servers.space()
        short = total * engine.policy.trash_min_free_percent // 100 - free
        if short <= 0:
            return 0
        settled_s = engine.now_s - engine.policy.reclaim_delay_ns / 1e9 - _SETTLE_S
        while self._freed and self._freed[0][0] < settled_s:
            self._freed.popleft()
        purged = sum(freed for _, freed in self._freed)
        return max(0, short - max(purged, self._condemned_bytes()))

    def _condemned_bytes(self) -> int:
        tables, found = self._engine.tables, 0
        for key in tables.by_index(CHUNKS_BY_STATE, ChunkState.CONDEMNED, limit=CONDEMNED_MAX):
            chunk: Chunk | None = tables.get(CHUNKS, key)
            found += chunk.length * self._copies() if chunk is not None else 0
        return found

    def _copies(self) -> int:
        return max(1, min(self._engine.policy.goal, len(self._engine.servers.live)))

    def _reclaim(self, decision: Decision) -> None:
        budget = RECLAIM_BATCH
        for ino in list(self._engine.doomed):
            if budget <= 0:
                break
            if decision.tx.get(TRASH, (ino,)) is None:
                del self._engine.doomed[ino]  # undeleted since
                continue
            budget -= removal.reclaim_trash(decision, ino, budget)
        freed = sum(
            change.old.length
            for change in decision.tx.changes()
            if isinstance(change, ExtentChange) and change.old is not None and change.new is None
        )
        self._freed.append((self._engine.now_s, freed * self._copies()))
