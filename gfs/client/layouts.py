"""Where the bytes of files lie: what this process knows of extents and chunk locations.

A layout is as of a log position; one older than the last invalidation of its
inode is used once and not kept. What this process commits itself is entered into the layout it
has, so that writing here and there does not mean to ask for all of it again. Layouts of files
with many extents are kept by windows, so a file of any size costs memory only where it is read.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gfs.ids import MIB
from gfs.items import Extent
from gfs.messages import LaidOut, Layout, Located

WINDOW_BYTES = 32 * MIB  # at most 8,192 pages are asked for at once, however scattered
EXTENTS_MAX = 1 << 16  # entered into one layout; then it is asked for again
FILES_MAX = 8192
CHUNKS_MAX = 65536
POSITIONS_MAX = 16384


class Span(NamedTuple):
    """File range [start, start + length) lies at `chunk_offset` of chunk `handle`."""

    start: int
    length: int
    handle: int
    chunk_offset: int
    extent_end: int  # in the chunk: how far the same extent goes
    tail: bool = False  # the chunk is an open tail


class FileLayout:
    """Extents of one inode at `version`, its data_version. `windows` None: all are here."""

    __slots__ = ("_extents", "_starts", "version", "windows")

    def __init__(self, extents: Sequence[LaidOut], *, complete: bool, version: int = -1) -> None:
        self.windows: set[int] | None = None if complete else set()
        self.version = version
        self._extents = sorted(extents, key=lambda laid: laid.file_offset)
        self._starts = [laid.file_offset for laid in self._extents]

    def add_window(self, window: int, extents: Sequence[LaidOut]) -> None:
        """Everything that overlaps the window is in `extents`."""
        known = {laid.file_offset: laid for laid in self._extents}
        known |= {laid.file_offset: laid for laid in extents}
        self._starts = sorted(known)
        self._extents = [known[start] for start in self._starts]
        if self.windows is not None:
            self.windows.add(window)

    def missing(self, start: int, end: int) -> list[int]:
        """Windows that must be fetched before [start, end) is known."""
        if self.windows is None:
            return []
        wanted = range(start // WINDOW_BYTES, (end - 1) // WINDOW_BYTES + 1)
        return [window for window in wanted if window not in self.windows]

    def committed(self, ranges: Sequence[LaidOut]) -> FileLayout | None:
        """The layout one version later, when these were its content, in this order.

        None: that cannot be told, since one lies partly where no extents are known.
        """
        known: list[LaidOut] = []
        for laid in ranges:
            end = laid.file_offset + laid.extent.length
            missing = self.missing(laid.file_offset, end)
            if not missing:
                known.append(laid)
            elif laid.file_offset // WINDOW_BYTES != (end - 1) // WINDOW_BYTES:
                return None
        if len(self._extents) + len(known) > EXTENTS_MAX:
            return None
        later = FileLayout([], complete=True, version=self.version + 1)
        later.windows = None if self.windows is None else set(self.windows)
        later._extents, later._starts = self._extents.copy(), self._starts.copy()
        for laid in known:
            later._lay(laid)
        return later

    def _lay(self, laid: LaidOut) -> None:
        """Put an extent over those that are there."""
        begin, end = laid.file_offset, laid.file_offset + laid.extent.length
        extents = self._extents
        first = bisect_left(self._starts, begin)
        if first and _end(extents[first - 1]) > begin:
            first -= 1
        last = bisect_left(self._starts, end)
        kept = [laid]
        if first < last:
            if extents[first].file_offset < begin:
                kept.insert(0, _part(extents[first], extents[first].file_offset, begin))
            if _end(extents[last - 1]) > end:
                kept.append(_part(extents[last - 1], end, _end(extents[last - 1])))
        extents[first:last] = kept
        self._starts[first:last] = [one.file_offset for one in kept]

    def spans(self, start: int, end: int) -> list[Span]:
        """What of [start, end) lies in chunks, in order; the rest is holes."""
        found: list[Span] = []
        at = max(0, bisect_right(self._starts, start) - 1)
        while at < len(self._extents) and self._starts[at] < end:
            begin, extent = self._starts[at], self._extents[at].extent
            first, last = max(begin, start), min(begin + extent.length, end)
            if first < last:
                offset = extent.chunk_offset + first - begin
                extent_end = extent.chunk_offset + extent.length
                found.append(Span(first, last - first, extent.handle, offset, extent_end))
            at += 1
        return found


def _end(laid: LaidOut) -> int:
    return laid.file_offset + laid.extent.length


def _part(laid: LaidOut, start: int, end: int) -> LaidOut:
    """File range [start, end) of an extent."""
    extent = laid.extent
    offset = extent.chunk_offset + start - laid.file_offset
    return LaidOut(start, Extent(end - start, extent.handle, offset))


class LayoutCache:
    """Layouts by inode, locations by chunk handle; bounded, oldest use out first."""

    def __init__(self) -> None:
        self._files: OrderedDict[int, FileLayout] = OrderedDict()
        self._chunks: OrderedDict[int, Located] = OrderedDict()
        self._invalid_at: OrderedDict[int, int] = OrderedDict()
        self._floor = 0  # invalidations older than those remembered
        self.clears = 0

    def get(self, ino: int, version: int = -1) -> FileLayout | None:
        """The layout kept for `ino`, perhaps with windows missing.

        Args:
          version: data_version that is known to have come. One of an older content is forgotten:
            attributes that were asked for may be here before word that they have changed, and
            what came since would be read as a hole.
        """
        layout = self._files.get(ino)
        if layout is None:
            return None
        if layout.version < version:
            del self._files[ino]
            return None
        self._files.move_to_end(ino)
        return layout

    def is_current(self, ino: int, position: int) -> bool:
        """Whether an answer as of `position` may be kept for `ino`."""
        return position >= self._invalid_at.get(ino, self._floor)

    def keep(self, ino: int, layout: FileLayout, position: int, *, asked: int) -> None:
        """Remember a layout unless it was invalidated, or all were, since it was asked for.

        Args:
          asked: `clears` at that time.
        """
        if asked != self.clears or not self.is_current(ino, position):
            return
        self._files[ino] = layout
        self._files.move_to_end(ino)
        while len(self._files) > FILES_MAX:
            self._files.popitem(last=False)

    def keep_window(self, ino: int, window: int, answer: Layout, *, asked: int) -> FileLayout:
        """Note an answer of GetLayout for one window; returns what to read by. As `keep`."""
        current = asked == self.clears and self.is_current(ino, answer.position)
        kept = self._files.get(ino)
        layout = kept if current else None
        if layout is None or layout.version != answer.data_version:  # two contents do not mix
            layout = FileLayout([], complete=False, version=answer.data_version)
            if kept is None or kept.version < answer.data_version:
                self.keep(ino, layout, answer.position, asked=asked)
        layout.add_window(window, answer.extents)
        return layout

    def drop(self, ino: int, position: int) -> None:
        """The content changed at `position`."""
        self._files.pop(ino, None)
        self._invalid_at[ino] = max(position, self._invalid_at.pop(ino, 0))
        while len(self._invalid_at) > POSITIONS_MAX:
            _, oldest = self._invalid_at.popitem(last=False)
            self._floor = max(self._floor, oldest)

    def committed(
        self, ino: int, ranges: Sequence[LaidOut] | None, version: int, position: int
    ) -> None:
        """This process's commit of these ranges made content `version` at `position`.

        None: of which ranges is not certain.
        """
        layout = self._files.get(ino)
        self.drop(ino, position)
        if layout is None or ranges is None or layout.version + 1 != version:
            return
        later = layout.committed(ranges)
        if later is not None:
            self._files[ino] = later

    def clear(self) -> None:
        """Trust nothing any more, nor what is on its way (the session was lost)."""
        self.clears += 1
        self._files.clear()
        self._chunks.clear()

    def locate(self, handle: int) -> Located | None:
        """Where the chunk was when last heard of."""
        return self._chunks.get(handle)

    def learn(self, chunks: Iterable[Located]) -> None:
        """Fresh locations."""
        for located in chunks:
            self._chunks[located.handle] = located
            self._chunks.move_to_end(located.handle)
        while len(self._chunks) > CHUNKS_MAX:
            self._chunks.popitem(last=False)

    def forget_chunk(self, handle: int) -> None:
        """Its locations proved wrong."""
        self._chunks.pop(handle, None)
