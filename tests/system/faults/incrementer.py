"""A program that adds to a counter in a file, once and again, under a lock of the cluster.

    python -m tests.system.faults.incrementer CLUSTER LOCK FILE COUNT

LOCK is a path within the filesystem, FILE one on a mount. Nothing else keeps two of these
from reading the same number.
"""

from __future__ import annotations

import os
import sys

import trio

from gfs.cli.finding import connected, reach


def add_one(path: str) -> None:
    """Read the number, write the next one in its place."""
    with open(path, "r+b", buffering=0) as file:
        number = int(file.read() or b"0") + 1
        file.seek(0)
        file.write(b"%d" % number)


async def work(cluster: str, lock: str, path: str, count: int) -> None:
    """Take the lock, add, release; `count` times."""
    async with connected(reach(cluster)) as files:
        for _ in range(count):
            async with files.lock(os.fsencode(lock)):
                await trio.to_thread.run_sync(add_one, path)


if __name__ == "__main__":
    cluster, lock, path, count = sys.argv[1:]
    trio.run(work, cluster, lock, path, int(count))
