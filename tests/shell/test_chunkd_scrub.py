"""Blocks that nobody reads are verified all the same."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from chunkd.core.scrubbing import Progress
from chunkd.formats import SCRUB, seal_block
from gfs import messages
from gfs.ids import BLOCK_BYTES
from tests.shell.chunkd_processes import ChunkdTask, Servers, in_process, join_tail
from tests.shell.chunkd_processes import append_records as append

SEALED = [0x101, 0x102, 0x103]
OPEN = 0x104
BYTES = 3 * BLOCK_BYTES + 100
PERIOD_S = 0.5


async def fill(servers: Servers, task: ChunkdTask) -> None:
    """Three sealed replicas and an open one."""
    connection = await servers.connect(task)
    for handle in (*SEALED, OPEN):
        await join_tail(connection, handle, servers.members)
        await append(connection, handle, 1, os.urandom(BYTES), sync=True)
    for handle in SEALED:
        await servers.master.order(task.live.server, messages.Fence(handle, 2, 1))
        await servers.master.order(task.live.server, messages.Condense(handle, 2, BYTES))


async def again(servers: Servers, task: ChunkdTask, **settings: object) -> None:
    await task.end()
    servers.master.servers.clear()
    for name, value in settings.items():
        setattr(task.config, name, value)
    await task.start(servers.nursery)


@pytest.mark.timeout(30)
async def test_a_bit_that_flips_where_nobody_reads_is_found_and_told(
    tmp_path: Path, expect_log: Callable[..., None]
) -> None:
    expect_log("scrub.bad", times=2)
    expect_log("replica.corrupt", times=2)
    async with in_process(tmp_path, 1, scrub_period_s=PERIOD_S) as servers:
        task = servers.tasks[0]
        await fill(servers, task)
        server, directory = task.live.server, task.live.directories[0]
        progress = task.live.scrubbers[0].progress
        await servers.master.wait_for(lambda: progress.last_blocks >= 3 * 4 + 3)
        assert progress.last_bad == 0
        await servers.master.wait_for(lambda: servers.master.beats[server].verified_ns > 0)
        with directory.file(SEALED[1], "data").open("r+b") as file:
            file.seek(BLOCK_BYTES + 7)
            byte = file.read(1)[0]
            file.seek(BLOCK_BYTES + 7)
            file.write(bytes([byte ^ 4]))
        directory.file(SEALED[2], "data").unlink()
        bad = sorted(SEALED[1:])
        await servers.master.wait_for(lambda: servers.master.beats[server].bad == bad)
        await again(servers, task)
        await servers.master.wait_for(lambda: server in servers.master.servers)
        assert not servers.master.replicas[server][SEALED[1]].sound


@pytest.mark.timeout(30)
async def test_a_pass_goes_on_where_the_last_process_was(tmp_path: Path) -> None:
    async with in_process(tmp_path, 1, scrub_period_s=0) as servers:
        task = servers.tasks[0]
        await fill(servers, task)
        half = Progress(began_ns=time.time_ns(), after=SEALED[1], blocks=50, is_running=True)
        path = task.live.directories[0].path / "scrub"
        path.write_bytes(seal_block(SCRUB, half))
        await again(servers, task, scrub_period_s=1e6)
        scrubber = task.live.scrubbers[0]
        await servers.master.wait_for(lambda: scrubber.progress.last_began_ns == half.began_ns)
        assert scrubber.progress.last_blocks == 50 + 4 + 3, "the first ones were not read again"
