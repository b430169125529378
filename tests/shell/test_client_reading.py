"""Reads: layouts that come with Open, holes, replicas that fail or lie, read-ahead."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path
from typing import Any

import pytest

from gfs import messages as m
from gfs.checksum import block_checksums
from gfs.client import replicas
from gfs.client.replicas import PassedReplica
from gfs.errors import NoSuchReplica, RemoteProtocolError
from gfs.ids import BLOCK_BYTES, MIB
from tests.shell.client_fakes import FakeChunkServer, Replica, World, world

MEMBER = m.ChainMember(1, "127.0.0.1:1")


async def stored(w: World, data: bytes, at: int = 0) -> int:
    """A file with `data` at offset `at`, committed."""
    file = await w.client.open(w.master.new_file(), os.O_RDWR, w.client.actor)
    for start in range(0, len(data), MIB):
        await file.write(at + start, data[start : start + MIB])
    await file.sync()
    file.release()
    return file.ino


def copy_to(w: World, server: FakeChunkServer) -> None:
    """Another replica of every chunk, asked first."""
    for handle, home in w.master.homes.items():
        if home is not server:
            server.replicas[handle] = Replica(1, bytearray(home.replicas[handle].data))
            w.master.copies[handle] = [server]


def asked(w: World, kind: type[m.Message]) -> int:
    fakes = (w.master, *w.servers)
    return sum(isinstance(seen, kind) for fake in fakes for seen in fake.seen)


async def test_a_small_file_is_read_with_the_layout_that_open_gave() -> None:
    async with world() as w:
        ino = await stored(w, b"hello")
        file = await w.client.open(ino, os.O_RDONLY, w.client.actor)
        assert bytes(await file.read(0, 100)) == b"hello"
        assert bytes(await file.read(1, 3)) == b"ell"
        assert bytes(await file.read(5, 100)) == b""
        assert asked(w, m.GetLayout) == 0
        assert asked(w, m.Locate) == 0
        file.release()


async def test_what_was_committed_here_is_read_without_asking_where_it_lies() -> None:
    async with world() as w:
        ino = await stored(w, bytes(1000))
        file = await w.client.open(ino, os.O_RDWR, w.client.actor)
        content = bytearray(1000)
        for number in range(1, 20):
            at = 37 * number
            content[at : at + 50] = bytes([number]) * 50
            await file.write(at, bytes([number]) * 50)
            await file.sync()
            assert bytes(await file.read(0, 1000)) == content
        assert asked(w, m.GetLayout) == 0
        file.release()


async def test_holes_are_zeros() -> None:
    async with world() as w:
        ino = await stored(w, b"end", at=100_000)
        file = await w.client.open(ino, os.O_RDONLY, w.client.actor)
        assert bytes(await file.read(0, 200_000)) == bytes(100_000) + b"end"
        file.release()


async def test_a_changed_file_is_laid_out_anew() -> None:
    async with world() as w:
        ino = await stored(w, b"old")
        file = await w.client.open(ino, os.O_RDONLY, w.client.actor)
        assert bytes(await file.read(0, 10)) == b"old"
        again = await stored(w, b"newer")
        w.master.files[ino] = w.master.files[again]
        w.master.position += 1
        (connection,) = w.master.connections
        await connection.call(m.Invalidate(w.master.position, [], [ino], [ino]))
        assert bytes(await file.read(0, 10)) == b"newer"
        file.release()


async def test_once_the_lease_is_over_a_read_asks_the_master_first() -> None:
    """A process that was stopped for longer than its lease is told of no change, and waited for
    by nobody: acknowledged records were missing from what it read."""
    async with world() as w:
        ino = await stored(w, b"old")
        file = await w.client.open(ino, os.O_RDONLY, w.client.actor)
        assert bytes(await file.read(0, 10)) == b"old"
        w.master.files[ino] = w.master.files[await stored(w, b"newer")]
        w.master.position += 1
        w.client.link.lease.end()
        assert bytes(await file.read(0, 10)) == b"newer"
        assert await file.size() == 5
        file.release()


async def test_what_was_asked_for_before_all_was_distrusted_is_not_believed_after() -> None:
    """The answer had come, but whoever had asked went on only when the session had ended."""
    async with world() as w:
        ino = await stored(w, b"old")
        before = m.Opened(w.master.entry(ino), *w.master._layout(w.master.files[ino]), True, False)
        w.master.files[ino] = w.master.files[await stored(w, b"newer")]
        w.master.position += 1
        ask = w.client.link.ask

        async def answered_late(message: m.Message, kind: type[Any], **how: Any) -> Any:
            if not isinstance(message, m.Open):
                return await ask(message, kind, **how)
            w.client.distrust()
            return before

        w.client.link.ask = answered_late  # type: ignore[method-assign]
        file = await w.client.open(ino, os.O_RDONLY, w.client.actor)
        assert bytes(await file.read(0, 10)) == b"newer"
        file.release()


async def test_small_files_that_lie_together_are_fetched_together() -> None:
    async with world() as w:
        contents = {await stored(w, bytes([at]) * 4096): bytes([at]) * 4096 for at in range(50)}
        for ino, content in contents.items():
            file = await w.client.open(ino, os.O_RDONLY, w.client.actor)
            assert bytes(await file.read(0, 8192)) == content
            file.release()
        assert asked(w, m.Read) == 2  # the first; and from the second on, all that follow


async def test_bytes_that_came_after_a_piece_was_fetched_are_fetched() -> None:
    async with world() as w:
        inos = [await stored(w, bytes([at]) * 4096) for at in range(3)]
        for ino in inos:
            file = await w.client.open(ino, os.O_RDONLY, w.client.actor)
            assert len(await file.read(0, 4096)) == 4096
        late = await stored(w, b"late")
        file = await w.client.open(late, os.O_RDONLY, w.client.actor)
        assert bytes(await file.read(0, 4096)) == b"late"


async def test_nothing_past_the_acknowledged_end_of_a_tail_is_asked_for() -> None:
    async with world() as w:
        ino = w.master.new_file()
        file = await w.client.open(ino, os.O_RDWR | os.O_APPEND, w.client.actor)
        for _ in range(3):
            await file.write(0, b"x" * 1000)
        await file.sync()
        for offset in range(0, 3000, 1000):
            assert len(await file.read(offset, 1000)) == 1000
        reads = [seen for seen in w.servers[0].seen if isinstance(seen, m.Read)]
        assert reads
        assert max(read.offset + read.length for read in reads) <= 3000
        file.release()


@pytest.mark.parametrize("trouble", ["lies", "has nothing", "hangs up"])
async def test_a_replica_that_fails_is_passed_over(trouble: str) -> None:
    async with world(servers=2) as w:
        ino = await stored(w, b"hello")
        home = next(server for server in w.servers if any(r.data for r in server.replicas.values()))
        other = next(server for server in w.servers if server is not home)
        copy_to(w, other)
        if trouble == "lies":
            other.lies = True
        elif trouble == "has nothing":
            other.faults.before.append((m.Read, NoSuchReplica("gone")))
        else:
            other.faults.before.append((m.Read, None))
        w.client.reader.layouts.clear()
        file = await w.client.open(ino, os.O_RDONLY, w.client.actor)
        assert bytes(await file.read(0, 100)) == b"hello"
        assert asked(w, m.ReportBad) == (trouble == "lies")
        file.release()


async def test_sequential_reads_are_asked_for_ahead() -> None:
    async with world(chunk_bytes=16 * MIB) as w:
        data = random.Random(1).randbytes(8 * MIB + 100)
        ino = await stored(w, data)
        file = await w.client.open(ino, os.O_RDONLY, w.client.actor)
        got = bytearray()
        while part := await file.read(len(got), 128 * 1024):
            got += part
        assert got == data
        assert asked(w, m.Read) < 20
        file.release()


async def test_random_reads_fetch_no_more_than_asked() -> None:
    async with world(chunk_bytes=16 * MIB) as w:
        data = random.Random(1).randbytes(4 * MIB)
        ino = await stored(w, data)
        file = await w.client.open(ino, os.O_RDONLY, w.client.actor)
        draw = random.Random(2)
        for _ in range(50):
            at = draw.randrange(0, len(data) - 4096)
            assert bytes(await file.read(at, 4096)) == data[at : at + 4096]
        assert w.client.reader.replicas.bytes_remote == 50 * 4096
        file.release()


def passed(path: Path, data: bytes, sums: list[int]) -> PassedReplica:
    path.write_bytes(data)
    packed = struct.pack(f"<{len(sums)}I", *sums)
    return PassedReplica(os.open(path, os.O_RDONLY), len(data), packed, MEMBER)


def test_a_passed_replica_gives_any_range(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(3 * BLOCK_BYTES + 777)
    replica = passed(tmp_path / "chunk", data, block_checksums(data))
    draw = random.Random(2)
    for _ in range(200):
        at = draw.randrange(0, len(data))
        length = draw.randrange(1, len(data) - at + 1)
        content = replica.read(at, length)
        assert content is not None
        assert bytes(content) == data[at : at + length]
    assert replica.read(len(data) - 10, 11) is None
    replica.close()


def test_a_passed_replica_that_changed_gives_nothing(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(2 * BLOCK_BYTES)
    sums = block_checksums(data)
    sums[1] ^= 1
    replica = passed(tmp_path / "chunk", data, sums)
    assert replica.read(0, BLOCK_BYTES) is not None
    assert replica.read(BLOCK_BYTES - 1, 2) is None
    replica.close()


def test_a_replica_without_all_its_checksums_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "chunk"
    path.write_bytes(bytes(2 * BLOCK_BYTES))
    fd = os.open(path, os.O_RDONLY)
    with pytest.raises(RemoteProtocolError):
        PassedReplica(fd, 2 * BLOCK_BYTES, struct.pack("<I", 0), MEMBER)
    os.close(fd)


async def test_open_chunks_that_were_asked_for_are_remembered_up_to_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replicas, "UNPASSABLE_MAX", 10)
    async with world() as w:
        found = w.client.reader.replicas
        for handle in range(1000, 1050):
            w.master.homes[handle] = w.servers[0]
            assert not await found.pass_if_local(handle)
        assert len(found._unpassable) == 10
        assert 1049 in found._unpassable


async def test_a_chunk_that_is_open_here_is_not_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whether another's has been sealed only the master knows."""
    monkeypatch.setattr(replicas, "RECHECK_S", 0.0)
    async with world() as w:
        await stored(w, b"hello")
        (ours,) = w.master.homes
        w.master.homes[1000] = w.servers[0]
        found = w.client.reader.replicas
        for handle, questions in ((ours, 1), (1000, 3)):
            before = asked(w, m.Locate)
            await found.pass_if_local(handle)
            await found.pass_if_local(handle)
            await found.pass_if_local(handle)
            assert asked(w, m.Locate) - before == questions
