"""The operation log: what makes a mutation of metadata certain, in order, for ever.

One writer. Records get consecutive positions, a group of them one write and one
fdatasync. Segments are zero-filled ahead in steps, so that this sync changes no
metadata (0.13 ms instead of 0.6). A full disk therefore shows when space is
prepared, before a record is written.

Recovery. The first frame that is none ends the log, and what lies behind it is
zeroed: a torn tail, of which nobody was told. Unless that record was durable,
because a later valid frame says so, the state has applied it, or a later segment
exists (one is begun only when all before it is synced): then it is damage and the
log refuses. What the state has applied is checked by a start only at its end, lest
a full segment keep everybody waiting; the rest by `check`, later and in small pieces.
After a failed sync nothing is retried and nothing more is taken:
what the kernel then holds is unknown, the master must exit.
Source: GFS §2.6.3. Departs: the log is on one machine until shadows exist.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gfs import errors
from gfs.checksum import crc32c
from gfs.disk import Disk, File, make_directory
from gfs.ids import MIB, Epoch, Position
from master.segment_set import SegmentSet
from master.segments import (
    BODY,
    HEAD,
    HEADER_BYTES,
    PAYLOAD_BYTES_MAX,
    SPARE_NAME,
    LogDamaged,
    LogRecord,
    Segment,
    encode_header,
    find_frame,
    list_segments,
    name_of,
    without_zeros,
)

SEGMENT_BYTES = 64 * MIB
STEP_BYTES = 4 * MIB
RECENT_RECORDS = 10_000  # that the state has applied and a start checks all the same


@dataclass(frozen=True)
class LogStatistics:
    """Figures of a log since its start."""

    segments: int
    first_position: int
    last_position: int
    appended_bytes: int
    groups_total: int
    syncs_total: int


class OperationLog:
    """The writer's side of the log in `directory`. `recover` comes first."""

    def __init__(
        self,
        directory: Path,
        disk: Disk,
        cluster_id: str,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        step_bytes: int = STEP_BYTES,
    ) -> None:
        self._directory = directory
        self._disk = disk
        self._cluster_id = cluster_id
        self._segment_bytes = segment_bytes
        self._step_bytes = min(step_bytes, segment_bytes)  # a small segment needs no more
        self._seed = crc32c(cluster_id.encode())
        self._kept = SegmentSet(directory, disk)  # the last one takes records
        self._spare: File | None = None
        self._spare_bytes = 0
        self._preparing = threading.Lock()  # guards spare, zeroed end and segment change
        self._tail = 0  # offset in the last segment at which the next frame goes
        self._zeroed_end = 0  # its size; [tail, zeroed end) reads as 0 and is synced
        self._failed: str | None = None
        self.first_position = Position(1)  # of the oldest record kept, or of the first to come
        self.last_position = Position(0)
        self.last_epoch = Epoch(0)
        self.durable_position = Position(0)
        self._appended_bytes = self._groups = self._syncs = 0

    # Start.

    def recover(self, applied_position: int, *, first_position: int | None = None) -> int:
        """Find the end of the log and make all up to there durable.

        Args:
          applied_position: the last record the state has applied; the log must have it.
          first_position: where an empty log begins (a shadow begins behind its
            checkpoint); None: at 1, and an empty log whose state is ahead is damage.

        Returns:
          Bytes of a torn tail that were cut.

        Raises:
          LogDamaged: a record that was durable is missing; names record, file, offset.
          WrongCluster, NewerFormat: the files are not ours to open.
        """
        make_directory(self._disk, self._directory)
        if self._disk.exists(self._directory / SPARE_NAME):
            self._disk.unlink(self._directory / SPARE_NAME)
        firsts = list_segments(self._disk, self._directory)
        if not firsts:
            self._start_empty(applied_position, first_position)
            return 0
        for first in firsts:
            self._kept.add(Segment(self._disk, self._directory, first, self._cluster_id))
        self.first_position = Position(firsts[0])
        last = self._kept.segments[-1]
        last.index(near=applied_position - RECENT_RECORDS)
        if len(firsts) > 1:
            self._check_joint(self._kept.segments[-2], last)
        self._check_end(last, applied_position)
        cut = self._zero_tail(last)
        self._disk.sync_directory(self._directory)
        self.last_position = self.durable_position = Position(last.last)
        self._tail, self._zeroed_end = last.end, last.file.size()
        return cut

    def _start_empty(self, applied_position: int, first_position: int | None) -> None:
        if first_position is None and applied_position > 0:
            raise LogDamaged(
                f"the state has applied record {applied_position},"
                f" but {self._directory} holds no log"
            )
        self.first_position = Position(first_position or 1)
        self.last_position = self.durable_position = Position(self.first_position - 1)

    def _check_joint(self, before: Segment, last: Segment) -> None:
        """The last segment begins where the one before it ends, and carries its epoch on."""
        before.index(near=last.first - 1)
        end, before.offsets = before.last, None
        if end != last.first - 1:
            raise before.damaged(min(end + 1, last.first), before.end)
        if last.first > last.last:
            last.epoch = before.epoch

    def _check_end(self, last: Segment, applied_position: int) -> None:
        """The frame behind the end was never durable, else it is damage."""
        missing = last.last + 1
        if applied_position >= missing:
            raise LogDamaged(
                f"{last.damaged(missing, last.end)}; the state has applied it"
                f" (up to {applied_position})"
            )
        later = find_frame(last.file, last.end, self._seed, beyond=missing)
        if later is not None:
            raise LogDamaged(
                f"{last.damaged(missing, last.end)}; record {later.position}"
                f" at offset {later.offset} says it was durable"
            )
        self.last_epoch = Epoch(last.epoch)

    def _zero_tail(self, last: Segment) -> int:
        """Zero what lies behind the end; make it, and all before it, durable."""
        content = last.file.pread(last.file.size() - last.end, last.end)
        cut = without_zeros(content)
        if cut:
            last.file.zero(last.end, len(content))
        last.file.fsync()  # after kill -9 the last frames may be in the page cache only
        return cut

    # Writing.

    def append(self, epoch: int, records: Sequence[tuple[int, bytes]]) -> None:
        """Write a group of records, `(position, payload)` each; durable after `sync`.

        Raises:
          NoSpace: nothing of the group is in the log; it may be tried again.
          StorageFailed: the log is unusable from now on; exit.
          LocalProtocolError: positions do not follow, or the epoch goes back.
        """
        position, durable, seed = int(self.last_position), self.durable_position, self._seed
        if self._failed is not None:
            raise errors.StorageFailed(self._failed)
        if epoch < self.last_epoch:
            raise errors.LocalProtocolError(f"epoch {epoch} after {self.last_epoch}")
        parts: list[bytes] = []
        starts = []
        length = 0
        pack_head, pack_body = HEAD.pack, BODY.pack
        for number, payload in records:
            if number != position + 1 or len(payload) > PAYLOAD_BYTES_MAX:
                raise errors.LocalProtocolError(f"record {number} after {position}")
            position = number
            content = pack_body(epoch, number, durable) + payload
            parts.append(pack_head(len(content), crc32c(content, seed)))
            parts.append(content)
            starts.append(length)
            length += HEAD.size + len(content)
        if self._tail + length > self._zeroed_end:
            self._make_room(length, epoch)
        segment, tail = self._kept.segments[-1], self._tail
        try:
            segment.file.pwrite(b"".join(parts), tail)
        except errors.GfsError:
            self._retract(segment, length)
            raise
        assert segment.offsets is not None
        segment.offsets.extend([tail + start for start in starts])
        self._tail = segment.end = tail + length
        self.last_position, self.last_epoch = Position(position), Epoch(epoch)
        segment.epoch = epoch
        self._appended_bytes += length
        self._groups += 1

    def sync(self) -> None:
        """Make everything appended so far durable.

        Raises: StorageFailed: what is on disk is unknown; the master must exit.
        """
        if self._failed is not None:
            raise errors.StorageFailed(self._failed)
        if not self._kept.segments:
            return
        position = self.last_position
        self._sync_file(self._kept.segments[-1].file)
        self.durable_position = position
        self._syncs += 1

    def _sync_file(self, file: File) -> None:
        try:
            file.fdatasync()
        except errors.GfsError as error:
            self._failed = f"the operation log could not be synced: {error}"
            raise errors.StorageFailed(self._failed) from error

    def _retract(self, segment: Segment, length: int) -> None:
        """Zero what a failed write may have left, lest recovery finds records in it."""
        try:
            segment.file.zero(self._tail, min(length, segment.file.size() - self._tail))
            segment.file.fdatasync()
        except errors.GfsError as error:
            self._failed = f"the operation log has a tail that cannot be zeroed: {error}"
            raise errors.StorageFailed(self._failed) from error

    # Space.

    @property
    def needs_preparation(self) -> bool:
        """Whether `prepare` has something to do; cheap."""
        if self._zeroed_end < self._segment_bytes and self._kept.segments:
            return self._zeroed_end - self._tail < self._step_bytes
        return self._spare is None

    def prepare(self) -> None:
        """Zero-fill the next step, or begin the next segment, so that no append must.

        Takes milliseconds: call it from a thread when `needs_preparation`.

        Raises: NoSpace: appends go on until the space prepared is used up.
        """
        with self._preparing:
            if not self.needs_preparation:
                return
            if self._kept.segments and self._zeroed_end < self._segment_bytes:
                self._extend(self._zeroed_end + self._step_bytes)
            else:
                self._make_spare(HEADER_BYTES + self._step_bytes)

    def _make_room(self, length: int, epoch: int) -> None:
        """Have zeroed space for a group of `length` bytes, in a new segment if need be."""
        with self._preparing:
            full = self._tail > HEADER_BYTES and self._tail + length > self._segment_bytes
            if full or not self._kept.segments:
                self._begin_segment(length, epoch)
            if self._tail + length > self._zeroed_end:
                steps = -(-(self._tail + length - self._zeroed_end) // self._step_bytes)
                self._extend(self._zeroed_end + steps * self._step_bytes)

    def _extend(self, end: int) -> None:
        """Zero-fill the last segment up to `end`; a failure leaves what was there usable."""
        file = self._kept.segments[-1].file
        file.zero(self._zeroed_end, end - self._zeroed_end)
        file.fsync()
        self._zeroed_end = end

    def _make_spare(self, size: int) -> None:
        path = self._directory / SPARE_NAME
        file = self._spare or self._disk.open(path, create=True)
        try:
            file.zero(0, size)
            file.fsync()
            self._disk.sync_directory(self._directory)
        except errors.GfsError:
            self._spare = None
            file.close()
            self._disk.unlink(path)
            raise
        self._spare, self._spare_bytes = file, size

    def _begin_segment(self, length: int, epoch: int) -> None:
        """Sync what there is, then give the spare its header and its name."""
        if self._spare is None:
            self._make_spare(HEADER_BYTES + max(length, self._step_bytes))
        assert self._spare is not None
        first = self.last_position + 1
        path = self._directory / name_of(first)
        if self._kept.segments:
            self._sync_file(self._kept.segments[-1].file)
            self.durable_position = self.last_position
        self._spare.pwrite(encode_header(first, epoch, self._cluster_id), 0)
        self._spare.fdatasync()
        self._disk.rename(self._directory / SPARE_NAME, path)
        self._spare.close()
        self._spare = None
        self._disk.sync_directory(self._directory)
        segment = Segment(self._disk, self._directory, first, self._cluster_id)
        segment.index()
        self._kept.add(segment)
        self._tail, self._zeroed_end = HEADER_BYTES, self._spare_bytes

    # Reading and retention.

    def read(self, position: int) -> tuple[Epoch, bytes]:
        """Epoch and payload of a record.

        Raises: Truncated (older than the log keeps), NotFound (to come), LogDamaged.
        """
        record = self._kept.read(position, self.last_position)
        return record.epoch, record.payload

    def epoch_at(self, position: int) -> Epoch:
        """Epoch of the record at `position`; raises as `read` does."""
        return self._kept.read(position, self.last_position).epoch

    def scan(self, from_position: int) -> Iterator[LogRecord]:
        """All records from `from_position` to the end, in order; raises as `read` does."""
        return self._kept.scan(from_position, self.last_position)

    def check(self, position: int, records: int) -> int:
        """Read so many records from `position` on (or the first kept); the next position.

        Raises: LogDamaged: names record, file, offset.
        """
        first = max(position, int(self.first_position))
        last = min(first + records - 1, int(self.last_position))
        deque(self._kept.scan(first, last), maxlen=0)
        return last + 1

    def retained_from(self, keep_bytes: int) -> int:
        """First position of the newest segments that together hold `keep_bytes`."""
        held = 0
        for segment in reversed(self._kept.segments):
            held += segment.file.size()
            if held >= keep_bytes:
                return segment.first
        return int(self.first_position)

    def segment_starts(self) -> list[int]:
        """First positions of the segments kept, ascending."""
        return [segment.first for segment in self._kept.segments]

    def truncate_before(self, position: int) -> int:
        """Remove segments all of whose records lie before `position`; return how many.

        The caller sees to it that checkpoints, sessions and retention allow it.
        Blocks for the unlinks; oldest first, so what is left has no gap.
        """
        removed = self._kept.remove_before(position)
        if removed:
            self.first_position = Position(self._kept.segments[0].first)
        return removed

    def statistics(self) -> LogStatistics:
        """Figures since the start."""
        return LogStatistics(
            segments=len(self._kept.segments),
            first_position=self.first_position,
            last_position=self.last_position,
            appended_bytes=self._appended_bytes,
            groups_total=self._groups,
            syncs_total=self._syncs,
        )

    def close(self) -> None:
        """Close the files; makes nothing durable."""
        for segment in self._kept.segments:
            segment.close()
        if self._spare is not None:
            self._spare.close()
