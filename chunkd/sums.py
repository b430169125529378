"""CRC32C of each 64 KiB block of a replica, kept up while it grows, checked when read.

The checksum of a run of whole blocks follows from theirs by a linear map (CRC of
A and B behind each other = CRC of A, moved over B's length, xor CRC of B), so
bytes that travel as whole blocks are summed once, not twice.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from gfs.checksum import Buffer, block_checksums, crc32c
from gfs.disk import File
from gfs.errors import Corrupt
from gfs.ids import BLOCK_BYTES

_ZEROS = bytes(BLOCK_BYTES)
_OF_ZEROS = crc32c(_ZEROS)


def _moved_table(shift: int) -> list[int]:
    """Byte at `shift` of a CRC -> what it becomes once 64 KiB more have followed."""
    bits = [crc32c(_ZEROS, 1 << (shift + bit)) ^ _OF_ZEROS for bit in range(8)]
    table = [0] * 256
    for value in range(1, 256):
        low = value & -value
        table[value] = table[value ^ low] ^ bits[low.bit_length() - 1]
    return table


_MOVED_0, _MOVED_1, _MOVED_2, _MOVED_3 = (_moved_table(shift) for shift in (0, 8, 16, 24))


def joined(sums: Sequence[int], view: memoryview) -> int:
    """CRC32C of `view`, whose blocks (from its own start) have `sums`."""
    whole = view.nbytes // BLOCK_BYTES
    found = 0
    for one in sums[:whole]:
        found = (
            _MOVED_0[found & 255]
            ^ _MOVED_1[found >> 8 & 255]
            ^ _MOVED_2[found >> 16 & 255]
            ^ _MOVED_3[found >> 24]
            ^ one
        )
    rest = view[whole * BLOCK_BYTES :]
    if not whole:
        return sums[0] if sums else 0
    return crc32c(rest, found) if rest else found


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
            self.extend_blocks(block_checksums(view), len(view))

    def extend_blocks(self, sums: list[int], length: int) -> None:
        """Count `length` bytes at `end`, a block's begin, whose blocks have `sums`."""
        self.sums.extend(sums)
        self.end += length

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

    def read(
        self, file: File, offset: int, length: int, buffer: memoryview | None = None
    ) -> tuple[memoryview, int]:
        """Verified bytes [offset, offset + length) and their CRC32C; short at the end.

        They lie in `buffer` if that is given and large enough for the whole blocks.

        Raises:
          Corrupt: a block does not match, or the file is too short.
        """
        stop = min(offset + length, self.end)
        if offset >= stop:
            return memoryview(b""), 0
        start, aligned_stop = self._blocks_around(offset, stop)
        if buffer is None or len(buffer) < aligned_stop - start:
            found = memoryview(file.pread(aligned_stop - start, start))
        else:
            found = buffer[: aligned_stop - start]
            found = found[: file.preadv_into(found, start)]
        return self._cut_out(found, start, offset, stop)

    def read_cached(
        self, file: File, offset: int, length: int, buffer: memoryview | None = None
    ) -> tuple[memoryview, int] | None:
        """`read` without waiting for the disk; None: it would have to.

        Raises:
          Corrupt: as `read`.
        """
        stop = min(offset + length, self.end)
        if offset >= stop:
            return memoryview(b""), 0
        start, aligned_stop = self._blocks_around(offset, stop)
        size = aligned_stop - start
        if buffer is None or len(buffer) < size:
            buffer = memoryview(bytearray(size))
        found = buffer[:size]
        if file.read_cached(found, start) != size:
            return None  # or the file is short: `read` tells
        return self._cut_out(found, start, offset, stop)

    def _blocks_around(self, offset: int, stop: int) -> tuple[int, int]:
        start = offset - offset % BLOCK_BYTES
        return start, min(-(-stop // BLOCK_BYTES) * BLOCK_BYTES, self.end)

    def _cut_out(
        self, found: memoryview, start: int, offset: int, stop: int
    ) -> tuple[memoryview, int]:
        got = self._compare(found, start, self._blocks_around(offset, stop)[1])
        part = found[offset - start : stop - start]
        if len(part) == len(found):
            return part, joined(got, part)
        return part, crc32c(part)

    def _compare(self, found: memoryview, start: int, stop: int) -> list[int]:
        first = start // BLOCK_BYTES
        if len(found) != stop - start:
            raise Corrupt(f"file ends at {start + len(found)}, before {stop}")
        got = block_checksums(found)
        for number, checksum in enumerate(got):
            if checksum != self.sums[first + number]:
                raise Corrupt(f"block {first + number} fails its checksum")
        return got

    def check_aside(self, file: File, offset: int, buffer: memoryview) -> None:
        """Verify, on the disk itself, what `buffer` takes from `offset`, the begin of a block.

        The buffer begins at a page, the bytes end with a block or with the file.

        Raises:
          Corrupt: a block does not match, or the file is too short.
        """
        found = buffer[: file.read_aside(buffer, offset)]
        self._compare(found, offset, min(offset + len(buffer), self.end))

    def check_cached(self, file: File, offset: int, buffer: memoryview) -> None:
        """`check_aside`, through the page cache."""
        found = buffer[: file.preadv_into(buffer, offset)]
        self._compare(found, offset, min(offset + len(buffer), self.end))
