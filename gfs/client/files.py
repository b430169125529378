"""An open file: reading, writing and appending joined.

Reads see this process's own writes: uncommitted pieces lie over what is
committed, and a read waits for the appends before it. An O_APPEND handle
appends records and ignores offsets. An error of bytes that were taken over
earlier is told once to each handle, by its next write, fsync or close.
"""

from __future__ import annotations

import os
from typing import Protocol

from gfs.checksum import Buffer
from gfs.client.appending import Appender
from gfs.client.dirty import NO_LIMIT
from gfs.client.inodes import OpenInode
from gfs.client.metadata import MasterLink
from gfs.client.ranges import Segment, covers
from gfs.client.reading import Reader
from gfs.client.tails import TailSizes
from gfs.client.writing import WriteBack
from gfs.errors import GfsError, InvalidArgument, QuotaExceeded, TooLarge
from gfs.ids import RECORD_BYTES_MAX, SIZE_MAX
from gfs.messages import Actor, Done, Entry
from gfs.open_flags import appends, reads, writes


class Owner(Protocol):
    """The client, as its open files use it."""

    link: MasterLink
    reader: Reader
    writeback: WriteBack
    tails: TailSizes

    def appender(self, inode: OpenInode, actor: Actor) -> Appender:
        """The one of all handles on the inode."""

    async def truncate(self, ino: int, size: int, actor: Actor, *, opened: bool = False) -> Done:
        """Flush, then the mutation."""

    def distrust(self) -> None:
        """Invalidations may have been missed: ask for everything anew."""

    def released(self, inode: OpenInode, *, writing: bool) -> None:
        """A handle is closed."""


