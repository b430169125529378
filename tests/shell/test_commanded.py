"""A command that runs under a lock: its end is told, and it ends with what it depends on."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
import trio

from gfs.cli import commanded

pytestmark = pytest.mark.timeout(30)


async def run(*words: str, left_s: float = 1.0) -> int:
    return await commanded.run([os.fsencode(word) for word in words], os.environ, lambda: left_s)


async def test_exit_codes_are_those_of_a_shell() -> None:
    assert await run("true") == 0
    assert await run("sh", "-c", "exit 7") == 7
    assert await run("sh", "-c", "kill -15 $$") == 128 + signal.SIGTERM
    assert await run("/nowhere") == 127
    assert await run("/") == 126


async def test_a_command_outlives_the_threads_of_its_parent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel would kill it with the thread that has started it."""
    monkeypatch.setattr("trio._core._thread_cache.IDLE_TIMEOUT", 0.01)
    assert await run("sleep", "0.3") == 0


async def test_all_that_it_has_started_ends_with_it_when_it_must(tmp_path: Path) -> None:
    """SIGTERM first; what does not heed it is killed when there is no time left."""
    until = time.monotonic() + 0.5
    script = f"trap '' TERM; (setsid sleep 100 &); sleep 100 & echo > {tmp_path}/began; wait; wait"
    with trio.move_on_after(20) as scope:

        async def cancel() -> None:
            while not (tmp_path / "began").exists():  # noqa: ASYNC110 - a file has no event
                await trio.sleep(0.01)
            scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel)
            words = [b"sh", b"-c", script.encode()]
            await commanded.run(words, os.environ, lambda: until - time.monotonic())
    assert scope.cancelled_caught
    assert commanded.descendants() == set()


async def test_a_parent_that_is_killed_takes_the_command_along(tmp_path: Path) -> None:
    program = (
        "import os, trio; from gfs.cli import commanded;"
        f"words = [b'sh', b'-c', b'echo $$ > {tmp_path}/pid; exec sleep 100'];"
        "trio.run(commanded.run, words, os.environ, lambda: 1.0)"
    )
    process = await trio.lowlevel.open_process([sys.executable, "-c", program])
    with trio.fail_after(20):
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():  # noqa: ASYNC110
            await trio.sleep(0.01)
        command = int((tmp_path / "pid").read_text())
        process.kill()
        await process.wait()
        while Path(f"/proc/{command}/exe").exists():  # noqa: ASYNC110
            await trio.sleep(0.01)
