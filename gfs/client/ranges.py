"""What of a file is written but not committed: pieces in write order, laid over the rest.

Pure. A piece is a contiguous write (or several that follow each other); later
pieces hide earlier ones. Readers see the overlay on top of what is committed;
a piece leaves when its commit is answered, whatever hid it meanwhile.

Invariant: visible segments are sorted by start and disjoint; each segment
(start, end, piece) shows the piece's bytes [start - piece.offset, end - piece.offset).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

Buffer = bytes | bytearray | memoryview

GATHERED_BYTES = 4096  # smaller ones cost more memory as objects than as bytes


class Piece:
    """Contiguous bytes of a file at `offset`; it may grow until it is sent.

    Big buffers are gathered and joined once, when somebody wants them as one; small
    ones, and what is read while it grows, go into one bytearray.
    """

    __slots__ = ("_buffer", "_more", "length", "offset")

    def __init__(self, offset: int, buffer: Buffer) -> None:
        self.offset = offset
        self.length = len(buffer)
        self._buffer = buffer
        self._more: list[Buffer] = []

    @property
    def end(self) -> int:
        return self.offset + self.length

    @property
    def buffer(self) -> Buffer:
        """All of it, in one buffer; a bytearray may still change."""
        if self._more:
            self._buffer = b"".join((self._buffer, *self._more))
            self._more = []
        return self._buffer

    def _mutable(self) -> bytearray:
        if not isinstance(self._buffer, bytearray):
            self._buffer = bytearray().join((self._buffer, *self._more))
            self._more = []
        return self._buffer

    def grow(self, data: Buffer) -> None:
        """Take over bytes that follow the piece's end."""
        if len(data) >= GATHERED_BYTES and not isinstance(self._buffer, bytearray):
            self._more.append(data)
        else:
            mutable = self._mutable()
            mutable += data
        self.length += len(data)

    def patch(self, offset: int, data: Buffer) -> None:
        """Overwrite bytes inside the piece."""
        start = offset - self.offset
        self._mutable()[start : start + len(data)] = data

    def view(self, start: int, end: int) -> Buffer:
        """Bytes of the file range [start, end) inside the piece; a copy while it may grow."""
        first, last = start - self.offset, end - self.offset
        if self._more or isinstance(self._buffer, bytearray):
            return self._mutable()[first:last]
        if first == 0 and last == self.length:
            return self._buffer
        return memoryview(self._buffer)[first:last]


Segment = tuple[int, int, Piece]


class Overlay:
    """Visible uncommitted bytes of one file."""

    __slots__ = ("_segments", "_starts")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._segments: list[Segment] = []

    @property
    def end(self) -> int:
        """End of the last visible byte, 0 if there is none."""
        return self._segments[-1][1] if self._segments else 0

    def beyond(self, offset: int) -> int:
        """How many bytes are visible at or above `offset`."""
        count = 0
        for first, last, _ in reversed(self._segments):
            if last <= offset:
                break
            count += last - max(first, offset)
        return count

    def __bool__(self) -> bool:
        return bool(self._segments)

    def add(self, piece: Piece) -> None:
        """`piece` was written last and hides what it covers."""
        if piece.length:
            self._insert(piece.offset, piece.end, piece)

    def grown(self, piece: Piece, by: int) -> None:
        """`piece`, whose last bytes were written last, grew by `by` bytes at its end."""
        end = piece.end
        start = end - by
        last = len(self._segments) - 1
        if last >= 0 and self._segments[last][1] == start and self._segments[last][2] is piece:
            self._segments[last] = (self._starts[last], end, piece)
        else:
            self._insert(start, end, piece)

    def _insert(self, start: int, end: int, piece: Piece) -> None:
        if not self._segments or self._segments[-1][1] <= start:
            self._starts.append(start)
            self._segments.append((start, end, piece))
            return
        at = self._cut(start, end)
        self._starts.insert(at, start)
        self._segments.insert(at, (start, end, piece))

    def _cut(self, start: int, end: int) -> int:
        """Remove [start, end) from view; returns where a segment there would be inserted."""
        first = bisect_left(self._starts, start)
        if first and self._segments[first - 1][1] > start:
            first -= 1
        last = bisect_left(self._starts, end)
        kept: list[Segment] = []
        at = first
        if first < last:
            head_start, _, head = self._segments[first]
            if head_start < start:
                kept.append((head_start, start, head))
                at += 1
            _, tail_end, tail = self._segments[last - 1]
            if tail_end > end:
                kept.append((end, tail_end, tail))
        self._segments[first:last] = kept
        self._starts[first:last] = [segment[0] for segment in kept]
        return at

    def drop(self, piece: Piece) -> None:
        """`piece` is committed: show what lies beneath again."""
        segments = self._segments
        first = bisect_left(self._starts, piece.offset)
        last = bisect_left(self._starts, piece.end, first)
        hit = [at for at in range(first, last) if segments[at][2] is piece]
        for at in reversed(hit):
            del segments[at], self._starts[at]

    def read(self, start: int, end: int) -> list[Segment]:
        """Visible segments within [start, end), clipped, in order."""
        segments = self._segments
        if not segments or segments[-1][1] <= start:
            return []
        at = max(0, bisect_right(self._starts, start) - 1)
        found: list[Segment] = []
        while at < len(segments) and segments[at][0] < end:
            first, last, piece = segments[at]
            if last > start:
                found.append((max(first, start), min(last, end), piece))
            at += 1
        return found

    def truncate(self, size: int) -> None:
        """Nothing at or above `size` is visible any more."""
        if self.end > size:
            self._cut(size, self.end)


def covers(segments: list[Segment], start: int, end: int) -> bool:
    """Whether clipped segments leave no gap in [start, end)."""
    at = start
    for first, last, _ in segments:
        if first != at:
            return False
        at = last
    return at == end
