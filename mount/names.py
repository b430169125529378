"""Handlers of names: lookup, and every call that makes, moves or removes a name.

A name in a directory that this mount knows whole costs no request. What a mutation
has changed is in the caches before its caller returns, so the next call sees it.
"""

from __future__ import annotations

import errno
import stat
import time
from collections.abc import Sequence

import pyfuse3

from gfs.errors import GfsError, NameTooLong, NotFound, ReadOnly
from gfs.ids import DOT_GFS, NAME_BYTES_MAX, SYMLINK_BYTES_MAX
from gfs.messages import (
    Done,
    Entry,
    Lookup,
    MakeLink,
    MakeNode,
    MakeSymlink,
    RemoveDirectory,
    Rename,
    Unlink,
)
from mount.answering import actor_of, answer, is_the_end, log
from mount.attributes import absent
from mount.core.caching import ABSENT, UNKNOWN
from mount.core.hidden import is_hidden
from mount.listing import DirectoryCalls

RENAME_FLAGS = pyfuse3.RENAME_NOREPLACE | pyfuse3.RENAME_EXCHANGE
MISSES_BEFORE_LISTING = 4  # names asked singly, then the directory is listed ahead
KEPT_IN_TRASH_NS = 600 * 10**9  # younger files are not kept when removed: nothing to save
DOTS = (b".", b"..")


def check_name(name: bytes) -> None:
    """The kernel passes names of any length.

    Raises:
      NameTooLong: more than 255 bytes.
    """
    if len(name) > NAME_BYTES_MAX:
        raise NameTooLong(f"a name of {len(name)} bytes")


