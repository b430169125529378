"""A data directory is emptied while its server goes on: what is in it moves, or is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from gfs import messages
from gfs.errors import NotFound, StorageFailed
from tests.shell.chunkd_processes import append_records, in_process, join_tail
from tests.shell.sick_disk import SickDisk
from tests.shell.test_chunkd_disks import GROWING, SEALED, TwoDirectories, two_directories

pytestmark = pytest.mark.timeout(30)


async def drain(c: TwoDirectories, *, stop: bool = False) -> list[messages.DirectoryDrain]:
    ask = messages.DrainDirectory(c.server, str(c.sick.path), stop, 1)
    answer = await c.master.order(c.server, ask)
    assert isinstance(answer, messages.DirectoriesDraining)
    return answer.drains


def left(c: TwoDirectories) -> int:
    """Replicas left, as the last heartbeat has it; -1: nothing is drained."""
    drains = c.master.beats[c.server].drains
    return drains[0].replicas_left if drains else -1


def homeless(c: TwoDirectories) -> int:
    return sum(one.homeless for one in c.master.beats[c.server].drains)


def chunk_files(directory: Path) -> list[str]:
    return [path.name for path in (directory / "chunks").glob("*/*")]


def is_outgoing(c: TwoDirectories, handle: int) -> bool:
    found = c.reported(handle)
    return found is not None and found.outgoing


async def seal(c: TwoDirectories, handle: int) -> None:
    await c.master.order(c.server, messages.Fence(handle, 2, 1))
    await c.master.order(c.server, messages.Condense(handle, 2, 4))


async def test_all_of_it_moves_to_the_other_directory_and_is_read_there(tmp_path: Path) -> None:
    async with two_directories(tmp_path, SickDisk()) as c:
        assert await c.read(SEALED) == b"kept"  # its files are open
        assert [one.replicas_left for one in await drain(c)] == [2]
        await c.master.wait_for(lambda: is_outgoing(c, GROWING))  # so that it is sealed
        await c.master.wait_for(lambda: left(c) == 1)
        assert await c.read(SEALED) == b"kept"
        assert not is_outgoing(c, SEALED)
        assert await c.place_of_new(0x200) == c.well.path
        await seal(c, GROWING)
        await c.master.wait_for(lambda: left(c) == 0)
        assert chunk_files(c.sick.path) == []
        assert {path.path for path in c.task.live.store.places.values()} == {c.well.path}
        assert await drain(c) == [messages.DirectoryDrain(str(c.sick.path), 0, 0, 0)]
        c.well.reserve(1 << 60)
        assert await drain(c, stop=True) == []
        assert await c.place_of_new(0x201) == c.sick.path


async def test_a_drain_goes_on_after_a_restart_of_the_server(tmp_path: Path) -> None:
    async with two_directories(tmp_path, SickDisk()) as c:
        await drain(c)
        await c.task.end()
        c.master.servers.clear()
        c.master.beats.clear()
        await c.task.start(c.servers.nursery)
        await c.master.wait_for(lambda: c.server in c.master.beats)
        assert left(c) > 0, "an open replica cannot have been moved"
        await seal(c, GROWING)
        await c.master.wait_for(lambda: left(c) == 0)
        assert chunk_files(c.sick.path) == []
        c.connection = await c.servers.connect(c.task)
        assert await c.read(SEALED) == b"kept"


async def test_without_room_the_master_is_told_until_there_is_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chunkd.core.draining.RETRY_S", 0.3)
    async with two_directories(tmp_path, SickDisk()) as c:
        c.well.reserve(1 << 60)
        await drain(c)
        await c.master.wait_for(lambda: is_outgoing(c, SEALED))
        await c.master.wait_for(lambda: homeless(c) == 1)
        assert left(c) == 2
        c.well.reserve(0)
        await c.master.wait_for(lambda: not is_outgoing(c, SEALED))
        assert c.task.live.store.places[SEALED] is c.well
        assert await c.read(SEALED) == b"kept"


async def test_directories_that_are_not_there_or_do_not_work_are_refused(tmp_path: Path) -> None:
    async with two_directories(tmp_path, SickDisk()) as c:
        with pytest.raises(NotFound, match=str(c.well.path)):
            await c.master.order(
                c.server, messages.DrainDirectory(c.server, "/elsewhere", False, 1)
            )
        c.sick.health.failed("input/output error")
        c.task.live.store.on_failure(c.sick)
        with pytest.raises(StorageFailed, match="without being asked"):
            await drain(c)


async def test_one_that_fails_to_take_the_mark_is_not_drained(
    tmp_path: Path, expect_log: Callable[..., None]
) -> None:
    expect_log("disk.failed", times=1)
    disk = SickDisk()
    async with two_directories(tmp_path, disk) as c:
        disk.fail(c.sick.path)
        with pytest.raises(StorageFailed):
            await drain(c)
        await c.master.wait_for(lambda: c.errors)
        assert left(c) == -1


async def test_a_bad_replica_is_made_anew_in_the_other_directory_and_put_aside_here(
    tmp_path: Path, expect_log: Callable[..., None]
) -> None:
    expect_log("replica.corrupt", times=1)
    expect_log("replica.not-moved")
    async with in_process(tmp_path, 2) as servers:
        task, source = servers.tasks
        await task.end()
        servers.master.servers.pop(task.live.server, None)
        (tmp_path / "other").mkdir()
        task.config.data_dirs = [str(tmp_path / "t1"), str(tmp_path / "other")]
        await task.start(servers.nursery)
        c = TwoDirectories(servers, task, await servers.connect(task))
        c.well, c.sick = task.live.directories
        c.well.reserve(1 << 60)
        await join_tail(c.connection, SEALED, servers.members)
        await append_records(c.connection, SEALED, 1, b"kept", sync=True)
        c.well.reserve(0)
        for server in (c.server, source.live.server):
            await c.master.order(server, messages.Fence(SEALED, 2, 1))
            await c.master.order(server, messages.Condense(SEALED, 2, 4))
        c.sick.file(SEALED, "data").write_bytes(b"rots")
        await drain(c)
        await c.master.wait_for(lambda: SEALED in c.master.beats[c.server].bad)
        assert left(c) == 1
        await c.master.order(c.server, messages.CopyReplica(SEALED, 2, 4, source.member, 1))
        await c.master.wait_for(lambda: left(c) == 0)
        assert await c.read(SEALED) == b"kept"
        assert c.task.live.store.places[SEALED] is c.well
        assert chunk_files(c.sick.path) == []
        assert c.sick.quarantined() == {SEALED}


async def test_reads_that_meet_a_move_are_answered(tmp_path: Path) -> None:
    async with two_directories(tmp_path, SickDisk()) as c:
        outcomes: list[bytes] = []

        async def read_on(scope: trio.CancelScope) -> None:
            with scope:
                while True:
                    outcomes.append(await c.read(SEALED))

        scope = trio.CancelScope()
        c.servers.nursery.start_soon(read_on, scope)
        for stop in (False, True) * 3:
            wanted = c.well if not stop else c.sick
            await drain(c, stop=stop)
            if stop:  # back again: the other one is emptied into this one
                ask = messages.DrainDirectory(c.server, str(c.well.path), False, 1)
                await c.master.order(c.server, ask)
            await c.master.wait_for(lambda: c.task.live.store.places[SEALED] is wanted)  # noqa: B023
            if stop:
                await c.master.order(
                    c.server, messages.DrainDirectory(c.server, str(c.well.path), True, 1)
                )
        scope.cancel()
        assert set(outcomes) == {b"kept"}
