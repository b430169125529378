"""What proves to a reader of the change stream that it has missed nothing.

Each event says which one was delivered before it, heartbeats say how far the log has
been looked at for this reader. `Proof` compares; whoever reads, by whatever means, gives
it every line. Bytes of a response become lines here, too.
"""

from __future__ import annotations

from typing import Protocol

from gfs import changes
from gfs.changes import Cursor
from gfs.errors import RemoteProtocolError

LINE_BYTES_MAX = 16 * 1024 * 1024


class Gap(Exception):
    """An event is missing between two that were delivered; follow anew from the cursor."""


class HistoryLost(Exception):
    """The stream cannot continue from our cursor; begin anew from a snapshot."""


class Told(Protocol):
    """What of a line the proof looks at."""

    kind: str
    table: str
    cursor: str
    previous: str
    more: bool
    scanned_to: str
    committed: str
    reason: str


class Proof:
    """Of one reader that was at `cursor`, over any number of responses.

    Attributes:
      previous: what the next event must say came before it.
      scanned: the last cursor up to which a heartbeat said that there is nothing more.
      committed: how far the log went, by the last heartbeat.
    """

    def __init__(self, cursor: Cursor) -> None:
        self.previous = str(cursor)
        self.scanned = cursor
        self.committed = ""

    def takes(self, line: Told) -> bool:
        """Look at the next line; says whether it is an event.

        Raises: Gap, HistoryLost.
        """
        if line.table:
            if line.previous != self.previous:
                raise Gap(f"{line.cursor} follows {line.previous}, not {self.previous}")
            self.previous = line.cursor
            return True
        if line.kind == changes.HEARTBEAT:
            self.scanned = changes.parse_cursor(line.scanned_to)
            self.committed = line.committed
        elif line.kind == changes.RESET:
            raise HistoryLost(line.reason)
        return False

    @property
    def cursor(self) -> Cursor:
        """Where to go on: behind the last event, or behind what held nothing for us since."""
        last = changes.parse_cursor(self.previous)
        return self.scanned if self.scanned.place > last.place else last


class LineCutter:
    """Pieces of a response, cut at ends of lines."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._size = 0

    def whole(self, piece: bytes) -> bytes:
        """The lines that `piece` completes, b"" if none.

        Raises: RemoteProtocolError: a line without end.
        """
        cut = piece.rfind(b"\n") + 1
        if not cut:
            self._rest.append(piece)
            self._size += len(piece)
            if self._size > LINE_BYTES_MAX:
                raise RemoteProtocolError("change stream: a line without end")
            return b""
        self._rest.append(piece[:cut])
        lines = b"".join(self._rest)
        self._rest, self._size = [piece[cut:]], len(piece) - cut
        return lines