class NameCalls(DirectoryCalls):
    """See the module's text."""

    async def _require_not_dot_gfs(
        self, parent: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> None:
        """Raises ReadOnly for a name in `.gfs`, or that is `.gfs`."""
        is_top = name == DOT_GFS and parent == pyfuse3.ROOT_INODE
        if is_hidden(parent) or (is_top and await self.own_dot_gfs(ctx) is None):
            raise ReadOnly("it belongs to .gfs")

    async def own_dot_gfs(self, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes | None:
        """What the filesystem has in the root under this name; None: nothing, so it is ours.

        The master refuses the name in the cluster's root, so there none comes to be, but a
        cluster older than it may have one. In the root of a subtree one may come and go.
        """
        tables = self.tables
        if tables.dot_gfs_is_ours:
            return None
        try:
            found = await self.look_up(pyfuse3.ROOT_INODE, DOT_GFS, ctx)
        except NotFound:
            found = absent(0.0)
        tables.dot_gfs_is_ours = not found.st_ino and not tables.is_subtree
        return found if found.st_ino else None

    async def look_up(
        self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """A name that the master knows of; `st_ino` 0: it is absent, and the kernel may know."""
        left = self.tables.lease_left()
        if left:
            ino = self.cache.lookup(parent_inode, name)
            if ino == ABSENT:
                check_name(name)
                return absent(left if self.tables.names_recallable else 0.0)
            if ino != UNKNOWN:
                known = self.cache.attributes(ino)
                if known is not None and known.inode is not None:
                    return self.entry(ino, known.inode, named=True)
        check_name(name)
        return await self._ask(parent_inode, name, ctx)

    async def _ask(
        self, parent: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        directory = self.cache.directory(parent)
        directory.misses += 1
        if directory.misses == MISSES_BEFORE_LISTING:
            self.client.nursery.start_soon(self.list_ahead, directory, actor_of(ctx))
        found = await self.ask(Lookup(parent, name, actor_of(ctx)), Entry)
        if name in DOTS:
            if found.inode is None:
                raise NotFound("no such directory")
            return self.entry(found.ino, found.inode, named=False)
        named = self.cache.learn_name(directory, name, found.ino, found.position)
        inode = self.cache.learn(found) if found.ino else None
        if inode is None:
            if not named:
                raise NotFound(name.decode(errors="replace"))
            return absent(self.tables.lease_left() if self.tables.names_recallable else 0.0)
        return self.entry(found.ino, inode, named=named)

    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        """Never raises: nobody could be told. One that fails does not keep the others."""
        for ino, count in inode_list:
            try:
                self.inodes.forget(ino, count)
            except BaseException as error:
                if is_the_end(error):
                    raise
                log.exception("call.failed forget(%d, %d)", ino, count)

    # --- making

    def _made(self, parent: int, name: bytes, done: Done) -> pyfuse3.EntryAttributes:
        """Answer for a name that a mutation made: caches first."""
        entry = done.entry
        assert entry is not None
        assert entry.inode is not None
        named = self.cache.named(parent, name, entry.ino, done.position)
        self.learn_done(done)
        return self.entry(entry.ino, entry.inode, named=named)

    @answer(0, bounded=True)
    async def mkdir(
        self, parent_inode: int, name: bytes, mode: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        check_name(name)
        mode = stat.S_IFDIR | stat.S_IMODE(mode)
        connections = self.client.link.reconnections
        done = await self.mutate(MakeNode(parent_inode, name, mode), ctx)
        result = self._made(parent_inode, name, done)
        if self.client.link.reconnections == connections:
            self.cache.made_directory(result.st_ino, done.position)  # the master counts on us
        return result

    @answer(0, bounded=True)
    async def mknod(
        self, parent_inode: int, name: bytes, mode: int, rdev: int, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        check_name(name)
        if not stat.S_IFMT(mode):
            mode |= stat.S_IFREG
        done = await self.mutate(MakeNode(parent_inode, name, mode, rdev), ctx)
        return self._made(parent_inode, name, done)

    @answer(0, bounded=True)
    async def symlink(
        self, parent_inode: int, name: bytes, target: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        check_name(name)
        if len(target) > SYMLINK_BYTES_MAX:
            raise NameTooLong(f"a target of {len(target)} bytes")
        done = await self.mutate(MakeSymlink(parent_inode, name, target), ctx)
        return self._made(parent_inode, name, done)

    @answer(1)
    async def link(
        self,
        inode: int,
        new_parent_inode: int,
        new_name: bytes,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        check_name(new_name)
        await self._require_not_dot_gfs(new_parent_inode, new_name, ctx)
        if self.client.pending(inode) is not None:
            await self.client.settle(inode)
        done = await self.mutate(MakeLink(inode, new_parent_inode, new_name), ctx)
        self.inodes.linked(inode)
        return self._made(new_parent_inode, new_name, done)

    # --- removing

    @answer(0)
    async def unlink(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        await self._require_not_dot_gfs(parent_inode, name, ctx)
        ino = self.cache.lookup(parent_inode, name)
        if ino > 0 and self.client.pending(ino) is not None and self._goes_to_trash(ino):
            await self.client.settle(ino)  # what is undeleted later has its last bytes
        done = await self.mutate(Unlink(parent_inode, name), ctx)
        self.cache.named(parent_inode, name, ABSENT, done.position)
        self.learn_done(done)
        gone = done.entry.ino if done.entry is not None and done.entry.ino else ino
        if gone > 0:
            self._lost_a_name(gone, done.entry)

    def _goes_to_trash(self, ino: int) -> bool:
        known = self.cache.attributes(ino)
        if known is None or known.inode is None:
            return True
        return time.time_ns() - known.inode.created_ns >= KEPT_IN_TRASH_NS

    def _lost_a_name(self, ino: int, entry: Entry | None) -> None:
        """A name of `ino` is gone; with the last one, and no handle, its pending bytes too."""
        self.client.give_up(ino)
        if entry is None or entry.ino != ino:
            self.cache.forget_attributes(ino)
            return
        last = entry.inode is None or entry.inode.nlink == 0
        if last and self.inodes.unlinked(ino):
            self.client.discard(ino)

    @answer(0, bounded=True)
    async def rmdir(self, parent_inode: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        await self._require_not_dot_gfs(parent_inode, name, ctx)
        ino = self.cache.lookup(parent_inode, name)
        done = await self.mutate(RemoveDirectory(parent_inode, name), ctx)
        self.cache.named(parent_inode, name, ABSENT, done.position)
        self.cache.removed_directory(ino, lease_until=self.client.link.lease.until)
        self.learn_done(done)

    # --- moving

    @answer(0, 2)
    async def rename(
        self,
        parent_inode_old: int,
        name_old: bytes,
        parent_inode_new: int,
        name_new: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        if flags & ~RENAME_FLAGS or flags == RENAME_FLAGS:
            raise pyfuse3.FUSEError(errno.EINVAL)
        check_name(name_new)
        await self._require_not_dot_gfs(parent_inode_old, name_old, ctx)
        await self._require_not_dot_gfs(parent_inode_new, name_new, ctx)
        source = self.cache.lookup(parent_inode_old, name_old)
        target = self.cache.lookup(parent_inode_new, name_new)
        if source == UNKNOWN:
            source = await self._number(parent_inode_old, name_old, ctx)
        if target != ABSENT and source > 0 and self.client.pending(source) is not None:
            # Write a temporary file, rename it over the old one: after a crash of this
            # host there must be the old bytes or the new ones, never neither.
            await self.client.settle(source)
        operation = Rename(parent_inode_old, name_old, parent_inode_new, name_new, flags)
        done = await self.mutate(operation, ctx)
        self._moved(operation, done, source, target)
        self.learn_done(done)
        if target > 0:
            self.cache.forget_attributes(target)
            self.client.give_up(target)
            if not flags & pyfuse3.RENAME_EXCHANGE:
                await self._replaced(target, ctx)

    def _moved(self, operation: Rename, done: Done, source: int, target: int) -> None:
        """Both names as the master moved them, which need not be as they were known here.

        Another mount may have changed them just before, and be waiting until we have
        heard of it: only the master knows what has moved.
        """
        exchange = operation.flags & pyfuse3.RENAME_EXCHANGE
        moved = done.entry.ino if done.entry is not None else UNKNOWN
        back = target if exchange else ABSENT
        if moved == target:  # two names of one file, and nothing happened; or so we thought
            moved = back = UNKNOWN
        if moved != source:
            back = UNKNOWN if exchange else back
            self.tables.forget_kernel_names()  # it has moved what it knew
        self.cache.named(operation.parent, operation.name, back, done.position)
        self.cache.named(operation.new_parent, operation.new_name, moved, done.position)

    async def _number(self, parent: int, name: bytes, ctx: pyfuse3.RequestContext) -> int:
        found = await self.ask(Lookup(parent, name, actor_of(ctx)), Entry)
        if not found.ino:
            raise NotFound(name.decode(errors="replace"))
        return found.ino

    async def _replaced(self, ino: int, ctx: pyfuse3.RequestContext) -> None:
        """What stood at the new name has lost it; with the last one, its pending bytes too.

        Asked, not guessed: if another mount moved it away in time, its bytes are wanted.
        """
        if self.client.pending(ino) is None and not self.inodes.is_open(ino):
            return
        try:
            (entry,) = await self.ask_attributes([ino], actor_of(ctx))
        except GfsError as error:  # it is renamed all the same
            log.info("rename.replaced ino=%d unknown: %s", ino, error)
            return
        last = entry.inode is None or entry.inode.nlink == 0
        if last and self.inodes.unlinked(ino):
            self.client.discard(ino)
