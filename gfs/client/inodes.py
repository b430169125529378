"""Files that this process has open: what is known of each, shared by its handles.

`attributes` are as of a log position; an invalidation at a higher one makes
them stale, and the next who needs a size asks the master again. Once invalidations may have
been missed (the session or its lease is over) only what is asked for afterwards counts,
whatever is still on its way to who asked before. While a file
has a tail its size is the primary's to say; a length once acknowledged stays
acknowledged, so reads below it ask nobody.
"""

from __future__ import annotations

from gfs.client.appending import Appender
from gfs.client.dirty import DirtyFile
from gfs.client.metadata import MasterLink
from gfs.client.reading import TailRange
from gfs.client.tails import TailSizes
from gfs.errors import GfsError, StaleInode
from gfs.items import Inode
from gfs.messages import Actor, Entries, Entry, GetAttributes


class OpenInode:
    """One inode with open handles.

    Attributes:
      handles, writing: open handles; those of them open for writing.
      registered: the master counts it as open, as it has answered.
      shared: another session writes it, so closes write through.
      appender: of all O_APPEND handles, made with the first record.
      distrusts: how often all that was known had to be given up.
      tail: where the file continues with an open tail chunk.
      tail_known: file offset below which the tail is known to be acknowledged.
    """

    __slots__ = (
        "appender",
        "attributes",
        "dirty",
        "distrusted",
        "distrusts",
        "handles",
        "ino",
        "invalid_at",
        "invalidations",
        "position",
        "registered",
        "shared",
        "stale",
        "tail",
        "tail_known",
        "writing",
    )

    def __init__(self, ino: int) -> None:
        self.ino = ino
        self.handles = self.writing = 0
        self.shared = self.registered = False
        self.attributes: Inode | None = None
        self.position = -1
        self.invalid_at = -1
        self.invalidations = 0
        self.stale = True
        self.distrusts = 0
        self.distrusted = False
        self.tail: TailRange | None = None
        self.tail_known = 0
        self.appender: Appender | None = None
        self.dirty: DirtyFile | None = None

    def learn(self, entry: Entry, *, asked: int = -1) -> None:
        """Fresh attributes; older ones than we have are ignored.

        Args:
          asked: `distrusts` when they were asked for, if that is known.
        """
        if entry.inode is None or entry.position < self.position:
            return
        self.attributes = entry.inode
        self.position = entry.position
        if asked == self.distrusts:
            self.distrusted = False
        self.stale = self.distrusted or entry.position < self.invalid_at
        self.set_tail(entry.inode.tail, entry.inode.tail_offset)

    def set_tail(self, handle: int, offset: int) -> None:
        """The open tail, handle 0 for none."""
        tail = TailRange(handle, offset) if handle else None
        if tail != self.tail:
            self.tail = tail
            self.tail_known = 0

    def invalidate(self, position: int) -> None:
        """Somebody changed the inode at `position`, or will: it is being written elsewhere."""
        self.invalidations += 1
        self.invalid_at = max(self.invalid_at, position)
        if self.position < position:
            self.stale = True

    def distrust(self) -> None:
        """Somebody may have changed the inode, and nobody could tell us."""
        self.distrusts += 1
        self.stale = self.distrusted = True

    async def refresh(self, link: MasterLink, actor: Actor) -> Inode:
        """Attributes that are as fresh as the last invalidation.

        An answer is, whatever its position, if it was asked for after that came: who becomes a
        writer invalidates as of the next position, and there may be none for a long time.

        Raises:
          StaleInode: the inode is gone.
        """
        while self.stale or self.attributes is None:
            invalidations, asked = self.invalidations, self.distrusts
            answer = await link.ask(GetAttributes([self.ino], actor), Entries)
            entry = answer.entries[0]
            if entry.inode is None:
                raise StaleInode(f"inode {self.ino} is gone")
            self.learn(entry, asked=asked)
            if entry.position == self.position and invalidations == self.invalidations:
                self.stale = self.distrusted
                return entry.inode  # fresh for this asker, whatever others begin to distrust
        return self.attributes

    async def acknowledged_size(self, link: MasterLink, tails: TailSizes, actor: Actor) -> int:
        """Committed size, and what all members of the tail have; waits for own appends."""
        await self.wait_for_appends()
        while True:
            inode = await self.refresh(link, actor)
            tail = self.tail
            if tail is None:
                return inode.size
            end = await tails.end(tail.handle)
            if not end.is_sealed:
                break
            self.stale = True  # others may have gone on in another one while we were not told
        known = tail.offset + end.length
        if self.tail == tail:
            self.tail_known = max(self.tail_known, known)
        return max(inode.size, known)

    @property
    def data_version(self) -> int:
        """Of the attributes last learnt; -1 before there are any."""
        return -1 if self.attributes is None else self.attributes.data_version

    def known_size(self) -> int:
        """A size that is certain without asking, perhaps too small; 0 if nothing is."""
        if self.stale or self.attributes is None:
            return 0
        return max(self.attributes.size, self.tail_known)

    async def wait_for_appends(self) -> None:
        """Until the window of own appends has landed; their errors are their handles'."""
        appender = self.appender
        if appender is not None and not appender.idle:
            try:
                await appender.wait()
            except GfsError:
                pass

    @property
    def busy_appending(self) -> bool:
        return self.appender is not None and not self.appender.idle
