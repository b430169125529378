"""Chains of chunk servers over loopback: order, dedup, fences, seals, copies, reads."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio

from chunkd.files import CopyFile
from chunkd.sums import BlockSums
from gfs import messages
from gfs.checksum import crc32c
from gfs.connection import Connection
from gfs.errors import (
    ChunkFull,
    Corrupt,
    Fenced,
    GfsError,
    InvalidArgument,
    MemberFailed,
    NoSpace,
    NoSuchReplica,
    SequenceGap,
    StaleVersion,
    Unsupported,
)
from gfs.ids import BLOCK_BYTES, MIB
from tests.shell.chunkd_processes import (
    Servers,
    Stream,
    append_records,
    in_process,
    join_tail,
)

HANDLE = (1 << 40) + 5
pytestmark = pytest.mark.timeout(30)


async def read(
    connection: Connection, offset: int, length: int, *, version: int = 1, handle: int = HANDLE
) -> bytes:
    ask = messages.Read(handle, version, offset, length)
    answer, payload = await connection.call_for_payload(ask)
    assert isinstance(answer, messages.ReadData)
    assert crc32c(payload or b"") == answer.checksum
    return bytes(payload or b"")


async def fence_all(
    servers: Servers, version: int, *, members: list[messages.ChainMember] | None = None
) -> list[messages.FencedAt]:
    answers = []
    for member in members or servers.members:
        answer = await servers.master.order(member.server, messages.Fence(HANDLE, version, 1))
        assert isinstance(answer, messages.FencedAt)
        answers.append(answer)
    return answers


async def test_appended_bytes_are_at_every_member(tmp_path: Path) -> None:
    content = os.urandom(3 * MIB + 12345)
    async with in_process(tmp_path) as servers:
        connection = await servers.connect(servers.tasks[0])
        stream = Stream(connection, HANDLE, servers.members)
        stream.join()
        view = memoryview(content)
        for start in range(0, len(content), 700_001):
            stream.append(view[start : start + 700_001])
        await stream.wait()
        answer = await connection.call(messages.Sync(HANDLE, 1))
        assert answer == messages.Appended(len(content))
        for task in servers.tasks:
            other = await servers.connect(task, unix=False)
            assert await read(other, 0, 8 * MIB) == content
            assert await read(other, 65_535, 70_000) == content[65_535:135_535]
            assert await read(other, len(content) - 1, 10) == content[-1:]
            assert await read(other, len(content), 10) == b""
            assert await read(other, 0, 0) == b""


async def test_records_land_once_in_order_and_a_gap_is_refused(tmp_path: Path) -> None:
    async with in_process(tmp_path) as servers:
        connection = await servers.connect(servers.tasks[0])
        await join_tail(connection, HANDLE, servers.members)
        one = await append_records(connection, HANDLE, 1, b"one\n")
        two = await append_records(connection, HANDLE, 2, b"two\nthree\n", count=2, sync=True)
        assert (one.offset, two.offset, two.end) == (0, 4, 14)
        again = await append_records(connection, HANDLE, 2, b"two\nthree\n", count=2)
        assert (again.offset, again.end) == (-1, 14)
        again = await append_records(connection, HANDLE, 1, b"one\n", sync=True)
        assert (again.offset, again.end) == (-1, 14)
        with pytest.raises(SequenceGap):
            await append_records(connection, HANDLE, 5, b"five\n")
        with pytest.raises(SequenceGap):
            await append_records(connection, HANDLE, 3, b"three\nfour\n", count=2)
        other = await append_records(connection, HANDLE, 1, b"other\n", writer=8)
        assert other.offset == 14
        assert await read(connection, 0, 100) == b"one\ntwo\nthree\nother\n"
        ends = await connection.call(messages.TailEnds([HANDLE, 99]))
        assert isinstance(ends, messages.TailEndsAre)
        assert ends.ends == [20, messages.END_NOT_BEGUN]
        second = await servers.connect(servers.tasks[1])
        answer = await second.call(messages.TailEnds([HANDLE]))
        assert isinstance(answer, messages.TailEndsAre)
        assert answer.ends == [messages.END_UNKNOWN]


async def test_many_synced_records_in_flight_are_all_answered(tmp_path: Path) -> None:
    async with in_process(tmp_path) as servers:
        connection = await servers.connect(servers.tasks[0])
        await join_tail(connection, HANDLE, servers.members)
        offsets: list[int] = []
        done = trio.Event()

        def on_reply(answer: object, _: object) -> None:
            assert isinstance(answer, messages.RecordsAppended), answer
            offsets.append(answer.offset)
            if len(offsets) == 500:
                done.set()

        with connection.corked():
            for number in range(500):
                record = b"%07d\n" % number
                connection.request(
                    messages.RecordAppend(HANDLE, 1, 7, number + 1, 1, crc32c(record), True),
                    on_reply,
                    record,
                )
        await done.wait()
        assert offsets == [8 * number for number in range(500)]
        syncs = servers.tasks[2].live.statistics()["data"]["syncs_total"]  # type: ignore[index]
        assert syncs < 100  # a round covers many


async def test_bytes_that_fail_their_checksum_are_refused(tmp_path: Path) -> None:
    async with in_process(tmp_path, 1) as servers:
        connection = await servers.connect(servers.tasks[0])
        await join_tail(connection, HANDLE, servers.members)
        with pytest.raises(Corrupt):
            await connection.call(messages.RecordAppend(HANDLE, 1, 7, 1, 1, 123), b"damaged")
        with pytest.raises(InvalidArgument):
            await connection.call(messages.RecordAppend(HANDLE, 1, 7, 1, 1, 0), None)
        assert (await append_records(connection, HANDLE, 1, b"sound")).offset == 0


async def test_append_is_refused_when_it_is_not_at_the_end_or_does_not_fit(tmp_path: Path) -> None:
    async with in_process(tmp_path, 1) as servers:
        connection = await servers.connect(servers.tasks[0])
        stream = Stream(connection, HANDLE, servers.members)
        stream.join()
        stream.append(b"x" * 100)
        await stream.wait()
        with pytest.raises(SequenceGap):
            await connection.call(messages.Append(HANDLE, 1, 50, crc32c(b"y")), b"y")
        with pytest.raises(StaleVersion):
            await connection.call(messages.Append(HANDLE, 2, 100, crc32c(b"y")), b"y")
        with pytest.raises(NoSuchReplica):
            await connection.call(messages.Append(HANDLE + 1, 1, 0, crc32c(b"y")), b"y")
        small = messages.Join(HANDLE + 2, 1, 1, False, 1000, [])
        await connection.call(small)
        with pytest.raises(ChunkFull):
            payload = bytes(1001)
            await connection.call(messages.Append(HANDLE + 2, 1, 0, crc32c(payload)), payload)


async def test_fence_refuses_what_waits_and_what_comes_and_seal_makes_members_equal(
    tmp_path: Path, expect_log: Callable[..., None]
) -> None:
    expect_log("chain.failed", optional=True)
    async with in_process(tmp_path) as servers:
        connection = await servers.connect(servers.tasks[0])
        await join_tail(connection, HANDLE, servers.members)
        await append_records(connection, HANDLE, 1, b"first\n")
        # Only the last member is fenced: that alone stops the primary.
        await fence_all(servers, 2, members=servers.members[2:])
        with pytest.raises(Fenced):
            await append_records(connection, HANDLE, 2, b"second\n")
        with pytest.raises(Fenced):
            await append_records(connection, HANDLE, 3, b"third\n")
        answers = await fence_all(servers, 2)
        assert [answer.end for answer in answers] == [13, 13, 6]
        assert answers[0].writers == {7: 2}
        assert answers[2].writers == {7: 1}
        assert answers[0].boot
        with pytest.raises(Fenced):
            await join_tail(connection, HANDLE, servers.members)
        members = servers.members
        condense = messages.Condense(HANDLE, 2, 13)
        one = await servers.master.order(members[0].server, condense)
        two = await servers.master.order(members[1].server, condense)
        with pytest.raises(NoSuchReplica):
            await servers.master.order(members[2].server, condense)
        copy = messages.CopyReplica(HANDLE, 2, 13, members[0])
        three = await servers.master.order(members[2].server, copy)
        assert one == two == three
        assert one == await servers.master.order(members[0].server, condense)
        third = await servers.connect(servers.tasks[2])
        assert await read(third, 0, 100, version=2) == b"first\nsecond\n"
        with pytest.raises(Fenced):
            await append_records(connection, HANDLE, 3, b"late\n", version=2)


async def test_older_epoch_is_refused(tmp_path: Path, expect_log: Callable[..., None]) -> None:
    expect_log("master.old", optional=True)
    async with in_process(tmp_path, 1) as servers:
        server = servers.members[0].server
        servers.master.epoch = 5
        await servers.master.wait_for(lambda: server in servers.master.servers)
        await servers.tasks[0].end()
        await servers.tasks[0].start(servers.nursery)
        await servers.master.wait_for(lambda: servers.tasks[0].live.machine.epoch == 5)
        connection = await servers.connect(servers.tasks[0])
        with pytest.raises(StaleVersion):
            await join_tail(connection, HANDLE, servers.members, epoch=4)
        await join_tail(connection, HANDLE, servers.members, epoch=5)
        # A master of a lower epoch is refused, also after a restart of the server.
        await servers.tasks[0].end()
        servers.master.epoch = 4
        servers.master.servers.clear()
        await servers.tasks[0].start(servers.nursery)
        assert servers.tasks[0].live.machine.epoch == 5
        with trio.move_on_after(0.5):
            await servers.master.wait_for(lambda: server in servers.master.servers)
        assert server not in servers.master.servers
        assert servers.master.registrations[server].epoch == 5


async def test_replica_with_a_flipped_bit_is_refused_reported_and_kept_aside(
    tmp_path: Path, expect_log: Callable[..., None]
) -> None:
    expect_log("replica.corrupt", times=1)
    content = os.urandom(3 * BLOCK_BYTES)
    async with in_process(tmp_path, 2) as servers:
        connection = await servers.connect(servers.tasks[0])
        stream = Stream(connection, HANDLE, servers.members)
        stream.join()
        stream.append(content)
        await stream.wait()
        await fence_all(servers, 2)
        first, second = servers.members
        for member in servers.members:
            await servers.master.order(member.server, messages.Condense(HANDLE, 2, len(content)))
        directory = servers.tasks[0].live.directories[0]
        path = directory.file(HANDLE, "data")
        with path.open("r+b") as file:
            file.seek(BLOCK_BYTES + 7)
            file.write(bytes([content[BLOCK_BYTES + 7] ^ 1]))
        with pytest.raises(Corrupt):
            await read(connection, BLOCK_BYTES, 100, version=2)
        assert await read(connection, 0, 100, version=2) == content[:100]
        await servers.master.wait_for(lambda: servers.master.beats[first.server].bad == [HANDLE])
        found = await servers.master.order(first.server, messages.VerifyReplicas([]))
        assert found == messages.Verified([HANDLE], 0)
        found = await servers.master.order(second.server, messages.VerifyReplicas([]))
        assert found == messages.Verified([], 3)
        # Over a restart it stays known as bad; a copy from the other puts it right.
        await servers.tasks[0].end()
        servers.master.servers.clear()
        await servers.tasks[0].start(servers.nursery)
        await servers.master.wait_for(lambda: first.server in servers.master.servers)
        assert not servers.master.replicas[first.server][HANDLE].sound
        copy = messages.CopyReplica(HANDLE, 2, len(content), second)
        await servers.master.order(first.server, copy)
        connection = await servers.connect(servers.tasks[0])
        assert await read(connection, 0, MIB, version=2) == content
        assert list((directory.path / "quarantine").glob("*.data"))


async def test_sealed_replica_is_passed_as_a_descriptor_over_the_unix_socket_alone(
    tmp_path: Path,
) -> None:
    content = os.urandom(100_000)
    async with in_process(tmp_path, 1) as servers:
        connection = await servers.connect(servers.tasks[0])
        stream = Stream(connection, HANDLE, servers.members)
        stream.join()
        stream.append(content)
        await stream.wait()
        with pytest.raises(NoSuchReplica):
            await connection.call(messages.PassReplica(HANDLE, 1))
        await fence_all(servers, 2)
        order = messages.Condense(HANDLE, 2, len(content))
        await servers.master.order(servers.members[0].server, order)
        answer, sums = await connection.call_for_payload(messages.PassReplica(HANDLE, 2))
        assert answer == messages.ReplicaPassed(len(content))
        descriptor = connection.take_descriptor()
        assert descriptor is not None
        try:
            assert os.pread(descriptor, MIB, 0) == content
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.pwrite(descriptor, b"x", 0)
        finally:
            os.close(descriptor)
        assert sums is not None
        assert sums[:4] == crc32c(content[:BLOCK_BYTES]).to_bytes(4, "little")
        over_tcp = await servers.connect(servers.tasks[0], unix=False)
        with pytest.raises(Unsupported):
            await over_tcp.call(messages.PassReplica(HANDLE, 2))


async def test_deleted_replica_is_gone_and_fence_of_an_unknown_one_makes_it_empty(
    tmp_path: Path,
) -> None:
    async with in_process(tmp_path, 1) as servers:
        server = servers.members[0].server
        connection = await servers.connect(servers.tasks[0])
        await join_tail(connection, HANDLE, servers.members)
        await append_records(connection, HANDLE, 1, b"short life\n")
        await servers.master.order(server, messages.DeleteReplicas([HANDLE, 12345]))
        with pytest.raises(NoSuchReplica):
            await read(connection, 0, 10)
        assert not list(servers.tasks[0].directory.glob("chunks/*/*"))
        answer = await servers.master.order(server, messages.Fence(HANDLE, 3, 1))
        assert isinstance(answer, messages.FencedAt)
        assert (answer.end, answer.writers) == (0, {})
        with pytest.raises(Fenced):
            await join_tail(connection, HANDLE, servers.members)


async def test_nearly_full_directory_takes_no_new_chunk_but_serves_old_ones(
    tmp_path: Path,
) -> None:
    async with in_process(tmp_path, 1) as servers:
        connection = await servers.connect(servers.tasks[0])
        await join_tail(connection, HANDLE, servers.members)
        await append_records(connection, HANDLE, 1, b"before\n")
        servers.tasks[0].live.directories[0].reserve(1 << 60)
        with pytest.raises(NoSpace):
            await join_tail(connection, HANDLE + 1, servers.members)
        await append_records(connection, HANDLE, 2, b"after\n")
        assert await read(connection, 0, 20) == b"before\nafter\n"
        server = servers.members[0].server
        await servers.master.wait_for(
            lambda: server in servers.master.beats and not servers.master.beats[server].free_bytes
        )


async def test_chain_with_a_member_that_is_not_there_names_it(
    tmp_path: Path, expect_log: Callable[..., None]
) -> None:
    expect_log("chain.failed", times=1)
    async with in_process(tmp_path, 1) as servers:
        gone = messages.ChainMember(424242, "127.0.0.1:1")
        connection = await servers.connect(servers.tasks[0])
        with pytest.raises(MemberFailed, match="server 424242"):
            await join_tail(connection, HANDLE, [*servers.members, gone])
        with pytest.raises(MemberFailed, match="server 424242"):
            await append_records(connection, HANDLE, 1, b"x")


async def test_growth_is_told_when_asked(tmp_path: Path) -> None:
    async with in_process(tmp_path, 2) as servers:
        connection = await servers.connect(servers.tasks[0])
        await join_tail(connection, HANDLE, servers.members)
        await append_records(connection, HANDLE, 1, b"12345")
        primary, secondary = servers.members
        for handles in ([], [HANDLE]):
            answer = await servers.master.order(primary.server, messages.ReportGrowth(handles))
            assert isinstance(answer, messages.Growth)
            assert [(one.handle, one.end) for one in answer.growth] == [(HANDLE, 5)]
            assert answer.growth[0].mtime_ns > 0
        nothing = await servers.master.order(secondary.server, messages.ReportGrowth([]))
        assert nothing == messages.Growth([])
        await servers.master.wait_for(
            lambda: any(one.end == 5 for one in servers.master.beats[primary.server].growth)
        )


async def test_new_copy_of_a_sealed_chunk_equals_its_source(tmp_path: Path) -> None:
    content = os.urandom(9 * MIB + 17)
    async with in_process(tmp_path, 2) as servers:
        first, second = servers.members
        connection = await servers.connect(servers.tasks[0])
        stream = Stream(connection, HANDLE, [first])
        stream.join()
        for start in range(0, len(content), MIB):
            stream.append(memoryview(content)[start : start + MIB])
        await stream.wait()
        await fence_all(servers, 2, members=[first])
        condensed = await servers.master.order(
            first.server, messages.Condense(HANDLE, 2, len(content))
        )
        copy = messages.CopyReplica(HANDLE, 2, len(content), first)
        assert await servers.master.order(second.server, copy) == condensed
        other = await servers.connect(servers.tasks[1], unix=False)
        assert await read(other, 5 * MIB - 3, MIB, version=2) == content[5 * MIB - 3 :][:MIB]


async def test_who_appends_while_a_copy_takes_the_place_of_an_unfenced_replica_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member that was cut off when the others were fenced: its server ended by a KeyError."""
    content = os.urandom(BLOCK_BYTES)
    finishing, go_on = threading.Event(), threading.Event()
    finish = CopyFile.finish

    def slow_finish(copy: CopyFile, *args: Any, **given: Any) -> BlockSums:
        finishing.set()
        assert go_on.wait(20)
        return finish(copy, *args, **given)

    monkeypatch.setattr(CopyFile, "finish", slow_finish)
    async with in_process(tmp_path, 2) as servers, trio.open_nursery() as nursery:
        first, second = servers.members
        streams = []
        for task, member in zip(servers.tasks, servers.members, strict=True):
            streams.append(Stream(await servers.connect(task), HANDLE, [member]))
            streams[-1].join()
            streams[-1].append(content)
            await streams[-1].wait()
        await fence_all(servers, 2, members=[first])
        await servers.master.order(first.server, messages.Condense(HANDLE, 2, len(content)))
        copy = messages.CopyReplica(HANDLE, 2, len(content), first)
        nursery.start_soon(servers.master.order, second.server, copy)
        await servers.master.wait_for(finishing.is_set)
        try:
            streams[1].append(b"more")
            with pytest.raises(Fenced):
                await streams[1].wait()
        finally:
            go_on.set()
    # The copy has been answered, and its server has ended as it should.


