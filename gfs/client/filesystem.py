"""Files by path, for programs: a thin layer of names over `Client`.

Paths are bytes from the root of the filesystem. All calls are made on behalf of one
actor, whose permissions the master checks.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from gfs.client.client import Client
from gfs.client.files import OpenFile
from gfs.client.locks import HeldLock
from gfs.errors import AlreadyExists, IsADirectory, NotFound, NotPermitted, StaleInode
from gfs.items import Inode
from gfs.messages import (
    Actor,
    EmptyTrash,
    Entry,
    GetLayout,
    Layout,
    ListedName,
    Listing,
    ListLocks,
    ListTrash,
    LockListing,
    LockState,
    MakeNode,
    PathIs,
    PathOf,
    ReadDirectory,
    RemoveDirectory,
    RemoveTree,
    Rename,
    TrashEntry,
    TrashListing,
    Undelete,
    Unlink,
    Walk,
    Walked,
)

PAGE = 2000  # names asked for at once
WHOLE_FILE = 1 << 62
EMPTIED_AT_ONCE = 500  # trash entries


class Filesystem:
    """Calls by path; see the module's text. Errors are `gfs.errors.Refused` and kin."""

    def __init__(self, client: Client, actor: Actor) -> None:
        self.client = client
        self.actor = actor

    # --- names

    async def resolve(self, path: bytes, *, follow: bool = True) -> Walked:
        """Parent, last name and entry; a missing last component has `entry.ino` 0."""
        return await self.client.link.ask(Walk(path, follow, self.actor), Walked)

    async def walk(self, path: bytes, *, follow: bool = True) -> Walked:
        """`resolve` for what must exist.

        Raises:
          NotFound: it does not.
        """
        walked = await self.resolve(path, follow=follow)
        if not walked.entry.ino:
            raise NotFound
        return walked

    async def stat(self, path: bytes, *, follow: bool = True) -> tuple[int, Inode]:
        """Inode number and attributes; the size counts an open tail.

        Raises:
          NotFound: there is no such name.
        """
        entry = (await self.walk(path, follow=follow)).entry
        await self._sized([entry])
        assert entry.inode is not None
        return entry.ino, entry.inode

    async def _sized(self, entries: list[Entry]) -> None:
        """Fill in the sizes and times that a reader would see now."""
        for entry, grown in zip(entries, await self.client.grown(entries), strict=True):
            if entry.inode is None:
                continue
            entry.inode = grown.image(entry.inode)
            pending = self.client.pending(entry.ino)
            if pending is not None:
                entry.inode.size = max(entry.inode.size, pending.end)

    async def list_directory(self, ino: int, *, plus: bool = False) -> AsyncIterator[ListedName]:
        """Names in byte order; `plus` with their attributes, as `stat` has them."""
        after, more = b"", True
        while more:
            question = ReadDirectory(ino, after, PAGE, plus, self.actor)
            page = await self.client.link.ask(question, Listing)
            if plus:
                entries = [Entry(page.position, n.ino, n.inode) for n in page.entries]
                await self._sized(entries)
                for listed, entry in zip(page.entries, entries, strict=True):
                    listed.inode = entry.inode
            for listed in page.entries:
                yield listed
                after = listed.name
            more = page.more

    async def make_directory(self, path: bytes, mode: int, *, parents: bool = False) -> None:
        """Make a directory; with `parents` also those above, and existing ones are fine."""
        parts = [part for part in path.split(b"/") if part]
        for count in range(1, len(parts) + 1) if parents else [len(parts)]:
            walked = await self.resolve(b"/" + b"/".join(parts[:count]))
            try:
                if walked.entry.ino:
                    raise AlreadyExists
                operation = MakeNode(walked.parent, walked.name, stat.S_IFDIR | mode)
                await self.client.link.mutate(operation, self.actor)
            except AlreadyExists:
                if not parents:
                    raise

    async def remove(self, path: bytes, *, recursive: bool = False) -> None:
        """Remove a name; a directory only if `recursive`, and then all it holds with it."""
        walked = await self.walk(path, follow=False)
        if not walked.name:
            raise NotPermitted("the root cannot be removed")
        operation: Unlink | RemoveTree = Unlink(walked.parent, walked.name)
        if walked.entry.inode is not None and walked.entry.inode.is_directory:
            if not recursive:
                raise IsADirectory
            operation = RemoveTree(walked.parent, walked.name)
        await self.client.link.mutate(operation, self.actor)

    async def unlink(self, path: bytes, ino: int) -> None:
        """unlink(2), or rmdir(2) of a directory, of a name that still is inode `ino`.

        Raises:
          StaleInode: another file has that name now. NotEmpty: the directory holds something.
        """
        walked = await self.walk(path, follow=False)
        if walked.entry.ino != ino:
            raise StaleInode("another file has that name now")
        if not walked.name:
            raise NotPermitted("the root cannot be removed")
        operation: Unlink | RemoveDirectory = Unlink(walked.parent, walked.name)
        if walked.entry.inode is not None and walked.entry.inode.is_directory:
            operation = RemoveDirectory(walked.parent, walked.name)
        await self.client.link.mutate(operation, self.actor)

    async def rename_in(self, parent: int, name: bytes, new_name: bytes) -> None:
        """Another name in the same directory; what stood there is replaced."""
        await self.client.link.mutate(Rename(parent, name, parent, new_name), self.actor)

    async def unlink_in(self, parent: int, name: bytes) -> None:
        """Remove a name that is no directory."""
        await self.client.link.mutate(Unlink(parent, name), self.actor)

    # --- content

    async def open(self, path: bytes, flags: int = os.O_RDONLY, mode: int = 0) -> OpenFile:
        """open(2), O_CREAT too; `release` it (after `flush` or `sync`, which tell errors).

        Raises:
          IsADirectory: it is one. NotFound: it does not exist, and O_CREAT is not asked for.
        """
        walked = await self.resolve(path)
        if walked.entry.inode is not None:
            if walked.entry.inode.is_directory:
                raise IsADirectory
            if flags & os.O_CREAT and flags & os.O_EXCL:
                raise AlreadyExists
            return await self.client.open(walked.entry, flags & ~os.O_CREAT, self.actor)
        if not flags & os.O_CREAT:
            raise NotFound
        return await self.create(walked.parent, walked.name, flags, mode)

    async def create(self, parent: int, name: bytes, flags: int, mode: int) -> OpenFile:
        """open(2) with O_CREAT of a name in a directory."""
        made, _ = await self.client.create(
            parent, name, stat.S_IFREG | mode, flags | os.O_CREAT, self.actor
        )
        return made

    @asynccontextmanager
    async def lock(
        self,
        path: bytes,
        *,
        shared: bool = False,
        wait: bool = True,
        timeout_s: float = math.inf,
        create_mode: int | None = None,
    ) -> AsyncIterator[HeldLock]:
        """Hold the lock of what `path` leads to, for the block (`gfs.client.locks`).

        `create_mode`: of the file that is made if there is none; None: there must be one.

        Raises:
          NotFound, LockHeld, LockLost
        """
        walked = await self.resolve(path)
        ino = walked.entry.ino
        if not ino:
            if create_mode is None:
                raise NotFound
            made = await self.create(walked.parent, walked.name, os.O_RDONLY, create_mode)
            ino = made.ino
            made.release()
        locks = self.client.locks
        async with locks.lock(
            ino, self.actor, shared=shared, wait=wait, timeout_s=timeout_s
        ) as held:
            yield held

    async def list_locks(self, ino: int = 0) -> AsyncIterator[LockState]:
        """Who holds locks and who waits for them; of one inode, or all that the actor may see."""
        ask, more = ListLocks(self.actor, ino), True
        while more:
            page = await self.client.link.ask(ask, LockListing)
            for one in page.locks:
                yield one
            more = page.more
            ask = ListLocks(self.actor, ino, page.after_ino, page.after_fence)

    async def layout(self, ino: int) -> Layout:
        """Where the bytes of a file lie."""
        return await self.client.link.ask(GetLayout(ino, 0, WHOLE_FILE, self.actor), Layout)

    # --- the trash

    async def list_trash(self) -> AsyncIterator[TrashEntry]:
        """What was removed and can be undeleted."""
        after, more = 0, True
        while more:
            page = await self.client.link.ask(ListTrash(self.actor, after), TrashListing)
            for entry in page.entries:
                yield entry
            more, after = page.more, page.after

    async def undelete(self, ino: int, path: bytes = b"", part: bytes = b"") -> bytes:
        """Bring a trash entry, or a part of it, back (to `path`); returns its path then."""
        done = await self.client.link.mutate(Undelete(ino, path, part), self.actor)
        return await self.path_of(done.entry.ino if done.entry is not None else ino)

    async def path_of(self, ino: int) -> bytes:
        """A path that leads there now."""
        return (await self.client.link.ask(PathOf(ino), PathIs)).path

    async def empty_trash(self, inos: Sequence[int] | None = None) -> int:
        """Give up these entries for good (None: all that the actor may); returns how many."""
        if inos is None:
            inos = [entry.ino async for entry in self.list_trash()]
        for start in range(0, len(inos), EMPTIED_AT_ONCE):
            some = list(inos[start : start + EMPTIED_AT_ONCE])
            await self.client.link.mutate(EmptyTrash(some), self.actor)
        return len(inos)
