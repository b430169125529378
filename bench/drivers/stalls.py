"""One program that uses a mount without pause, and how long its longest call took.

    python -m bench.drivers.stalls append|copy|create|stat PATH SECONDS

append: a line a write(2), fsynced; copy: blocks of 1 MiB, fsynced each 8; create: small files;
stat: names that are not there, each time another, so that the master is asked.
Prints "going" once it is at work, at the end a line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator

BLOCK = os.urandom(1 << 20)
SYNC_BLOCKS = 8


def _append(path: str) -> Iterator[Callable[[], object]]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in range(10**9):
        line = b"%09d\n" % number
        yield lambda: os.write(descriptor, line)  # noqa: B023
        yield lambda: os.fsync(descriptor)
        time.sleep(0.002)


def _copy(path: str) -> Iterator[Callable[[], object]]:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for number in range(10**9):
        yield lambda: os.write(descriptor, BLOCK)
        if number % SYNC_BLOCKS == SYNC_BLOCKS - 1:
            yield lambda: os.fsync(descriptor)
            time.sleep(0.2)  # leaves the machine to the others; what counts is the longest call


def _create(path: str) -> Iterator[Callable[[], object]]:
    for number in range(10**9):
        name = f"{path}{number}"
        yield lambda: os.close(os.open(name, os.O_WRONLY | os.O_CREAT))  # noqa: B023
        time.sleep(0.01)


def _stat(path: str) -> Iterator[Callable[[], object]]:
    for number in range(10**9):
        name = f"{path}{number}"
        yield lambda: os.path.lexists(name)  # noqa: B023
        time.sleep(0.005)


WORKS = {"append": _append, "copy": _copy, "create": _create, "stat": _stat}


def main(words: list[str]) -> None:
    """See the module's text."""
    kind, path, seconds = words
    end = time.monotonic() + float(seconds)
    calls, longest_s, error = 0, 0.0, ""
    for call in WORKS[kind](path):
        began = time.monotonic()
        try:
            call()
        except OSError as failed:
            error = str(failed)
            break
        now = time.monotonic()
        longest_s = max(longest_s, now - began)
        calls += 1
        if calls == 20:
            print("going", flush=True)
        if now > end:
            break
    print(json.dumps({"kind": kind, "calls": calls, "longest_s": longest_s, "error": error}))


if __name__ == "__main__":
    main(sys.argv[1:])