class OpenFile:
    """One open(2) of a regular file.

    Attributes:
      entry: attributes at open; `entry.inode.data_version` tells a mount whether the
        kernel's pages may be kept.
      shared: another session writes the file, so close writes through.
    """

    def __init__(
        self, client: Owner, inode: OpenInode, entry: Entry, flags: int, actor: Actor
    ) -> None:
        self.ino = inode.ino
        self.flags = flags
        self.actor = actor
        self.entry = entry
        self.readable = reads(flags)
        self.writable = writes(flags)
        self.appending = appends(flags)
        # O_SYNC contains the bit of O_DSYNC; both wait for data and its commit here.
        self._synchronous = bool(flags & os.O_DSYNC)
        self._client = client
        self._inode = inode
        self._appender: Appender | None = None
        self._errors_told = inode.dirty.error_count if inode.dirty is not None else 0
        self._append_error_told = False
        self._released = False

    @property
    def shared(self) -> bool:
        return self._inode.shared

    # --- reading

    async def read(self, offset: int, size: int) -> Buffer:
        """Bytes [offset, offset + size), short at end of file; own writes included.

        Raises:
          GfsError: no replica can serve it.
        """
        inode, client = self._inode, self._client
        if inode.busy_appending:
            await inode.wait_for_appends()
        end = offset + size
        # Before the size and the layout: a piece committed meanwhile is then in one of them.
        segments = client.writeback.overlay(self.ino, offset, end)
        if segments:
            return await self._read_over(segments, offset, end)
        self._mind_the_lease()
        known = inode.known_size()
        if end > known:
            known = await self._committed_size()
            pending = client.writeback.pending(self.ino)
            if pending is not None and pending[0] > known:  # beyond: a hole up to own writes
                return await self._read_over([], offset, min(end, pending[0]))
        return await client.reader.read(
            self.ino,
            offset,
            size,
            size=known,
            version=inode.data_version,
            actor=self.actor,
            tail=inode.tail,
        )

    async def _read_over(self, segments: list[Segment], offset: int, end: int) -> Buffer:
        views = [(first, last, piece.view(first, last)) for first, last, piece in segments]
        if covers(segments, offset, end):
            if len(views) == 1:
                return views[0][2]
            return b"".join(view for _, _, view in views)
        size = await self._committed_size()
        pending = self._client.writeback.pending(self.ino)
        reach = max([size, *(last for _, last, _ in views), pending[0] if pending else 0])
        result = bytearray(max(0, min(end, reach) - offset))
        base = await self._client.reader.read(
            self.ino,
            offset,
            len(result),
            size=size,
            version=self._inode.data_version,
            actor=self.actor,
            tail=self._inode.tail,
        )
        result[: len(base)] = base
        for first, last, view in views:
            result[first - offset : last - offset] = view
        return result

    def _mind_the_lease(self) -> None:
        """Once it is over, as after this process was stopped, others change what they like."""
        if not self._client.link.lease.left():
            self._client.distrust()

    async def _committed_size(self) -> int:
        client = self._client
        self._mind_the_lease()
        return await self._inode.acknowledged_size(client.link, client.tails, self.actor)

    async def size(self) -> int:
        """Size as a reader must see it: committed, own writes, tail's acknowledged end."""
        size = await self._committed_size()
        pending = self._client.writeback.pending(self.ino)
        return max(size, pending[0]) if pending is not None else size

    # --- writing

    def write_nowait(self, offset: int, data: Buffer) -> bool:
        """`write` where it neither waits nor fails; False: nothing was done, call `write`."""
        dirty = self._inode.dirty
        if dirty is None or not self.writable or self.appending or self._synchronous or not data:
            return False
        if dirty.error is not None or self._inode.busy_appending:
            return False
        if offset + len(data) > SIZE_MAX or self._client.writeback.is_tight(dirty, len(data)):
            return False
        return self._client.writeback.write_nowait(dirty, offset, data)

    async def write(self, offset: int, data: Buffer) -> int:
        """Write (O_APPEND: append, `offset` ignored); returns len(data).

        Returns when the bytes are taken over; with O_SYNC or O_DSYNC when they are durable.
        `data` must not change afterwards.

        Raises:
          GfsError: a kept error of earlier bytes, once; or these cannot be written.
          TooLarge: the file would be.
        """
        if not self.writable:
            raise InvalidArgument("the file is not open for writing")
        self._tell_error()
        if self.appending:
            await self._append(data)
            return len(data)
        if offset + len(data) > SIZE_MAX:
            raise TooLarge(f"a file of {offset + len(data)} bytes")
        if self._inode.busy_appending:
            await self._inode.wait_for_appends()
        dirty = self._inode.dirty
        assert dirty is not None
        if len(data):
            tight = self._client.writeback.is_tight(dirty, len(data))
            if tight:  # what was written before shall not be refused along with this
                await self._commit()
            await self._client.writeback.write(dirty, offset, data)
            if tight:
                await self._commit()
            if self._synchronous:
                await self.sync()
        return len(data)

    async def _commit(self) -> None:
        """Wait until the master has what was written; raises what it says, once."""
        await self._client.writeback.flush(self.ino, durable=False)
        self._tell_error()

    async def _append(self, data: Buffer) -> None:
        dirty = self._inode.dirty
        if dirty is not None and dirty.pieces:
            await self._commit()
        if self._appender is None:
            self._appender = self._client.appender(self._inode, self.actor)
        try:
            await self._append_records(self._appender, data)
        except QuotaExceeded:
            self._appender = None  # told; there may be room again when this handle writes again
            raise

    async def _append_records(self, appender: Appender, data: Buffer) -> None:
        if len(data) <= RECORD_BYTES_MAX:
            await appender.append(data, sync=self._synchronous)
        else:
            view = memoryview(data)
            for start in range(0, len(data), RECORD_BYTES_MAX):
                record = view[start : start + RECORD_BYTES_MAX]
                await appender.append(record, sync=self._synchronous)
        dirty = self._inode.dirty
        if dirty is not None and dirty.room != NO_LIMIT:
            dirty.room = max(0, dirty.room - len(data))
            if not dirty.room:
                await appender.wait()  # it may be refused: then this write(2) says so

    async def append(self, data: Buffer) -> None:
        """One record, whatever the flags say of O_APPEND; at most 1,044,480 bytes stay whole."""
        if not self.writable:
            raise InvalidArgument("the file is not open for writing")
        self._tell_error()
        await self._append(data)

    async def sync(self, datasync: bool = False) -> None:
        """fsync(2): synced at the chain, and the commit is in the operation log.

        Raises:
          GfsError: bytes taken over earlier are lost; told once.
        """
        del datasync  # size is part of data here, times ride along
        if self._appender is not None:
            await self._appender.sync()
        elif self._inode.appender is not None and self._inode.appender.error is None:
            await self._inode.appender.sync()
        await self._client.writeback.flush(self.ino, durable=True)
        self._tell_error()

    async def flush(self) -> None:
        """close(2) of one descriptor.

        Appends: waits until all members have them. Private writes go on their way; they are
        waited for only when another session writes the file too, or a quota may refuse them.

        Raises:
          GfsError: as `sync`.
        """
        if not self.writable:
            return
        if self._appender is not None:
            await self._flush_appends(self._appender)
        dirty = self._inode.dirty
        if dirty is not None and dirty.pieces:
            if self._inode.shared or self._client.writeback.must_tell(dirty):
                await self._client.writeback.flush(self.ino, durable=False)
            else:
                self._client.writeback.start_flush(dirty)
        self._tell_error()

    async def _flush_appends(self, appender: Appender) -> None:
        try:
            await appender.wait()
        except GfsError:
            if self._append_error_told:
                return
            self._append_error_told = True
            raise

    def _tell_error(self) -> None:
        dirty = self._inode.dirty
        if dirty is None or dirty.error is None or dirty.error_count == self._errors_told:
            return
        self._errors_told = dirty.error_count
        raise type(dirty.error)(str(dirty.error))

    async def truncate(self, size: int) -> Entry:
        """ftruncate(2): flush, then the mutation; returns the new attributes."""
        if not self.writable:
            raise InvalidArgument("the file is not open for writing")
        done = await self._client.truncate(self.ino, size, self.actor, opened=True)
        self._tell_error()
        return done.entry if done.entry is not None else self.entry

    def release(self) -> None:
        """The last descriptor is closed; never raises, never waits. Idempotent."""
        if not self._released:
            self._released = True
            self._client.released(self._inode, writing=self.writable)
