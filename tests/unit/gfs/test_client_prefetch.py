"""Read-ahead never changes what a read returns, whatever was asked for before."""

from __future__ import annotations

import itertools
import random

import pytest
import trio

from gfs.checksum import Buffer
from gfs.client.prefetch import PIECE_BYTES, Prefetcher

CHUNK = random.Random(1).randbytes(4 * PIECE_BYTES + 12345)


async def fetch(handle: int, offset: int, length: int, least: int) -> Buffer:
    await trio.lowlevel.checkpoint()
    return CHUNK[offset : offset + length]


@pytest.mark.parametrize("seed", range(20))
async def test_any_order_of_reads_returns_the_bytes_of_the_chunk(seed: int) -> None:
    """Files of all sizes side by side, each read from its beginning or its middle on."""
    draw = random.Random(seed)
    async with trio.open_nursery() as nursery:
        prefetcher = Prefetcher(nursery, fetch)
        cuts = sorted({0, len(CHUNK), *(draw.randrange(len(CHUNK)) for _ in range(12))})
        files = list(itertools.pairwise(cuts))
        for _ in range(60):
            start, limit = draw.choice(files)
            offset = start if draw.random() < 0.7 else draw.randrange(start, limit)
            step = draw.choice((4096, 131072, PIECE_BYTES, 3 * PIECE_BYTES))
            while offset < limit and draw.random() < 0.9:
                length = min(step, limit - offset)
                found = await prefetcher.read(7, offset, length, limit, fill=draw.random() < 0.8)
                assert bytes(found) == CHUNK[offset : offset + length]
                offset += length


async def test_a_piece_begun_behind_the_read_is_not_taken_for_it() -> None:
    """It was answered with most of the piece once: more bytes than the reader had room for."""
    async with trio.open_nursery() as nursery:
        prefetcher = Prefetcher(nursery, fetch)
        middle = PIECE_BYTES + 600_000
        for offset in (middle, middle + 4096):  # begins a piece in the middle
            await prefetcher.read(7, offset, 4096, len(CHUNK), fill=True)
        start = PIECE_BYTES - 8192
        for offset in (start, start + 4096):
            await prefetcher.read(7, offset, 4096, PIECE_BYTES, fill=True)
        found = await prefetcher.read(7, PIECE_BYTES - 4096, 8192, len(CHUNK))
        assert bytes(found) == CHUNK[PIECE_BYTES - 4096 : PIECE_BYTES + 4096]
