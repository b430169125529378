"""Work that tests do on mounts: at the same time, timed, and as much as is asked for.

GFS_TEST_FULL=1 asks for the full amounts; without it they fit continuous integration.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

FULL = os.environ.get("GFS_TEST_FULL", "") not in ("", "0")
STUCK_S = 1500.0 if FULL else 100.0


def amount(*, ci: int, full: int) -> int:
    """How much of something this run does."""
    return full if FULL else ci


def exists(path: Path | str | bytes) -> bool:
    """Whether the name is there; unlike Path.exists no other error is swallowed."""
    try:
        os.lstat(path)
    except FileNotFoundError:
        return False
    return True


class Background:
    """Work in a thread; what it raises is raised by `join`."""

    def __init__(self, work: Callable[[], None], name: str = "") -> None:
        self._failure: BaseException | None = None
        self._work = work
        self._thread = threading.Thread(target=self._run, name=name or None, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._failure = error

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def join(self, limit_s: float = STUCK_S) -> None:
        self._thread.join(limit_s)
        assert not self._thread.is_alive(), f"{self._thread.name} is stuck"
        if self._failure is not None:
            raise self._failure


def together(*works: Callable[[], None]) -> None:
    """Run them at the same time; the first failure is raised."""
    running = [Background(work) for work in works]
    for one in running:
        one.join()


class Stopwatch:
    """Longest of many timed calls."""

    def __init__(self) -> None:
        self.longest_s = 0.0
        self.calls = 0

    def time(self, call: Callable[[], object]) -> None:
        start = time.perf_counter()
        call()
        self.longest_s = max(self.longest_s, time.perf_counter() - start)
        self.calls += 1

    def __str__(self) -> str:
        return f"{self.calls} calls, longest {1000 * self.longest_s:.0f} ms"
