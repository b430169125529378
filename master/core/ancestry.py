"""What lies below a session's root: the check of a subtree, made cheap.

A directory knows its parent, so a look upwards decides; what was found is remembered
until some directory gets another parent. A file is where its names are: one of them
below the root is enough.

Source: the subtree check of NFS servers (exports(5)), which has no parent in its handles
for files and therefore fails for renamed ones; here the index of links tells.
"""

from __future__ import annotations

from collections.abc import Callable

from gfs.ids import ROOT_INO, TRASH_INO
from gfs.items import INODES, LINKS_BY_INO, TRASH, Inode, Orphan, Trash
from master.core.tables import Readable, ReadTables

KNOWN_MAX = 100_000
_DEPTH_MAX = 4096


def home_of(tables: Readable, deleted: Trash | Orphan) -> tuple[int, int]:
    """The nearest directory of those that it lay in which stands, and how many below have gone."""
    for gone, directory in enumerate((deleted.parent, *deleted.above)):
        if _stands(tables, directory):
            return directory, gone
    return ROOT_INO, 1 + len(deleted.above)


def names_gone(item: Trash, gone: int) -> list[bytes]:
    """What the `gone` nearest of the directories that it lay in were called, outermost first."""
    return item.path.split(b"/")[-1 - gone : -1]


def _stands(tables: Readable, directory: int) -> bool:
    for _ in range(_DEPTH_MAX):
        if directory == ROOT_INO:
            return True
        inode: Inode | None = tables.get(INODES, (directory,))
        if inode is None or directory == TRASH_INO:
            break
        directory = inode.parent
    return False


class Ancestry:
    """Whether directories and files lie below `root`, which lies below `outer`.

    Args:
      moves: rises whenever a directory of `tables` may have got another parent.
    """

    def __init__(self, tables: ReadTables, root: int, outer: int, moves: Callable[[], int]) -> None:
        self._tables = tables
        self._root = root
        self._outer = outer
        self._moves = moves
        self._known: set[int] = set()
        self._as_of = -1

    def holds(self, ino: int) -> bool:
        """Does it lie there, or is there no such inode at all?"""
        inode: Inode | None = self._tables.get(INODES, (ino,))
        if inode is None:
            return True
        if inode.is_directory:
            return self.holds_directory(ino)
        links = self._tables.by_index(LINKS_BY_INO, ino)
        return any(self.holds_directory(int(parent)) for parent, _ in links)

    def holds_directory(self, ino: int) -> bool:
        """`holds` of what is a directory; False if it is gone."""
        moves = self._moves()
        if moves != self._as_of or len(self._known) > KNOWN_MAX:
            self._known.clear()
            self._as_of = moves
        way: list[int] = []
        here = ino
        while here not in self._known:
            if here == ROOT_INO:
                return self._reached_root([*way, here])
            inode: Inode | None = self._tables.get(INODES, (here,))
            if inode is None or here == TRASH_INO or len(way) > _DEPTH_MAX:
                return False
            way.append(here)
            here = inode.parent
        self._known.update(way)
        return True

    def holds_trashed(self, ino: int) -> bool:
        """Is it in the trash, or below something there, and was that deleted from below `root`?"""
        here = ino
        for _ in range(_DEPTH_MAX):
            item: Trash | None = self._tables.get(TRASH, (here,))
            if item is not None:
                return self.holds_deleted(item)
            inode: Inode | None = self._tables.get(INODES, (here,))
            if inode is None or here in (ROOT_INO, TRASH_INO):
                break
            links = [] if inode.is_directory else self._tables.by_index(LINKS_BY_INO, here, limit=1)
            here = int(links[0][0]) if links else inode.parent
        return False

    def holds_deleted(self, item: Trash | Orphan) -> bool:
        """Is the directory that it was in there, or else the nearest above that still stands?"""
        if self.holds_directory(item.parent):
            return True
        home, gone = home_of(self._tables, item)
        return gone > 0 and self.holds_directory(home)

    def _reached_root(self, way: list[int]) -> bool:
        """`way` leads from a directory to the root of the filesystem."""
        if self._root not in way:
            return False
        at = way.index(self._root)
        if self._outer not in way[at:]:
            return False
        self._known.update(way[: at + 1])
        return True
