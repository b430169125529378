"""Answers from committed state: lookups, listings, layouts, paths.

Every function reads through `tables` (which sees exactly what is durable) and
gives the position it read at. Interest must be registered by the caller
before: a change after the registration then reaches the asker.
"""

from __future__ import annotations

import stat

from gfs.errors import (
    IsADirectory,
    LinkLoop,
    NameTooLong,
    NotADirectory,
    NotFound,
    Refused,
    StaleInode,
)
from gfs.ids import NAME_BYTES_MAX, PATH_BYTES_MAX, ROOT_INO, TRASH_INO
from gfs.items import DIRENTS, INODES, LINKS_BY_INO, TRASH, Dirent, Inode, Trash
from gfs.messages import (
    Actor,
    Entries,
    Entry,
    GetLayout,
    LaidOut,
    Layout,
    ListedName,
    Listing,
    ListSnapshots,
    ListTrash,
    Located,
    LookInTrash,
    Lookup,
    Open,
    Opened,
    ReadDirectory,
    SnapshotEntry,
    SnapshotListing,
    TrashEntry,
    TrashListing,
    Walk,
    Walked,
)
from gfs.open_flags import O_ACCMODE, O_TRUNC
from gfs.permissions import EXECUTE, READ, ROOT_UID
from master.core.chunks import Chunks
from master.core.extents import overlapping
from master.core.namespace import access_wanted
from master.core.permissions import require
from master.core.registry import Registry
from master.core.sessions import Sessions
from master.core.snapshot_marks import marked
from master.core.tables import ReadTables

SYMLINKS_MAX = 40
LISTING_MAX = 10_000
OPENED_EXTENTS_MAX = 64
_DEPTH_MAX = 4096


