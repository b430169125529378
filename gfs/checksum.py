"""CRC32C, the one checksum of chunk blocks, log frames and checkpoints.

Runs on the CPU's own instruction (about 20 GB/s), so callers compute it inline.
A chunk keeps one per 64 KiB block. Source: GFS §5.2.

A *digest* is the CRC32C of bytes that lie behind each other in a file, with a bit that says
that it is known; 0 says that it is not. Digests of neighbours give that of both: a CRC is a
linear map, so the first one only has to be moved over the length of the second.
"""

from __future__ import annotations

import functools
from typing import Final, Protocol, TypeAlias

import crc32c as _native

from gfs.ids import BLOCK_BYTES

Buffer: TypeAlias = bytes | bytearray | memoryview


class _Checksum(Protocol):
    def __call__(self, buffer: Buffer, seed: int = 0, /) -> int: ...


# CRC32C of `buffer`; `seed` is the CRC of the bytes before it. The native
# function itself: a wrapper would cost as much as the checksum of a small record.
crc32c: Final[_Checksum] = _native.crc32c


def block_checksums(buffer: Buffer) -> list[int]:
    """CRC32C of each 64 KiB block of `buffer`; the last block may be short."""
    view = memoryview(buffer)
    return [
        crc32c(view[start : start + BLOCK_BYTES]) for start in range(0, view.nbytes, BLOCK_BYTES)
    ]


DIGEST_KNOWN: Final = 1 << 32  # set in every digest that is known
DIGEST_UNKNOWN: Final = 0
DIGEST_OF_NOTHING: Final = DIGEST_KNOWN  # CRC32C of no bytes is 0
_Moved = tuple[list[int], list[int], list[int], list[int]]


def digest_of(buffer: Buffer) -> int:
    """Digest of these bytes."""
    return DIGEST_KNOWN | crc32c(buffer)


def is_digest(value: int) -> bool:
    """Whether it is one, known or not."""
    return value == DIGEST_UNKNOWN or DIGEST_KNOWN <= value < 2 * DIGEST_KNOWN


def joined_digest(first: int, second: int, length: int) -> int:
    """Digest of two runs of bytes behind each other; unknown if either is.

    Args:
      length: bytes of the second, less than 2**63.
    """
    if not first or not second:
        return DIGEST_UNKNOWN
    found = first & (DIGEST_KNOWN - 1)
    power = 0
    while length:
        if length & 1:
            one, two, three, four = _moved(power)
            found = (
                one[found & 255]
                ^ two[found >> 8 & 255]
                ^ three[found >> 16 & 255]
                ^ four[found >> 24]
            )
        length >>= 1
        power += 1
    return found ^ second  # the bit of the second is in it


@functools.cache
def _moved(power: int) -> _Moved:
    """For each byte of a CRC: what it becomes once 2**power more bytes have followed."""
    if power == 0:
        of_zero = crc32c(b"\0")
        bits = [crc32c(b"\0", 1 << bit) ^ of_zero for bit in range(32)]
    else:
        one, two, three, four = _moved(power - 1)
        bits = []
        for bit in range(32):
            once = (one, two, three, four)[bit // 8][1 << bit % 8]
            twice = one[once & 255] ^ two[once >> 8 & 255]
            bits.append(twice ^ three[once >> 16 & 255] ^ four[once >> 24])
    tables = []
    for start in range(0, 32, 8):
        table = [0] * 256
        for value in range(1, 256):
            low = value & -value
            table[value] = table[value ^ low] ^ bits[start + low.bit_length() - 1]
        tables.append(table)
    return tables[0], tables[1], tables[2], tables[3]
