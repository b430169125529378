"""Fills a new replica with bytes of other servers' replicas, fetching ahead while it writes.

What comes is verified twice: the source checks its blocks before it sends, and the bytes have
the checksum that it told. A few MiB are asked for at a time, over one connection, and the
next few are on their way while these are written (GFS §4.3).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import trio
from msgspec.structs import replace

from chunkd.files import CopyFile
from chunkd.links import Links
from chunkd.workers import Workers
from gfs.checksum import crc32c
from gfs.errors import Corrupt, GfsError, RemoteProtocolError
from gfs.ids import MIB
from gfs.messages import Piece, Read, ReadData
from gfs.running import first_of

BATCH_BYTES = 4 * MIB  # asked for at a time
BATCH_READS = 64
READ_S = 10.0

_Batch = list[memoryview]


async def fill(copy: CopyFile, pieces: Sequence[Piece], links: Links, workers: Workers) -> None:
    """Append the pieces to the copy, in order.

    Raises:
      GfsError: a source refused, fell silent, or sent something else; the disk failed.
    """
    send, receive = trio.open_memory_channel[_Batch](0)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_fetch_all, pieces, links, send)
            async for batch in receive:
                await workers.run(partial(copy.write_all, batch))
                for payload in batch:
                    links.pool.give(payload)
    except* GfsError as group:
        raise first_of(group) from None


async def _fetch_all(
    pieces: Sequence[Piece], links: Links, send: trio.MemorySendChannel[_Batch]
) -> None:
    async with send:
        for batch in _batches(pieces):
            await send.send(await _fetch(batch, links))


def _batches(pieces: Sequence[Piece]) -> Iterator[list[Piece]]:
    """The pieces in reads of at most a MiB, a few MiB at a time."""
    batch: list[Piece] = []
    size = 0
    for piece in pieces:
        for start in range(0, piece.length, MIB):
            length = min(MIB, piece.length - start)
            batch.append(replace(piece, offset=piece.offset + start, length=length))
            size += length
            if size >= BATCH_BYTES or len(batch) == BATCH_READS:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


async def _fetch(batch: Sequence[Piece], links: Links) -> _Batch:
    found: dict[int, memoryview] = {}

    async def read(number: int, piece: Piece) -> None:
        ask = Read(piece.handle, piece.version, piece.offset, piece.length)
        answer, payload = await links.get(piece.source).call(ask, timeout_s=READ_S)
        short = payload is None or len(payload) != piece.length
        if not isinstance(answer, ReadData) or payload is None or short:
            raise RemoteProtocolError(f"short or strange answer to a read at {piece.offset}")
        if crc32c(payload) != answer.checksum:
            raise Corrupt(f"bytes of chunk {piece.handle:016x} damaged on the way")
        found[number] = payload

    async with trio.open_nursery() as nursery:
        for number, piece in enumerate(batch):
            nursery.start_soon(read, number, piece)
    return [found[number] for number in range(len(batch))]
