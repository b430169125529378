"""The log as other processes see it: committed records only, without a lock.

The writer publishes the committed position, after COMMIT, in a small mapped
file; `LogReader` follows the segments up to there. Everything below that
position is synced and never changes, so no reader can meet half a record.
"""

from __future__ import annotations

import mmap
from pathlib import Path

from gfs import errors
from gfs.disk import Disk, PosixDisk
from gfs.ids import MIB, Epoch, Position
from master.segments import (
    HEADER_BYTES,
    LogDamaged,
    LogRecord,
    Segment,
    Truncated,
    list_segments,
)

_MAGIC = 0x31544D4D4F434647  # "GFCOMMT1", the format number at its end
_WORDS = 16  # 8 bytes each: magic, unused, two slots of (count, position, epoch, check)
_SLOTS = (2, 6)
_MASK = (1 << 64) - 1
RECORDS_MAX = 1 << 20
_ATTEMPTS = 1000  # both slots only change if two publishes pass meanwhile


def _check(count: int, position: int, epoch: int) -> int:
    """Word that tells a whole slot from one half written; of four zeros it says no."""
    return (count * 0x9E3779B97F4A7C15 ^ position * 0xC2B2AE3D27D4EB4F ^ epoch + _MAGIC) & _MASK


class CommittedPosition:
    """Position and epoch of the last committed record, shared through a mapped file.

    Two slots are written in turn and carry a check word: at any moment, also if
    the writer is killed in the middle, one is whole.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        """Map the file; the one writer says `create`.

        Raises: NotFound, NewerFormat.
        """
        file = PosixDisk().open(path, create=create)
        try:
            if file.size() < _WORDS * 8:
                if not create:
                    raise errors.NotFound(f"{path} has not been written yet")
                file.truncate(_WORDS * 8)
            self._map = mmap.mmap(file.fileno(), _WORDS * 8)
        finally:
            file.close()
        self._words = memoryview(self._map).cast("Q")  # stores one word at a time
        if create:
            self._words[0] = _MAGIC
        elif self._words[0] != _MAGIC:
            self.close()
            raise errors.NewerFormat(f"{path} is not of a format this release reads")
        self._count = max(self._slot(at)[0] for at in _SLOTS)

    def publish(self, position: int, epoch: int) -> None:
        """Say, after COMMIT, up to where the log may be read."""
        self._count = count = self._count + 1
        words, at = self._words, _SLOTS[count & 1]
        words[at + 3] = 0
        words[at + 1] = position
        words[at + 2] = epoch
        words[at] = count
        words[at + 3] = _check(count, position, epoch)

    def read(self) -> tuple[Position, Epoch]:
        """The last position published and its epoch; (0, 0) if none ever was.

        A new start of the master publishes what it recovered, so this does not go
        back unless the cluster was restored; then the epoch is higher.
        """
        for _ in range(_ATTEMPTS):
            first, second = (self._slot(at) for at in _SLOTS)
            if first[0] and second[0]:
                return _newest(first, second)
            # One is being written, or unused, or torn for good by kill -9: the other is
            # the newest, but only as it is read *after* that was seen.
            other = self._slot(_SLOTS[1] if second[0] else _SLOTS[0])
            if other[0]:
                return _newest(other)
            if not any(self._words[2:]):
                break
        return Position(0), Epoch(0)

    def _slot(self, at: int) -> tuple[int, int, int]:
        count, position, epoch, check = self._words[at : at + 4].tolist()
        return (count, position, epoch) if check == _check(count, position, epoch) else (0, 0, 0)

    def close(self) -> None:
        """Unmap the file."""
        self._words.release()
        self._map.close()


def _newest(*slots: tuple[int, int, int]) -> tuple[Position, Epoch]:
    _, position, epoch = max(slots)
    return Position(position), Epoch(epoch)


class LogReader:
    """Committed records in order, for a process that is not the writer."""

    def __init__(
        self, directory: Path, disk: Disk, cluster_id: str, committed: CommittedPosition
    ) -> None:
        self._directory = directory
        self._disk = disk
        self._cluster_id = cluster_id
        self._committed = committed
        self._segment: Segment | None = None
        self._next = (0, 0)  # position and the offset in the segment at which it begins

    @property
    def first_position(self) -> Position:
        """The oldest position that can still be read; 0 if there is no log yet."""
        return Position(next(iter(list_segments(self._disk, self._directory)), 0))

    def read(
        self, from_position: int, *, limit_bytes: int = MIB, limit_records: int = RECORDS_MAX
    ) -> list[LogRecord]:
        """Committed records from `from_position` on: none, or up to about `limit_bytes`.

        Raises:
          Truncated: retention has removed the record; begin anew from a checkpoint.
          LogDamaged: a committed record cannot be read.
        """
        last = min(self._committed.read()[0], from_position + limit_records - 1)
        position, found, size = from_position, list[LogRecord](), 0
        while position <= last and size < limit_bytes:
            segment, offset = self._find(position)
            began = position
            for frame in segment.walk(offset):
                if frame.position != position:
                    break
                found.append(LogRecord(Position(position), Epoch(frame.epoch), frame.payload))
                position, offset = position + 1, frame.end
                size += len(frame.payload)
                if size >= limit_bytes or position > last:
                    break
            self._next = (position, offset)
            if position == began:  # the segment has ended, or is damaged
                self._next = (position, self._open(position, follows=segment))
        return found

    def epoch_at(self, position: int) -> Epoch:
        """Epoch of a committed record; raises as `read` does, NotFound if there is none yet."""
        for record in self.read(position, limit_bytes=1):
            return record.epoch
        raise errors.NotFound(f"record {position} is not committed")

    def _find(self, position: int) -> tuple[Segment, int]:
        """Segment and offset of a committed record: where the last read ended, or looked up."""
        if self._segment is None or self._next[0] != position:
            self._next = (position, self._open(position, follows=None))
        assert self._segment is not None
        return self._segment, self._next[1]

    def _open(self, position: int, *, follows: Segment | None) -> int:
        """Open the segment with `position`, which must begin it if it `follows` another."""
        firsts = list_segments(self._disk, self._directory)
        first = max((first for first in firsts if first <= position), default=None)
        if first is None:
            raise Truncated(f"record {position} is older than what the log keeps")
        if follows is not None and (first != position or first == follows.first):
            raise follows.damaged(position, self._next[1])
        try:
            segment = Segment(self._disk, self._directory, first, self._cluster_id)
        except errors.NotFound as error:  # removed since it was listed
            raise Truncated(f"record {position} is older than what the log keeps") from error
        self.close()
        self._segment = segment
        return self._skip_to(segment, position)

    def _skip_to(self, segment: Segment, position: int) -> int:
        """Where `position` begins; it may be the one that comes next."""
        if position == segment.first:
            return HEADER_BYTES
        offset, _ = segment.seek(position - 1)
        for frame in segment.walk(offset):
            if frame.position == position - 1:
                return frame.end
        raise LogDamaged(f"record {position} cannot be found in {segment.path}")

    def close(self) -> None:
        """Close the segment; the committed position stays the caller's."""
        if self._segment is not None:
            self._segment.close()
            self._segment = None
