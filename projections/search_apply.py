"""Batches of the stream into the search view: a function of the items' last images.

For each item touched, the table's row is compared with the image and the difference
goes into rows and sums; nothing depends on how many events led there. An inode counts
at its home: the directory of the least (parent, name) of its names, which stands in
its own row; other names stand in `links`. Rows are read and written in few calls, in
the order of their numbers: a row's page is then fetched once.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from operator import itemgetter
from typing import Any

import apsw

from gfs.changes import Image
from projections.core.following import DirentKey, Items
from projections.search_schema import NOWHERE, ORPHANS, ROOT, STORED, TRASH, extension_of
from projections.search_tree import Tree

# Who has a name: what is asked for by its place among all, inode, number of the link or 0.
_HOLDERS = """
SELECT ?1, ino, 0 FROM inodes WHERE home = ?2 AND name = ?3
UNION ALL SELECT ?1, ino, id FROM links WHERE parent = ?2 AND name = ?3
"""
_LINKS = "SELECT ino, parent, name, id FROM links WHERE ino = ?"
_LAST_LINK = "SELECT ifnull(min(id), 0) FROM links"  # they are numbered downwards
_ADD_LINK = "INSERT INTO links (id, parent, name, ino) VALUES (?, ?, ?, ?)"
DROP_LINK = "DELETE FROM links WHERE id = ?"
_ADD_NAME = "INSERT INTO names (rowid, name) VALUES (?, ?)"
DROP_NAME = "INSERT INTO names (names, rowid, name) VALUES ('delete', ?, ?)"
_GET_INODE = """
SELECT home, name, extension, mode, uid, gid, nlink, size, stored, atime_ns, mtime_ns, ctime_ns,
  created_ns, data_version, rdev, target, xattrs, ino FROM inodes WHERE ino = ?
"""
_HOME, _NAME, _EXTENSION, _MODE, _UID, _SIZE, _STORED, _XATTRS, _INO = 0, 1, 2, 3, 4, 7, 8, 16, 17
_VALUES = (
    *("?4", "?5", "?6", "?7", "?8", "?9", "?10 - ?11", "?11", "?12 - ?11", "?13 - ?12"),
    *("?14", "?15", "?16", "?17"),
)
_PUT_INODE = f"""
INSERT INTO inodes (ino, {STORED}) VALUES (?18, ?1, ?2, ?3, {", ".join(_VALUES)})
"""
_ATTRIBUTES = ", ".join(
    f"{name} = {value}"
    for name, value in zip(STORED.split(", ")[3:], _VALUES, strict=True)
    if name != "size"
)
# An index is changed whenever a column of it is named, whatever the value.
_SET_ATTRIBUTES = f"UPDATE inodes SET {_ATTRIBUTES} WHERE ino = ?18"
_SET_SIZE = f"UPDATE inodes SET size = ?8, {_ATTRIBUTES} WHERE ino = ?18"
_SET_NAME = f"""
UPDATE inodes SET home = ?1, name = ?2, extension = ?3, size = ?8, {_ATTRIBUTES} WHERE ino = ?18
"""
_DROP_INODE = "DELETE FROM inodes WHERE ino = ?"
_COUNTED = itemgetter(_HOME, _EXTENSION, _MODE, _UID, _SIZE, _STORED)
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
_NO_OWNER = "DELETE FROM owners WHERE uid = ? AND files = 0 AND directories = 0"
_NO_EXTENSION = "DELETE FROM extensions WHERE extension = ? AND files = 0"
Row = tuple[Any, ...]  # as _GET_INODE gives it


def apply_items(items: Items, connection: apsw.Connection) -> None:
    """Bring all tables to `items`; inside the caller's transaction."""
    if items.inodes or items.dirents:
        _Application(items, connection).run()


