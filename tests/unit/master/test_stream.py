"""The stream gives every event once and in order, whoever asks and from wherever.

Real log files, a real HTTP server on a Unix socket, records of the namespace model.
"""

from __future__ import annotations

import random
import stat
from contextlib import closing
from pathlib import Path

import apsw
import httpx
import msgspec
import pytest
import trio

from bench.namespace_model import EPOCH, NamespaceModel, random_step
from gfs import changes
from gfs.disk import PosixDisk
from gfs.records import TABLE_OF, Record
from master import stream_handlers
from master.checkpoint import make_checkpoint
from tests.unit.master.streams import (
    Bench,
    abandoned,
    assert_chained,
    events,
    grow,
    read_all,
    serving,
)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_whole_log_is_every_event_in_order(bench: Bench) -> None:
    grow(bench, 1, 500)
    async with serving(bench) as client:
        lines = await read_all(client)
    assert [line.cursor for line in events(lines)] == bench.expected()
    assert_chained(lines, "0-0")
    assert lines[-1].kind == "heartbeat"
    assert lines[-1].scanned_to == lines[-1].committed == f"{EPOCH}-{bench.model.position}"


async def test_any_cursor_continues_without_gap_or_double(bench: Bench) -> None:
    grow(bench, 2, 60)
    expected = bench.expected()
    async with serving(bench) as client:
        for at in range(0, len(expected), 7):
            lines = await read_all(client, **{"from": expected[at]})
            assert [line.cursor for line in events(lines)] == expected[at + 1 :]
            assert_chained(lines, expected[at])


async def test_second_reader_gets_the_encoded_stretch_of_the_first(bench: Bench) -> None:
    grow(bench, 3, 300)
    async with serving(bench) as client:
        first = await client.get("/stream", params={"follow": "0"})
        second = await client.get("/stream", params={"follow": "0"})
        figures = (await client.get("/statistics")).json()
    assert first.content.splitlines()[1:-1] == second.content.splitlines()[1:-1]
    assert figures["stretches_shared_total"] == figures["stretches_made_total"]


async def test_limited_reader_proves_it_missed_nothing(bench: Bench) -> None:
    grow(bench, 4, 200)
    async with serving(bench) as client:
        lines = await read_all(client, limit="25")
    assert_chained(lines, "0-0")
    assert [line.cursor for line in events(lines)] == bench.expected()[:25]


async def test_follower_gets_what_is_committed_later_and_a_prompt_heartbeat(bench: Bench) -> None:
    async with (
        serving(bench) as client,
        client.stream("GET", "/stream?from=now") as answer,
        abandoned(answer.aiter_raw()) as chunks,
    ):
        (hello,) = changes.decode_lines(await anext(chunks))
        assert hello.kind == "heartbeat"
        bench.add([bench.model.mkdir(1, b"later")])
        with trio.fail_after(2):
            lines = changes.decode_lines(await anext(chunks))
        assert [line.operation for line in lines] == ["mkdir"] * 3
        assert lines[0].previous == hello.scanned_to
        nothing = Record(bench.model.position + 1, EPOCH, 5, "lease", bench.model.actor, [], 0)
        bench.model.position += 1
        bench.add([nothing])
        with trio.fail_after(0.5):  # well before the heartbeat of each second
            (beat,) = changes.decode_lines(await anext(chunks))
        assert beat.scanned_to == f"{EPOCH}-{nothing.position}"


async def test_cursor_of_another_history_is_reset(bench: Bench) -> None:
    grow(bench, 5, 20)
    async with serving(bench) as client:
        for cursor in (f"{EPOCH + 1}-5", f"{EPOCH}-5000", f"{EPOCH - 1}-3.0", "9-0"):
            (line,) = await read_all(client, **{"from": cursor})
            assert line.kind == "reset"
            assert line.reason


async def test_snapshot_holds_the_items_of_the_newest_checkpoint(bench: Bench) -> None:
    grow(bench, 6, 120)
    with closing(apsw.Connection(str(bench.directory / "state.db"))) as connection:
        make_checkpoint(connection, bench.directory / "checkpoints", PosixDisk())
    inodes, dirents = dict(bench.model.inodes), dict(bench.model.dirents)
    grow(bench, 7, 30)
    async with serving(bench) as client:
        answer = await client.get("/snapshot")
        lines = changes.decode_lines(answer.content)
        tail = await read_all(client, **{"from": lines[0].cursor})
    assert lines[0].kind == "snapshot"
    assert lines[-1].kind == "end"
    assert lines[-1].items == len(lines) - 2 == len(inodes) + len(dirents)
    got = {line.keys.ino for line in lines if line.table == "inodes" and line.keys}
    assert got == set(inodes)
    names = [line for line in lines if line.table == "dirents" and line.keys]
    assert {
        (line.keys.parent, changes.bytes_of(line.keys.name)) for line in names if line.keys
    } == set(dirents)
    assert events(tail)[0].cursor.startswith(f"{EPOCH}-122.")


@pytest.mark.parametrize(
    "query",
    [
        "from=x",
        "from=1-1.",
        "kind=drop",
        "tables=nosuch",
        "limit=-1",
        "limit=1e9",
        "x=1",
        "prefix=a",
    ],
)
async def test_bad_parameter_is_a_clear_400(bench: Bench, query: str) -> None:
    async with serving(bench) as client:
        answer = await client.get("/stream?" + query)
    assert answer.status_code == 400
    assert answer.json()["message"]


async def test_missing_prefix_is_404(bench: Bench) -> None:
    async with serving(bench) as client:
        assert (await client.get("/stream?prefix=/no/such")).status_code == 404


async def test_without_the_key_nobody_is_answered(bench: Bench) -> None:
    service = bench.service()
    transport = httpx.ASGITransport(stream_handlers.app(service, b"k" * 32))
    async with httpx.AsyncClient(transport=transport, base_url="http://stream") as client:
        for path in ("/stream", "/snapshot", "/position", "/metrics"):
            assert (await client.get(path)).status_code == 401


def test_records_of_the_model_are_consistent() -> None:
    model = NamespaceModel()
    rng = random.Random(1)
    tables: dict[str, dict[object, object]] = {"inodes": {}, "dirents": {}}
    for record in [model.format(), *(random_step(model, rng) for _ in range(3000))]:
        for change in record.changes:
            table = tables[TABLE_OF[type(change)]]
            assert table.get(change.key) == change.old
            table[change.key] = change.new
            if change.new is None:
                del table[change.key]
    assert tables["dirents"] == model.dirents
    assert tables["inodes"] == {(ino,): inode for ino, inode in model.inodes.items()}
    assert any(stat.S_ISDIR(inode.mode) for inode in model.inodes.values())
    assert msgspec.to_builtins(model.inodes[1])
