"""Read-ahead in user space, for reads that the kernel issues one at a time.

Pieces of 1 MiB of a chunk are fetched up to 4 MiB ahead once two reads of the
chunk have followed each other. Small files written one after the other lie one after
the other in a chunk, so the piece in which a read lies is fetched past the end of its
extent: the next files come with it. Acknowledged bytes of a chunk never change, so a
piece needs no invalidation; it is dropped when newer ones need the room.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable

import trio

from gfs.checksum import Buffer
from gfs.errors import GfsError
from gfs.ids import MIB

PIECE_BYTES = MIB
AHEAD_PIECES = 4
PIECES_MAX = 32
STREAMS_MAX = 256

Fetch = Callable[[int, int, int, int], Awaitable[Buffer]]  # handle, offset, length, least or -1


class _Ahead:
    """A piece that was asked for, and the answer; at least up to `least`, perhaps to `end`."""

    __slots__ = ("content", "done", "end", "error", "least", "start")

    def __init__(self, start: int, end: int, least: int) -> None:
        self.start = start
        self.end = end
        self.least = least
        self.done = trio.Event()
        self.content: Buffer = b""
        self.error: GfsError | None = None


class Prefetcher:
    """Reads of chunk ranges through a small window of pieces asked for ahead."""

    def __init__(self, nursery: trio.Nursery, fetch: Fetch) -> None:
        self._nursery = nursery
        self._fetch = fetch
        self._pieces: OrderedDict[tuple[int, int], _Ahead] = OrderedDict()
        self._expected: OrderedDict[int, int] = OrderedDict()

    async def read(
        self, handle: int, offset: int, length: int, limit: int, *, fill: bool = False
    ) -> Buffer:
        """[offset, offset + length) of the chunk; nothing at or past `limit` is asked for.

        With `fill` the piece in which the read lies may go past it. Not for an open tail:
        what is not acknowledged there may yet change.
        """
        end = offset + length
        sequential = self._expected.pop(handle, -1) == offset
        self._expected[handle] = end
        if len(self._expected) > STREAMS_MAX:
            self._expected.popitem(last=False)
        covered = self._covering(handle, offset, end)
        if covered is None and not sequential:
            return await self._fetch(handle, offset, length, -1)
        if sequential:
            self._ask_ahead(handle, offset, end, limit, fill)
            covered = self._covering(handle, offset, end)
        if covered is None:
            return await self._fetch(handle, offset, length, -1)
        return await self._assemble(covered, handle, offset, end)

    def _covering(self, handle: int, offset: int, end: int) -> list[_Ahead] | None:
        found: list[_Ahead] = []
        for index in range(offset // PIECE_BYTES, (end - 1) // PIECE_BYTES + 1):
            piece = self._pieces.get((handle, index))
            if piece is None or piece.error is not None:
                return None
            if piece.start > max(offset, index * PIECE_BYTES):
                return None  # it was begun in the middle, for another read
            if piece.end < min(end, (index + 1) * PIECE_BYTES):
                return None
            found.append(piece)
        return found

    def _ask_ahead(self, handle: int, offset: int, end: int, limit: int, fill: bool) -> None:
        first = offset // PIECE_BYTES
        last = (end - 1) // PIECE_BYTES + AHEAD_PIECES
        for index in range(first, last + 1):
            start = max(index * PIECE_BYTES, offset if index == first else 0)
            piece_end = (index + 1) * PIECE_BYTES
            least = min(piece_end, limit)
            if start >= least:
                break
            known = self._pieces.get((handle, index))
            usable = known is not None and known.error is None
            if known is not None and usable and known.start <= start and known.end >= least:
                continue
            stop = piece_end if fill and index == first else least
            piece = self._pieces[handle, index] = _Ahead(start, stop, least)
            self._pieces.move_to_end((handle, index))
            self._nursery.start_soon(self._fill, handle, piece)
        while len(self._pieces) > PIECES_MAX:
            self._pieces.popitem(last=False)

    async def _fill(self, handle: int, piece: _Ahead) -> None:
        try:
            piece.content = await self._fetch(
                handle, piece.start, piece.end - piece.start, piece.least - piece.start
            )
            piece.end = piece.start + len(piece.content)
        except GfsError as error:
            piece.error = error
        piece.done.set()

    async def _assemble(self, pieces: list[_Ahead], handle: int, offset: int, end: int) -> Buffer:
        parts: list[Buffer] = []
        for piece in pieces:
            piece_end = (piece.start // PIECE_BYTES + 1) * PIECE_BYTES
            if not piece.done.is_set():
                await piece.done.wait()
            first, last = max(offset, piece.start), min(end, piece_end)
            if piece.error is not None or piece.end < last:
                return await self._fetch(handle, offset, end - offset, -1)
            whole = (first, last) == (piece.start, piece.end)
            view = memoryview(piece.content)
            parts.append(piece.content if whole else view[first - piece.start : last - piece.start])
        return parts[0] if len(parts) == 1 else b"".join(parts)
