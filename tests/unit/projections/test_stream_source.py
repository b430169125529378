"""The stream is read in large pieces, and who waits for a batch is told when there is one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpcore
import pytest
import trio

from gfs.changes import START, Line
from gfs.errors import RemoteProtocolError
from projections.stream_source import Pump, StreamSource
from projections.wide_reads import READ_BYTES
from tests.unit.projections.views import history, lines_of

ANSWER = b'HTTP/1.1 200 OK\r\ncontent-length: 21\r\n\r\n{"kind":"heartbeat"}\n'


class _Peer(httpcore.AsyncNetworkStream):
    """Answers at once, and keeps how much it was asked for each time."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self.asked.append(max_bytes)
        return ANSWER

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        pass

    async def aclose(self) -> None:
        pass

    def get_extra_info(self, info: str) -> Any:
        return None


@pytest.mark.parametrize("kind", ["unix", "tcp"])
async def test_a_socket_is_read_in_large_pieces(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = _Peer()

    async def connect(*_: object, **__: object) -> _Peer:
        return peer

    method = "connect_unix_socket" if kind == "unix" else "connect_tcp"
    monkeypatch.setattr(httpcore.TrioBackend, method, connect)
    unix = tmp_path / "stream"
    unix.touch()
    source = StreamSource("http://stream:1", str(unix) if kind == "unix" else "", None)
    async with source.lines("/stream") as blocks:
        lines = [line async for block in blocks for line in block]
    assert [line.kind for line in lines] == ["heartbeat"]
    assert min(peer.asked) >= READ_BYTES


class _Source:
    """Blocks of lines, then the end."""

    def __init__(self, blocks: list[list[Line]]) -> None:
        self._blocks = blocks

    @asynccontextmanager
    async def lines(self, path: str, **query: str) -> AsyncIterator[AsyncIterator[list[Line]]]:
        async def each() -> AsyncIterator[list[Line]]:
            for block in self._blocks:
                await trio.lowlevel.checkpoint()
                yield block

        yield each()


async def test_who_gathers_a_batch_is_told_when_there_is_enough() -> None:
    lines = lines_of(history(1, 30)[1])
    woken: list[int] = []
    enough = len(lines) // 2
    source: Any = _Source([[line] for line in lines])
    pump = Pump(source, START, enough, lambda: woken.append(pump.pending))
    with pytest.raises(RemoteProtocolError):
        await pump.receive()
    assert woken[0] >= enough
    assert woken[-1] == pump.pending == len(lines)
