"""Large appends go around the page cache, in threads, and stay in order."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import trio

from gfs import messages
from gfs.errors import Fenced, GfsError
from gfs.ids import KIB, MIB
from tests.shell.chunkd_processes import Servers, Stream, in_process
from tests.shell.sick_disk import SickDisk

HANDLE, OTHER = 0x77, 0x78
AROUND = frozenset(("pwrite_around",))


def data_file(servers: Servers, member: int) -> Path:
    task = servers.tasks[member]
    directory = task.live.store.places[HANDLE]
    return directory.file(HANDLE, "data")


async def second_on(servers: Servers, disk: SickDisk) -> None:
    """Give the second server a disk that can be made to hang."""
    task = servers.tasks[1]
    await task.end()
    task.disk = disk
    await task.start(servers.nursery)


async def test_members_hold_the_same_bytes_whichever_way_they_were_written(tmp_path: Path) -> None:
    async with in_process(tmp_path) as servers:
        stream = Stream(await servers.connect(servers.tasks[0]), HANDLE, servers.members)
        stream.join()
        sizes = [
            MIB,
            MIB,
            256 * KIB,
            4 * KIB,
            MIB,
            1000,
            MIB,
            17,
        ]  # aligned, small, and never again
        sent = [os.urandom(size) for size in sizes]
        for part in sent:
            stream.append(part)
        await stream.wait()
        for member in range(3):
            assert data_file(servers, member).read_bytes() == b"".join(sent)


async def test_fence_answers_only_when_the_write_under_way_can_touch_nothing_more(
    tmp_path: Path, expect_log: Callable[..., None]
) -> None:
    expect_log("chain.failed")
    disk = SickDisk()
    async with in_process(tmp_path, 2, disk_hung_s=30.0) as servers:
        await second_on(servers, disk)
        stream = Stream(await servers.connect(servers.tasks[0]), HANDLE, servers.members)
        stream.join()
        stream.append(os.urandom(MIB))
        await stream.wait()
        disk.hang(tmp_path, AROUND)
        for _ in range(3):  # one is being written, two wait behind it
            stream.append(os.urandom(MIB))
        assert await trio.to_thread.run_sync(disk.wait_caught)
        fenced: list[messages.Message] = []

        async def fence() -> None:
            order = messages.Fence(HANDLE, 2, 1)
            fenced.append(await servers.master.order(servers.members[1].server, order))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fence)
            await trio.testing.wait_all_tasks_blocked(0.05)
            assert not fenced
            disk.heal()
        answer = fenced[0]
        assert isinstance(answer, messages.FencedAt)
        assert answer.end == MIB
        condense = messages.Condense(HANDLE, 2, MIB)
        await servers.master.order(servers.members[1].server, condense)
        assert data_file(servers, 1).stat().st_size == MIB
        error: GfsError | None = None
        try:
            await stream.wait()
        except GfsError as refused:
            error = refused
        assert isinstance(error, Fenced)


async def test_deletion_while_bytes_are_being_written_harms_nobody(
    tmp_path: Path, expect_log: Callable[..., None]
) -> None:
    expect_log("chain.failed", optional=True)
    disk = SickDisk()
    async with in_process(tmp_path, 2, disk_hung_s=30.0) as servers:
        await second_on(servers, disk)
        stream = Stream(await servers.connect(servers.tasks[0]), HANDLE, servers.members)
        stream.join()
        disk.hang(tmp_path, AROUND)
        stream.append(os.urandom(MIB))
        assert await trio.to_thread.run_sync(disk.wait_caught)
        path = data_file(servers, 1)
        server = servers.members[1].server
        await servers.master.order(server, messages.DeleteReplicas([HANDLE], 1))
        disk.heal()
        late = Stream(await servers.connect(servers.tasks[1]), OTHER, servers.members[1:])
        late.join()
        late.append(b"it serves on")
        await late.wait()
        assert not path.exists()
        assert HANDLE not in servers.tasks[1].live.machine.replicas
