"""Threads for disk work: what is asked of them is waited for, cancelled or not."""

from __future__ import annotations

import threading
from pathlib import Path

import trio
from trio.testing import wait_all_tasks_blocked

from chunkd.workers import Workers


async def test_a_file_is_not_closed_under_the_thread_that_works_on_it(tmp_path: Path) -> None:
    """Goal: a copy that is given up ends its step first; then its file may go."""
    workers = Workers("test", 1)
    go_on = threading.Event()
    results: list[int] = []
    file = (tmp_path / "copy").open("wb", buffering=0)

    def step() -> int:
        go_on.wait(10)
        return file.write(b"content")

    async def copy() -> None:
        try:
            results.append(await workers.run(step))
            await workers.run(step)
        finally:
            file.close()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(copy)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await wait_all_tasks_blocked()
            closed_early = file.closed
            go_on.set()
        assert (results, closed_early, file.closed) == ([7], False, True)
    finally:
        workers.stop()
    assert (tmp_path / "copy").read_bytes() == b"content"
