"""Locks by the client library against a real master: in order, in time, and never held too long."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from gfs.client.client import open_client
from gfs.client.filesystem import Filesystem
from gfs.client.settings import ClientSettings
from gfs.errors import LockHeld, LockLost, NotFound
from gfs.messages import LockState, Message, TakeLock
from master.core.engine import Pending
from tests.logcheck import ExpectLog
from tests.shell.master_server import CLUSTER, KEY, MoodyDisk, Running, master, until

pytestmark = pytest.mark.timeout(30)

LEASE_S = 1.2
PATH = b"/f"


@asynccontextmanager
async def files(running: Running) -> AsyncIterator[Filesystem]:
    settings = ClientSettings(master=running.address, key=KEY, cluster=CLUSTER)
    async with open_client(settings) as client:
        yield Filesystem(client, client.actor)


async def listed(one: Filesystem) -> list[LockState]:
    return [state async for state in one.list_locks()]


async def test_who_waits_gets_it_when_it_is_released_and_asks_once(tmp_path: Path) -> None:
    got: list[str] = []
    asked: list[Message] = []
    async with (
        master(tmp_path / "m", MoodyDisk()) as running,
        files(running) as a,
        files(running) as b,
    ):
        locks = running.core.machine.locks
        take = locks.take

        def counted(pending: Pending, ask: TakeLock) -> None:
            asked.append(ask)
            take(pending, ask)

        locks.take = counted  # type: ignore[method-assign]
        async with trio.open_nursery() as nursery, a.lock(PATH, create_mode=0o644) as first:

            async def wait() -> None:
                async with b.lock(PATH) as second:
                    assert second.fence > first.fence
                    got.append("b")

            nursery.start_soon(wait)
            while len(await listed(a)) < 2:  # noqa: ASYNC110 - the master has no event for us
                await trio.sleep(0.01)
            got.append("a")
            assert first.left_s() > 0
            first.require()
        assert got == ["a", "b"]
        assert len(asked) == 2
        assert await listed(a) == []


async def test_waiting_ends_by_itself_and_leaves_no_place_in_line(tmp_path: Path) -> None:
    async with (
        master(tmp_path / "m", MoodyDisk()) as running,
        files(running) as a,
        files(running) as b,
    ):
        with pytest.raises(NotFound):
            async with a.lock(PATH):
                pass
        async with a.lock(PATH, create_mode=0o644):
            with pytest.raises(LockHeld):
                async with b.lock(PATH, wait=False):
                    pass
            with pytest.raises(LockHeld):
                async with b.lock(PATH, timeout_s=0.05):
                    pass
            with trio.move_on_after(0.05) as cancelled:
                async with b.lock(PATH, shared=True):
                    pass
            assert cancelled.cancelled_caught
            assert [bool(one.fence) for one in await listed(b)] == [True]
        async with a.lock(PATH, shared=True), b.lock(PATH, shared=True, wait=False):
            assert len(await listed(a)) == 2


async def test_a_lock_ends_with_an_error_in_its_block(tmp_path: Path) -> None:
    async with master(tmp_path / "m", MoodyDisk()) as running, files(running) as a:
        with pytest.raises(ValueError, match="mine"):
            async with a.lock(PATH, create_mode=0o644):
                raise ValueError("mine")
        assert await listed(a) == []


async def test_who_cannot_renew_has_stopped_before_another_has_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    async with (
        master(tmp_path / "m", MoodyDisk(), lease_s=LEASE_S) as running,
        files(running) as a,
        files(running) as b,
        trio.open_nursery() as nursery,
    ):

        async def hold() -> None:
            with pytest.raises(LockLost):
                async with a.lock(PATH, create_mode=0o644) as held:
                    monkeypatch.setattr(a.client.link, "_renew", lambda _: None)
                    happened.append("a has it")
                    try:
                        await trio.sleep_forever()
                    finally:
                        assert held.left_s() > 0, "time to stop in"
                        with pytest.raises(LockLost):
                            held.require()
                        happened.append("a has stopped")

        nursery.start_soon(hold)
        await until(lambda: bool(happened))
        async with b.lock(PATH):
            happened.append("b has it")
            monkeypatch.undo()
        await until(lambda: not a.client.locks.held)
        assert happened == ["a has it", "a has stopped", "b has it"]


async def test_what_was_written_under_a_lost_lock_is_given_up(
    tmp_path: Path, expect_log: ExpectLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no chunk server, so nothing is committed before the session ends."""
    monkeypatch.setattr("gfs.client.client.CLOSE_LIMIT_S", 0.1)
    expect_log("session.dead", times=1)
    expect_log("close.lost bytes=0", times=1)
    expect_log("write.lost", times=1)
    async with master(tmp_path / "m", MoodyDisk()) as running, files(running) as a:
        opened = await a.open(b"/data", os.O_CREAT | os.O_RDWR, 0o644)
        with pytest.raises(LockLost):
            async with a.lock(PATH, create_mode=0o644):
                await opened.write(0, b"of the first")
                running.server._do(lambda: running.core.upkeep.end_session(a.client.link.session))
                await trio.sleep_forever()
        with pytest.raises(LockLost):
            await opened.flush()
        opened.release()
