"""What a relocation moves, and the record that makes it so: pure.

Live ranges of several chunks become one new chunk, and extents that lie in them are given
their new place. Chunk bytes never change once they are acknowledged, so an extent that still
leads to an old range when the new chunk is there may be swapped whatever else happened to its
file meanwhile; what was cut, shared or deleted since is simply as the tables say.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from msgspec.structs import replace

from gfs.items import (
    CHUNKS,
    EXTENTS,
    EXTENTS_BY_HANDLE,
    INODES,
    Chunk,
    ChunkState,
    Extent,
    Inode,
    Key,
)
from master.core.decision import Decision
from master.core.extents import References, joined_extents

OPERATION = "relocate"
EXTENTS_MAX = 2000  # swapped by one record


class Range(NamedTuple):
    """Bytes [start, end) of a chunk."""

    handle: int
    start: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.start


def joined(ranges: Iterable[Range]) -> list[Range]:
    """The same bytes, each once, by chunk and place."""
    found: list[Range] = []
    for one in sorted(ranges):
        last = found[-1] if found else None
        if last is not None and last.handle == one.handle and one.start <= last.end:
            found[-1] = Range(one.handle, last.start, max(last.end, one.end))
        else:
            found.append(one)
    return found


class Places:
    """Where ranges, put one behind the other into a new chunk, lie there."""

    def __init__(self, ranges: Iterable[Range]) -> None:
        self.ranges: list[Range] = []
        self.length = 0
        self._by_handle: defaultdict[int, list[tuple[int, int, int]]] = defaultdict(list)
        for one in ranges:
            self.ranges.append(one)
            self._by_handle[one.handle].append((one.start, one.end, self.length))
            self.length += one.length
        for places in self._by_handle.values():
            places.sort()

    @property
    def handles(self) -> list[int]:
        """Chunks that ranges come from."""
        return sorted(self._by_handle)

    def find(self, extent: Extent) -> int | None:
        """Offset in the new chunk of all bytes of an extent; None: not all are there."""
        places = self._by_handle.get(extent.handle, [])
        start, end = extent.chunk_offset, extent.chunk_offset + extent.length
        at = bisect_right(places, (start, 1 << 63, 0)) - 1
        if at < 0 or places[at][0] > start or places[at][1] < end:
            return None
        return places[at][2] + start - places[at][0]


def swap(decision: Decision, new: int, places: Places, checksum: int) -> int:
    """Lead every extent that lies in the places to the new chunk; returns how many.

    `checksum`: as all who built it computed it. Neighbours that have become one run are
    joined. At most `EXTENTS_MAX`, the rest stays.
    """
    chunk: Chunk | None = decision.tx.get(CHUNKS, (new,))
    if chunk is None or chunk.state is not ChunkState.SEALED or chunk.length != places.length:
        return 0
    references = References(decision)
    touched: dict[int, list[int]] = {}
    swapped = 0
    for handle in places.handles:
        for ino, offset in decision.tx.by_index(EXTENTS_BY_HANDLE, handle, limit=EXTENTS_MAX):
            extent: Extent = decision.tx.get(EXTENTS, (ino, offset))
            at = places.find(extent)
            if at is None or swapped == EXTENTS_MAX:
                continue
            decision.tx.put(EXTENTS, (ino, offset), Extent(extent.length, new, at, extent.digest))
            references.add(handle, -extent.length)
            references.add(new, extent.length)
            touched.setdefault(ino, []).append(offset)
            swapped += 1
    references.settle()
    if swapped:
        settled: Chunk = decision.tx.get(CHUNKS, (new,))
        decision.tx.put(CHUNKS, (new,), replace(settled, checksum=checksum))
    for ino, offsets in touched.items():
        _join(decision, ino, sorted(offsets))
        inode: Inode | None = decision.tx.get(INODES, (ino,))
        if inode is not None:  # else it is on its way out, with its extents
            decision.put_inode(ino, replace(inode, version=inode.version + 1))
    return swapped


def _join(decision: Decision, ino: int, offsets: list[int]) -> None:
    """Make one extent of each run of neighbours that lie behind each other in the chunk, too."""
    tx = decision.tx
    first = offsets[0]
    run: Extent = tx.get(EXTENTS, (ino, first))
    for offset in offsets[1:]:
        extent: Extent = tx.get(EXTENTS, (ino, offset))
        follows = run.chunk_offset + run.length == extent.chunk_offset
        if offset == first + run.length and follows and run.handle == extent.handle:
            run = joined_extents(run, extent)
            tx.put(EXTENTS, (ino, first), run)
            tx.delete(EXTENTS, (ino, offset))
        else:
            first, run = offset, extent


class Scattered:
    """Finds files of too many small extents in a walk over all extents, page by page."""

    def __init__(self, *, extents: int, mean_bytes: int) -> None:
        self._extents_max = extents
        self._mean_bytes = mean_bytes
        self._ino = self._count = self._bytes = self._joints = self._end = 0

    def look(self, key: Key, extent: Extent) -> int:
        """The next extent of the walk; returns an inode that is scattered, or 0.

        Only if joining would help: at least half of the extents follow their neighbour.
        """
        found = 0
        if key[0] != self._ino:
            found = self.finish()
            self._ino = key[0]
        self._count += 1
        self._bytes += extent.length
        self._joints += key[1] == self._end
        self._end = key[1] + extent.length
        return found

    def finish(self) -> int:
        """The walk, or the file, is over: the inode if it was scattered, or 0."""
        many = self._count > self._extents_max
        small = many and self._bytes < self._count * self._mean_bytes
        found = self._ino if small and 2 * self._joints >= self._count else 0
        self._ino = self._count = self._bytes = self._joints = 0
        self._end = -1
        return found
