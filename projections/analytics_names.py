"""A change by a batch, and names that it needs and does not tell.

Those are of files with several links; they are asked in one look at all names, before the batch
changes the tables; what they are after it follows. With them come the numbers of their rows: to
find a name among a million by comparing names takes ten times as long. Of a file whose content
alone changed the extension is enough: to read names takes as long again as to find their rows,
and several times as long in a large batch.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from functools import cached_property

import duckdb

from projections.core.following import DirentKey, Items, files_of
from projections.core.naming import by_extension, names_of, suffix_of
from projections.duck_rows import among, delete

_ROWS = "SELECT rowid, ino, parent, name, extension FROM main_dirents WHERE {some}"
_SHOWN = "SELECT 0, ino, parent, name, extension FROM dirents WHERE {some}"
_EXTENSIONS = "SELECT ino, extension FROM main_dirents WHERE {some}"


def extension_of(name: str, kind: int, connection: duckdb.DuckDBPyConnection) -> str:
    """What the macro of that name gives, of a name and the type bits of st_mode."""
    return lower(suffix_of(name), connection) if stat.S_ISREG(kind) else ""


def lower(suffix: str, connection: duckdb.DuckDBPyConnection) -> str:
    """As the rows have it: not every letter is to Python what it is to DuckDB."""
    if suffix.isascii():
        return suffix.lower()
    ((found,),) = connection.execute("SELECT lower($1::VARCHAR)", [suffix]).fetchall()
    return str(found)


class Change:
    """Items that a batch brings about, with what the tables say of names before it.

    Attributes:
      files: regular files among the items.
      names: those that files lose and get.
      sums: what changes by extension.
      large: files, no directories, that are large after it.
    """

    def __init__(
        self,
        items: Items,
        connection: duckdb.DuckDBPyConnection,
        *,
        large: int = 1 << 63,
        fresh: bool = False,
    ) -> None:
        """Asks, so the batch may not have changed the tables yet.

        Args:
          large: files that come to be, or stay, of this size at least are among `large`; the
            names of those that were smaller are asked for too.
          fresh: what is so counts, and the extensions of files that are only resized are not
            asked for.
        """
        self.items = items
        self.files, self.names = files_of(items), names_of(items)
        self.sums = by_extension(items, self.files, self.names)
        self._connection = connection
        self._alone: list[int] = []  # inodes with one name, which goes
        self._among_others: list[DirentKey] = []  # names that go, of inodes that may keep some
        self.large = {
            ino: one
            for ino, one in items.inodes.items()
            if one is not None and one.size >= large and not stat.S_ISDIR(one.mode)
        }
        asked = {*self.sums.asked, *self._part(), *self._linked(), *self._grown(large)}
        self._numbers: dict[DirentKey, int] = {}  # of rows
        self._asked: dict[int, dict[DirentKey, str]] = {ino: {} for ino in asked}
        if asked:
            self._ask(_SHOWN if fresh else _ROWS)
        resized = [] if fresh else [ino for ino, *_ in self.sums.resized if ino not in asked]
        self._extensions: dict[int, str] = self._ask_extensions(resized) if resized else {}

    def _part(self) -> set[int]:
        """Sort names that go, or go to another inode; those inodes whose names must be asked."""
        several = set()
        inodes = self.items.old_inodes
        for key, dirent in self.items.old_dirents.items():
            inode = inodes.get(dirent.ino)
            if inode is not None and (inode.nlink == 1 or stat.S_ISDIR(inode.mode)):
                self._alone.append(dirent.ino)
            else:
                self._among_others.append(key)
                several.add(dirent.ino)
        return several

    def _linked(self) -> list[int]:
        """What gets a name besides others, or may; of regular files `sums` says so too."""
        inodes = self.items.inodes
        return [ino for ino in self.names.got if (new := inodes.get(ino)) is None or new.nlink != 1]

    def _grown(self, size: int) -> list[int]:
        """Files that get so large under the name that they have."""
        olds, lost, got = self.items.old_inodes, self.names.lost, self.names.got
        return [
            ino
            for ino in self.large
            if not (ino in lost or ino in got)
            and (old := olds.get(ino)) is not None
            and old.size < size
        ]

    def _ask(self, sql: str) -> None:
        some, bound = among("ino", [*self._asked])
        rows = self._connection.execute(sql.format(some=some), bound).fetchall()
        for number, ino, parent, name, extension in rows:
            self._numbers[parent, name] = number
            self._asked[ino][parent, name] = extension

    def _ask_extensions(self, inodes: list[int]) -> dict[int, str]:
        """Of files with one name, or none."""
        some, bound = among("ino", inodes)
        return dict(self._connection.execute(_EXTENSIONS.format(some=some), bound).fetchall())

    def knows(self, ino: int) -> bool:
        """Whether its names were asked for, so that `after` can tell."""
        return ino in self._asked

    def before(self, ino: int) -> str:
        """Extension of the least name that it had; "" if it had none."""
        names = self._asked.get(ino)
        if names is None:
            return self._extensions.get(ino, "")
        return names[min(names)] if names else ""

    def after(self, ino: int) -> DirentKey | None:
        """The least name that it comes to have; None if it has none."""
        return min(self.names_after(ino), default=None)

    @cached_property
    def _got(self) -> Mapping[int, list[DirentKey]]:
        """Names that come, of inodes that lose or get more than one."""
        found: dict[int, list[DirentKey]] = {ino: [] for ino in self.names.several}
        for key, one in self.items.dirents.items():
            if one is not None and one.ino in found:
                found[one.ino].append(key)
        return found

    def names_after(self, ino: int) -> list[DirentKey]:
        """All names that it comes to have."""
        dirents, names = self.items.dirents, self.names
        found = [key for key in self._asked[ino] if key not in dirents]
        if ino in names.several:
            found += self._got[ino]
        elif ino in names.got:
            found.append(names.got[ino])
        return found

    @property
    def known(self) -> list[int]:
        """Inodes whose names were asked for."""
        return [*self._asked]

    def extension_after(self, ino: int) -> str:
        """Extension of the least name that a regular file comes to have; "" if it has none."""
        least = self.after(ino)
        if least is None:
            return ""
        known = self._asked[ino].get(least)
        return extension_of(least[1], stat.S_IFREG, self._connection) if known is None else known

    def remove_names(self) -> None:
        """Take names that go out of the table; their numbers hold until then."""
        delete(self._connection, "main_dirents", ["ino"], [(ino,) for ino in self._alone])
        numbers = [self._numbers[key] for key in self._among_others if key in self._numbers]
        if numbers:
            some, bound = among("rowid", numbers)
            self._connection.execute(f"DELETE FROM main_dirents WHERE {some}", bound)