class Queries:
    """Reads on behalf of one session at a time."""

    def __init__(
        self, tables: ReadTables, registry: Registry, chunks: Chunks, sessions: Sessions
    ) -> None:
        self._tables = tables
        self._sessions = sessions
        self._registry = registry
        self._chunks = chunks

    def inode(self, ino: int) -> Inode:
        """Raises StaleInode."""
        found: Inode | None = self._tables.get(INODES, (ino,))
        if found is None:
            raise StaleInode(f"inode {ino} does not exist")
        return found

    def entry(self, position: int, session: int, ino: int) -> Entry:
        """The inode as a session may see and cache it; `ino` 0 in it when it is gone."""
        self._registry.shown(session, ino)
        inode: Inode | None = self._tables.get(INODES, (ino,))
        if inode is None:
            return Entry(position, 0, None)
        return Entry(position, ino, inode, self._cacheable(session, ino, inode))

    def _cacheable(self, session: int, ino: int, inode: Inode) -> bool:
        if not self._sessions.gate_open():
            return False  # who writes it may not be back yet
        return inode.tail == 0 and not self._registry.other_writers(ino, session)

    def lookup(self, position: int, session: int, ask: Lookup) -> Entry:
        """A name in a directory; absent is an answer."""
        directory = self.inode(ask.parent)
        if not directory.is_directory:
            raise NotADirectory("not a directory")
        require(directory, ask.actor, EXECUTE)
        if len(ask.name) > NAME_BYTES_MAX:
            raise NameTooLong("name too long")
        return self.entry(position, session, self._child(ask.parent, directory, ask.name))

    def _child(self, parent: int, directory: Inode, name: bytes, top: int = ROOT_INO) -> int:
        if name == b"." or (name == b".." and parent == top):
            return parent
        if name == b"..":
            return directory.parent or ROOT_INO
        dirent: Dirent | None = self._tables.get(DIRENTS, (parent, name))
        return dirent.ino if dirent else 0

    def attributes(self, position: int, session: int, inos: list[int]) -> Entries:
        return Entries(position, [self.entry(position, session, ino) for ino in inos])

    def listing(self, position: int, session: int, ask: ReadDirectory) -> Listing:
        """A page of a directory."""
        directory = self.inode(ask.ino)
        if not directory.is_directory:
            raise NotADirectory("not a directory")
        if session not in self._registry.openers.get(ask.ino, ()):
            require(directory, ask.actor, READ)
        limit = min(max(ask.limit, 1), LISTING_MAX)
        found = self._tables.range(DIRENTS, ask.ino, after=ask.after or None, limit=limit)
        names = [self._listed(session, key[1], dirent, ask.plus) for key, dirent in found]
        return Listing(position, names, len(found) == limit)

    def _listed(self, session: int, name: bytes, dirent: Dirent, plus: bool) -> ListedName:
        if not plus:
            return ListedName(name, dirent.ino, dirent.kind)
        self._registry.shown(session, dirent.ino)
        inode: Inode | None = self._tables.get(INODES, (dirent.ino,))
        cacheable = inode is not None and self._cacheable(session, dirent.ino, inode)
        return ListedName(name, dirent.ino, dirent.kind, inode, cacheable)

    def check_open(self, ask: Open) -> Inode:
        """May the actor open it so?"""
        inode = self.inode(ask.ino)
        if inode.is_directory and ask.flags & (O_ACCMODE | O_TRUNC):
            raise IsADirectory("is a directory")
        require(inode, ask.actor, access_wanted(ask.flags))
        return inode

    def opened(self, position: int, session: int, ask: Open) -> Opened:
        """After the open was registered: attributes, and the layout if it is short."""
        entry = self.entry(position, session, ask.ino)
        if entry.inode is None:
            raise StaleInode(f"inode {ask.ino} does not exist")
        shared = bool(self._registry.other_writers(ask.ino, session))
        if not entry.inode.is_file:
            return Opened(entry, [], [], True, shared)
        laid_out = self._extents(ask.ino, 0, entry.inode.size, OPENED_EXTENTS_MAX + 1)
        if len(laid_out) > OPENED_EXTENTS_MAX:
            return Opened(entry, [], [], False, shared)
        return Opened(entry, laid_out, self.located(entry.inode, laid_out), True, shared)

    def _extents(self, ino: int, begin: int, end: int, limit: int | None) -> list[LaidOut]:
        found = overlapping(self._tables, ino, begin, end, limit=limit)
        return [LaidOut(offset, extent) for offset, extent in found]

    def located(self, inode: Inode, laid_out: list[LaidOut]) -> list[Located]:
        """Chunks of these extents, and the tail's."""
        handles = {item.extent.handle for item in laid_out}
        if inode.tail:
            handles.add(inode.tail)
        return self.locations(sorted(handles))

    def locations(self, handles: list[int]) -> list[Located]:
        """Where these chunks can be read; unknown ones are left out."""
        found = (self._chunks.located(self._tables, handle) for handle in handles)
        return [located for located in found if located is not None]

    def layout(self, position: int, session: int, ask: GetLayout) -> Layout:
        """Extents of a range of a file that is open, or that the actor may read."""
        inode = self.inode(ask.ino)
        if session not in self._registry.openers.get(ask.ino, ()):
            require(inode, ask.actor, READ)
        laid_out = self._extents(ask.ino, ask.offset, ask.offset + ask.length, None)
        chunks = self.located(inode, laid_out)
        return Layout(position, inode.data_version, inode.size, laid_out, chunks)

    def walk(self, position: int, session: int, ask: Walk) -> Walked:
        """Resolve a path as path_resolution(7) says."""
        if len(ask.path) > PATH_BYTES_MAX:
            raise NameTooLong(f"path of {len(ask.path)} bytes")
        top = ask.top
        parent = here = top if ask.path.startswith(b"/") else ask.start
        name = b""
        left = [part for part in reversed(ask.path.split(b"/")) if part]
        links = 0
        while left:
            part = left.pop()
            directory = self._searchable(here, ask.actor)
            child = self._child(here, directory, part, top)
            inode: Inode | None = self._tables.get(INODES, (child,)) if child else None
            if inode is not None and stat.S_ISLNK(inode.mode) and (left or ask.follow):
                links += 1
                if links > SYMLINKS_MAX:
                    raise LinkLoop("too many symbolic links")
                left += [part for part in reversed(inode.target.split(b"/")) if part]
                here = top if inode.target.startswith(b"/") else here
                continue
            if not child:
                if left:
                    raise NotFound("no such file or directory")
                return Walked(here, part, Entry(position, 0, None))
            parent, name, here = here, part, child
        return Walked(parent, name, self.entry(position, session, here))

    def _searchable(self, ino: int, actor: Actor) -> Inode:
        directory = self.inode(ino)
        if not directory.is_directory:
            raise NotADirectory("not a directory")
        require(directory, actor, EXECUTE)
        return directory

    def path(self, ino: int, top: int = ROOT_INO) -> bytes:
        """A path of the inode from `top`, by its least name that has one; raises StaleInode."""
        if ino == top:
            return b"/"
        for parent, name in self._tables.by_index(LINKS_BY_INO, ino):
            above = self._directory_path(int(parent), top)
            if above is not None:
                return above + b"/" + bytes(name)
        raise StaleInode("not reachable from the root")

    def _directory_path(self, ino: int, top: int) -> bytes | None:
        """Path of a directory, b"" for `top` itself; None: it lies elsewhere."""
        parts: list[bytes] = []
        for _ in range(_DEPTH_MAX):
            if ino == top:
                return b"".join(b"/" + part for part in reversed(parts))
            keys = self._tables.by_index(LINKS_BY_INO, ino, limit=1)
            if not keys or keys[0][0] == TRASH_INO:
                return None
            ino = int(keys[0][0])
            parts.append(bytes(keys[0][1]))
        return None

    def trash(self, ask: ListTrash) -> TrashListing:
        """Newest inode numbers last; root sees all, others what they deleted."""
        limit = min(max(ask.limit, 1), LISTING_MAX)
        after = (ask.after,) if ask.after else None
        found = self._tables.scan(TRASH, after=after, limit=limit)
        entries = [
            self._trash_entry(int(key[0]), item)
            for key, item in found
            if ask.actor.uid in (ROOT_UID, item.uid) and item.deleted_ns
        ]
        last = int(found[-1][0][0]) if found else 0
        return TrashListing(entries, len(found) == limit, last)

    def look_in_trash(self, position: int, ask: LookInTrash) -> Entry:
        """What lies below an entry of the trash.

        Raises: NotFound, NotADirectory, NotPermitted, PermissionDenied.
        """
        item: Trash | None = self._tables.get(TRASH, (ask.ino,))
        if item is None or ask.actor.uid not in (ROOT_UID, item.uid):
            raise NotFound(f"nothing with number {ask.ino} is in the trash")
        here = ask.ino
        for name in (part for part in ask.part.split(b"/") if part):
            inode: Inode | None = self._tables.get(INODES, (here,))
            if inode is None or not inode.is_directory:
                raise NotADirectory("not a directory")
            require(inode, ask.actor, EXECUTE)
            dirent: Dirent | None = self._tables.get(DIRENTS, (here, name))
            if dirent is None:
                raise NotFound("no such file or directory")
            here = dirent.ino
        return Entry(position, here, self._tables.get(INODES, (here,)))

    def snapshots(self, ask: ListSnapshots) -> SnapshotListing:
        """Those that stand below the root, by a path that the actor may walk."""
        found = (self._snapshot(ino, ask) for ino in marked(self._tables))
        return SnapshotListing([entry for entry in found if entry is not None])

    def _snapshot(self, ino: int, ask: ListSnapshots) -> SnapshotEntry | None:
        if ino == ask.top:
            return None  # it has no name there
        try:
            inode, path = self.inode(ino), self.path(ino, ask.top)
            here = ask.top
            for part in path.split(b"/")[1:]:
                here = self._child(here, self._searchable(here, ask.actor), part)
        except Refused:
            return None
        return SnapshotEntry(ino, path, inode.created_ns, stat.S_IFMT(inode.mode))

    def _trash_entry(self, ino: int, item: Trash) -> TrashEntry:
        inode: Inode | None = self._tables.get(INODES, (ino,))
        size, mode = (inode.size, inode.mode) if inode else (0, 0)
        return TrashEntry(ino, item.path, item.deleted_ns, item.uid, size, stat.S_IFMT(mode))
