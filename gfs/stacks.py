"""What a daemon is waiting for: SIGUSR1 has it write the stack of every task to its log.

Python's own `faulthandler` shows threads; in a program of one event loop that is one
stack, of the loop. What hangs is a task, so tasks are shown, each with the frames from the
outermost call to the one that waits. Threads are shown too, on stderr, also when the loop
is stuck in a call and no task can be asked.
"""

from __future__ import annotations

import faulthandler
import gc
import linecache
import logging
import os
import signal
from collections.abc import Iterator
from types import FrameType
from typing import Any

import trio

log = logging.getLogger(__name__)

LIBRARY = f"{os.sep}trio{os.sep}"


def show_stacks_on_sigusr1() -> None:
    """From now on. Call it in the main thread, before the loop starts."""
    signal.signal(signal.SIGUSR1, lambda _number, _frame: log.warning("%s", task_stacks()))
    faulthandler.register(signal.SIGUSR1, chain=True)


def task_stacks() -> str:
    """A paragraph a task of this thread's loop, a child after its parent."""
    try:
        root = trio.lowlevel.current_root_task()
    except RuntimeError:
        root = None  # no loop runs in this thread
    tasks = [] if root is None else list(_tasks(root, 0))
    told = "\n".join(f"{'  ' * depth}{line}" for task, depth in tasks for line in _stack(task))
    return f"stacks tasks={len(tasks)}\n{told}"


def _tasks(task: trio.lowlevel.Task, depth: int) -> Iterator[tuple[trio.lowlevel.Task, int]]:
    yield task, depth
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _tasks(child, depth + 1)


def _stack(task: trio.lowlevel.Task) -> Iterator[str]:
    yield f"task {task.name}"
    for frame, number in _frames(task.coro):
        code = frame.f_code
        if LIBRARY not in code.co_filename:  # how trio itself waits is always the same
            line = linecache.getline(code.co_filename, number).strip()
            yield f"  {code.co_filename}:{number} {code.co_name}: {line}"


def _frames(waits: Any) -> Iterator[tuple[FrameType, int]]:
    """From the outermost call inwards, through what Cython compiled (which has no frames)."""
    while waits is not None:
        frame = getattr(waits, "cr_frame", None) or getattr(waits, "gi_frame", None)
        if frame is not None and frame.f_lineno is not None:
            yield frame, frame.f_lineno
        if hasattr(waits, "cr_await"):
            waits = waits.cr_await
        elif hasattr(waits, "gi_yieldfrom"):
            waits = waits.gi_yieldfrom
        else:  # Cython's awaitable keeps its coroutine to itself
            inner = gc.get_referents(waits)
            waits = next((each for each in inner if hasattr(each, "cr_await")), None)
