"""A command that runs under a lock: its end is told, and it ends with what it depends on."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from gfs.cli import commanded

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(30)


async def run(*words: str, left_s: Callable[[], float] = lambda: 1.0) -> int:
    with trio.open_signal_receiver(*commanded.HEARD) as signals:
        return await commanded.run([*map(os.fsencode, words)], os.environ, left_s, signals)


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
    before, until = commanded.descendants(), time.monotonic() + 0.5
    script = f"trap '' TERM; (setsid sleep 100 &); sleep 100 & echo > {tmp_path}/began; wait; wait"
    with trio.move_on_after(20) as scope:

        async def cancel() -> None:
            while not (tmp_path / "began").exists():  # noqa: ASYNC110 - a file has no event
                await trio.sleep(0.01)
            scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel)
            await run("sh", "-c", script, left_s=lambda: until - time.monotonic())
    assert scope.cancelled_caught
    assert commanded.descendants() <= before  # a worker of pytest may have started others


async def test_a_parent_that_is_killed_takes_the_command_along(tmp_path: Path) -> None:
    program = (
        "import trio; from tests.shell.test_commanded import run;"
        f"trio.run(run, 'sh', '-c', 'echo $$ > {tmp_path}/pid; exec sleep 100')"
    )
    process = await trio.lowlevel.open_process([sys.executable, "-c", program], cwd=ROOT)
    with trio.fail_after(20):
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():  # noqa: ASYNC110
            await trio.sleep(0.01)
        command = int((tmp_path / "pid").read_text())
        process.kill()
        await process.wait()
        while Path(f"/proc/{command}/exe").exists():  # noqa: ASYNC110
            await trio.sleep(0.01)


async def test_a_signal_from_before_the_command_is_for_the_command() -> None:
    with trio.open_signal_receiver(*commanded.HEARD) as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        code = await commanded.run([b"sleep", b"100"], os.environ, lambda: 1.0, signals)
    assert code == commanded.BY_SIGNAL + signal.SIGTERM
