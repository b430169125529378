"""Files by path, for programs: a thin layer of names over `Client`.

Paths are bytes (or str, encoded as the host does) from the root of the
filesystem. Every call takes the actor on whose behalf the master checks
permissions; the default is this process's own user.
"""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator

from gfs.checksum import Buffer
from gfs.client.client import Client
from gfs.client.files import OpenFile
from gfs.errors import AlreadyExists, InvalidArgument, NotFound
from gfs.ids import MIB
from gfs.messages import (
    Actor,
    EmptyTrash,
    Entry,
    FilesystemStat,
    ListedName,
    Listing,
    ListTrash,
    MakeLink,
    MakeNode,
    MakeSymlink,
    ReadDirectory,
    RemoveDirectory,
    RemoveTree,
    Rename,
    SetAttributes,
    StatFilesystem,
    TrashEntry,
    TrashListing,
    Undelete,
    Unlink,
    Walk,
    Walked,
)

Path = bytes | str
PAGE = 1000  # names asked for at once
READ_BYTES = 4 * MIB


class Filesystem:
    """Calls by path; see the module's text. Errors are `gfs.errors.Refused` and kin."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def resolve(
        self, path: Path, actor: Actor | None = None, *, follow: bool = True
    ) -> Walked:
        """Parent, last name and entry; a missing last component has `entry.ino` 0."""
        question = Walk(os.fsencode(path), follow, actor or self.client.actor)
        return await self.client.link.ask(question, Walked)

    async def stat(self, path: Path, actor: Actor | None = None, *, follow: bool = True) -> Entry:
        """Attributes; the size of a regular file counts its tail and this client's writes.

        Raises:
          NotFound: there is no such name.
        """
        entry = (await self.resolve(path, actor, follow=follow)).entry
        if entry.inode is None:
            raise NotFound(f"{os.fsdecode(path)}: no such file or directory")
        if entry.inode.is_file:
            (entry.inode.size,) = await self.client.sizes([entry])
        return entry

    async def listdir(
        self, path: Path, actor: Actor | None = None, *, plus: bool = False
    ) -> AsyncIterator[ListedName]:
        """Names of a directory in byte order; `plus` with their inodes."""
        me = actor or self.client.actor
        ino = (await self.stat(path, me)).ino
        after, more = b"", True
        while more:
            page = await self.client.link.ask(ReadDirectory(ino, after, PAGE, plus, me), Listing)
            for entry in page.entries:
                yield entry
            more = page.more and bool(page.entries)
            after = page.entries[-1].name if page.entries else b""

    async def open(
        self, path: Path, flags: int = os.O_RDONLY, actor: Actor | None = None, mode: int = 0o644
    ) -> OpenFile:
        """open(2); `release` it (after `flush`, which tells errors)."""
        me = actor or self.client.actor
        if not flags & os.O_CREAT:
            return await self.client.open(await self.stat(path, me), flags, me)
        walked = await self.resolve(path, me)
        if walked.entry.ino and not flags & os.O_EXCL:
            return await self.client.open(walked.entry, flags, me)
        created, _ = await self.client.create(walked.parent, walked.name, mode, flags, me)
        return created

    async def read_file(self, path: Path, actor: Actor | None = None) -> bytes:
        """The whole content, which must fit in memory."""
        file = await self.open(path, os.O_RDONLY, actor)
        try:
            parts: list[Buffer] = []
            offset = 0
            while part := await file.read(offset, READ_BYTES):
                parts.append(part)
                offset += len(part)
            return b"".join(parts)
        finally:
            file.release()

    async def write_file(
        self,
        path: Path,
        data: Buffer,
        actor: Actor | None = None,
        *,
        mode: int = 0o644,
        durable: bool = True,
    ) -> None:
        """Replace the content (create the file if need be)."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        file = await self.open(path, flags, actor, mode)
        try:
            await file.write(0, data)
            await (file.sync() if durable else file.flush())
        finally:
            file.release()

    async def append(
        self, path: Path, data: Buffer, actor: Actor | None = None, *, mode: int = 0o644
    ) -> None:
        """One record at the end, created if need be; on return all replicas have it."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        file = await self.open(path, flags, actor, mode)
        try:
            await file.write(0, data)
            await file.flush()
        finally:
            file.release()

    async def mkdir(
        self, path: Path, actor: Actor | None = None, *, mode: int = 0o755, parents: bool = False
    ) -> Entry:
        """Make a directory; with `parents` also those above, and existing ones are fine."""
        me = actor or self.client.actor
        whole = os.fsencode(path).rstrip(b"/") or b"/"
        if parents and (above := os.path.dirname(whole)) not in (b"", b"/"):
            await self.mkdir(above, me, mode=mode, parents=True)
        walked = await self.resolve(whole, me)
        inode = walked.entry.inode
        if inode is not None:
            if parents and inode.is_directory:
                return walked.entry
            raise AlreadyExists(f"{os.fsdecode(whole)}: exists")
        operation = MakeNode(walked.parent, walked.name, stat.S_IFDIR | mode)
        try:
            done = await self.client.link.mutate(operation, me)
        except AlreadyExists:  # somebody else was quicker
            if not parents:
                raise
            return await self.stat(whole, me)
        return done.entry or await self.stat(whole, me)

    async def unlink(self, path: Path, actor: Actor | None = None) -> None:
        """Remove a name that is no directory."""
        parent, name, me = await self._named(path, actor)
        await self.client.link.mutate(Unlink(parent, name), me)

    async def rmdir(self, path: Path, actor: Actor | None = None) -> None:
        """Remove an empty directory."""
        parent, name, me = await self._named(path, actor)
        await self.client.link.mutate(RemoveDirectory(parent, name), me)

    async def remove_tree(self, path: Path, actor: Actor | None = None) -> None:
        """Move a directory with all below it to the trash."""
        parent, name, me = await self._named(path, actor)
        await self.client.link.mutate(RemoveTree(parent, name), me)

    async def rename(
        self, old: Path, new: Path, actor: Actor | None = None, *, flags: int = 0
    ) -> None:
        """rename(2); `flags` RENAME_NOREPLACE 1, RENAME_EXCHANGE 2."""
        parent, name, me = await self._named(old, actor)
        target = await self.resolve(new, me, follow=False)
        source = await self.resolve(old, me, follow=False)
        await self.client.settle(source.entry.ino)  # write temporary, rename: content first
        operation = Rename(parent, name, target.parent, target.name, flags)
        await self.client.link.mutate(operation, me)

    async def symlink(self, target: Path, path: Path, actor: Actor | None = None) -> Entry:
        """A symbolic link at `path`."""
        me = actor or self.client.actor
        walked = await self.resolve(path, me, follow=False)
        operation = MakeSymlink(walked.parent, walked.name, os.fsencode(target))
        done = await self.client.link.mutate(operation, me)
        return done.entry or await self.stat(path, me, follow=False)

    async def link(self, old: Path, new: Path, actor: Actor | None = None) -> Entry:
        """A further name of a file."""
        me = actor or self.client.actor
        entry = await self.stat(old, me, follow=False)
        walked = await self.resolve(new, me, follow=False)
        done = await self.client.link.mutate(MakeLink(entry.ino, walked.parent, walked.name), me)
        return done.entry or entry

    async def set_attributes(
        self, path: Path, changes: SetAttributes, actor: Actor | None = None
    ) -> None:
        """chmod, chown, utimens, truncate at once; `changes.ino` is filled in."""
        me = actor or self.client.actor
        entry = await self.stat(path, me)
        await self.client.settle(entry.ino)
        changes.ino = entry.ino
        done = await self.client.link.mutate(changes, me)
        if changes.size is not None:
            self.client.reader.drop(entry.ino, done.position)

    async def list_trash(self, actor: Actor | None = None) -> AsyncIterator[TrashEntry]:
        """What was deleted and can be undeleted."""
        me, after, more = actor or self.client.actor, 0, True
        while more:
            page = await self.client.link.ask(ListTrash(me, after, PAGE), TrashListing)
            for entry in page.entries:
                yield entry
                after = entry.ino
            more = page.more and bool(page.entries)

    async def undelete(
        self, ino: int, path: Path = b"", actor: Actor | None = None
    ) -> Entry | None:
        """Bring a trash entry back; returns its entry."""
        operation = Undelete(ino, os.fsencode(path))
        return (await self.client.link.mutate(operation, actor or self.client.actor)).entry

    async def empty_trash(self, inos: list[int], actor: Actor | None = None) -> None:
        """Reclaim these entries (empty = all that the actor may)."""
        await self.client.link.mutate(EmptyTrash(inos), actor or self.client.actor)

    async def statfs(self) -> FilesystemStat:
        """Space as a user can store it."""
        return await self.client.link.ask(StatFilesystem(), FilesystemStat)

    async def _named(self, path: Path, actor: Actor | None) -> tuple[int, bytes, Actor]:
        me = actor or self.client.actor
        walked = await self.resolve(path, me, follow=False)
        if not walked.name:
            raise InvalidArgument(f"{os.fsdecode(path)}: the root has no name")
        if not walked.entry.ino:
            raise NotFound(f"{os.fsdecode(path)}: no such file or directory")
        return walked.parent, walked.name, me
