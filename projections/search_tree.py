"""Directories of the search view: their place, their path and the sums at every ancestor.

One `Tree` lives as long as one batch. Directories that move are first taken off the
tree with their sums, then put where they belong now: at each step sums and places
agree, so any set of moves, in any order, comes out right. Paths are rewritten by
prefix, on directories only.
"""

from __future__ import annotations

from dataclasses import dataclass

import apsw

from projections.search_schema import INDEXES, NOWHERE, ORPHANS, ROOT, TRASH

# So many paths below a directory that moves, and most of all: to make their index anew takes
# a third of the time that changing it takes.
MANY = 5000
_GET = "SELECT parent, name, files, directories, bytes, disk_bytes FROM directories WHERE ino = ?"
_PUT = "UPDATE directories SET files = ?, directories = ?, bytes = ?, disk_bytes = ? WHERE ino = ?"
_PLACE = "UPDATE directories SET parent = ?, name = ?, path = ? WHERE ino = ?"
_BELOW = "UPDATE directories SET path = ? || substr(path, ?) WHERE path > ? AND path < ?"
_NEW = "INSERT INTO directories VALUES (?, ?, ?, ?, 0, 0, 0, 0)"
_PATH = "SELECT path FROM directories WHERE ino = ?"


@dataclass(slots=True)
class Row:
    """A directory's place and sums."""

    parent: int
    name: str
    files: int
    directories: int
    bytes: int
    disk_bytes: int


@dataclass(slots=True)
class Sums:
    """What is to be added somewhere."""

    files: int = 0
    directories: int = 0
    bytes: int = 0
    disk_bytes: int = 0


class Tree:
    """Rows of `directories` that a batch reads or changes."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._execute = connection.cursor().execute
        self._rows: dict[int, Row | None] = {}
        self._changed: set[int] = set()  # rows whose sums differ from the table
        self._added: dict[int, Sums] = {}

    def find(self, ino: int) -> Row | None:
        """The row of a directory, if there is one."""
        try:
            return self._rows[ino]
        except KeyError:
            found = self._execute(_GET, (ino,)).fetchone()
            row = self._rows[ino] = None if found is None else Row(*found)
            return row

    def need(self, ino: int) -> Row:
        """The row of a directory; one that is not known yet hangs on nothing for now."""
        return self.find(ino) or self._make(ino, ORPHANS, str(ino))

    def _make(self, ino: int, parent: int, name: str) -> Row:
        path = self._execute(_PATH, (parent,)).get
        self._execute(_NEW, (ino, parent, name, f"{path}/{name}"))
        row = self._rows[ino] = Row(parent, name, 0, 0, 0, 0)
        return row

    def place(self, wanted: dict[int, tuple[int, str]]) -> None:
        """Put directories where they belong: inode -> (parent, name).

        What moves leaves its old path first: a new directory may have that by now.
        """
        moves: dict[int, tuple[int, str]] = {}
        fresh: list[int] = []
        for ino, place in wanted.items():
            row = self.find(ino)
            if row is None:
                fresh.append(ino)
            elif (row.parent, row.name) != place and row.parent != NOWHERE:
                moves[ino] = place
        if len(moves) == 1 and not fresh:
            ((ino, (parent, name)),) = moves.items()
            self._move(ino, parent, name)
            return
        for ino in moves:
            if self.need(ino).parent != ORPHANS:
                self._move(ino, ORPHANS, str(ino))
        for ino in fresh:
            parent, name = wanted[ino]
            if self.find(ino) is not None:  # made as the parent of another
                moves[ino] = wanted[ino]
                continue
            if parent != ORPHANS:
                self.need(parent)
            self._make(ino, parent, name)
        for ino, (parent, name) in moves.items():
            self._move(ino, parent, name)

    def _move(self, ino: int, parent: int, name: str) -> None:
        row = self.need(ino)
        above = self.need(parent)
        assert above is not row
        if row.parent != parent:
            self._climb(row.parent, row, -1)
        old = self._execute(_PATH, (ino,)).get
        new = f"{self._execute(_PATH, (parent,)).get}/{name}"
        # The descendants are what sorts between "old/" and "old0".
        below = (new, len(old) + 1, old + "/", old + "0")
        if row.directories >= MANY and row.directories * 2 > self._count():
            self._execute("DROP INDEX directories_path")
            self._execute(_BELOW, below)
            self._execute(INDEXES["directories_path"])
        else:
            self._execute(_BELOW, below)
        self._execute(_PLACE, (parent, name, new, ino))
        if row.parent != parent:
            row.parent = parent
            self._climb(parent, row, 1)
        row.name = name

    def _count(self) -> int:
        """How many directories there are; what hangs on nothing is not among them."""
        return sum(self.need(ino).directories for ino in (ROOT, TRASH))

    def _climb(self, ino: int, sums: Row | Sums, sign: int) -> None:
        """Add `sums` to a directory and all above it."""
        files, directories = sign * sums.files, sign * sums.directories
        size, disk = sign * sums.bytes, sign * sums.disk_bytes
        if not (files or directories or size or disk):
            return
        while ino != NOWHERE:
            row = self.need(ino)
            row.files += files
            row.directories += directories
            row.bytes += size
            row.disk_bytes += disk
            self._changed.add(ino)
            ino = row.parent

    def add(self, home: int, *, directory: bool, size: int, disk: int, sign: int) -> None:
        """One inode more, or less, at `home`; takes effect with `flush`."""
        sums = self._added.get(home)
        if sums is None:
            sums = self._added[home] = Sums()
        if directory:
            sums.directories += sign
        else:
            sums.files += sign
        sums.bytes += sign * size
        sums.disk_bytes += sign * disk

    def add_sums(self, home: int, sums: Sums) -> None:
        """Many inodes more, of which `home` has none yet in this batch."""
        self._added[home] = sums

    def remove(self, ino: int) -> None:
        """Forget a directory below which nothing is left and that hangs on nothing."""
        self._execute("DELETE FROM directories WHERE ino = ?", (ino,))
        self._rows[ino] = None
        self._changed.discard(ino)

    def flush(self) -> None:
        """Carry what was added up to the roots, and write all sums that changed."""
        for home, sums in self._added.items():
            self._climb(home, sums, 1)
        self._added.clear()
        execute, rows = self._execute, self._rows
        for ino in self._changed:
            row = rows[ino]
            if row is not None:
                execute(_PUT, (row.files, row.directories, row.bytes, row.disk_bytes, ino))
        self._changed.clear()
