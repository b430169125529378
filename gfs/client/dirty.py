"""Files with bytes that wait in this process: their pieces and what became of them.

A piece is *gathering* (takes the next contiguous write), then *submitted* to a
chunk writer, then *placed* (every byte lies in chunks), then *committed* (the
master has logged where). Bytes leave memory at the last step only. Pieces of a
file are committed in write order.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import trio
from msgspec.structs import replace

from gfs.checksum import joined_digest
from gfs.client.chunks import ChunkWriter
from gfs.client.ranges import Buffer, Overlay, Piece
from gfs.errors import GfsError
from gfs.messages import LaidOut

NO_LIMIT = -1


class DirtyPiece(Piece):
    """A piece on its way. `gone`: nobody wants it any more (discarded or refused)."""

    __slots__ = ("attempts", "file", "gone", "missing", "mtime_ns", "placements", "serial")

    def __init__(self, file: DirtyFile, offset: int, buffer: Buffer, serial: int) -> None:
        super().__init__(offset, buffer)
        self.file = file
        self.serial = serial
        self.mtime_ns = 0
        self.missing = -1  # bytes not placed; -1 while gathering
        self.placements: list[LaidOut] = []
        self.attempts = 0
        self.gone = False


class Pending(NamedTuple):
    """Uncommitted bytes of a file.

    Attributes:
      end: of the last of them.
      mtime_ns: when they were written; 0 if a later utimens counts.
      overlay: where they lie.
    """

    end: int
    mtime_ns: int
    overlay: Overlay


class DirtyFile:
    """One inode with writers or with bytes that are not committed.

    Attributes:
      pieces: not committed, in write order; the last may be gathering.
      own: the chunk writer that a big sequential file has to itself.
      unsynced: chunk writers that hold bytes of this file -> last serial there.
      settled: serial of the last piece that was committed or given up.
      room, room_at: bytes that quotas allowed to be added, and when the master said so; -1: no
        quota limits the file.
      promised: serial of the last piece whose writer has closed the file without waiting.
      data_version: of the content last seen; a commit after a lost session is
        conditional on it (`conditional`).
    """

    __slots__ = (
        "changed",
        "conditional",
        "data_version",
        "error",
        "error_count",
        "gathering",
        "handles",
        "ino",
        "overlay",
        "own",
        "pieces",
        "promised",
        "room",
        "room_at",
        "run_bytes",
        "run_end",
        "settled",
        "unsynced",
        "written",
    )

    def __init__(self, ino: int) -> None:
        self.ino = ino
        self.overlay = Overlay()
        self.gathering: DirtyPiece | None = None
        self.pieces: deque[DirtyPiece] = deque()
        self.own: ChunkWriter | None = None
        self.unsynced: dict[ChunkWriter, int] = {}
        self.run_end = self.run_bytes = 0
        self.written = self.settled = self.promised = 0
        self.handles = 0
        self.room = NO_LIMIT
        self.room_at = 0.0
        self.error: GfsError | None = None
        self.error_count = 0
        self.data_version = -1
        self.conditional = False
        self.changed = trio.Event()

    def new_piece(self, offset: int, data: Buffer) -> DirtyPiece:
        """Begin gathering; `data` is taken over without a copy."""
        self.written += 1
        piece = DirtyPiece(self, offset, data, self.written)
        self.pieces.append(piece)
        self.overlay.add(piece)
        self.gathering = piece
        return piece

    def sequential(self, offset: int, length: int) -> int:
        """Length of the run of consecutive writes that this write ends."""
        self.run_bytes = self.run_bytes + length if offset == self.run_end else length
        self.run_end = offset + length
        return self.run_bytes

    def placed_head(self) -> list[DirtyPiece]:
        """Pieces at the head that are wholly placed, in write order."""
        head = []
        for piece in self.pieces:
            if piece.gone:
                continue
            if piece.missing:
                break
            head.append(piece)
        return head

    def allow(self, room: int) -> None:
        """The master has said how many bytes quotas allow to be added; -1: any number."""
        self.room = room
        self.room_at = trio.current_time()

    def fail(self, error: GfsError) -> None:
        """Bytes of this file are lost; each open handle will say so once."""
        self.error = error
        self.error_count += 1

    def settle(self, pieces: list[DirtyPiece]) -> int:
        """Forget pieces (committed, refused or discarded); returns bytes freed."""
        freed = 0
        for piece in pieces:
            self.overlay.drop(piece)
            piece.gone = True
            freed += piece.length
        while self.pieces and self.pieces[0].gone:
            self.settled = self.pieces.popleft().serial
        if not self.pieces:
            self.settled = self.written
        self.changed.set()
        self.changed = trio.Event()
        return freed


def merged(pieces: list[DirtyPiece]) -> list[LaidOut]:
    """Ranges of pieces in write order, neighbours joined: fewer extents in the file."""
    ranges: list[LaidOut] = []
    for piece in pieces:
        for laid in piece.placements:
            last = ranges[-1] if ranges else None
            if (
                last is not None
                and last.extent.handle == laid.extent.handle
                and last.file_offset + last.extent.length == laid.file_offset
                and last.extent.chunk_offset + last.extent.length == laid.extent.chunk_offset
            ):
                last.extent.digest = joined_digest(
                    last.extent.digest, laid.extent.digest, laid.extent.length
                )
                last.extent.length += laid.extent.length
            else:
                ranges.append(LaidOut(laid.file_offset, replace(laid.extent)))
    return ranges
