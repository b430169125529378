"""What tests of the stream share: a model's log on disk, and the server over it."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import trio

from bench.namespace_model import ModelLog, NamespaceModel, random_step
from gfs import changes
from gfs.changes import Line
from gfs.records import TABLE_OF, Record
from master import stream
from master.log import SEGMENT_BYTES
from master.state import State
from master.stream_service import Service

CLUSTER = "model"


class Bench:
    """A model, its log and state on disk, and the stream's service over them."""

    def __init__(self, directory: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self.directory = directory
        self.model = NamespaceModel()
        self.log = ModelLog(directory, CLUSTER, segment_bytes=segment_bytes)
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

    def service(self, **options: Any) -> Service:
        return Service(
            log_directory=self.log.directory,
            committed=self.log.committed_path,
            state=self.directory / "state.db",
            checkpoints=self.directory / "checkpoints",
            consumers=self.directory / "consumers.db",
            cluster_id=CLUSTER,
            **options,
        )

    def expected(self) -> list[str]:
        """Cursors of all default events."""
        return [event.cursor for one in self.records for event in changes.events_of(one)]


@asynccontextmanager
async def serving(bench: Bench, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """The stream over a Unix socket, `s` in the directory."""
    service = bench.service(**options)
    unix = str(bench.directory / "s")
    transport = httpx.AsyncHTTPTransport(uds=unix, verify=False)
    async with trio.open_nursery() as nursery:
        ready = str(bench.directory / "ready")
        Path(ready).unlink(missing_ok=True)
        nursery.start_soon(stream.serve, service, None, "127.0.0.1:0", unix, ready)
        with trio.fail_after(10):
            while not Path(ready).exists():  # noqa: ASYNC110 (a file, as other processes see it)
                await trio.sleep(0.005)
        base = "http://stream"
        async with httpx.AsyncClient(transport=transport, base_url=base, timeout=60) as client:
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


Figures = dict[str, Any]


async def figures(client: httpx.AsyncClient) -> Figures:
    """The server's numbers."""
    found: Figures = (await client.get("/statistics")).json()
    return found


async def until(client: httpx.AsyncClient, condition: Callable[[Figures], bool]) -> Figures:
    """Wait for the server's numbers to be so."""
    with trio.fail_after(20):
        while True:
            found = await figures(client)
            if condition(found):
                return found
            await trio.sleep(0.01)


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
