"""A data directory that fails, hangs or is gone is taken out; the others of its server go on."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from chunkd.formats import Obeyed
from gfs import messages
from gfs.connection import Connection
from gfs.errors import GfsError, StorageFailed
from tests.shell.chunkd_processes import (
    ChunkdTask,
    Servers,
    append_records,
    in_process,
    join_tail,
)
from tests.shell.sick_disk import READING, SYNCING, SickDisk

SEALED, GROWING, OTHER = 0x100, 0x101, 0x102
HUNG_S = 1.2  # a busy disk may well take half a second


class TwoDirectories:
    """A server: `SEALED` and `GROWING` lie in the directory that falls ill, `OTHER` does not."""

    def __init__(self, servers: Servers, task: ChunkdTask, connection: Connection) -> None:
        self.servers = servers
        self.task = task
        self.connection = connection
        self.master = servers.master
        self.server = task.live.server
        self.sick, self.well = task.live.directories

    @property
    def errors(self) -> list[str]:
        return self.master.beats[self.server].errors if self.server in self.master.beats else []

    def reported(self, handle: int) -> messages.ReplicaReport | None:
        return self.master.replicas[self.server].get(handle)

    async def place_of_new(self, handle: int) -> Path:
        """The directory that a new chunk is put in."""
        await join_tail(self.connection, handle, self.servers.members)
        return self.task.live.store.places[handle].path

    async def read(self, handle: int) -> bytes:
        ask = messages.Read(handle, 1, 0, 100)
        _, payload = await self.connection.call_for_payload(ask, timeout_s=2)
        return bytes(payload or b"")


@asynccontextmanager
async def two_directories(tmp: Path, disk: SickDisk) -> AsyncIterator[TwoDirectories]:
    async with in_process(tmp, 1, disk_hung_s=HUNG_S) as servers:
        task = servers.tasks[0]
        await task.end()
        servers.master.servers.clear()
        (tmp / "sick").mkdir(exist_ok=True)
        task.config.data_dirs = [str(tmp / "t1"), str(tmp / "sick")]
        task.disk = disk
        await task.start(servers.nursery)
        found = TwoDirectories(servers, task, await servers.connect(task))
        found.well, found.sick = task.live.directories
        found.well.reserve(1 << 60)
        for handle in (SEALED, GROWING):
            await join_tail(found.connection, handle, servers.members)
            await append_records(found.connection, handle, 1, b"kept", sync=True)
        await servers.master.order(found.server, messages.Fence(SEALED, 2, 1))
        await servers.master.order(found.server, messages.Condense(SEALED, 2, 4))
        found.well.reserve(0)
        found.sick.reserve(1 << 60)
        await join_tail(found.connection, OTHER, servers.members)
        found.sick.reserve(0)
        try:
            yield found
        finally:
            disk.heal()


@pytest.mark.timeout(30)
async def test_a_directory_that_errs_is_out_until_it_has_been_well_for_a_while(
    tmp_path: Path, expect_log: Callable[..., None]
) -> None:
    expect_log("append.failed")
    expect_log("disk.failed", times=1)
    expect_log("disk.back")
    disk = SickDisk()
    async with two_directories(tmp_path, disk) as c:
        disk.fail(c.sick.path)
        with pytest.raises(GfsError):
            await append_records(c.connection, GROWING, 2, b"lost")
        await c.master.wait_for(lambda: c.errors)
        assert str(c.sick.path) in c.errors[0]
        await c.master.wait_for(lambda: c.reported(SEALED) and not c.reported(SEALED).sound)  # type: ignore[union-attr]
        health = c.task.live.health()
        assert (health["ok"], health["failing"]) == (False, c.errors)
        # What can be read is served; new chunks and those elsewhere are not concerned.
        assert await c.read(SEALED) == b"kept"
        assert await c.place_of_new(0x200) == c.well.path
        await append_records(c.connection, OTHER, 1, b"fine", sync=True)
        disk.heal()
        await c.master.wait_for(lambda: c.reported(SEALED).sound)  # type: ignore[union-attr]
        await c.master.wait_for(lambda: not c.errors)
        with pytest.raises(StorageFailed):  # what was refused is not taken up again
            await append_records(c.connection, GROWING, 2, b"late")


@pytest.mark.timeout(30)
async def test_a_directory_that_hangs_stops_nothing_but_what_is_in_it(
    tmp_path: Path, expect_log: Callable[..., None]
) -> None:
    expect_log("disk.hung")
    expect_log("disk.back")
    expect_log("append.failed", optional=True)
    disk = SickDisk()
    async with two_directories(tmp_path, disk) as c:
        disk.hang(c.sick.path)
        outcome: list[object] = []

        async def append_synced() -> None:
            try:
                outcome.append(await append_records(c.connection, GROWING, 2, b"more", sync=True))
            except GfsError as error:
                outcome.append(error)

        c.servers.nursery.start_soon(append_synced)
        for number in range(20):  # many threads may wait for the one disk
            await append_records(c.connection, OTHER, number + 1, b"fine", sync=True)
        await c.master.wait_for(lambda: c.errors)
        assert "does not answer" in c.errors[0]
        await c.master.wait_for(lambda: c.reported(SEALED) is None)
        with pytest.raises(StorageFailed):
            await c.read(SEALED)
        with pytest.raises(StorageFailed):
            await c.master.order(c.server, messages.Fence(GROWING, 2, 1))
        assert await c.place_of_new(0x200) == c.well.path
        assert len(outcome) == 1, "told at once, not when the disk answers"
        assert isinstance(outcome[0], GfsError)
        disk.heal()
        await c.master.wait_for(lambda: c.reported(SEALED) is not None and not c.errors)
        assert await c.read(SEALED) == b"kept"
        answer = await c.master.order(c.server, messages.Fence(GROWING, 2, 1))
        assert isinstance(answer, messages.FencedAt)
        assert (answer.end, bool(answer.boot)) == (8, True), "it has all of it, and is intact"


@pytest.mark.timeout(30)
async def test_a_server_starts_without_the_disk_that_fails_and_keeps_its_promises(
    tmp_path: Path, expect_log: Callable[..., None]
) -> None:
    expect_log("disk.failed", times=2)
    disk = SickDisk()
    async with two_directories(tmp_path, disk) as c:
        obeyed = c.task.live.obeyed
        obeyed.save(Obeyed(7, 100, 7, 0))
        for directory in (c.well, c.sick):
            await c.task.end()
            c.master.servers.clear()
            c.master.epoch = 7
            disk.fail(directory.path, frozenset(("open", "create", "listdir")))
            try:
                await c.task.start(c.servers.nursery)
                await c.master.wait_for(lambda: c.errors)
                assert str(directory.path) in c.errors[0]
                assert c.task.live.server == c.server
                assert c.task.live.machine.epoch == 7, "heard in both directories"
                held = c.master.replicas[c.server]
                assert (SEALED in held, OTHER in held) == (
                    directory is c.well, directory is c.sick,
                )  # fmt: skip
            finally:
                disk.heal()
            c.master.beats.clear()


@pytest.mark.timeout(30)
async def test_a_small_read_of_a_disk_that_hangs_does_not_stop_the_loop(
    tmp_path: Path, expect_log: Callable[..., None]
) -> None:
    expect_log("disk.hung")
    expect_log("disk.back")
    disk = SickDisk()
    async with two_directories(tmp_path, disk) as c:
        disk.hang(c.sick.path, READING | SYNCING)
        got: list[bytes] = []

        async def read() -> None:
            got.append(await c.read(SEALED))

        c.servers.nursery.start_soon(read)
        for number in range(20):
            await append_records(c.connection, OTHER, number + 1, b"fine", sync=True)
        await c.master.wait_for(lambda: c.errors)
        disk.heal()
        await c.master.wait_for(lambda: not c.errors)
        assert got == [b"kept"]


@pytest.mark.timeout(30)
async def test_what_is_sent_to_a_slow_directory_waits_and_is_done_in_order(
    tmp_path: Path, expect_log: Callable[..., None]
) -> None:
    disk = SickDisk()
    async with two_directories(tmp_path, disk) as c:
        c.sick.health.look(1000.0, 1000.0 - HUNG_S / 2)
        assert c.task.live._service is not None
        c.task.live._service.gate.look()
        offsets: dict[int, int] = {}

        async def append(number: int) -> None:
            landed = await append_records(c.connection, GROWING, number, b"%04d" % number)
            offsets[number] = landed.offset

        async with trio.open_nursery() as nursery:
            for number in range(2, 6):
                nursery.start_soon(append, number)
                await trio.testing.wait_all_tasks_blocked(0.002)
        assert offsets == {2: 4, 3: 8, 4: 12, 5: 16}
        assert await c.read(GROWING) == b"kept0002000300040005"


@pytest.mark.slow
@pytest.mark.timeout(30)
async def test_a_filesystem_that_is_gone_is_out(
    tmp_path: Path, expect_log: Callable[..., None]
) -> None:
    mountpoint = tmp_path / "sick"
    mountpoint.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "gfs-test", str(mountpoint)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a filesystem of its own needs root and tmpfs")
    expect_log("disk.failed", times=1)
    try:
        async with two_directories(tmp_path, SickDisk()) as c:
            subprocess.run(["umount", "-l", str(mountpoint)], check=True)
            await c.master.wait_for(lambda: c.errors)
            assert str(mountpoint) in c.errors[0]
            assert await c.place_of_new(0x200) == c.well.path
            await append_records(c.connection, OTHER, 1, b"fine", sync=True)
        assert list(mountpoint.iterdir()) == [], "nothing is written below the mountpoint"
    finally:
        subprocess.run(["umount", "-l", str(mountpoint)], check=False, capture_output=True)
