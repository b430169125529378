"""What a relocation moves, and the record that makes it so: pure.

Live ranges of several chunks become one new chunk, and extents that lie in them are given
their new place. Chunk bytes never change once they are acknowledged, so an extent that still
leads to an old range when the new chunk is there may be swapped whatever else happened to its
file meanwhile; what was cut, shared or deleted since is simply as the tables say.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from gfs.ids import MIB, SIZE_MAX
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
EXTENTS_MAX = 2000  # moved at once, and looked at for one record
SKIPPED_MAX = 256  # of the file's own extents, read before they are passed over
LARGE_BYTES = MIB  # an extent of this length is read as fast alone as with its neighbours


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


class Swap:
    """Leads every extent that lies in the places to the new chunk, a bounded record at a time.

    Extents of the file that is being brought together first, then whoever else refers to
    these chunks: a snapshot or a clone that shares a range goes along. What a page has not come
    to yet leads to the old chunk, which is as good.

    Args:
      new: the chunk, sealed, of the places' length and nobody's yet.
      checksum: of it, as all who built it computed it.
      ino, first, last: the file, and the first and last byte of it that was looked at.
    """

    def __init__(
        self,
        new: int,
        places: Places,
        checksum: int,
        *,
        ino: int = 0,
        first: int = 0,
        last: int = 0,
    ) -> None:
        self._new, self._places, self._checksum = new, places, checksum
        self._ino, self._next, self._last = ino, first, last
        self._handles = places.handles
        self._after: Key | None = None  # in the first of the handles
        self._own_left = bool(ino)

    @property
    def done(self) -> bool:
        """Everybody has been asked."""
        return not self._own_left and not self._handles

    def page(self, decision: Decision) -> int:
        """Look at `EXTENTS_MAX` more extents; returns how many of them were led on.

        Neighbours that have become one run are joined.
        """
        chunk: Chunk | None = decision.tx.get(CHUNKS, (self._new,))
        if (
            chunk is None
            or chunk.state is not ChunkState.SEALED
            or chunk.length != self._places.length
        ):
            self._own_left, self._handles = False, []
            return 0
        references = References(decision)
        touched: dict[int, list[int]] = {}
        for ino, offset in self._next_keys(decision):
            extent: Extent = decision.tx.get(EXTENTS, (ino, offset))
            at = self._places.find(extent)
            if at is None:
                continue
            decision.tx.put(
                EXTENTS, (ino, offset), Extent(extent.length, self._new, at, extent.digest)
            )
            references.add(extent.handle, -extent.length)
            references.add(self._new, extent.length)
            touched.setdefault(ino, []).append(offset)
        references.settle()
        if touched:
            settled: Chunk = decision.tx.get(CHUNKS, (self._new,))
            decision.tx.put(CHUNKS, (self._new,), replace(settled, checksum=self._checksum))
        for ino, offsets in touched.items():
            _join(decision, ino, sorted(offsets))
            inode: Inode | None = decision.tx.get(INODES, (ino,))
            if inode is not None:  # else it is on its way out, with its extents
                decision.put_inode(ino, replace(inode, version=inode.version + 1))
        return sum(map(len, touched.values()))

    def _next_keys(self, decision: Decision) -> list[Key]:
        keys: list[Key] = []
        if self._own_left:
            keys = self._own_keys(decision)
        while self._handles and len(keys) < EXTENTS_MAX:
            room = min(EXTENTS_MAX - len(keys), SKIPPED_MAX)
            found = decision.tx.by_index(
                EXTENTS_BY_HANDLE, self._handles[0], after=self._after, limit=room
            )
            others = [key for key in found if key[0] != self._ino]
            keys += others
            if len(others) < len(found):  # the file's own, of which there may be many
                self._after = max(found[-1], (self._ino, SIZE_MAX))
            elif len(found) == room:
                self._after = found[-1]
            else:
                del self._handles[0]
                self._after = None
        return keys

    def _own_keys(self, decision: Decision) -> list[Key]:
        found = decision.tx.range(
            EXTENTS, self._ino, after=self._next - 1, before=self._last + 1, limit=EXTENTS_MAX
        )
        self._own_left = len(found) == EXTENTS_MAX
        if found:
            self._next = found[-1][0][1] + 1
        return [key for key, _ in found]


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


class Window(NamedTuple):
    """Some of a file's extents that would be one run: their ranges, in the file's order.

    `first` and `last`: file offsets of the first and last byte looked at. `whole`: the file
    ends there.
    """

    ranges: list[Range]
    first: int
    last: int
    whole: bool


def window(
    page: Sequence[tuple[Key, Extent]], movable: Callable[[int], bool], *, bytes_max: int
) -> Window:
    """What to bring together of a file's next extents: at most `EXTENTS_MAX` were read.

    Runs of neighbours, none of them large, none alone, in chunks that `movable` allows.
    """
    ranges: dict[Range, None] = {}
    run: list[Range] = []
    size = end = 0
    for key, extent in page:
        one = range_of(extent)
        small = one.length < LARGE_BYTES and movable(one.handle)
        if small and size and size + one.length > bytes_max:
            break
        if not small or key[1] != end:
            ranges.update(dict.fromkeys(run if len(run) > 1 else []))
            run = []
        if small:
            run.append(one)
            size += one.length
        end = key[1] + extent.length
    ranges.update(dict.fromkeys(run if len(run) > 1 else []))
    all_of_it = not page or end > page[-1][0][1]
    first = page[0][0][1] if page else 0
    return Window(list(ranges), first, end - 1, all_of_it and len(page) < EXTENTS_MAX)


def range_of(extent: Extent) -> Range:
    """Where the extent's bytes lie."""
    return Range(extent.handle, extent.chunk_offset, extent.chunk_offset + extent.length)


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