async def test_a_new_chunk_is_built_of_pieces_of_others(tmp_path: Path) -> None:
    content = os.urandom(6 * MIB + 17)
    async with in_process(tmp_path, 2) as servers:
        first, second = servers.members
        connection = await servers.connect(servers.tasks[0])
        stream = Stream(connection, HANDLE, [first])
        stream.join()
        stream.append(memoryview(content)[:MIB])
        stream.append(memoryview(content)[MIB:])
        await stream.wait()
        await fence_all(servers, 2, members=[first])
        await servers.master.order(first.server, messages.Condense(HANDLE, 2, len(content)))
        ranges = [(5 * MIB, MIB + 17), (3, 100), (MIB - 1, 2), (MIB, 3 * MIB), (0, 1)]
        pieces = [messages.Piece(first, HANDLE, 2, at, length) for at, length in ranges]
        expected = b"".join(content[at : at + length] for at, length in ranges)
        order = messages.BuildReplica(HANDLE + 1, 1, pieces)
        built = await servers.master.order(second.server, order)
        assert await servers.master.order(first.server, order) == built  # from itself, too
        assert await servers.master.order(second.server, order) == built  # asked again
        other = await servers.connect(servers.tasks[1], unix=False)
        found = b""
        while len(found) < len(expected):
            length = min(MIB, len(expected) - len(found))
            found += await read(other, len(found), length, version=1, handle=HANDLE + 1)
        assert found == expected
        bad = [*pieces, messages.Piece(first, HANDLE, 2, len(content) - 1, 2)]
        with pytest.raises(GfsError):
            await servers.master.order(second.server, messages.BuildReplica(HANDLE + 2, 1, bad))
