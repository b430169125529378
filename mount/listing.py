"""Handlers of directory listings: opendir, readdir, releasedir, fsyncdir.

One listing is what the directory held while it was read: names are numbered as they
come and keep their numbers while the handle is open. A directory that this mount knows
whole is listed without a request; one that was listed whole is known from then on,
unless something changed in it meanwhile.
"""

from __future__ import annotations

import errno
import stat

import pyfuse3

from gfs.errors import GfsError, NotFound, StaleInode
from gfs.items import Inode
from gfs.messages import Actor, Listing, ReadDirectory
from mount.answering import Answering, Opened, Tables, actor_of, answer, log
from mount.attributes import only_inode
from mount.core.caching import Directory
from mount.core.inodes import Handles

PAGE = 1000  # names asked from the master at once
AHEAD_PAGES_MAX = 50
DOT, DOTDOT, FIRST = 0, 1, 2  # numbers of entries; names come after the dots
ATTRIBUTES_MAX = 256  # inodes asked in one request

Item = tuple[bytes, int, Inode | None]


class Stream:
    """An open directory: what was read of it so far. `more`: the master has further names."""

    def __init__(self, ino: int, actor: Actor) -> None:
        self.ino = ino
        self.actor = actor
        self.parent = ino
        self.restart()

    def restart(self) -> None:
        """From the first name, as the directory is now (rewinddir)."""
        self.items: list[Item] = []
        self.after = b""
        self.more = True
        self.directory: Directory | None = None
        self.position = 0


class DirectoryCalls(Answering):
    """See the module's text."""

    def __init__(self, tables: Tables) -> None:
        super().__init__(tables)
        self.streams: Handles[Stream] = Handles()

    def opened(self, operation: str, handle: int) -> Opened | None:
        """Directories have handles of their own."""
        if operation in ("readdir", "releasedir", "fsyncdir"):
            return self.streams.get(handle)
        return super().opened(operation, handle)

    @answer(bounded=True)
    async def opendir(self, inode: int, ctx: pyfuse3.RequestContext) -> int:
        return self.streams.add(Stream(inode, actor_of(ctx)))

    @answer(bounded=True)
    async def releasedir(self, fh: int) -> None:
        self.streams.pop(fh)

    @answer()
    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        """Whatever this mount has pending anywhere: a directory's names lead to any of it."""
        await self.client.flush_all(durable=True)

    @answer(bounded=True)
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        stream = self.streams.get(fh)
        if stream is None:
            raise pyfuse3.FUSEError(errno.EBADF)
        self.tables.hold(stream.ino)
        try:
            if start_id == DOT:
                await self._begin(stream)
                self.note_access(stream.ino)
            if start_id <= DOTDOT and not self._dots(stream, start_id, token):
                return
            await self._names(stream, max(start_id, FIRST), token)
        finally:
            self.tables.let_go(stream.ino)

    async def _begin(self, stream: Stream) -> None:
        stream.restart()
        known = self.cache.attributes(stream.ino)
        if known is not None and known.inode is not None:
            stream.parent = known.inode.parent or stream.ino
        if self.tables.lease_left() and self.cache.is_complete(stream.ino):
            stream.more = False
            stream.items = [(name, ino, None) for name, ino in self.cache.names(stream.ino)]
        else:
            await self._page(stream)

    async def _page(self, stream: Stream) -> None:
        """Append the next names that the master has; at the end the directory is known whole."""
        directory = stream.directory or self.cache.directory(stream.ino)
        question = ReadDirectory(stream.ino, stream.after, PAGE, True, stream.actor)
        try:
            page = await self.ask(question, Listing)
        except (NotFound, StaleInode):  # removed while it was open: an empty directory
            stream.more = False
            return
        if stream.directory is None:
            stream.directory, stream.position = directory, page.position
        self.cache.learn_listed(directory, page.entries, page.position)
        stream.items += [(item.name, item.ino, item.inode) for item in page.entries]
        stream.more = page.more and bool(page.entries)
        if page.entries:
            stream.after = page.entries[-1].name
        if not stream.more:
            names = {name: ino for name, ino, _ in stream.items}
            self.cache.learn_whole(directory, names, stream.position)

    async def list_ahead(self, directory: Directory, actor: Actor) -> None:
        """Somebody asks for name after name: learn them a page at a time instead.

        What cannot be had this way (no permission to list, too many names) goes on
        being asked for singly.
        """
        stream = Stream(directory.ino, actor)
        try:
            for _ in range(AHEAD_PAGES_MAX):
                await self._page(stream)
                if not stream.more or not directory.alive:
                    return
        except GfsError as error:
            log.debug("list.ahead directory=%d: %s", directory.ino, error)

    def _dots(self, stream: Stream, start: int, token: pyfuse3.ReaddirToken) -> bool:
        for number, name, ino in ((DOT, b".", stream.ino), (DOTDOT, b"..", stream.parent)):
            if number < start:
                continue
            if not pyfuse3.readdir_reply(token, name, only_inode(ino, stat.S_IFDIR), number + 1):
                return False
        return True

    async def _names(self, stream: Stream, start: int, token: pyfuse3.ReaddirToken) -> None:
        index = start - FIRST
        while True:
            while index >= len(stream.items):
                if not stream.more:
                    return
                await self._page(stream)
            end = min(len(stream.items), index + ATTRIBUTES_MAX)
            await self._fill_in(stream, index, end)
            while index < end:
                if not self._give(stream, index, token):
                    return
                index += 1

    async def _fill_in(self, stream: Stream, start: int, end: int) -> None:
        """Ask for the attributes that are neither listed nor cached, in one request."""
        missing = [
            index
            for index in range(start, end)
            if stream.items[index][2] is None
            and self.cache.attributes(stream.items[index][1]) is None
        ]
        if not missing:
            return
        inos = [stream.items[index][1] for index in missing]
        entries = await self.ask_attributes(inos, stream.actor)
        for index, entry in zip(missing, entries, strict=True):
            name, ino, _ = stream.items[index]
            stream.items[index] = (name, ino, entry.inode)

    def _give(self, stream: Stream, index: int, token: pyfuse3.ReaddirToken) -> bool:
        """Hand one name to the kernel; False when its buffer is full."""
        name, ino, inode = stream.items[index]
        known = self.cache.attributes(ino)
        if known is not None:
            inode = known.inode
        if inode is None:
            return True  # removed since it was listed
        named = self.cache.lookup(stream.ino, name) == ino  # nothing came between
        entry = self.show(ino, inode, named=named)
        if not pyfuse3.readdir_reply(token, name, entry, index + FIRST + 1):
            self.inodes.forget(ino, 0)
            return False
        self.inodes.looked_up(ino)
        return True
