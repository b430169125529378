"""Handlers of `.gfs` at the root of the mount: trash, snapshots, figures and the version.

No listing shows `.gfs`, so nothing that walks a tree meets it; who asks for the name gets it. The
kernel keeps nothing of it: each name and attribute is asked for again with the caller it is asked
by, because everybody sees his own trash and root sees all. Moving something out of the trash
undeletes it, removing it there gives it up for good; what the master would refuse of `gfs undelete`
and `gfs trash empty` it refuses here. Whatever else would change something is refused (EROFS).
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable

import msgspec
import pyfuse3
import trio

from gfs.errors import (
    GfsError,
    ReadOnly,
)
from gfs.ids import ROOT_INO
from gfs.items import Inode
from gfs.messages import (
    Actor,
    ClusterStatus,
    Listing,
    ReadDirectory,
    Status,
)
from gfs.open_flags import O_TRUNC, writes
from mount.answering import Opened, actor_of
from mount.attributes import only_inode
from mount.core.hidden import (
    NAMES,
    SNAPSHOTS,
    STATS,
    TOP,
    TRASH,
    VERSION,
    cluster_totals,
    hidden,
    lines,
    link_to,
    real,
)
from mount.core.inodes import Handles
from mount.files import FileCalls
from mount.hidden_names import HiddenNames, attributes
from mount.listing import ATTRIBUTES_MAX, DOT, DOTDOT, FIRST, PAGE

CLUSTER_S = 1.0  # how old the cluster's figures may be
CLUSTER_ANSWER_S = 5.0  # without them, those of the mount are shown all the same

Item = tuple[bytes, int, Inode]


class Text:
    """An open file of figures: what it said when it was opened."""

    def __init__(self, ino: int, actor: Actor, text: str) -> None:
        self.ino = ino
        self.actor = actor
        self.data = text.encode()


class Names:
    """An open directory: what it held when its first name was asked for."""

    def __init__(self, ino: int, actor: Actor) -> None:
        self.ino = ino
        self.actor = actor
        self.above = ino
        self.items: list[Item] = []


class Hidden(HiddenNames):
    """Handlers for numbers from `HIDDEN_INO` on, called by those of the same name.

    Args:
      calls: the handlers of everything else.
      statistics: of the mount.
    """

    def __init__(self, calls: FileCalls, statistics: Callable[[], dict[str, object]]) -> None:
        super().__init__(calls)
        self._statistics = statistics
        self._texts: Handles[Text] = Handles()
        self._names: Handles[Names] = Handles()
        self._cluster: dict[str, object] = {}
        self._cluster_at = float("-inf")

    def opened(self, operation: str, handle: int) -> Opened | None:
        """What a handle is of, for who watches."""
        kept: Handles[Text] | Handles[Names] = self._texts
        if operation in ("readdir", "releasedir", "fsyncdir"):
            kept = self._names
        return kept.get(real(handle))

    # --- listing

    async def opendir(self, number: int, ctx: pyfuse3.RequestContext) -> int:
        return hidden(self._names.add(Names(number, actor_of(ctx))))

    async def releasedir(self, handle: int) -> None:
        self._names.pop(real(handle))

    async def fsyncdir(self, handle: int, datasync: bool) -> None:
        """Nothing here waits for a disk."""

    async def readdir(self, handle: int, start: int, token: pyfuse3.ReaddirToken) -> None:
        stream = self._names.get(real(handle))
        if stream is None:
            raise pyfuse3.FUSEError(errno.EBADF)
        if start == DOT:
            await self._list(stream)
        dots = ((DOT, b".", stream.ino), (DOTDOT, b"..", stream.above))
        for number, name, ino in dots[start:]:
            if not pyfuse3.readdir_reply(token, name, only_inode(ino, stat.S_IFDIR), number + 1):
                return
        for index in range(max(start - FIRST, 0), len(stream.items)):
            name, number, inode = stream.items[index]
            entry = attributes(number, inode)
            if not pyfuse3.readdir_reply(token, name, entry, index + FIRST + 1):
                return

    async def _list(self, stream: Names) -> None:
        if stream.ino == TOP:
            stream.above = ROOT_INO
            stream.items = [(name, number, self._own(number)) for name, number in NAMES.items()]
            return
        if stream.ino == SNAPSHOTS:
            stream.above = TOP
            snapshots = sorted((await self._snapshots(stream.actor)).items())
            stream.items = [
                (name, link_to(entry.ino), self._link(entry.path)) for name, entry in snapshots
            ]
            return
        if stream.ino == TRASH:
            stream.above = TOP
            named = await self._trash(stream.actor)
            found = [(name, entry.ino) for name, entry in sorted(named.items())]
        else:
            found = await self._names_below(stream)
        stream.items = await self._with_attributes(found, stream.actor)

    async def _names_below(self, stream: Names) -> list[tuple[bytes, int]]:
        ino = real(stream.ino)
        directory = self._cache.directory(ino)  # the master counts on us to remember it
        found: list[tuple[bytes, int]] = []
        after, more = b"", True
        while more:
            question = ReadDirectory(ino, after, PAGE, False, stream.actor)
            page = await self._calls.ask(question, Listing)
            self._cache.learn_listed(directory, page.entries, page.position)
            found += [(item.name, item.ino) for item in page.entries]
            more = page.more and bool(page.entries)
            after = page.entries[-1].name if page.entries else b""
        return found

    async def _with_attributes(self, found: list[tuple[bytes, int]], actor: Actor) -> list[Item]:
        items: list[Item] = []
        for start in range(0, len(found), ATTRIBUTES_MAX):
            some = found[start : start + ATTRIBUTES_MAX]
            entries = await self._calls.ask_attributes([ino for _, ino in some], actor)
            for (name, ino), entry in zip(some, entries, strict=True):
                if entry.inode is not None:
                    items.append((name, hidden(ino), entry.inode))
        return items

    # --- files

    async def open(self, number: int, flags: int, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        if writes(flags) or flags & O_TRUNC:
            raise ReadOnly("nothing is written in .gfs")
        actor = actor_of(ctx)
        if number in (STATS, VERSION):
            text = self._version if number == VERSION else await self._figures()
            handle = hidden(self._texts.add(Text(number, actor, text)))
        else:  # its handle is one like others
            file = await self._calls.client.open(real(number), flags, actor)
            handle = self._calls.hand_out(file, flags).fh
        return pyfuse3.FileInfo(fh=handle, direct_io=True)

    async def _figures(self) -> str:
        now = trio.current_time()
        if now - self._cluster_at > CLUSTER_S:
            try:
                with trio.fail_after(CLUSTER_ANSWER_S):
                    status = await self._calls.ask(ClusterStatus(), Status)
                self._cluster = cluster_totals(msgspec.json.decode(status.json))
                self._cluster_at = now
            except (GfsError, trio.TooSlowError) as error:
                self._cluster = {"no_answer": str(error) or "too slow"}
        return lines({"mount": self._statistics(), "cluster": self._cluster})

    async def read(self, handle: int, offset: int, size: int) -> bytes:
        return self._text(handle).data[offset : offset + size]

    def _text(self, handle: int) -> Text:
        text = self._texts.get(real(handle))
        if text is None:
            raise pyfuse3.FUSEError(errno.EBADF)
        return text

    async def flush(self, handle: int) -> None:
        """Nothing is written."""

    async def fsync(self, handle: int, datasync: bool) -> None:
        """Nothing is written."""

    async def release(self, handle: int) -> None:
        self._texts.pop(real(handle))
