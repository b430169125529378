"""The segments a log keeps: finding a record, walking all of them, removing old ones.

Where records begin is kept for the last segment, the writer's own, from its start or
from where recovery began. In the others a record is looked up when it is asked for,
which takes one or two milliseconds.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path

from gfs import errors
from gfs.disk import Disk
from gfs.ids import Epoch, Position
from master.segments import LogRecord, Segment, Truncated


class SegmentSet:
    """Segments in order of position, without a gap."""

    def __init__(self, directory: Path, disk: Disk) -> None:
        self._directory = directory
        self._disk = disk
        self.segments: list[Segment] = []

    def add(self, segment: Segment) -> None:
        """Take a segment that follows the last one."""
        if self.segments:
            self.segments[-1].offsets = None
        self.segments = [*self.segments, segment]

    def read(self, position: int, last_position: int) -> LogRecord:
        """The record at `position` of a log that ends with `last_position`.

        Raises: Truncated, NotFound (there is none yet), LogDamaged.
        """
        return self._segment_of(position, last_position).read(position)

    def scan(self, position: int, last_position: int) -> Iterator[LogRecord]:
        """Records `position` to `last_position`; raises as `read` does."""
        while position <= last_position:
            segment = self._segment_of(position, last_position)
            last = self._last_of(segment, last_position)
            end = start = segment.offset_of(position)
            for frame in segment.walk(start):
                if frame.position != position:
                    break
                yield LogRecord(Position(position), Epoch(frame.epoch), frame.payload)
                position, end = position + 1, frame.end
                if position > last:
                    break
            if position <= last:
                raise segment.damaged(position, end)

    def remove_before(self, position: int) -> int:
        """Remove the segments that end before `position`, never the last; return how many."""
        removed = 0
        while len(self.segments) > 1 and self.segments[1].first <= position:
            segment, *self.segments = self.segments
            segment.close()
            self._disk.unlink(segment.path)
            # One by one: at a power loss no later one may be gone before this is.
            self._disk.sync_directory(self._directory)
            removed += 1
        return removed

    def _last_of(self, segment: Segment, last_position: int) -> int:
        at = self.segments.index(segment)
        if at + 1 < len(self.segments):
            return min(self.segments[at + 1].first - 1, last_position)
        return last_position

    def _segment_of(self, position: int, last_position: int) -> Segment:
        if position > last_position:
            raise errors.NotFound(f"record {position}: the log ends with {last_position}")
        at = bisect_right(self.segments, position, key=lambda segment: segment.first) - 1
        if at < 0:
            raise Truncated(f"record {position} is older than what the log keeps")
        return self.segments[at]
