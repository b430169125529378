"""What all workers share: mounts to work on, timing, the account of what was acknowledged.

A call that fails is noted and its names are given up; if its
mount is gone the next one is used. What is read is judged at once.
"""

from __future__ import annotations

import errno
import os
import random
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import msgspec

from tests.torture.content import seed_of
from tests.torture.expected import Expected, Slow, Trouble, Written

BASE = "torture"
SLOW_S = 0.03
AGAIN_S = 0.3  # a mount that is gone is tried again
WRITERS_CALLS = ("write", "fsync", "append", "close")  # whose stalls are told

T = TypeVar("T")


class Failed(Exception):
    """A call did not return; whoever made it gives its names up."""


class Worker:
    """See the module's text; `place` is as tests.torture.work says."""

    def __init__(self, name: str, seed: int, place: Path) -> None:
        self.name = name
        self.rng = random.Random(f"{seed} {name}")
        self.place = place
        self.mounts = [Path(line) for line in (place / "mounts").read_text().splitlines()]
        self.at = seed % len(self.mounts)
        self.known = Expected()
        self._next = 0

    @property
    def mount(self) -> int:
        return self.at + 1

    @property
    def stopping(self) -> bool:
        return (self.place / "stop").exists()

    def path(self, name: str) -> Path:
        """`name` below the root of the run, through the mount in use."""
        return self.mounts[self.at] / BASE / name

    def elsewhere(self, name: str) -> tuple[int, Path]:
        """The same through another mount, and which."""
        other = self.rng.randrange(len(self.mounts))
        return other + 1, self.mounts[other] / BASE / name

    def fresh(self, kind: str) -> str:
        """A name in this worker's directory that was never used."""
        self._next += 1
        return f"{self.name}/{kind}{self._next}"

    def call(self, what: str, function: Callable[[], T]) -> T:
        """Make a call, timed and counted.

        Raises:
          Failed: it raised OSError; noted, and the next mount is in use.
        """
        start = time.monotonic()
        try:
            result = function()
        except OSError as error:
            number = error.errno or -1
            self.known.failed.append(Trouble(time.monotonic(), self.mount, what, number))
            self.move(number)
            raise Failed from error
        took = time.monotonic() - start
        if took > SLOW_S and what in WRITERS_CALLS:
            self.known.slow.append(Slow(what, self.mount, start, took))
        self.known.calls[what] = self.known.calls.get(what, 0) + 1
        return result

    def move(self, number: int) -> None:
        """To the next mount that answers."""
        if number in (errno.ENOTCONN, errno.ECONNABORTED, errno.ENOENT, errno.ENODEV):
            self.at = (self.at + 1) % len(self.mounts)
        time.sleep(AGAIN_S)
        while not self.stopping:
            with suppress(OSError):
                os.lstat(self.path(self.name))
                return
            self.at = (self.at + 1) % len(self.mounts)
            time.sleep(AGAIN_S)

    def forget(self, name: str) -> None:
        """Give a file up: it may be there or not, with any content."""
        self.known.files.pop(name, None)
        self.known.maybe.add(name)

    # --- files

    def write_file(self, name: str, content: bytes, *, sync: bool, pace_s: float = 0.0) -> Written:
        """Make a file of pieces of at most 1 MiB; what is then promised of it.

        Raises:
          Failed: and the name is given up.
        """
        seed = seed_of(content)
        assert seed is not None
        self.known.maybe.add(name)
        path = self.path(name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        fd = self.call("create", lambda: os.open(path, flags, 0o644))
        try:
            written = 0
            while written < len(content):  # short where a mount dies between two requests of one
                piece = content[written : written + (1 << 20)]
                written += self.call("write", lambda: os.write(fd, piece))  # noqa: B023
                if pace_s:
                    time.sleep(pace_s)
            if sync:
                self.call("fsync", lambda: os.fsync(fd))
        except Failed:
            with suppress(OSError):
                os.close(fd)
            raise
        mount = 0 if sync else self.mount
        self.call("close", lambda: os.close(fd))
        self.known.maybe.discard(name)
        return Written(seed, len(content), mount, 0.0 if sync else time.monotonic())

    def check(self, name: str, expected: Written) -> None:
        """Read a file through another mount: it has to be this very content."""
        mount, path = self.elsewhere(name)
        try:
            content = path.read_bytes()
        except OSError as error:
            what = f"reading {name}, which is there"
            trouble = Trouble(time.monotonic(), mount, what, error.errno or -1)
            (self.known.wrong if error.errno == errno.ENOENT else self.known.failed).append(trouble)
            return
        if len(content) != expected.size or seed_of(content) != expected.seed:
            what = f"{name} read with {len(content)} bytes, {expected.size} were acknowledged"
            # What was not fsynced is only as safe as the mount that holds it.
            self.known.wrong.append(Trouble(time.monotonic(), expected.mount or mount, what))
        self.known.calls["read"] = self.known.calls.get("read", 0) + 1

    # --- life

    def run(self, step: Callable[[], None]) -> None:
        """Steps until it is time to stop; then the account is written."""
        while not self.stopping:
            try:
                step()
            except Failed:
                continue
        target = self.place / f"{self.name}.json"
        target.with_suffix(".new").write_bytes(msgspec.json.encode(self.known))
        target.with_suffix(".new").rename(target)