class _Application:
    def __init__(self, items: Items, connection: apsw.Connection) -> None:
        self.items = items
        self.execute = connection.cursor().execute
        self.connection = connection
        self.tree = Tree(connection)
        self.got: dict[int, list[DirentKey]] = {}  # names that inodes get
        self.lost: set[int] = set()  # inodes that lose the name in their row
        self.emptied: set[int] = set()  # directories that lose a name
        self.owners: dict[int, list[int]] = {}
        self.extensions: dict[str, list[int]] = {}
        self.places: dict[int, DirentKey] = {}
        self.added: list[tuple[int, str, int]] = []  # links: parent, name, inode
        self.links: dict[int, dict[DirentKey, int]] = {}  # of those who need a least one
        self.dropped: set[int] = set()  # links
        # The index of names: number, 0 to take out or 1 to put in, name.
        self.words: list[tuple[int, int, str]] = []
        self.put: list[Row] = []
        self.changed: dict[str, list[Row]] = {_SET_ATTRIBUTES: [], _SET_SIZE: [], _SET_NAME: []}
        self.removed: list[int] = []

    def run(self) -> None:
        self._names()
        numbers = sorted({*self.items.inodes, *self.got, *self.lost})
        rows = {row[_INO]: row for row in self._each(_GET_INODE, ((ino,) for ino in numbers))}
        self._links([ino for ino in numbers if ino in self.lost or ino not in rows])
        for ino in numbers:
            self._inode(ino, rows.get(ino))
        # Sums at old and new homes come after the moves: a moved directory takes the
        # sums of what it held with it, so places must be those of after the batch.
        self.tree.place(self.places)
        self.tree.flush()
        self._write()
        self._forget_directories()
        self._sums()

    def _each(self, sql: str, bound: Iterable[tuple[Any, ...]]) -> list[Any]:
        """Rows of all questions. Read to the end, since what is read forbids a new index."""
        return self.connection.executemany(sql, bound).fetchall()

    def _many(self, sql: str, rows: Iterable[tuple[Any, ...]]) -> None:
        self.connection.executemany(sql, rows)

    def _names(self) -> None:
        """Who gets and who loses names, compared with who has them."""
        keys = sorted(self.items.dirents)
        holders = {
            at: (ino, link)
            for at, ino, link in self._each(_HOLDERS, ((at, *key) for at, key in enumerate(keys)))
        }
        for at, key in enumerate(keys):
            image = self.items.dirents[key]
            ino, link = holders.get(at, (None, 0))
            if image is not None and image.ino != ino:
                self.got.setdefault(image.ino, []).append(key)
                if stat.S_ISDIR(image.kind):  # of a copy the name comes before the inode
                    self.places[image.ino] = key
            if ino is None or (image is not None and image.ino == ino):
                continue
            if link:
                self._drop_link(link, key[1])
            else:
                self.lost.add(ino)
            if image is None:
                self.emptied.add(key[0])

    def _drop_link(self, link: int, name: str) -> None:
        self.dropped.add(link)
        self.words.append((link, 0, name))

    def _inode(self, ino: int, old: Row | None) -> None:
        """Note an inode's difference: rows, sums, places."""
        touched = ino in self.items.inodes
        image = self.items.inodes[ino] if touched else None
        if image is None and (touched or old is None):
            self._without_inode(ino, old)
            return
        if image is None:
            assert old is not None
            values = old[_MODE:_INO]
        else:
            values = _values(image)
            if image.attributes or (old is not None and old[_XATTRS]):
                self._xattrs(ino, image.attributes)
        named = old is None or ino in self.got or ino in self.lost
        if old is None or named:
            place = self._least(ino, old)
            extension = extension_of(place[1]) if stat.S_ISREG(values[0]) else ""
        else:
            place, extension = (old[_HOME], old[_NAME]), old[_EXTENSION]
        new = (*place, extension, *values, ino)
        if new == old:
            return
        if old is None:
            self.put.append(new)
        elif new[:_MODE] != old[:_MODE]:
            self.changed[_SET_NAME].append(new)
        elif new[_SIZE] != old[_SIZE]:
            self.changed[_SET_SIZE].append(new)
        else:
            self.changed[_SET_ATTRIBUTES].append(new)
        if named:
            self._renamed(new, old)
        self._count(new, old)

    def _renamed(self, new: Row, old: Row | None) -> None:
        before = "" if old is None else old[_NAME]
        if before != new[_NAME]:
            if before:
                self.words.append((new[_INO], 0, before))
            if new[_NAME]:
                self.words.append((new[_INO], 1, new[_NAME]))
        if stat.S_ISDIR(new[_MODE]) and new[_HOME] != NOWHERE:
            self.places[new[_INO]] = _place(new)

    def _least(self, ino: int, old: Row | None) -> DirentKey:
        """The name that goes into an inode's row; others become, or stay, links."""
        if ino in (ROOT, TRASH):
            return NOWHERE, ""
        names = self.got.get(ino, [])
        links: dict[DirentKey, int] = {}
        if old is not None and old[_HOME] != ORPHANS and ino not in self.lost:
            names = [*names, (old[_HOME], old[_NAME])]
        else:  # a name that stays is the least there was, else one of the links may be
            links = self.links.get(ino, links)
        if not names and not links:
            return ORPHANS, ""
        least = names[0] if len(names) == 1 and not links else min((*names, *links))
        for name in names:
            if name != least:
                self.added.append((*name, ino))
        if least in links:
            self._drop_link(links[least], least[1])
        return least

    def _links(self, inodes: list[int]) -> None:
        for ino, parent, name, link in self._each(_LINKS, ((ino,) for ino in inodes)):
            if link not in self.dropped:
                self.links.setdefault(ino, {})[parent, name] = link

    def _without_inode(self, ino: int, old: Row | None) -> None:
        """It goes, or is still to come: names that there are stand alone."""
        self.added += [(*name, ino) for name in self.got.get(ino, [])]
        if old is None:
            return
        self.removed.append(ino)
        if old[_NAME]:
            self.words.append((ino, 0, old[_NAME]))
            if ino not in self.lost:
                self.added.append((old[_HOME], old[_NAME], ino))
        if old[_XATTRS]:
            self._xattrs(ino, {})
        if stat.S_ISDIR(old[_MODE]):
            self.places[ino] = ORPHANS, str(ino)
        self._count(None, old)

    def _xattrs(self, ino: int, attributes: dict[str, str]) -> None:
        self.execute("DELETE FROM xattrs WHERE ino = ?", (ino,))
        for name, value in attributes.items():
            self.execute("INSERT INTO xattrs VALUES (?, ?, ?)", (ino, name, value))

    def _write(self) -> None:
        """All rows; the greatest number comes last, as FTS5 wants it: else it writes a segment."""
        many = self._many
        if self.removed:
            many(_DROP_INODE, [(ino,) for ino in self.removed])
        for sql, rows in self.changed.items():
            if rows:
                many(sql, rows)
        if self.put:
            many(_PUT_INODE, self.put)
        if self.dropped:
            many(DROP_LINK, [(link,) for link in sorted(self.dropped)])
        if self.added:
            last: Any = self.execute(_LAST_LINK).get
            first = last - len(self.added)
            links = [(first + at, *link) for at, link in enumerate(self.added)]
            many(_ADD_LINK, links)
            self.words += [(link, 1, name) for link, _, name, _ in links]
        for number, puts, name in sorted(self.words):
            self.execute(_ADD_NAME if puts else DROP_NAME, (number, name))

    def _count(self, new: Row | None, old: Row | None) -> None:
        """The difference of an inode's rows into the sums of directories, owners, extensions."""
        if new is not None and old is not None and _COUNTED(new) == _COUNTED(old):
            return
        if old is not None:
            self._add(old, -1)
        if new is not None:
            self._add(new, 1)

    def _add(self, row: Row, sign: int) -> None:
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
        inodes = self.items.inodes
        kept = {ino for ino in self.emptied if inodes.get(ino) is not None}
        for ino in {*self.removed, *self.emptied} - kept:
            if ino in (ORPHANS, ROOT, TRASH) or self.tree.find(ino) is None:
                continue
            for sql in (
                "SELECT 1 FROM inodes WHERE ino = ?",
                "SELECT 1 FROM dirents WHERE parent = ?",
                "SELECT 1 FROM links WHERE ino = ?",
            ):
                if self.execute(sql, (ino,)).fetchone():
                    break
            else:
                self.tree.remove(ino)

    def _sums(self) -> None:
        owners = [(uid, *sums) for uid, sums in self.owners.items() if any(sums)]
        extensions = [(name, *sums) for name, sums in self.extensions.items() if any(sums)]
        for rows, add, drop in (
            (owners, ADD_OWNER, _NO_OWNER),
            (extensions, ADD_EXTENSION, _NO_EXTENSION),
        ):
            if rows:
                self._many(add, rows)
                self._many(drop, [row[:1] for row in rows])


def _place(row: Row) -> DirentKey:
    """Where a directory lies; one without a name is named by its number."""
    return (row[_HOME], row[_NAME]) if row[_NAME] else (ORPHANS, str(row[_INO]))


def _values(image: Image) -> Row:
    return (
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
        len(image.attributes),
    )
