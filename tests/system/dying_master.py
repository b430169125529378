"""A master that ends itself with SIGKILL at a named point of its work.

    python -m tests.system.dying_master POINT TIMES [flags of the master]

It dies when the point is reached for the TIMESth time after it has begun to serve.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gfs.checksum import Buffer
from gfs.disk import PosixDisk, PosixFile
from master import __main__ as program
from master.log import OperationLog
from master.log_reader import CommittedPosition
from master.segments import SPARE_NAME
from master.state import State


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Countdown:
    """Dies at the last of so many calls."""

    def __init__(self, times: int) -> None:
        self.left = times

    def count(self) -> None:
        self.left -= 1
        if self.left <= 0:
            die()


def before(owner: type, name: str, countdown: Countdown) -> None:
    """Count just before each call of a method."""
    original: Callable[..., Any] = getattr(owner, name)

    def call(self: object, *args: Any, **kwargs: Any) -> Any:
        countdown.count()
        return original(self, *args, **kwargs)

    setattr(owner, name, call)


def half_written(countdown: Countdown) -> None:
    """Half of a group of records is in the file, the rest is not."""
    original = PosixFile.pwrite

    def pwrite(self: PosixFile, buffer: Buffer, offset: int) -> None:
        if self._path.suffix == ".log":
            if countdown.left <= 1:
                original(self, memoryview(buffer)[: len(buffer) // 2], offset)
            countdown.count()
        original(self, buffer, offset)

    PosixFile.pwrite = pwrite  # type: ignore[method-assign]


def after_rotation(countdown: Countdown) -> None:
    """Just behind the rename that gives a segment its name."""
    original = PosixDisk.rename

    def rename(self: PosixDisk, source: Path, destination: Path) -> None:
        original(self, source, destination)
        if source.name == SPARE_NAME:
            countdown.count()

    PosixDisk.rename = rename  # type: ignore[method-assign]


POINTS: dict[str, Callable[[Countdown], None]] = {
    "half-written": half_written,
    "written-not-synced": lambda countdown: before(OperationLog, "sync", countdown),
    "synced-not-committed": lambda countdown: before(State, "commit", countdown),
    "committed-not-told": lambda countdown: before(CommittedPosition, "publish", countdown),
    "segment-begun": after_rotation,
}


if __name__ == "__main__":
    POINTS[sys.argv[1]](Countdown(int(sys.argv[2])))
    sys.exit(program.main(sys.argv[3:]))
