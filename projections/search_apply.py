"""Batches of the stream into the search view: a function of the items' last images.

For each item touched, the table's row is compared with the image and the difference
goes into rows and sums; nothing depends on how many events led there. An inode counts
at its home: the directory of the least (parent, name) of its links.
"""

from __future__ import annotations

import stat
from typing import Any

import apsw

from gfs.changes import Image
from projections.core.following import DirentKey, Items
from projections.search_schema import NOWHERE, ORPHANS, ROOT, STORED, TRASH, extension_of
from projections.search_tree import Tree

_GET_DIRENT = "SELECT id, ino FROM dirents WHERE parent = ? AND name = ?"
_LAST_DIRENT = "SELECT ifnull(max(id), 0) FROM dirents"
_ADD_DIRENT = "INSERT INTO dirents (id, parent, name, ino) VALUES (?, ?, ?, ?)"
_SET_DIRENT = "UPDATE dirents SET ino = ? WHERE id = ?"
_DROP_DIRENT = "DELETE FROM dirents WHERE id = ?"
_ADD_NAME = "INSERT INTO names (rowid, name) VALUES (?, ?)"
_DROP_NAME = "INSERT INTO names (names, rowid, name) VALUES ('delete', ?, ?)"
_LINKS = "SELECT parent, name FROM dirents WHERE ino = ?"
_COLUMNS = (
    "mode, uid, gid, nlink, size, stored, atime_ns, mtime_ns, ctime_ns, created_ns,"
    " data_version, rdev, target, home, extension, xattrs"
)
_GET_INODE = f"SELECT {_COLUMNS} FROM inodes WHERE ino = ?"
_PUT_INODE = f"""
REPLACE INTO inodes (ino, {STORED})
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8 - ?9, ?9, ?10 - ?9, ?11 - ?10, ?12, ?13, ?14, ?15, ?16, ?17)
"""
_SET_INODE = """
UPDATE inodes SET mode = ?1, uid = ?2, gid = ?3, nlink = ?4, size = ?5, stored = ?6,
  atime_after = ?7 - ?8, mtime_ns = ?8, ctime_after = ?9 - ?8, created_after = ?10 - ?9,
  data_version = ?11, rdev = ?12, target = ?13, home = ?14, extension = ?15, xattrs = ?16
WHERE ino = ?17
"""
_DROP_INODE = "DELETE FROM inodes WHERE ino = ?"
_MODE, _UID, _SIZE, _STORED, _HOME, _EXTENSION, _XATTRS = 0, 1, 4, 5, 13, 14, 15
ADD_OWNER = """
INSERT INTO owners VALUES (?, ?, ?, ?, ?) ON CONFLICT (uid) DO UPDATE SET
  files = files + excluded.files, directories = directories + excluded.directories,
  bytes = bytes + excluded.bytes, disk_bytes = disk_bytes + excluded.disk_bytes
"""
ADD_EXTENSION = """
INSERT INTO extensions VALUES (?, ?, ?, ?) ON CONFLICT (extension) DO UPDATE SET
  files = files + excluded.files, bytes = bytes + excluded.bytes,
  disk_bytes = disk_bytes + excluded.disk_bytes
"""


def apply_items(items: Items, connection: apsw.Connection) -> None:
    """Bring all tables to `items`; inside the caller's transaction."""
    _Application(items, connection).run()


