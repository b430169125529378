"""Threads for disk work that may take long, answered by callbacks in the loop.

A trio task and `to_thread` for each fdatasync cost more than the fdatasync of a
small record; here a job is a queue entry and its answer one callback.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import trio

from gfs.errors import GfsError

_T = TypeVar("_T")
_Job = Callable[[], None]
LOWEST = 19


class Workers:
    """A few threads with one queue. Create within a trio run; `stop` it at the end.

    Args:
      background: give way to all others, on CPU and disk.
    """

    def __init__(self, name: str, count: int, *, background: bool = False) -> None:
        self._background = background
        self._token = trio.lowlevel.current_trio_token()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._began_s: dict[int, float] = {}  # of the job that a thread is at
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def _work(self) -> None:
        me = threading.get_ident()
        if self._background:  # of this thread alone; the disk's priority follows from it
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST)
        while (job := self._jobs.get()) is not None:
            self._began_s[me] = time.monotonic()
            job()
            del self._began_s[me]

    def running_since_s(self) -> float | None:
        """When the oldest job now running began, by the monotonic clock; None: none runs."""
        return min(list(self._began_s.values()), default=None)

    def submit(self, function: Callable[[], _T], on_done: Callable[[_T | GfsError], None]) -> None:
        """Call `function` in a thread, then `on_done` with its result or GfsError in the loop."""

        def job() -> None:
            result: _T | GfsError
            try:
                result = function()
            except GfsError as error:
                result = error
            except BaseException as error:
                bug = error

                def crash(_: object) -> None:
                    raise bug

                self._report(crash, None)
                return
            self._report(on_done, result)

        self._jobs.put(job)

    def _report(self, call: Callable[[_T], None], result: _T) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon(call, result)

    async def run(self, function: Callable[[], _T]) -> _T:
        """`submit` for tasks. A thread cannot be called back, so cancelled it waits all the same.

        Else its caller would close, or remove, the file that the thread is working on. A
        task that is cancelled already begins nothing.

        Raises:
          GfsError: what `function` raised.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        done = trio.Event()
        box: list[_T | GfsError] = []

        def on_done(result: _T | GfsError) -> None:
            box.append(result)
            done.set()

        self.submit(function, on_done)
        with trio.CancelScope(shield=True):
            await done.wait()
        result = box[0]
        if isinstance(result, GfsError):
            raise result
        return result

    def stop(self) -> None:
        """Let the threads end after the jobs they have."""
        for _ in self._threads:
            self._jobs.put(None)
