"""What a follower of the stream may believe: order, completeness, batches.

Lines come in as the stream sends them. Each event says which one came before it, so
a gap is seen at once; a batch ends only where a record ends, so that no view ever
shows half a rename. Views take the last image of each item (`Batch.items`): state
is a function of the items, not of the way they came about.
"""

from __future__ import annotations

import stat
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from gfs import changes
from gfs.changes import Cursor, Image, Line
from gfs.stream_proof import Gap as Gap
from gfs.stream_proof import HistoryLost as HistoryLost
from gfs.stream_proof import Proof

DirentKey = tuple[int, str]  # parent, name as text
FileChange = tuple[int, Image | None, Image | None]  # inode, what it was, what it is
_TYPE = 0o170000  # bits of st_mode: an inode keeps them for life


class SourceDiffers(Exception):
    """A copy was made of what this view does not hold: it is to be built anew."""


@dataclass
class Items:
    """Last image of each item a batch touched; None = gone."""

    inodes: dict[int, Image | None] = field(default_factory=dict)
    dirents: dict[DirentKey, Image | None] = field(default_factory=dict)
    # What was there before the batch, as it was: their first event was no insert.
    old_inodes: dict[int, Image] = field(default_factory=dict)
    old_dirents: dict[DirentKey, Image] = field(default_factory=dict)
    old_xattrs: set[int] = field(default_factory=set)  # inodes that had xattrs


@dataclass
class Batch:
    """Events of whole records, in order, up to `cursor`."""

    lines: list[Line]
    cursor: Cursor
    # Items of a checkpoint instead of events; `cursor` is START as long as more are to come.
    snapshot: bool = False

    def after(self, cursor: Cursor) -> list[Line]:
        """The events that come after `cursor`."""
        if not self.lines or self.snapshot or _position(self.lines[0]) > cursor.position:
            return self.lines
        return [line for line in self.lines if _position(line) > cursor.position]

    def halves(self) -> tuple[Batch, Batch] | None:
        """Two batches of whole records that do the same; None if this is one record."""
        ends = [at for at, line in enumerate(self.lines, 1) if not line.more]
        if len(ends) < 2:
            return None
        end = ends[(len(ends) - 1) // 2]
        first = changes.START
        if not self.snapshot:
            last = changes.parse_cursor(self.lines[end - 1].cursor)
            first = last._replace(rank=changes.WHOLE_RECORD)
        return (
            Batch(self.lines[:end], first, self.snapshot),
            Batch(self.lines[end:], self.cursor, self.snapshot),
        )


def stages(lines: list[Line]) -> Iterator[tuple[Items, Line | None]]:
    """What to bring about, in order: items, and the copy that then takes effect (None: at the end).

    A copy makes rows of the rows that are there, so it cannot be told by last images.
    """
    begin = 0
    for at, line in enumerate(lines):
        if line.copy is not None:
            yield items_of(lines[begin:at]), line
            begin = at + 1
    yield items_of(lines[begin:] if begin else lines), None


def items_of(lines: list[Line]) -> Items:
    """Last images by key; of lines without a copy (`stages`)."""
    found = Items()
    inodes, dirents = found.inodes, found.dirents
    for line in lines:
        keys = line.keys
        if keys is None:
            continue
        old = line.old
        if line.table == "inodes":
            ino = keys.ino
            if old is not None:
                if ino not in inodes:
                    found.old_inodes[ino] = old
                if old.attributes:
                    found.old_xattrs.add(ino)
            inodes[ino] = line.new
        else:
            key = keys.parent, keys.name
            if old is not None and key not in dirents:
                found.old_dirents[key] = old
            dirents[key] = line.new
    return found


def files_of(items: Items) -> list[FileChange]:
    """Regular files whose inodes a batch touches."""
    found: list[FileChange] = []
    before = items.old_inodes
    for ino, new in items.inodes.items():
        old = before.get(ino)
        one = new or old
        if one is not None and one.mode & _TYPE == stat.S_IFREG:
            found.append((ino, old, new))
    return found


def _position(line: Line) -> int:
    return int(line.cursor.partition("-")[2].partition(".")[0])


class Follower:
    """Collects lines of one response of the stream that was asked for from `cursor`."""

    def __init__(self, cursor: Cursor) -> None:
        self._proof = Proof(cursor)
        self._events: deque[list[Line]] = deque()  # whole records together
        self._open: list[Line] = []  # events of a record of which more are to come
        self.pending = 0  # events of whole records not yet in a batch
        self.taken = cursor  # how far batches were handed out

    def take(self, lines: list[Line]) -> None:
        """Add lines.

        Raises: Gap, HistoryLost.
        """
        whole: list[Line] = []
        for line in lines:
            if self._proof.takes(line):
                self._open.append(line)
                if not line.more:
                    whole += self._open
                    self._open.clear()
        if whole:
            self._events.append(whole)
            self.pending += len(whole)

    @property
    def committed(self) -> str:
        """How far the log went, by the last heartbeat."""
        return self._proof.committed

    @property
    def has_news(self) -> bool:
        """Whether `batch` would give one."""
        return self.pending > 0 or self._proof.scanned.position > self.taken.position

    def batch(self, limit: int) -> Batch | None:
        """The next whole records: about `limit` events; None if nothing is there."""
        if not self.has_news:
            return None
        lines: list[Line] = []
        while self._events and (not lines or len(lines) + len(self._events[0]) <= limit):
            lines += self._events.popleft()
        if len(lines) > limit:
            lines = self._split(lines, limit)
        self.pending -= len(lines)
        if lines:
            cursor = changes.parse_cursor(lines[-1].cursor)._replace(rank=changes.WHOLE_RECORD)
        else:
            cursor = self._proof.scanned
        if not self._events and self._proof.scanned.position > cursor.position:
            cursor = self._proof.scanned
        self.taken = cursor
        return Batch(lines, cursor)

    def _split(self, lines: list[Line], limit: int) -> list[Line]:
        """Give back what is beyond `limit`, at the end of a record."""
        end = limit
        while lines[end - 1].more:
            end -= 1
            if end == 0:  # one record larger than the limit
                end = limit
                while lines[end - 1].more:
                    end += 1
                break
        if end < len(lines):
            self._events.appendleft(lines[end:])
        return lines[:end]
