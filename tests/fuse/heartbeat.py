"""A tiny filesystem that says every 20 ms that its loop still turns.

    python -m tests.fuse.heartbeat MOUNTPOINT

Prints a byte a beat. Started by tests that kill callers at unlucky moments.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

import pyfuse3
import trio

from mount.attributes import only_inode
from mount.guard import end_guard, guard_reads
from mount.invalidation import fuse_descriptor

BEAT_S = 0.02


class Empty(pyfuse3.Operations):
    """A root directory with nothing in it; every answer takes a moment."""

    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        await trio.lowlevel.checkpoint()
        return only_inode(inode, stat.S_IFDIR | 0o755)

    async def lookup(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        await trio.lowlevel.checkpoint()
        raise pyfuse3.FUSEError(errno.ENOENT)


async def _beat() -> None:
    while True:
        os.write(1, b".")
        await trio.sleep(BEAT_S)


async def _serve() -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_beat)
        await pyfuse3.main()
        nursery.cancel_scope.cancel()


def main(mountpoint: str) -> None:
    """Mount and serve until unmounted."""
    pyfuse3.init(Empty(), mountpoint, {*pyfuse3.default_options, "fsname=heartbeat"})
    try:
        guard_reads(fuse_descriptor())
        trio.run(_serve)
    finally:
        pyfuse3.close(unmount=True)
        end_guard()


if __name__ == "__main__":
    main(sys.argv[1])
