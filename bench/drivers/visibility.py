"""How long after a call has returned on one mount another mount shows its effect.

A forked child polls the second mount, having first seen the old state there
(so that any cache is filled), and reports when the new one appears. Both
read the machine's monotonic clock.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Callable
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from bench import channel

POLL_S = 0.0001  # leaves the core to the daemons; the resolution of the figure
UNSEEN_S = 5.0  # counted as this when the change has not been seen by then
Poll = Callable[[str], object]
NAMES = {
    "create": "seen elsewhere: create",
    "append": "seen elsewhere: append + fsync",
    "rename": "seen elsewhere: rename over",
    "unlink": "seen elsewhere: unlink",
}


def _exists(path: str) -> object:
    return os.path.exists(path)


def _size(path: str) -> object:
    return os.stat(path).st_size


def _inode(path: str) -> object:
    return os.stat(path).st_ino


def _fresh(path: str) -> None:
    with open(path, "wb") as file:
        file.write(b"old")
        os.fsync(file.fileno())


def _create(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))


def _append(path: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    os.write(fd, b"x" * 100)
    os.fsync(fd)
    os.close(fd)


def _replace(path: str) -> None:
    os.rename(f"{path}.new", path)


def _fresh_pair(path: str) -> None:
    _fresh(path)
    _fresh(f"{path}.new")


# kind: what is made before, the change, what the other mount watches
KINDS: dict[str, tuple[Callable[[str], None] | None, Callable[[str], None], Poll]] = {
    "create": (None, _create, _exists),
    "append": (_fresh, _append, _size),
    "rename": (_fresh_pair, _replace, _inode),
    "unlink": (_fresh, os.unlink, _exists),
}


def measure(kind: str, here: str, there: str, count: int) -> list[float]:
    """Seconds from the return of each change in `here` to its sight in `there`, sorted."""
    prepare, change, poll = KINDS[kind]
    ours, theirs = Pipe()
    child = os.fork()
    if child == 0:
        channel.close_on_fork()
        ours.close()
        with contextlib.suppress(EOFError):
            _watch(theirs, poll)
        os._exit(0)
    theirs.close()
    gaps = random.Random(5)
    delays: list[float] = []
    for number in range(count):
        name = f"{kind}-{number}"
        if prepare:
            prepare(f"{here}/{name}")
        ours.send(f"{there}/{name}")
        ours.recv()  # the old state has been seen there
        time.sleep(gaps.uniform(0.002, 0.02))
        change(f"{here}/{name}")
        returned = time.monotonic()
        delays.append(max(0.0, float(ours.recv()) - returned))
    ours.close()
    os.waitpid(child, 0)
    return sorted(delays)


def _watch(pipe: Connection, poll: Poll) -> None:
    while True:
        path = pipe.recv()
        old = _settled(poll, path)
        pipe.send("watching")
        deadline = time.monotonic() + UNSEEN_S
        while poll(path) == old and time.monotonic() < deadline:
            time.sleep(POLL_S)
        pipe.send(time.monotonic())


def _settled(poll: Poll, path: str) -> object:
    """The old state; waits for a file that this mount does not show yet."""
    deadline = time.monotonic() + UNSEEN_S
    while True:
        try:
            return poll(path)
        except FileNotFoundError:
            if time.monotonic() > deadline:
                raise
            time.sleep(POLL_S)
