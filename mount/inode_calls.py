"""Handlers of one inode: getattr, setattr, readlink, access, extended attributes; statfs.

What this mount still holds back of a file (size, mtime) shows in its attributes. While
another session writes a file, or it has an open tail, its size is asked each time.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence

import pyfuse3
import trio

from gfs.errors import InvalidArgument, Unsupported
from gfs.ids import NAME_BYTES_MAX, TIME_NS_MAX, XATTR_BYTES_MAX
from gfs.items import Inode
from gfs.messages import (
    Entry,
    FilesystemStat,
    RemoveXattr,
    SetAttributes,
    SetXattr,
    StatFilesystem,
)
from mount.answering import LIMIT_S, Answering, Tables, actor_of, answer
from mount.attributes import filesystem

STATFS_S = 1.0  # how old statfs answers may be
PRIVILEGES = stat.S_ISUID | stat.S_ISGID
KEPT = (b"user.", b"trusted.", b"security.")  # extended attributes of other kinds are not


class InodeCalls(Answering):
    """See the module's text."""

    def __init__(self, tables: Tables) -> None:
        super().__init__(tables)
        self._space: FilesystemStat | None = None
        self._space_at = float("-inf")

    @answer(bounded=True)
    async def getattr(self, inode: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        return self.show(inode, await self._current(inode, ctx))

    async def _current(self, ino: int, ctx: pyfuse3.RequestContext) -> Inode:
        """Attributes as the next call must see them, size included.

        Raises:
          StaleInode: it is gone.
        """
        known = self.cache.attributes(ino)
        if (
            known is not None
            and known.inode is not None
            and known.cacheable
            and ino not in self.tables.appending
            and self.tables.lease_left()
        ):
            return known.inode
        with trio.fail_after(LIMIT_S):
            return await self._fresh(ino, ctx)

    async def _fresh(self, ino: int, ctx: pyfuse3.RequestContext) -> Inode:
        if ino in self.tables.appending:
            await self.client.settle(ino)  # our own records first, or the answer is too old
        (entry,) = await self.ask_attributes([ino], actor_of(ctx))
        if entry.inode is None:
            return self.left_of(ino)
        if entry.inode.is_file and (not entry.cacheable or ino in self.tables.appending):
            return await self._sized(entry)
        return entry.inode

    async def _sized(self, entry: Entry) -> Inode:
        """The image with the size that a reader must see now."""
        (grown,) = await self.client.grown([entry])
        assert entry.inode is not None
        self.cache.grew(entry.ino, grown.mtime_ns)
        return grown.image(entry.inode)

    @answer(0)
    async def setattr(
        self,
        inode: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: int | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        entry = None
        if fields.update_size:
            entry = await self._truncate(inode, attr.st_size, fh, ctx)
        change = await self._change(inode, attr, fields, ctx)
        if change is not None:
            if change.mtime_ns is not None or change.mtime_now:
                self.client.utimens(inode)
            if (change.mode or 0) & PRIVILEGES and self.client.pending(inode) is not None:
                await self.client.settle(inode)  # a write that comes after would take them
            if change.atime_ns is not None or change.atime_now:
                self.tables.accesses.forget(inode)
            done = await self.mutate(change, ctx)
            self.learn_done(done)
            entry = done.entry
        if entry is None or entry.inode is None:
            return self.show(inode, await self._current(inode, ctx))
        return self.show(inode, self.cache.learn(entry) or entry.inode)

    async def _truncate(
        self, ino: int, size: int, fh: int | None, ctx: pyfuse3.RequestContext
    ) -> Entry | None:
        file = None if fh is None else self.tables.files.get(fh)
        if file is not None:
            entry: Entry | None = await file.truncate(size)
        else:
            done = await self.client.truncate(ino, size, actor_of(ctx))
            self.learn_done(done)
            entry = done.entry
        if entry is not None:
            self.cache.learn(entry)
        return entry

    async def _change(
        self,
        ino: int,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        ctx: pyfuse3.RequestContext,
    ) -> SetAttributes | None:
        """The mutation for everything but the size; None if there is nothing else."""
        times = fields.update_atime or fields.update_mtime
        if not (times or fields.update_mode or fields.update_uid or fields.update_gid):
            return None
        # pyfuse3 fills in "now" itself. A stranger with write permission may set the
        # times to now and to nothing else (the kernel has seen to that), so for him
        # it must be "now" at the master too.
        now = False
        uid, _ = self.tables.users.seen(ctx.uid, ctx.gid)
        if times and uid:
            now = (await self.image(ino, ctx)).uid != uid
        return SetAttributes(
            ino,
            mode=stat.S_IMODE(attr.st_mode) if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            atime_ns=_kept(attr.st_atime_ns) if fields.update_atime and not now else None,
            mtime_ns=_kept(attr.st_mtime_ns) if fields.update_mtime and not now else None,
            atime_now=now and fields.update_atime,
            mtime_now=now and fields.update_mtime,
        )

    @answer(bounded=True)
    async def readlink(self, inode: int, ctx: pyfuse3.RequestContext) -> bytes:
        target = (await self.image(inode, ctx)).target
        self.note_access(inode)
        return target

    @answer(bounded=True)
    async def access(self, inode: int, mode: int, ctx: pyfuse3.RequestContext) -> bool:
        """Only asked without default_permissions; the master checks every request anyway."""
        found = await self.image(inode, ctx)
        uid, gid = self.tables.users.seen(ctx.uid, ctx.gid)
        if uid == 0:
            return not mode & os.X_OK or found.is_directory or bool(found.mode & 0o111)
        if uid == found.uid:
            allowed = found.mode >> 6
        elif gid == found.gid or self._in_group(ctx, found.gid):
            allowed = found.mode >> 3
        else:
            allowed = found.mode
        return mode & ~allowed & 7 == 0

    def _in_group(self, ctx: pyfuse3.RequestContext, gid: int) -> bool:
        """By a supplementary group, which who is squashed has none of."""
        if self.tables.users.seen(ctx.uid, ctx.gid) != (ctx.uid, ctx.gid):
            return False
        return gid in pyfuse3.get_sup_groups(ctx.pid)

    # --- extended attributes: part of the inode's image, so reading them costs no request

    @answer(bounded=True)
    async def getxattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        if not name.startswith(KEPT):
            raise pyfuse3.FUSEError(errno.ENOTSUP)
        value = (await self.image(inode, ctx)).attributes.get(name)
        if value is None:
            raise pyfuse3.FUSEError(pyfuse3.ENOATTR)
        return value

    @answer(bounded=True)
    async def listxattr(self, inode: int, ctx: pyfuse3.RequestContext) -> Sequence[bytes]:
        return list((await self.image(inode, ctx)).attributes)

    @answer(0, bounded=True)
    async def setxattr(
        self, inode: int, name: bytes, value: bytes, ctx: pyfuse3.RequestContext
    ) -> None:
        if not name.startswith(KEPT):
            raise Unsupported(name.decode(errors="replace"))
        if name in KEPT:
            raise InvalidArgument("the name of an attribute is empty")
        if len(name) > NAME_BYTES_MAX:
            raise pyfuse3.FUSEError(errno.ERANGE)
        if len(value) > XATTR_BYTES_MAX:
            raise pyfuse3.FUSEError(errno.E2BIG)
        self.learn_done(await self.mutate(SetXattr(inode, name, value), ctx))

    @answer(0, bounded=True)
    async def removexattr(self, inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        if not name.startswith(KEPT):
            raise pyfuse3.FUSEError(errno.ENOTSUP)
        self.learn_done(await self.mutate(RemoveXattr(inode, name), ctx))

    @answer(bounded=True)
    async def statfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        now = trio.current_time()
        if self._space is None or now - self._space_at > STATFS_S:
            found = await self.ask(StatFilesystem(), FilesystemStat)
            self._space, self._space_at = found, now
        return filesystem(self._space)


def _kept(time_ns: int) -> int:
    """The nearest time that can be kept, as Linux does with utimens on any filesystem."""
    return max(-TIME_NS_MAX, min(time_ns, TIME_NS_MAX))
