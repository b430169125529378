"""The stream gives every event once and in order, whoever asks and from wherever.

Real log files, a real HTTP server on a Unix socket, records of the namespace model.
"""

from __future__ import annotations

import random
import stat
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import apsw
import httpx
import msgspec
import pytest
import trio

from bench.namespace_model import EPOCH, ModelLog, NamespaceModel, random_step
from gfs import changes
from gfs.changes import Line
from gfs.disk import PosixDisk
from gfs.records import TABLE_OF, DirentChange, Record
from master import stream
from master.checkpoint import make_checkpoint
from master.state import State
from master.stream_service import Service

CLUSTER = "model"


class Bench:
    """A model, its log and state on disk, and the stream's service over them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.model = NamespaceModel()
        self.log = ModelLog(directory, CLUSTER)
        self.state = State(directory / "state.db", CLUSTER)
        self.records: list[Record] = []
        self.add([self.model.format()])

    def add(self, records: Iterable[Record]) -> None:
        """Log and apply records as a master would."""
        records = list(records)
        self.state.begin()
        for record in records:
            for change in record.changes:
                table = TABLE_OF[type(change)]
                if change.new is None:
                    self.state.delete(table, change.key)
                else:
                    self.state.put(table, change.key, change.new)
            self.state.set_position(record.position, record.epoch)
        self.state.commit()
        self.log.append(records)
        self.records += records

    def service(self) -> Service:
        return Service(
            log_directory=self.log.directory,
            committed=self.log.committed_path,
            state=self.directory / "state.db",
            checkpoints=self.directory / "checkpoints",
            cluster_id=CLUSTER,
        )

    def expected(self) -> list[str]:
        """Cursors of all default events."""
        return [event.cursor for one in self.records for event in changes.events_of(one)]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@asynccontextmanager
async def serving(bench: Bench) -> AsyncIterator[httpx.AsyncClient]:
    """The stream over a Unix socket."""
    service = bench.service()
    unix = str(bench.directory / "s")
    transport = httpx.AsyncHTTPTransport(uds=unix)
    async with trio.open_nursery() as nursery:
        ready = str(bench.directory / "ready")
        nursery.start_soon(stream.serve, service, None, "127.0.0.1:0", unix, ready)
        with trio.fail_after(10):
            while not Path(ready).exists():  # noqa: ASYNC110 (a file, as other processes see it)
                await trio.sleep(0.005)
        async with httpx.AsyncClient(transport=transport, base_url="http://stream") as client:
            yield client
        service.stop.set()


@asynccontextmanager
async def abandoned(chunks: AsyncIterator[bytes]) -> AsyncIterator[AsyncIterator[bytes]]:
    """Leave a response in its middle: httpx's nested generators end only from inside."""
    yield chunks
    with trio.CancelScope() as scope, suppress(StopAsyncIteration):
        scope.cancel()
        await anext(chunks)


async def read_all(client: httpx.AsyncClient, **query: str) -> list[Line]:
    answer = await client.get("/stream", params={"follow": "0", **query})
    assert answer.status_code == 200, answer.text
    return changes.decode_lines(answer.content)


def events(lines: list[Line]) -> list[Line]:
    return [line for line in lines if line.table]


def assert_chained(lines: list[Line], start: str) -> None:
    previous = start
    for line in events(lines):
        assert line.previous == previous
        previous = line.cursor


def grow(bench: Bench, seed: int, count: int) -> None:
    rng = random.Random(seed)
    bench.add(random_step(bench.model, rng) for _ in range(count))


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


@pytest.mark.parametrize("name", ["limit", "kind"])
async def test_filtered_reader_proves_it_missed_nothing(bench: Bench, name: str) -> None:
    grow(bench, 4, 200)
    query = {"limit": {"limit": "25"}, "kind": {"kind": "remove"}}[name]
    async with serving(bench) as client:
        lines = await read_all(client, **query)
        whole = events(await read_all(client))
    assert_chained(lines, "0-0")
    wanted = [one.cursor for one in whole if name == "limit" or one.kind == "remove"]
    assert [line.cursor for line in events(lines)] == wanted[: 25 if name == "limit" else None]


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


def below(bench: Bench, root: int) -> list[str]:
    """Cursors of all events in the tree of `root`, by replaying the links from the start."""
    links: dict[int, set[tuple[int, bytes]]] = {}
    found = []

    def inside(ino: int) -> bool:
        return ino == root or any(inside(parent) for parent, _ in links.get(ino, ()))

    def touched(record: Record) -> list[bool]:
        return [inside(int(one.key[0])) for one in record.changes]

    for record in bench.records:
        before = touched(record)
        for one in record.changes:
            if isinstance(one, DirentChange):
                if one.old is not None:
                    links[one.old.ino].discard(one.key)
                if one.new is not None:
                    links.setdefault(one.new.ino, set()).add(one.key)
        after = touched(record)
        cursors = {event.cursor for event in changes.events_of(record)}
        for at, (was, now) in enumerate(zip(before, after, strict=True)):
            cursor = f"{record.epoch}-{record.position}.{at}"
            if (was or now) and cursor in cursors:
                found.append(cursor)
    return found


@pytest.mark.parametrize("seed", range(6))
async def test_prefix_is_a_directory_as_of_each_record(bench: Bench, seed: int) -> None:
    """Random moves in, out and within, files and directories long gone: the same
    events as a replay of the whole history finds."""
    bench.add([bench.model.mkdir(1, b"tree")])
    tree = bench.model.dirents[1, b"tree"].ino
    rng = random.Random(seed)
    while len(bench.records) < 400:
        if len(bench.model.children[tree]) < 2:  # never empty, so never removed
            bench.add([bench.model.create(tree, b"keep%d" % len(bench.records))])
        bench.add([random_step(bench.model, rng)])
    if (key := min(bench.model.links[tree])) != (1, b"tree"):
        bench.add([bench.model.rename(*key, 1, b"tree")])
    expected = below(bench, tree)
    assert 50 < len(expected) < len(bench.expected()) - 50
    async with serving(bench) as client:
        lines = await read_all(client, prefix="/tree")
    assert [line.cursor for line in events(lines)] == expected
    assert_chained(lines, "0-0")


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
    transport = httpx.ASGITransport(stream.app(service, b"k" * 32))
    async with httpx.AsyncClient(transport=transport, base_url="http://stream") as client:
        for path in ("/stream", "/snapshot", "/position", "/metrics"):
            assert (await client.get(path)).status_code == 401


async def test_slow_reader_holds_nothing_up(bench: Bench) -> None:
    """A reader that never reads; another gets everything, memory stays bounded."""
    grow(bench, 8, 3000)
    async with serving(bench) as client:
        async with client.stream("GET", "/stream") as stuck:
            assert stuck.status_code == 200
            lines = await read_all(client)
    assert [line.cursor for line in events(lines)] == bench.expected()


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
