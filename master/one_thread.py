"""One thread that runs one call at a time for the loop: a quarter of the cost of trio's pool.

The pool names its threads and checks what it is given at every call; the log's
sync comes thousands of times a second and needs none of that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

import outcome
import trio


class OneThread:
    """A daemon thread; `run` from one task at a time."""

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    async def run(self, call: Callable[[], None]) -> None:
        """Run `call` there; its exception is raised here. Not cancelled half way."""
        token, task = trio.lowlevel.current_trio_token(), trio.lowlevel.current_task()

        def work() -> None:
            result = outcome.capture(call)
            token.run_sync_soon(trio.lowlevel.reschedule, task, result)

        self._calls.put(work)
        await trio.lowlevel.wait_task_rescheduled(_not_now)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()

    def close(self) -> None:
        """The thread ends after what it runs now."""
        self._calls.put(None)


def _not_now(_: object) -> trio.lowlevel.Abort:
    """A sync under way is waited for, also when everything is to end."""
    return trio.lowlevel.Abort.FAILED
