"""Directories of the search view: their place, their path and the sums at every ancestor.

One `Tree` lives as long as one batch. Directories that move are first taken off the
tree with their sums, then put where they belong now: at each step sums and places
agree, so any set of moves, in any order, comes out right. Paths are rewritten by
prefix, on directories only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import apsw

from projections.search_schema import INDEXES, NOWHERE, ORPHANS, ROOT, TRASH

# So many paths below a directory that moves, and most of all: to make their index anew takes
# a third of the time that changing it takes.
MANY = 5000
_GET = (
    "SELECT ino, parent, name, files, directories, bytes, disk_bytes FROM directories WHERE ino = ?"
)
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
        self._connection = connection
        self._execute = connection.cursor().execute
        self._rows: dict[int, Row | None] = {}
        self._changed: set[int] = set()  # rows whose sums differ from the table
        self._added: dict[int, Sums] = {}

    def find(self, ino: int) -> Row | None:
        """The row of a directory, if there is one."""
        if ino not in self._rows:
            self._read((ino,))
        return self._rows[ino]

    def _read(self, inodes: Iterable[int]) -> None:
        """Get to know these directories and all above them, a level at a time."""
        rows = self._rows
        wanted = sorted(ino for ino in inodes if ino not in rows)
        while wanted:
            rows.update(dict.fromkeys(wanted))
            above = set()
            bound = [(ino,) for ino in wanted]
            found: list[Any] = self._connection.executemany(_GET, bound).fetchall()
            for ino, *values in found:
                row = rows[ino] = Row(*values)
                if row.parent not in rows and row.parent != NOWHERE:
                    above.add(row.parent)
            wanted = sorted(above)

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

    def _climb(self, ino: int, sums: Row, sign: int) -> None:
        """Add `sums` to a directory and all above it."""
        if not (sums.files or sums.directories or sums.bytes or sums.disk_bytes):
            return
        while ino != NOWHERE:
            row = self.need(ino)
            _add(row, sums, sign)
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
        """Carry what was added up to the roots, and write all sums that changed.

        The deepest first: each directory is then come to once, with all from below.
        """
        added, depths = self._added, dict[int, int]()
        self._read(added)
        levels: dict[int, set[int]] = {}
        for ino in added:
            levels.setdefault(self._depth(ino, depths), set()).add(ino)
        for depth in range(max(levels, default=-1), -1, -1):
            for ino in levels.get(depth, ()):
                row = self.need(ino)
                self._take(ino, row, added[ino])
                if row.parent != NOWHERE:
                    levels.setdefault(depth - 1, set()).add(row.parent)
                    _add(added.setdefault(row.parent, Sums()), added[ino])
        added.clear()
        changed = [
            (one.files, one.directories, one.bytes, one.disk_bytes, ino)
            for ino in sorted(self._changed)
            if (one := self._rows[ino]) is not None
        ]
        self._changed.clear()
        if changed:
            self._connection.executemany(_PUT, changed)

    def _depth(self, ino: int, depths: dict[int, int]) -> int:
        """How many directories are above it; `depths` are those that are known."""
        below = []
        while ino not in depths:
            parent = self.need(ino).parent
            if parent == NOWHERE:
                depths[ino] = 0
            else:
                below.append(ino)
                ino = parent
        depth = depths[ino]
        for one in reversed(below):
            depth += 1
            depths[one] = depth
        return depth

    def _take(self, ino: int, row: Row, sums: Sums) -> None:
        if sums.files or sums.directories or sums.bytes or sums.disk_bytes:
            _add(row, sums)
            self._changed.add(ino)


def _add(row: Row | Sums, sums: Row | Sums, sign: int = 1) -> None:
    row.files += sign * sums.files
    row.directories += sign * sums.directories
    row.bytes += sign * sums.bytes
    row.disk_bytes += sign * sums.disk_bytes
