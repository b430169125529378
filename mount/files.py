"""Handlers of open files: create, open, read, write, flush, fsync, release.

How a handle is opened decides how the kernel treats it:

- O_APPEND: direct_io, so that one write(2) is one request, whole. The kernel's offset
  is stale and ignored; gfs.client appends.
- O_WRONLY: direct_io too. It is three times as fast, skips the getxattr that comes
  before each buffered write, and loses nothing: what cannot be read cannot be mapped.
- otherwise buffered; the kernel keeps its pages only if they are of the data_version
  that the file has now.
"""

from __future__ import annotations

import errno
import stat
from typing import TYPE_CHECKING

import pyfuse3

from gfs.errors import DeadSession
from gfs.items import without_privileges
from gfs.messages import SetAttributes
from gfs.open_flags import O_APPEND, O_NOATIME, appends, reads
from mount.answering import Answering, actor_of, answer, limited
from mount.names import check_name

if TYPE_CHECKING:
    from gfs.client.files import OpenFile


PRIVILEGES = stat.S_ISUID | stat.S_ISGID


def is_direct(flags: int) -> bool:
    """Whether the kernel's page cache is by-passed for a handle opened with `flags`."""
    return bool(flags & O_APPEND) or not reads(flags)


class FileCalls(Answering):
    """See the module's text."""

    @answer(0)
    async def create(
        self,
        parent_inode: int,
        name: bytes,
        mode: int,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> tuple[pyfuse3.FileInfo, pyfuse3.EntryAttributes]:
        check_name(name)
        mode = stat.S_IFREG | stat.S_IMODE(mode)
        file, done = await self.client.create(parent_inode, name, mode, flags, actor_of(ctx))
        entry = file.entry
        assert entry.inode is not None
        named = self.cache.named(parent_inode, name, entry.ino, done.position)
        self.learn_done(done)
        opened = self.hand_out(file, flags)
        inode = self.cache.learn(entry) or entry.inode
        return opened, self.entry(entry.ino, inode, named=named)

    @answer(bounded=True)
    async def open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        file = self.client.reopen(inode, flags, actor_of(ctx))
        if file is not None:  # as the attributes here say it: nothing to learn
            return self.hand_out(file, flags)
        return await self._open(inode, flags, ctx)

    @limited
    async def _open(self, inode: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        try:
            file = await self.client.open(inode, flags, actor_of(ctx))
        except DeadSession:
            file = await self.client.open(inode, flags, actor_of(ctx))  # in the one after it
        opened = self.hand_out(file, flags)
        self.cache.learn(file.entry)
        return opened

    def hand_out(self, file: OpenFile, flags: int) -> pyfuse3.FileInfo:
        """A handle for the kernel; `release` ends it."""
        ino = file.ino
        self.cache.pin(ino)
        self.inodes.opened(ino)
        if appends(flags):
            self.tables.appending[ino] = self.tables.appending.get(ino, 0) + 1
        direct = is_direct(flags)
        inode = file.entry.inode
        keep = not direct and inode is not None
        if keep and inode is not None:
            keep = self.inodes.may_keep_pages(ino, inode.data_version)
        return pyfuse3.FileInfo(
            fh=self.tables.files.add(file), direct_io=direct, keep_cache=keep or direct
        )

    def _file(self, fh: int) -> OpenFile:
        file = self.tables.files.get(fh)
        if file is None:
            raise pyfuse3.FUSEError(errno.EBADF)
        return file

    @answer()
    async def read(self, fh: int, off: int, size: int) -> bytes:
        file = self._file(fh)
        data = await file.read(off, size)
        if not file.flags & O_NOATIME:
            self.note_access(file.ino)
        # pyfuse3 takes any buffer and copies it out at once; its annotation says bytes.
        return data  # type: ignore[return-value]

    @answer(bounded=True)
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        file = self._file(fh)
        if file.actor.uid and self._has_privileges(file.ino):
            await self._take_privileges(file)
        if file.write_nowait(off, buf):  # nearly always, and then it needs no limit
            return len(buf)
        return await self._write(file, off, buf)

    @limited
    async def _write(self, file: OpenFile, off: int, buf: bytes) -> int:
        return await file.write(off, buf)

    def _has_privileges(self, ino: int) -> bool:
        """Whether writing may take setuid or setgid away; of what is not known, yes."""
        known = self.cache.attributes(ino)
        return known is None or known.inode is None or bool(known.inode.mode & PRIVILEGES)

    @limited
    async def _take_privileges(self, file: OpenFile) -> None:
        """As Linux does before a write by anybody but root; in the page cache it does so itself."""
        (entry,) = await self.ask_attributes([file.ino], file.actor)
        if entry.inode is None:
            return
        mode = without_privileges(entry.inode.mode)
        if mode != entry.inode.mode:
            change = SetAttributes(file.ino, mode=stat.S_IMODE(mode))
            self.learn_done(await self.client.link.mutate(change, file.actor))

    @answer()
    async def flush(self, fh: int) -> None:
        await self._file(fh).flush()

    @answer()
    async def fsync(self, fh: int, datasync: bool) -> None:
        await self._file(fh).sync(datasync)

    @answer(bounded=True)
    async def release(self, fh: int) -> None:
        file = self.tables.files.pop(fh)
        if file is None:
            return
        ino = file.ino
        file.release()
        if appends(file.flags):
            self._ended_appending(ino)
        self.cache.unpin(ino)
        if self.inodes.released(ino):
            self.client.discard(ino)

    def _ended_appending(self, ino: int) -> None:
        left = self.tables.appending[ino] - 1
        if left:
            self.tables.appending[ino] = left
        else:
            del self.tables.appending[ino]
            self.cache.forget_attributes(ino)  # it has grown since the image was taken
