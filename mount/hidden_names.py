"""What is in `.gfs`: names and attributes of trash and snapshots, and what takes them out.

Everybody sees his own trash and root sees all, and of the snapshots those that he can get to; so
every name is asked for with the caller it is asked by, and nothing is kept of the answer.
"""

from __future__ import annotations

import importlib.metadata
import os
import stat
import time
from collections.abc import Sequence

import pyfuse3

from gfs.errors import (
    InvalidArgument,
    IsADirectory,
    NotADirectory,
    NotEmpty,
    NotFound,
    ReadOnly,
)
from gfs.ids import ROOT_INO
from gfs.items import Inode
from gfs.messages import (
    Actor,
    Done,
    EmptyTrash,
    Entry,
    Listing,
    ListSnapshots,
    ListTrash,
    Lookup,
    PathIs,
    PathOf,
    ReadDirectory,
    RemoveDirectory,
    Rename,
    SnapshotEntry,
    SnapshotListing,
    TrashEntry,
    TrashListing,
    Undelete,
    Unlink,
)
from mount.answering import actor_of
from mount.attributes import entry_attributes
from mount.core.caching import ABSENT
from mount.core.hidden import (
    NAMES,
    SNAPSHOTS,
    TOP,
    TRASH,
    VERSION,
    hidden,
    is_hidden,
    is_link,
    link_to,
    real,
    snapshot_names,
    trash_names,
)
from mount.core.hidden import numbered as numbered_name
from mount.files import FileCalls
from mount.listing import PAGE

HINTS_MAX = 100_000  # names of the trash remembered, to find them again by one question
DIRECTORY, FILE = stat.S_IFDIR | 0o555, stat.S_IFREG | 0o444
LINK = stat.S_IFLNK | 0o777
TRASH_DIRECTORY = stat.S_IFDIR | 0o777  # the master decides who may take what out of it


