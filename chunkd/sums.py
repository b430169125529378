"""CRC32C of each 64 KiB block of a replica, kept up while it grows, checked when read."""

from __future__ import annotations

from array import array

from gfs.checksum import Buffer, block_checksums, crc32c
from gfs.disk import File
from gfs.errors import Corrupt
from gfs.ids import BLOCK_BYTES


class BlockSums:
    """Checksums of bytes [0, end): one a block, the last one of a block that still fills."""

    __slots__ = ("end", "sums")

    def __init__(self, sums: array[int] | None = None, end: int = 0) -> None:
        self.sums: array[int] = array("I") if sums is None else sums
        self.end = end

    @classmethod
    def from_bytes(cls, raw: bytes, end: int) -> BlockSums:
        """Raises `Corrupt`: not one checksum a block."""
        if len(raw) != -(-end // BLOCK_BYTES) * 4:
            raise Corrupt(f"{len(raw)} bytes of checksums for {end} bytes")
        sums: array[int] = array("I")
        sums.frombytes(raw)
        return cls(sums, end)

    def to_bytes(self) -> bytes:
        """As a sealed replica's file and `ReplicaPassed` have them: u32, little-endian."""
        return self.sums.tobytes()

    @property
    def checksum(self) -> int:
        """CRC32C over the block checksums: one number by which replicas are compared."""
        return crc32c(self.to_bytes())

    def extend(self, buffer: Buffer) -> None:
        """Count bytes written at `end`."""
        view = memoryview(buffer)
        filled = self.end % BLOCK_BYTES
        if filled:
            part = view[: BLOCK_BYTES - filled]
            self.sums[-1] = crc32c(part, self.sums[-1])
            view = view[BLOCK_BYTES - filled :]
            self.end += len(part)
        if len(view):
            self.sums.extend(block_checksums(view))
            self.end += len(view)

    def copy(self) -> BlockSums:
        return BlockSums(self.sums[:], self.end)

    def cut(self, file: File, length: int) -> None:
        """Forget what lies behind `length`; a block that is cut is read anew."""
        if length >= self.end:
            return
        start = length - length % BLOCK_BYTES
        del self.sums[start // BLOCK_BYTES :]
        self.end = start
        if start < length:
            self.extend(file.pread(length - start, start))

    def read(self, file: File, offset: int, length: int) -> tuple[memoryview, int]:
        """Verified bytes [offset, offset + length) and their CRC32C; short at the end.

        Raises:
          Corrupt: a block does not match, or the file is too short.
        """
        stop = min(offset + length, self.end)
        if offset >= stop:
            return memoryview(b""), 0
        start = offset - offset % BLOCK_BYTES
        aligned_stop = min(-(-stop // BLOCK_BYTES) * BLOCK_BYTES, self.end)
        found = memoryview(file.pread(aligned_stop - start, start))
        first = start // BLOCK_BYTES
        if len(found) != aligned_stop - start:
            raise Corrupt(f"file ends at {start + len(found)}, before {aligned_stop}")
        got = block_checksums(found)
        for number, checksum in enumerate(got):
            if checksum != self.sums[first + number]:
                raise Corrupt(f"block {first + number} fails its checksum")
        part = found[offset - start : stop - start]
        if len(got) == 1 and len(part) == len(found):
            return part, got[0]
        return part, crc32c(part)