class _Application:
    def __init__(self, items: Items, connection: apsw.Connection) -> None:
        self.items = items
        self.execute = connection.cursor().execute
        self.connection = connection
        self.tree = Tree(connection)
        self.named: set[int] = set()  # inodes that got or lost a name
        self.emptied: set[int] = set()  # directories that lost a name
        self.owners: dict[int, list[int]] = {}
        self.extensions: dict[str, list[int]] = {}
        self.places: dict[int, tuple[int, str]] = {}
        self.gone: list[int] = []  # directories whose inode went
        self.added: list[tuple[int, str, int]] = []  # names: parent, name, inode
        self.dropped: list[tuple[int, str]] = []  # names: row, name

    def run(self) -> None:
        self._dirents()
        writes = []
        for ino in dict.fromkeys((*self.items.inodes, *self.named)):
            write = self._inode(ino)
            if write is not None:
                writes.append(write)
        self.execute("")  # ends the last reading, which would forbid a new index
        # Sums at old and new homes come after the moves: a moved directory takes the
        # sums of what it held with it, so places must be those of after the batch.
        self.tree.place(self.places)
        self.tree.flush()
        put = [row for is_new, row in writes if is_new]
        changed = [(*row[1:], row[0]) for is_new, row in writes if not is_new]
        if put:
            self.connection.executemany(_PUT_INODE, put)
        if changed:
            self.connection.executemany(_SET_INODE, changed)
        self._forget_directories()
        self._sums()

    def _dirents(self) -> None:
        """Names that differ; those that come and go all at once, a call each costs more."""
        for key, image in self.items.dirents.items():
            self._dirent(key, image)
        many = self.connection.executemany
        if self.dropped:
            self.dropped.sort()  # FTS5 writes a segment whenever a row's number is not greater
            many(_DROP_NAME, self.dropped)
            many(_DROP_DIRENT, [(row,) for row, _ in self.dropped])
        if self.added:
            last: Any = self.execute(_LAST_DIRENT).fetchone()
            numbered = list(enumerate(self.added, last[0] + 1))
            many(_ADD_DIRENT, [(row, *one) for row, one in numbered])
            many(_ADD_NAME, [(row, one[1]) for row, one in numbered])

    def _dirent(self, key: DirentKey, image: Image | None) -> None:
        row = self.execute(_GET_DIRENT, key).fetchone()
        if row is None:
            if image is None:
                return
            self.added.append((*key, image.ino))
        elif image is None:
            self.dropped.append((row[0], key[1]))
            self.named.add(row[1])
            self.emptied.add(key[0])
            return
        elif row[1] != image.ino:
            self.execute(_SET_DIRENT, (image.ino, row[0]))
            self.named.add(row[1])
        else:
            return
        self.named.add(image.ino)
        if stat.S_ISDIR(image.kind):
            self.places[image.ino] = key

    def _home(self, ino: int) -> tuple[int, str]:
        """The least link: where the inode counts, and under which name."""
        if ino in (ROOT, TRASH):
            return NOWHERE, ""
        links: list[Any] = self.execute(_LINKS, (ino,)).fetchall()
        return min(links) if links else (ORPHANS, "")

    def _inode(self, ino: int) -> tuple[bool, tuple[Any, ...]] | None:
        """Count an inode's difference; the row to be written, and whether it is new."""
        old = self.execute(_GET_INODE, (ino,)).fetchone()
        touched = ino in self.items.inodes
        image = self.items.inodes[ino] if touched else None
        home: tuple[int, str] | None = None
        if old is None or ino in self.named:
            home = self._home(ino)
            if ino in self.places or (old is not None and stat.S_ISDIR(old[_MODE])):
                self._place(ino, home)
        if touched and image is None:
            self._remove(ino, old)
            return None
        if image is None:
            if old is None or home is None:
                return None  # a name whose inode is still to come
            new = list(old)
        else:
            new = self._row(ino, image, old)
        if home is not None:
            new[_HOME] = home[0]
            new[_EXTENSION] = extension_of(home[1]) if stat.S_ISREG(new[_MODE]) else ""
        if old is not None:
            if tuple(new) == old:
                return None
            self._count(old, -1)
        elif home is not None and stat.S_ISDIR(new[_MODE]):
            self._place(ino, home)
        self._count(new, 1)
        return old is None, (ino, *new)

    def _place(self, ino: int, home: tuple[int, str]) -> None:
        if home[0] == ORPHANS:
            self.places[ino] = ORPHANS, str(ino)
        elif home[0] != NOWHERE:
            self.places[ino] = home

    def _row(self, ino: int, image: Image, old: tuple[Any, ...] | None) -> list[Any]:
        if image.attributes or (old is not None and old[_XATTRS]):
            self._xattrs(ino, image.attributes)
        return [
            image.mode,
            image.uid,
            image.gid,
            image.nlink,
            image.size,
            image.stored,
            image.atime_ns,
            image.mtime_ns,
            image.ctime_ns,
            image.created_ns,
            image.data_version,
            image.rdev,
            image.target,
            NOWHERE if old is None else old[_HOME],
            "" if old is None else old[_EXTENSION],
            len(image.attributes),
        ]

    def _xattrs(self, ino: int, attributes: dict[str, str]) -> None:
        self.execute("DELETE FROM xattrs WHERE ino = ?", (ino,))
        for name, value in attributes.items():
            self.execute("INSERT INTO xattrs VALUES (?, ?, ?)", (ino, name, value))

    def _remove(self, ino: int, old: tuple[Any, ...] | None) -> None:
        if old is None:
            return
        self._count(old, -1)
        self.execute(_DROP_INODE, (ino,))
        if old[_XATTRS]:
            self._xattrs(ino, {})
        if stat.S_ISDIR(old[_MODE]):
            self.gone.append(ino)

    def _count(self, row: Any, sign: int) -> None:
        """An inode's row into the sums of directories, owners, extensions."""
        mode, size = row[_MODE], row[_SIZE]
        disk = -(-row[_STORED] // 512) * 512
        directory = stat.S_ISDIR(mode)
        home = row[_HOME]
        if home != NOWHERE:
            self.tree.add(home, directory=directory, size=size, disk=disk, sign=sign)
        owner = self.owners.get(row[_UID])
        if owner is None:
            owner = self.owners[row[_UID]] = [0, 0, 0, 0]
        owner[directory] += sign
        owner[2] += sign * size
        owner[3] += sign * disk
        if stat.S_ISREG(mode):
            extension = self.extensions.get(row[_EXTENSION])
            if extension is None:
                extension = self.extensions[row[_EXTENSION]] = [0, 0, 0]
            extension[0] += sign
            extension[1] += sign * size
            extension[2] += sign * disk

    def _forget_directories(self) -> None:
        """Rows of directories without inode, name or content; reclaim may go top down."""
        for ino in {*self.gone, *self.emptied}:
            if ino in (ORPHANS, ROOT, TRASH) or self.tree.find(ino) is None:
                continue
            for sql in (
                "SELECT 1 FROM inodes WHERE ino = ?",
                "SELECT 1 FROM dirents WHERE parent = ?",
                "SELECT 1 FROM dirents WHERE ino = ?",
            ):
                if self.execute(sql, (ino,)).fetchone():
                    break
            else:
                self.tree.remove(ino)

    def _sums(self) -> None:
        for uid, sums in self.owners.items():
            if any(sums):
                self.execute(ADD_OWNER, (uid, *sums))
        for extension, counts in self.extensions.items():
            if any(counts):
                self.execute(ADD_EXTENSION, (extension, *counts))
        self.execute("DELETE FROM owners WHERE files = 0 AND directories = 0")
        self.execute("DELETE FROM extensions WHERE files = 0")
