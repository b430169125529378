"""An open file: reading, writing and appending joined. (signatures; being filled)"""

from __future__ import annotations

from gfs.messages import Actor, Entry


class OpenFile:
    """One open(2) of a regular file.

    Attributes: `ino`, `flags`, `actor`, `entry` (attributes at open; `entry.inode.data_version`
    tells the mount whether the kernel's pages may be kept).
    """

    ino: int
    flags: int
    actor: Actor
    entry: Entry

    async def read(self, offset: int, size: int) -> bytes | bytearray | memoryview:
        """Bytes [offset, offset + size), short at end of file; own writes included."""
        raise NotImplementedError

    async def write(self, offset: int, data: bytes | bytearray | memoryview) -> int:
        """Write (O_APPEND: append, offset ignored); returns len(data).

        Returns when the bytes are taken over; with O_SYNC/O_DSYNC when durable. `data` must not
        be changed by the caller afterwards. Raises a kept error of the file once.
        """
        raise NotImplementedError

    async def sync(self, datasync: bool = False) -> None:
        """fsync(2): chain synced and commit durable. Raises a kept error once."""
        raise NotImplementedError

    async def flush(self) -> None:
        """close(2) of one descriptor. Append: waits until acknowledged. Raises a kept error once."""
        raise NotImplementedError

    def release(self) -> None:
        """Last descriptor closed; never raises, never waits."""
        raise NotImplementedError

    async def truncate(self, size: int) -> Entry:
        """ftruncate(2): flush, then the mutation; returns the new attributes."""
        raise NotImplementedError

    async def size(self) -> int:
        """Size as a reader must see it: committed, own writes, tail's acknowledged end."""
        raise NotImplementedError
