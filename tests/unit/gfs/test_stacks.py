"""Stacks of tasks: what waits is named with the place where it waits."""

from __future__ import annotations

import logging
import os
import signal

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from gfs.stacks import show_stacks_on_sigusr1
from tests.logcheck import ExpectLog


async def waits_for(event: trio.Event) -> None:
    await event.wait()


async def test_sigusr1_has_the_stack_of_every_task_told_and_nothing_ended(
    caplog: pytest.LogCaptureFixture, expect_log: ExpectLog
) -> None:
    expect_log(r"stacks tasks=")
    before = signal.getsignal(signal.SIGUSR1)
    show_stacks_on_sigusr1()
    try:
        event = trio.Event()
        with caplog.at_level(logging.WARNING):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(waits_for, event)
                await wait_all_tasks_blocked()
                os.kill(os.getpid(), signal.SIGUSR1)
                await wait_all_tasks_blocked()
                event.set()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert "waits_for: await event.wait()" in caplog.text
    assert f"{os.sep}trio{os.sep}" not in caplog.text