class HiddenNames:
    """What `.gfs` holds for whom, and how it is taken out.

    Args:
      calls: the handlers of everything else.
    """

    def __init__(self, calls: FileCalls) -> None:
        self._calls = calls
        self._cache = calls.cache
        self._hints: dict[int, dict[bytes, int]] = {}  # uid -> name in the trash -> inode
        self._version = f"gfs {importlib.metadata.version('gfs')}\n"
        self._born_ns = time.time_ns()

    # --- attributes

    def top(self) -> pyfuse3.EntryAttributes:
        """`.gfs` itself."""
        return attributes(TOP, self._own(TOP))

    def _own(self, number: int) -> Inode:
        """The image of something that no master knows."""
        modes = {TOP: DIRECTORY, SNAPSHOTS: DIRECTORY, TRASH: TRASH_DIRECTORY}
        mode = modes.get(number, FILE)
        links = {TOP: 4, TRASH: 2, SNAPSHOTS: 2}.get(number, 1)
        size = len(self._version) if number == VERSION else 0  # as in /proc
        born = self._born_ns
        return Inode(mode, os.geteuid(), os.getegid(), links, size, born, born, born)

    def _link(self, path: bytes) -> Inode:
        """A symbolic link in `.gfs/snapshots` to a path from the root."""
        target = b"../.." + path
        born, size = self._born_ns, len(target)
        user, group = os.geteuid(), os.getegid()
        return Inode(LINK, user, group, 1, size, born, born, born, target=target)

    async def _image(self, number: int, ctx: pyfuse3.RequestContext) -> Inode:
        if number in (TOP, *NAMES.values()):
            return self._own(number)
        if is_link(number):
            path = (await self._calls.ask(PathOf(real(number)), PathIs)).path
            return self._link(path)
        (entry,) = await self._calls.ask_attributes([real(number)], actor_of(ctx))
        if entry.inode is None:
            raise NotFound("it is in the trash no more")
        return entry.inode

    async def getattr(self, number: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        return attributes(number, await self._image(number, ctx))

    async def readlink(self, number: int, ctx: pyfuse3.RequestContext) -> bytes:
        return (await self._image(number, ctx)).target

    async def access(self, number: int, mode: int, ctx: pyfuse3.RequestContext) -> bool:
        """Only asked without default_permissions; the master checks what matters."""
        return not mode & os.W_OK or number == TRASH

    async def getxattr(self, number: int, name: bytes, ctx: pyfuse3.RequestContext) -> bytes:
        value = (await self._image(number, ctx)).attributes.get(name)
        if value is None:
            raise pyfuse3.FUSEError(pyfuse3.ENOATTR)
        return value

    async def listxattr(self, number: int, ctx: pyfuse3.RequestContext) -> Sequence[bytes]:
        return list((await self._image(number, ctx)).attributes)

    # --- names

    async def lookup(
        self, parent: int, name: bytes, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """What a name leads to for this caller, for this answer alone."""
        if name == b".":
            return await self.getattr(parent, ctx)
        if name == b"..":
            return await self._above(parent, ctx)
        if parent == TOP:
            number = NAMES.get(name)
            if number is None:
                raise NotFound(name.decode(errors="replace"))
            return attributes(number, self._own(number))
        if parent == SNAPSHOTS:
            found = (await self._snapshots(actor_of(ctx))).get(name)
            if found is None:
                raise NotFound(name.decode(errors="replace"))
            return attributes(link_to(found.ino), self._link(found.path))
        ino = await self._inode(parent, name, ctx)
        return attributes(hidden(ino), await self._image(hidden(ino), ctx))

    async def _above(self, number: int, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        if number == TOP:
            root = await self._calls.image(ROOT_INO, ctx)
            return self._calls.entry(ROOT_INO, root, named=False)
        above = (
            TOP if number in (TRASH, SNAPSHOTS) else hidden((await self._image(number, ctx)).parent)
        )
        return attributes(above, await self._image(above, ctx))

    async def _inode(self, parent: int, name: bytes, ctx: pyfuse3.RequestContext) -> int:
        """What a name in the trash, or below, leads to.

        Raises:
          NotFound: to nothing that this caller may see.
        """
        if parent == TRASH:
            return (await self._entry(name, actor_of(ctx))).ino
        directory = self._cache.directory(real(parent))
        found = await self._calls.ask(Lookup(real(parent), name, actor_of(ctx)), Entry)
        self._cache.learn_name(directory, name, found.ino, found.position)
        if not found.ino:
            raise NotFound(name.decode(errors="replace"))
        return found.ino

    async def _entry(self, name: bytes, actor: Actor) -> TrashEntry:
        """The entry of the trash that has this name for this caller now.

        Raises:
          NotFound: there is none that he may see.
        """
        ino = self._hints.get(actor.uid, {}).get(name)
        if ino is not None:
            page = await self._calls.ask(ListTrash(actor, ino - 1, 1), TrashListing)
            for entry in page.entries:
                if entry.ino == ino and name in (*trash_names([entry]), numbered_name(entry)):
                    return entry
        named = await self._trash(actor)
        if name in named:
            return named[name]
        for entry in named.values():
            if numbered_name(entry) == name:
                return entry
        raise NotFound(name.decode(errors="replace"))

    async def _trash(self, actor: Actor) -> dict[bytes, TrashEntry]:
        """All entries that the caller may see, by name."""
        entries: list[TrashEntry] = []
        after, more = 0, True
        while more:
            page = await self._calls.ask(ListTrash(actor, after, PAGE), TrashListing)
            entries += page.entries
            more, after = page.more, page.after
        named = trash_names(entries)
        if sum(map(len, self._hints.values())) + len(named) > HINTS_MAX:
            self._hints.clear()
        self._hints[actor.uid] = {name: entry.ino for name, entry in named.items()}
        return named

    async def _snapshots(self, actor: Actor) -> dict[bytes, SnapshotEntry]:
        """All that the caller can get to, by name."""
        found = await self._calls.ask(ListSnapshots(actor), SnapshotListing)
        return snapshot_names(found.entries)

    # --- taking out

    async def unlink(self, parent: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """For good."""
        if parent == TRASH:
            entry = await self._entry(name, actor_of(ctx))
            if stat.S_ISDIR(entry.kind):
                raise IsADirectory(name.decode(errors="replace"))
            await self._give_up(entry.ino, ctx)
        else:
            _require_below(parent)
            done = await self._calls.mutate(Unlink(real(parent), name), ctx)
            self._gone(real(parent), name, done)

    async def rmdir(self, parent: int, name: bytes, ctx: pyfuse3.RequestContext) -> None:
        """For good, if nothing is in it; `gfs trash empty` takes whole trees."""
        if parent == TRASH:
            entry = await self._entry(name, actor_of(ctx))
            if not stat.S_ISDIR(entry.kind):
                raise NotADirectory(name.decode(errors="replace"))
            question = ReadDirectory(entry.ino, b"", 1, False, actor_of(ctx))
            self._cache.directory(entry.ino)
            if (await self._calls.ask(question, Listing)).entries:
                raise NotEmpty(name.decode(errors="replace"))
            await self._give_up(entry.ino, ctx)
        else:
            _require_below(parent)
            ino = await self._inode(parent, name, ctx)
            done = await self._calls.mutate(RemoveDirectory(real(parent), name), ctx)
            self._gone(real(parent), name, done)
            self._removed(ino)

    async def _give_up(self, ino: int, ctx: pyfuse3.RequestContext) -> None:
        self._calls.learn_done(await self._calls.mutate(EmptyTrash([ino]), ctx))
        self._removed(ino)

    def _removed(self, directory: int) -> None:
        until = self._calls.client.link.lease.until
        self._cache.removed_directory(directory, lease_until=until)

    def _gone(self, parent: int, name: bytes, done: Done) -> None:
        self._cache.named(parent, name, ABSENT, done.position)
        self._calls.learn_done(done)

    async def rename(
        self,
        parent: int,
        name: bytes,
        new_parent: int,
        new_name: bytes,
        flags: int,
        ctx: pyfuse3.RequestContext,
    ) -> None:
        """Undelete to where it is moved; what stands there is never replaced (EEXIST)."""
        if is_hidden(new_parent):
            raise ReadOnly("what was removed does not move within the trash")
        if flags & ~pyfuse3.RENAME_NOREPLACE:
            raise InvalidArgument(f"flags {flags:#x}")
        if parent == TRASH:
            entry = await self._entry(name, actor_of(ctx))
            back = Undelete(entry.ino, new_name, parent=new_parent)
            done = await self._calls.mutate(back, ctx)
        else:
            _require_below(parent)
            flags = pyfuse3.RENAME_NOREPLACE
            move = Rename(real(parent), name, new_parent, new_name, flags)
            done = await self._calls.mutate(move, ctx)
            self._cache.named(real(parent), name, ABSENT, done.position)
        if done.entry is not None:
            self._cache.named(new_parent, new_name, done.entry.ino, done.position)
        self._calls.learn_done(done)


def _require_below(parent: int) -> None:
    """Raises ReadOnly unless it is a directory in the trash."""
    if parent in (TOP, SNAPSHOTS):
        raise ReadOnly("it is a part of .gfs")


def attributes(number: int, inode: Inode) -> pyfuse3.EntryAttributes:
    """For this answer alone: the kernel keeps neither name nor attributes."""
    return entry_attributes(number, inode, entry_timeout=0.0, attr_timeout=0.0)
