"""A session that may not do everything: its requests in the master's terms, answers in its own.

    the client's message --inward--> the master's --require--> decided as any other
    the master's answer  --outward--> the client's

The session's root is inode 1 to it, its users have its own numbers, and an inode that it
names must lie below its root when the request is decided: what was moved out of there
meanwhile is stale, except for files that it has open. So nothing behind this module knows
of restrictions, and the log, the stream and other sessions see the filesystem as it is.

A message is refused unless a table here says which inodes it names, so one that is new
reaches nothing through a restricted session before somebody has thought of it.

What chunk servers are asked does not pass here: who has the cluster's key and knows a
chunk's handle can read it (docs/deploy.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from msgspec.structs import replace

from gfs import messages as m
from gfs.errors import GfsError, NotPermitted, ReadOnly, StaleInode
from gfs.ids import ROOT_INO
from gfs.items import INODES, ORPHANS, TRASH, Inode, Orphan, Trash
from gfs.messages import Access, Message
from gfs.open_flags import O_TRUNC, writes
from gfs.squashing import Layers
from master.core.ancestry import Ancestry, home_of, names_gone
from master.core.registry import Registry
from master.core.tables import ReadTables

# Fields that name inodes which must lie below the root; others only have the root renamed.
_NAMED: dict[type[Message], tuple[str, ...]] = {
    m.Lookup: ("parent",),
    m.ReadDirectory: ("ino",),
    m.Open: ("ino",),
    m.GetLayout: ("ino",),
    m.Walk: ("start",),
    m.PathOf: ("ino",),
    m.StatFilesystem: ("ino",),
    m.Create: ("parent",),
    m.MakeNode: ("parent",),
    m.MakeSymlink: ("parent",),
    m.MakeLink: ("ino", "parent"),
    m.Unlink: ("parent",),
    m.RemoveDirectory: ("parent",),
    m.RemoveTree: ("parent",),
    m.Rename: ("parent", "new_parent"),
    m.SetAttributes: ("ino",),
    m.SetXattr: ("ino",),
    m.RemoveXattr: ("ino",),
    m.Snapshot: ("ino", "parent"),
    m.Clone: ("ino", "parent"),
    m.Undelete: ("parent",),
    m.OpenTail: ("ino",),
    m.ResolveTail: ("ino",),
    m.TakeLock: ("ino",),
    m.ListLocks: ("ino",),
}
_RENAMED: dict[type[Message], tuple[str, ...]] = {
    m.GetAttributes: ("inos",),  # those outside are gone, says the answer
    m.CloseFiles: ("inos", "written"),
    m.DropInterest: ("directories",),
}
_OF_TRASH: dict[type[Message], str] = {
    m.LookInTrash: "ino",
    m.Undelete: "ino",
    m.EmptyTrash: "inos",
}
_OF_NOTHING = {
    *(m.Locate, m.Renew, m.ListTrash, m.ListSnapshots, m.Allocate, m.SealChunk, m.DropLock)
}
# They speak of directories above the root and of what others use.
REFUSED = {m.GetQuota, m.ListQuotas, m.SetQuota, m.ClearQuota}
KNOWN = {*_NAMED, *_RENAMED, *_OF_TRASH, *_OF_NOTHING, m.Commit, m.NoteAccess}
_FROM_TOP = (m.Walk, m.PathOf, m.ListSnapshots, m.Undelete)


def changes(flags: int) -> bool:
    """Is a file opened with these flags to be changed?"""
    return bool(writes(flags) or flags & O_TRUNC)


class Confines:
    """The restrictions of one session. `session` is set by whoever gives it to one.

    Args:
      limits: what it is granted, and what its client wishes; the wish last.
      root: inode of its root directory.
      outer: that of the directory which is exported to it.
      path: of an inode from a directory above it, as `Queries.path`.
      committed, decided: tables as readers see them and as the step has them, each with
        the counter of moves that `Ancestry` wants.
    """

    def __init__(
        self,
        limits: list[Access],
        root: int,
        outer: int,
        registry: Registry,
        path: Callable[[int, int], bytes],
        committed: tuple[ReadTables, Callable[[], int]],
        decided: tuple[ReadTables, Callable[[], int]],
    ) -> None:
        self.limits = limits
        self.root = root
        self.session = 0
        self.read_only = any(access.read_only for access in limits)
        self._registry = registry
        self._path = path
        self._layers = Layers(limits)
        self._is_whole = root == ROOT_INO
        self._plain = self._is_whole and not self._layers.renumbers
        self._committed, self._decided = committed[0], decided[0]
        self._below_committed = Ancestry(committed[0], root, outer, committed[1])
        self._below_decided = Ancestry(decided[0], root, outer, decided[1])

    # --- what it asks

    def inward(self, message: Any) -> Any:
        """The message in the master's terms; `Mutate` with its actor and operation.

        Raises:
          ReadOnly: it would change something and the session may not.
          NotPermitted: no session with restrictions may ask this.
          InvalidArgument: an owner whom its map does not know.
        """
        if type(message) is m.Mutate:
            if self.read_only:
                raise ReadOnly("read-only: the session may change nothing")
            operation = self._renamed(message.operation)
            return replace(message, actor=self._layers.actor(message.actor), operation=operation)
        if self.read_only and type(message) is m.Open and changes(message.flags):
            raise ReadOnly("read-only: files can be opened for reading alone")
        if self.read_only and isinstance(message, m.TakeLock | m.NoteAccess):
            raise ReadOnly("read-only: the session may change nothing")
        changed = self._renamed(message)
        said = getattr(changed, "actor", None)
        return changed if said is None else replace(changed, actor=self._layers.actor(said))

    def _renamed(self, message: Any) -> Any:
        kind = type(message)
        if kind not in KNOWN:
            raise NotPermitted(f"{kind.__name__} is not for a session with restrictions")
        if kind is m.SetAttributes:
            uid, gid = self._layers.owner(message.uid, message.gid)
            message = replace(message, uid=uid, gid=gid)
        if self._is_whole:
            return message
        if (
            kind is m.Lookup
            and message.name == b".."
            and self._inward_ino(message.parent) == self.root
        ):
            message = replace(message, name=b".")
        if kind is m.ListLocks and not message.ino:
            raise NotPermitted("locks are listed one by one below a directory")
        if kind is m.NoteAccess:
            times = [replace(one, ino=self._inward_ino(one.ino)) for one in message.times]
            return replace(message, times=times)
        fields = _NAMED.get(kind) or _RENAMED.get(kind) or ()
        changes = {name: self._inward_ino(getattr(message, name)) for name in fields}
        if kind in _FROM_TOP:
            changes["top"] = self.root
        return replace(message, **changes) if changes else message

    def _inward_ino(self, named: Any) -> Any:
        if isinstance(named, list):
            return [self._inward_ino(ino) for ino in named]
        return self.root if named == ROOT_INO else named

    # --- what it may reach

    def require(self, message: Any, *, in_step: bool) -> Any:
        """Everything the message names lies below the root; the message, what does not cut out.

        Asked each time a request is decided, on what it is decided from.

        Raises:
          StaleInode: something does not.
        """
        if self._is_whole:
            return message
        kind = type(message)
        for name in _NAMED.get(kind, ()):
            self._require(getattr(message, name), in_step)
        if kind is m.Commit:
            for file in message.files:
                self._require(file.ino, in_step)
        elif kind is m.NoteAccess:
            times = [one for one in message.times if self._reaches(one.ino, in_step)]
            return replace(message, times=times)
        elif kind is m.GetAttributes:
            found = [ino if self._reaches(ino, in_step) else 0 for ino in message.inos]
            return replace(message, inos=found)
        elif kind in _OF_TRASH:
            named = getattr(message, _OF_TRASH[kind])
            for ino in named if isinstance(named, list) else [named]:
                self._require_trash(ino, in_step)
        return message

    def _require(self, ino: int, in_step: bool) -> None:
        if not self._reaches(ino, in_step):
            raise StaleInode(f"inode {ino} does not lie below the root of this session")

    def _reaches(self, ino: int, in_step: bool) -> bool:
        if self._has_open(ino) and not self._is_directory(ino, in_step):
            return True
        below = self._below_decided if in_step else self._below_committed
        return below.holds(ino) or below.holds_trashed(ino)

    def _has_open(self, ino: int) -> bool:
        registry = self._registry
        return any(self.session in of.get(ino, ()) for of in (registry.openers, registry.writers))

    def _is_directory(self, ino: int, in_step: bool) -> bool:
        tables = self._decided if in_step else self._committed
        inode: Inode | None = tables.get(INODES, (ino,))
        return inode is not None and inode.is_directory

    def _require_trash(self, ino: int, in_step: bool) -> None:
        if not self._holds_trash(ino, in_step):
            raise StaleInode("it was not deleted below the root of this session")

    def _holds_trash(self, ino: int, in_step: bool) -> bool:
        """Does what it was deleted from lie below the root?"""
        tables = self._decided if in_step else self._committed
        item: Trash | None = tables.get(TRASH, (ino,))
        below = self._below_decided if in_step else self._below_committed
        return item is None or below.holds_deleted(item)

    def declared(self, ask: m.OpenSession) -> tuple[m.OpenSession, set[int]]:
        """What a session that is taken up holds, without what it does not reach; and that."""
        lost: set[int] = set()
        if self._is_whole:
            return ask, lost

        def kept(inos: Iterable[int]) -> list[int]:
            inward = [self._inward_ino(ino) for ino in inos]
            lost.update(ino for ino in inward if not self._may_hold(ino))
            return [ino for ino in inward if ino not in lost]

        directories, opens, writers = kept(ask.directories), kept(ask.opens), kept(ask.writers)
        ask = replace(ask, directories=directories, opens=opens, writers=writers)
        return ask, lost

    def _may_hold(self, ino: int) -> bool:
        """As `_reaches`; a file without a name was where its last one was."""
        if self._reaches(ino, True):
            return True
        orphan: Orphan | None = self._decided.get(ORPHANS, (ino,))
        return orphan is not None and self._below_decided.holds_deleted(orphan)

    # --- what it is answered

    def outward(self, answer: Any) -> Any:
        """An answer, or what the master asks of the session, in the client's terms."""
        if isinstance(answer, GfsError):
            return answer
        if type(answer) is m.TrashListing:
            return self._listed_trash(answer)
        translate = _OUTWARD.get(type(answer))
        return answer if translate is None or self._plain else translate(self, answer)

    def _ino(self, ino: int) -> int:
        return ROOT_INO if ino == self.root else ino

    def _inode(self, ino: int, inode: Inode | None) -> Inode | None:
        if inode is None:
            return None
        uid, gid = self._layers.shown(inode.uid, inode.gid)
        parent = ROOT_INO if ino == self.root else self._ino(inode.parent)
        return replace(inode, uid=uid, gid=gid, parent=parent)

    def _entry(self, entry: m.Entry) -> m.Entry:
        inode = self._inode(entry.ino, entry.inode)
        return replace(entry, ino=self._ino(entry.ino), inode=inode)

    def _entries(self, answer: m.Entries) -> Message:
        return replace(answer, entries=[self._entry(entry) for entry in answer.entries])

    def _listing(self, answer: m.Listing) -> Message:
        entries = [
            replace(listed, inode=self._inode(listed.ino, listed.inode))
            for listed in answer.entries
        ]
        return replace(answer, entries=entries)

    def _opened(self, answer: m.Opened) -> Message:
        return replace(answer, entry=self._entry(answer.entry))

    def _walked(self, answer: m.Walked) -> Message:
        return replace(answer, parent=self._ino(answer.parent), entry=self._entry(answer.entry))

    def _done(self, answer: m.Done) -> Message:
        committed = [
            one if one.entry is None else replace(one, entry=self._entry(one.entry))
            for one in answer.committed
        ]
        return replace(
            answer,
            entry=None if answer.entry is None else self._entry(answer.entry),
            parents=[self._entry(parent) for parent in answer.parents],
            committed=committed,
        )

    def _locks(self, answer: m.LockListing) -> Message:
        """Without paths: those are from the master's root."""
        locks = [
            replace(
                one, ino=self._ino(one.ino), uid=self._layers.shown(one.uid, 0)[0],
                path=one.path if self._is_whole else b"",
            )
            for one in answer.locks
        ]  # fmt: skip
        return replace(answer, locks=locks)

    def _invalidate(self, order: m.Invalidate) -> Message:
        names = [m.NamePair(self._ino(pair.parent), pair.name) for pair in order.names]
        return replace(order, names=names, inos=[self._ino(ino) for ino in order.inos])

    def _listed_trash(self, answer: m.TrashListing) -> Message:
        """Without what was not deleted below the root; paths from there, the client's numbers."""
        entries = []
        for entry in answer.entries:
            if self._is_whole or self._holds_trash(entry.ino, False):
                uid, _ = self._layers.shown(entry.uid, 0)
                entries.append(replace(entry, uid=uid, path=self._trash_path(entry)))
        return replace(answer, entries=entries)

    def _trash_path(self, entry: m.TrashEntry) -> bytes:
        item: Trash | None = self._committed.get(TRASH, (entry.ino,))
        if self._is_whole or item is None:
            return entry.path
        home, gone = home_of(self._committed, item)
        below = [self._path(home, self.root).rstrip(b"/"), *names_gone(item, gone), item.name]
        return b"/".join(below)


_OUTWARD: dict[type[Message], Callable[[Confines, Any], Message]] = {
    m.Entry: Confines._entry,
    m.Entries: Confines._entries,
    m.Listing: Confines._listing,
    m.Opened: Confines._opened,
    m.Walked: Confines._walked,
    m.Done: Confines._done,
    m.LockListing: Confines._locks,
    m.Invalidate: Confines._invalidate,
}
