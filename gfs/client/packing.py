"""Which bytes share a frame: pieces of many small files in one append.

An append costs every hop the same whether it carries 4 KiB or 1 MiB, so small
pieces gather until they fill a frame, somebody waits, or a time limit passes.
A packed frame is not cut where a chunk ends: a small file lies in one chunk.
"""

from __future__ import annotations

from gfs.checksum import digest_of
from gfs.client.dirty import DirtyPiece
from gfs.client.parts import Frame, OnFailed, OnPlaced, Placed
from gfs.ids import FRAME_BYTES
from gfs.items import Extent
from gfs.messages import LaidOut

ALONE_BYTES = FRAME_BYTES // 2  # from here a piece travels alone, uncopied


class PieceFrame(Frame):
    """A frame that knows whose bytes it carries: (start, attempt, piece) each."""

    __slots__ = ("contents",)

    def __init__(
        self,
        pieces: list[DirtyPiece],
        on_placed: OnPlaced,
        on_failed: OnFailed,
        *,
        divisible: bool,
    ) -> None:
        if len(pieces) == 1:
            buffer = pieces[0].buffer
            payload = memoryview(buffer) if isinstance(buffer, bytearray) else buffer
        else:
            payload = b"".join(piece.buffer for piece in pieces)
        super().__init__(payload, on_placed, on_failed, divisible=divisible)
        self.contents: list[tuple[int, int, DirtyPiece]] = []
        start = 0
        for piece in pieces:
            self.contents.append((start, piece.attempts, piece))
            start += piece.length

    def lay(self, placed: Placed) -> list[DirtyPiece]:
        """Note in the pieces where their bytes landed; returns those now wholly placed."""
        complete: list[DirtyPiece] = []
        payload = memoryview(self.payload)
        end = placed.start + placed.length
        for start, attempt, piece in self.contents:
            first, last = max(start, placed.start), min(start + piece.length, end)
            if first >= last or piece.attempts != attempt or piece.gone:
                continue
            chunk_offset = placed.chunk_offset + first - placed.start
            digest = digest_of(payload[first:last])
            extent = Extent(last - first, placed.handle, chunk_offset, digest)
            piece.placements.append(LaidOut(piece.offset + first - start, extent))
            piece.missing -= last - first
            if not piece.missing:
                complete.append(piece)
        return complete

    def wanted(self) -> list[DirtyPiece]:
        """Pieces that still depend on this frame."""
        return [
            piece
            for _, attempt, piece in self.contents
            if piece.attempts == attempt and not piece.gone
        ]


class Packer:
    """Gathers small pieces to frames. `add` returns the pieces of each frame that is due."""

    def __init__(self) -> None:
        self.pieces: list[DirtyPiece] = []
        self.since = 0.0  # when the first of them came
        self._bytes = 0

    def add(self, piece: DirtyPiece, now: float) -> list[list[DirtyPiece]]:
        """Take a piece; returns what should be sent now, in order."""
        due: list[list[DirtyPiece]] = []
        if self._bytes + piece.length > FRAME_BYTES or piece.length >= ALONE_BYTES:
            due.append(self.take())
        if piece.length >= ALONE_BYTES:
            due.append([piece])
        else:
            if not self.pieces:
                self.since = now
            self.pieces.append(piece)
            self._bytes += piece.length
        return [pieces for pieces in due if pieces]

    def take(self) -> list[DirtyPiece]:
        """All that has gathered and is still wanted."""
        pieces = [piece for piece in self.pieces if not piece.gone]
        self.pieces, self._bytes = [], 0
        return pieces
