"""Segment files of the operation log: their header, their frames, how to walk them.

    file    header in the first 4,096 bytes, then frames, then zeros
    header  magic 8s | format u32 | CRC32C u32 of the rest | first position u64 | epoch u64
            | length of cluster id u16 | cluster id
    frame   length u32 of all behind the CRC | CRC32C u32 | epoch u64 | position u64
            | durable position u64 | payload

All little-endian. A frame's CRC covers everything behind it and starts from
the CRC of the cluster id, so no payload can hold what passes for a frame. The
durable position is the last one known to be on disk when the frame was written:
it tells a torn tail from damage (master.log). Length 0 ends a segment.
Source: GFS §2.6.3.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gfs import errors
from gfs.checksum import crc32c
from gfs.disk import Disk, File
from gfs.ids import MIB, Epoch, Position

MAGIC = b"GFSOPLOG"
FORMAT = 1
HEADER_BYTES = 4096  # frames never share a page with the header
PAYLOAD_BYTES_MAX = 16 * MIB
SUFFIX = ".log"
SPARE_NAME = "next.spare"  # zero-filled ahead; gets its name and header when it is needed

_HEADER = struct.Struct("<8sII")
_HEADER_REST = struct.Struct("<QQH")
HEAD = struct.Struct("<II")
BODY = struct.Struct("<QQQ")
_FRAME = struct.Struct("<IIQQQ")
FRAME_BYTES = _FRAME.size
_READ_BYTES = 256 * 1024
_ZEROS = bytes(64 * 1024)
_PROBE_BYTES = 64 * 1024  # of a segment, in which `Segment.seek` looks for a frame


class LogDamaged(errors.Corrupt):
    """The operation log lacks or falsifies a record that was durable."""

    code = "log-damaged"


class Truncated(errors.GfsError):
    """The record asked for is older than what the log still keeps."""

    code = "truncated"


class LogRecord(NamedTuple):
    """A record as it lies in the log."""

    position: Position
    epoch: Epoch
    payload: bytes


class Frame(NamedTuple):
    """A valid frame and where it lies: bytes [offset, end) of its file."""

    offset: int
    end: int
    epoch: int
    position: int
    durable: int
    payload: bytes


def parse_frame(buffer: bytes, at: int, seed: int) -> Frame | int:
    """The frame that begins at `buffer[at]`.

    Returns:
      The frame (offsets within `buffer`), or how many bytes from `at` on it would
      need to be judged (more than there are), or 0: it is none.
    """
    left = len(buffer) - at
    if left < FRAME_BYTES:
        return FRAME_BYTES
    length, checksum, epoch, position, durable = _FRAME.unpack_from(buffer, at)
    if not BODY.size <= length <= BODY.size + PAYLOAD_BYTES_MAX:
        return 0
    end = at + HEAD.size + length
    if end > len(buffer):
        return HEAD.size + int(length)
    if crc32c(memoryview(buffer)[at + HEAD.size : end], seed) != checksum:
        return 0
    return Frame(at, end, epoch, position, durable, buffer[at + FRAME_BYTES : end])


def walk_frames(file: File, offset: int, seed: int) -> Iterator[Frame]:
    """Valid frames one behind the other from `offset` on; ends before what is none."""
    buffer, base = b"", offset  # buffer[0] is the file's byte `base`
    at, wanted = 0, _READ_BYTES
    while True:
        found = parse_frame(buffer, at, seed)
        if isinstance(found, Frame):
            at = found.end
            yield found._replace(offset=base + found.offset, end=base + found.end)
            continue
        if found == 0:
            return
        base, at, wanted = base + at, 0, max(_READ_BYTES, found)
        buffer = file.pread(wanted, base)
        if len(buffer) < found:
            return


def without_zeros(content: bytes) -> int:
    """Length without the zeros at the end; megabytes of these cost a millisecond."""
    end = len(content)
    while end >= len(_ZEROS) and content[end - len(_ZEROS) : end] == _ZEROS:
        end -= len(_ZEROS)
    start = max(0, end - len(_ZEROS))
    return start + len(content[start:end].rstrip(b"\0"))


def find_frame(file: File, offset: int, seed: int, *, beyond: int) -> Frame | None:
    """A valid frame anywhere from `offset` on that states a durable position >= `beyond`."""
    size = file.size()
    content = file.pread(size - offset, offset)
    end = without_zeros(content)
    at = 0
    while at < end:
        # A frame begins with its length, never 0: runs of zeros are skipped fast, but for
        # three bytes, which may be the low ones of a length.
        if content[at : at + 4] == _ZEROS[:4]:
            at += 1
            while at < end and content[at : at + 4096] == _ZEROS[:4096]:
                at += 4096 - 3
            continue
        found = parse_frame(content, at, seed)
        if isinstance(found, Frame):
            if found.durable >= beyond:
                return found._replace(offset=offset + found.offset, end=offset + found.end)
            at = found.end
        else:
            at += 1
    return None


def encode_header(first: int, epoch: int, cluster_id: str) -> bytes:
    """The header of a segment that begins with position `first`."""
    name = cluster_id.encode()
    rest = _HEADER_REST.pack(first, epoch, len(name)) + name
    return _HEADER.pack(MAGIC, FORMAT, crc32c(rest)) + rest


def check_header(file: File, path: Path, cluster_id: str) -> None:
    """Refuse a file that is not the segment its name says, or not ours.

    Raises: LogDamaged, NewerFormat, WrongCluster.
    """
    content = file.pread(HEADER_BYTES, 0).ljust(HEADER_BYTES, b"\0")
    magic, number, checksum = _HEADER.unpack_from(content)
    if magic == MAGIC and number > FORMAT:
        raise errors.NewerFormat(f"{path} has format {number}; this release reads {FORMAT}")
    first, _, length = _HEADER_REST.unpack_from(content, _HEADER.size)
    end = _HEADER.size + _HEADER_REST.size + length
    if magic != MAGIC or crc32c(content[_HEADER.size : end]) != checksum:
        raise LogDamaged(f"{path}: the header is damaged")
    owner = content[end - length : end].decode("utf-8", "replace")
    if owner != cluster_id:
        raise errors.WrongCluster(f"{path} belongs to cluster {owner}, expected {cluster_id}")
    if first != first_of(path.name):
        raise LogDamaged(f"{path}: the header says it begins with record {first}")


def name_of(first: int) -> str:
    """File name of the segment that begins with position `first`."""
    return f"{first:020d}{SUFFIX}"


def first_of(name: str) -> int | None:
    """First position of the segment with this file name; None if it is no segment."""
    digits = name.removesuffix(SUFFIX)
    return int(digits) if name.endswith(SUFFIX) and len(digits) == 20 and digits.isdigit() else None


def list_segments(disk: Disk, directory: Path) -> list[int]:
    """First positions of the segments there, ascending."""
    firsts = (first_of(name) for name in disk.listdir(directory))
    return sorted(first for first in firsts if first is not None)


class Segment:
    """One open segment file, and where its last records begin once that has been looked up.

    `offsets`: of the records from `indexed_from` on; None: not looked up. Earlier records
    are found by `seek` when they are asked for.
    """

    def __init__(self, disk: Disk, directory: Path, first: int, cluster_id: str) -> None:
        self.first = first
        self.path = directory / name_of(first)
        self.file = disk.open(self.path)
        self._seed = crc32c(cluster_id.encode())
        self.offsets: array[int] | None = None
        self.indexed_from = first
        self.epoch = 0  # of the last record indexed
        self.end = HEADER_BYTES  # behind the last record indexed
        try:
            check_header(self.file, self.path, cluster_id)
        except errors.GfsError:
            self.file.close()
            raise

    @property
    def last(self) -> int:
        """Position of the last record; only once indexed."""
        assert self.offsets is not None
        return self.indexed_from + len(self.offsets) - 1

    def index(self, *, near: int = 0) -> None:
        """Find all records from about `near` on to the first frame that does not belong.

        What lies before is neither read nor checked. By hand and not by `walk`: a whole
        segment, of 300 k records, takes 0.36 s.
        """
        start, self.indexed_from = self.seek(near)
        content = memoryview(self.file.pread(self.file.size() - start, start))
        at, epoch, position, size = 0, self.epoch, self.indexed_from, len(content)
        offsets, unpack, seed, head = array("I"), _FRAME.unpack_from, self._seed, HEAD.size
        shortest, longest = BODY.size, BODY.size + PAYLOAD_BYTES_MAX
        while at + FRAME_BYTES <= size:
            length, checksum, frame_epoch, frame_position, _ = unpack(content, at)
            end = at + head + length
            if frame_position != position or frame_epoch < epoch or end > size:
                break
            if not shortest <= length <= longest:
                break
            if crc32c(content[at + head : end], seed) != checksum:
                break
            offsets.append(start + at)
            at, epoch, position = end, frame_epoch, position + 1
        self.offsets, self.end, self.epoch = offsets, start + at, epoch

    def seek(self, position: int) -> tuple[int, int]:
        """Where a frame begins, and its position: at or a little before `position`.

        By halving: a frame can be told from anything else, so one is found from any
        offset on. A record of megabytes, or damage, only makes it find an earlier one.
        """
        low, found, high = HEADER_BYTES, self.first, self.file.size()
        while high - low > _READ_BYTES and position > found:
            middle = (low + high) // 2
            frame = self._probe(middle)
            if frame is None or frame.position > position:
                high = middle
            else:
                low, found = middle + frame.offset, frame.position
        return low, found

    def _probe(self, offset: int) -> Frame | None:
        """The first frame that begins soon after `offset`, relative to it."""
        content = self.file.pread(_PROBE_BYTES, offset)
        latest = self.first + self.file.size() // FRAME_BYTES
        for at in range(without_zeros(content) - FRAME_BYTES + 1):
            if self.first <= _FRAME.unpack_from(content, at)[3] <= latest:
                frame = parse_frame(content, at, self._seed)
                if isinstance(frame, Frame):
                    return frame
        return None

    def offset_of(self, position: int) -> int:
        """Where the record at `position` begins.

        Raises: LogDamaged: it should be in this segment and is not.
        """
        offsets, rank = self.offsets, position - self.indexed_from
        if offsets is None or rank < 0:
            return self._find(position)
        if rank >= len(offsets):
            raise self.damaged(position, self.end)
        return offsets[rank]

    def _find(self, position: int) -> int:
        offset, expected = self.seek(position)
        for frame in self.walk(offset):
            if frame.position != expected:
                break
            if expected == position:
                return frame.offset
            offset, expected = frame.end, expected + 1
        raise self.damaged(expected, offset)

    def walk(self, offset: int) -> Iterator[Frame]:
        """Valid frames from `offset` on."""
        return walk_frames(self.file, offset, self._seed)

    def read(self, position: int) -> LogRecord:
        """The record at `position`, which lies in this segment; raises LogDamaged."""
        start = self.offset_of(position)
        frame = parse_frame(self.file.pread(FRAME_BYTES, start), 0, self._seed)
        if isinstance(frame, int) and frame > FRAME_BYTES:
            frame = parse_frame(self.file.pread(frame, start), 0, self._seed)
        if not isinstance(frame, Frame) or frame.position != position:
            raise self.damaged(position, start)
        return LogRecord(Position(position), Epoch(frame.epoch), frame.payload)

    def damaged(self, position: int, offset: int) -> LogDamaged:
        """The error that names record, file and offset."""
        return LogDamaged(f"record {position} is damaged: {self.path} at offset {offset}")

    def close(self) -> None:
        """Close the file."""
        self.file.close()
