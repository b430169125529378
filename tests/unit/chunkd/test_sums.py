"""Block checksums: kept up, joined, cut and read."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chunkd.sums import BlockSums, joined
from gfs.checksum import block_checksums, crc32c
from gfs.errors import Corrupt
from gfs.ids import BLOCK_BYTES
from tests.sim.disk import SimDisk

CONTENT = random.Random(1).randbytes(4 * BLOCK_BYTES)


@given(st.integers(0, len(CONTENT)))
def test_joined_sums_of_blocks_equal_the_sum_of_the_bytes(length: int) -> None:
    view = memoryview(CONTENT)[:length]
    assert joined(block_checksums(view), view) == crc32c(view)


@given(st.lists(st.integers(1, 3 * BLOCK_BYTES), max_size=6))
def test_sums_do_not_depend_on_how_bytes_came(lengths: list[int]) -> None:
    sums = BlockSums()
    for length in lengths:
        sums.extend(memoryview(CONTENT)[sums.end % 7 :][: min(length, len(CONTENT) - sums.end)])
    whole = BlockSums()
    parts = bytearray()
    again = BlockSums()
    for length in lengths:
        part = memoryview(CONTENT)[again.end % 7 :][: min(length, len(CONTENT) - again.end)]
        parts += part
        again.extend(part)
    whole.extend(bytes(parts))
    assert (sums.end, list(sums.sums)) == (whole.end, list(whole.sums))


@given(st.integers(1, len(CONTENT)), st.integers(0, len(CONTENT)), st.integers(0, len(CONTENT)))
def test_read_gives_the_bytes_and_their_sum(end: int, offset: int, length: int) -> None:
    file = SimDisk(0).open(Path("/f"), create=True)
    file.pwrite(CONTENT[:end], 0)
    sums = BlockSums()
    sums.extend(CONTENT[:end])
    for buffer in (None, memoryview(bytearray(length + 2 * BLOCK_BYTES))):
        part, checksum = sums.read(file, offset, length, buffer)
        assert bytes(part) == CONTENT[:end][offset : offset + length]
        assert checksum == crc32c(part)


def test_flipped_bit_and_short_file_are_corrupt() -> None:
    disk = SimDisk(0)
    file = disk.open(Path("/f"), create=True)
    file.pwrite(CONTENT, 0)
    sums = BlockSums()
    sums.extend(CONTENT)
    file.fsync()
    disk.flip_bit(Path("/f"), BLOCK_BYTES + 5)
    assert sums.read(file, 0, BLOCK_BYTES)[0] == CONTENT[:BLOCK_BYTES]
    with pytest.raises(Corrupt, match="block 1"):
        sums.read(file, BLOCK_BYTES - 1, 2)
    file.truncate(3 * BLOCK_BYTES)
    with pytest.raises(Corrupt):
        sums.read(file, 3 * BLOCK_BYTES - 1, 2)


@given(st.integers(0, len(CONTENT)))
def test_cut_equals_never_having_had_the_rest(length: int) -> None:
    file = SimDisk(0).open(Path("/f"), create=True)
    file.pwrite(CONTENT, 0)
    sums, shorter = BlockSums(), BlockSums()
    sums.extend(CONTENT)
    sums.cut(file, length)
    shorter.extend(CONTENT[:length])
    assert (sums.end, list(sums.sums)) == (shorter.end, list(shorter.sums))
    assert list(BlockSums.from_bytes(sums.to_bytes(), length).sums) == list(sums.sums)
