"""What readers cost: a slow one its own position, too many a clear refusal."""

from __future__ import annotations

import socket
from pathlib import Path

import httpx
import pytest
import trio

from gfs import changes
from master import stream_log, stream_responses
from tests.unit.master.streams import (
    Bench,
    assert_chained,
    events,
    figures,
    grow,
    read_all,
    serving,
    until,
)

STUCK = 30
REQUEST = b"GET /stream HTTP/1.1\r\nHost: stream\r\nConnection: close\r\n\r\n"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def stuck_reader(bench: Bench, received: int = 4096) -> socket.socket:
    """Asks for everything and does not read."""
    sock = socket.socket(socket.AF_UNIX)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, received)
    sock.connect(str(bench.directory / "s"))
    sock.sendall(REQUEST)
    return sock


async def sent_no_more(client: httpx.AsyncClient) -> int:
    """Bytes sent, once nothing more leaves."""
    last = -1
    while True:
        now = int((await figures(client))["bytes_sent_total"])
        if now == last:
            return now
        last = now
        await trio.sleep(0.1)


async def test_readers_who_do_not_read_hold_nobody_up_and_are_given_no_more(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real sockets: what the kernel takes for each is sent, and the rest stays in the log."""
    monkeypatch.setattr(stream_log, "CACHE_BYTES", 256 * 1024)
    grow(bench, 8, 3000)
    async with serving(bench) as client:
        stuck = [stuck_reader(bench) for _ in range(STUCK)]
        try:
            await until(client, lambda found: found["readers"] == STUCK)
            sent = await sent_no_more(client)
            lines = await read_all(client)
            size = (await figures(client))["bytes_sent_total"] - sent
            assert [line.cursor for line in events(lines)] == bench.expected()
            # Each has been given less than half of what there is, and is given nothing more.
            assert sent < STUCK * size / 2
            now = await sent_no_more(client)
            assert now == sent + size
            assert (await figures(client))["readers"] == STUCK
        finally:
            for sock in stuck:
                sock.close()
        await until(client, lambda found: not found["readers"])


async def test_a_reader_that_wakes_up_late_has_missed_nothing(bench: Bench) -> None:
    grow(bench, 9, 1500)
    async with serving(bench) as client:
        sock = stuck_reader(bench)
        await sent_no_more(client)
        grow(bench, 10, 200)
        sock.setblocking(False)
        got = b""
        last = bench.expected()[-1].encode()
        with trio.fail_after(20):
            while b'"cursor":"' + last + b'"' not in got:
                await trio.lowlevel.wait_readable(sock)
                got += sock.recv(1 << 20)
        sock.close()
    body = b"\n".join(
        line for line in got.partition(b"\r\n\r\n")[2].split(b"\n") if line.startswith(b"{")
    )
    # Chunk sizes of HTTP stand between lines; a piece never ends within one.
    lines = changes.decode_lines(body)
    assert [line.cursor for line in events(lines)] == bench.expected()
    assert_chained(lines, "0-0")


async def test_a_reader_that_takes_nothing_for_long_is_hung_up_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_responses, "STALLED_S", 0.4)
    grow(bench, 11, 2000)
    async with serving(bench) as client:
        sock = stuck_reader(bench)
        try:
            await until(client, lambda found: found["readers_dropped_total"] == 1)
            await until(client, lambda found: not found["readers"])
        finally:
            sock.close()
        whole = await read_all(client)
    assert len(events(whole)) == len(bench.expected())


async def test_one_reader_too_many_is_told_so_and_let_in_when_another_has_gone(
    bench: Bench,
) -> None:
    async with serving(bench, readers_max=2) as client:
        first, second = stuck_reader(bench), stuck_reader(bench)
        await until(client, lambda found: found["readers"] == 2)
        refused = await client.get("/stream?follow=0")
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        assert "2 readers" in refused.json()["message"]
        assert (await client.get("/health")).status_code == 200
        assert (await client.get("/stream?consumer=late")).status_code == 503
        assert (await client.get("/consumers")).json()["consumers"] == []
        first.close()
        await until(client, lambda found: found["readers"] == 1)
        assert (await client.get("/stream?follow=0")).status_code == 200
        second.close()
        assert (await figures(client))["readers_refused_total"] == 2
