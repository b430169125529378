"""find over the search view: start points, depth, order, and rows as they come.

The start point itself is one row. What lies below it comes from a walk over the
directories below, by path, or, where the predicate allows, from what an index gives:
names that contain a text, the names of one inode, inodes with an attribute.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import apsw
from msgspec import Struct

from gfs.errors import NotADirectory, NotFound, UsageError
from gfs.findprogram import Pruned, relative
from gfs.findtree import DEPTH_MAX, And, Predicate, Type
from projections import patterns
from projections.find_query import (
    Where,
    attribute_of,
    inode_of,
    match_of,
    name_words,
    path_word,
)
from projections.search_schema import ROOT

COLUMNS = (
    "ino",
    "mode",
    "uid",
    "gid",
    "nlink",
    "size",
    "stored",
    "atime_ns",
    "mtime_ns",
    "ctime_ns",
    "created_ns",
    "target",
    "rdev",
)
SELECTED = ", ".join(f"i.{name}" for name in COLUMNS)
WALKED = 5000  # inodes below a start point that are sooner walked than looked for in an index
_INO_OF = "SELECT ino FROM dirents WHERE parent = ? AND name = ?"
_BELOW = "SELECT path, files + directories FROM directories WHERE ino = ?"


@dataclass(frozen=True)
class Source:
    """Where names come from, as SQL: rows of `i` (inodes) and `d` (their directories).

    Attributes:
      name: the name itself.
      number: that of a row, which orders it in its table and in the index of names.
      ino: of the inode.
      entries: all names, directory by directory.
      rows: all names, by number.
      words: those of which the index of names (`n`) says that they match `{}`.
      numbered: of rows of that index, that they are of this source.
      holders: inodes with attributes (`x`), and their names.
    """

    name: str
    number: str
    ino: str
    entries: str
    rows: str
    words: str
    numbered: str
    holders: str


_INODE, _LINK = "CROSS JOIN inodes i ON i.ino = e.ino", "CROSS JOIN links e ON e"
_AT_HOME = "CROSS JOIN directories d ON d.ino = i.home AND i.home > 0"
_AT_LINK = "CROSS JOIN directories d ON d.ino = e.parent"
NAMES = Source(  # that stand in the rows of inodes
    "i.name",
    "i.ino",
    "i.ino",
    "directories d CROSS JOIN inodes i ON i.home = d.ino",
    f"inodes i {_AT_HOME}",
    f"names n CROSS JOIN inodes i ON i.ino = n.rowid AND n.names MATCH {{}} {_AT_HOME}",
    "n.rowid > 0",
    f"xattrs x CROSS JOIN inodes i ON i.ino = x.ino {_AT_HOME}",
)
LINKS = Source(  # further ones of hard links; never of directories
    "e.name",
    "e.id",
    "e.ino",
    f"directories d {_LINK}.parent = d.ino {_INODE}",
    f"links e {_INODE} {_AT_LINK}",
    f"names n {_LINK}.id = n.rowid AND n.names MATCH {{}} {_INODE} {_AT_LINK}",
    "n.rowid < 0",
    f"xattrs x {_LINK}.ino = x.ino {_INODE} {_AT_LINK}",
)


class Start(Struct, frozen=True):
    """A start point: where it is, and how it is to be shown (as the caller typed it)."""

    path: str
    shown: str = ""


@dataclass(frozen=True)
class Question:
    """What is to be found below each start.

    Attributes:
      prune: directories below which nothing is looked at.
      tests: predicates whose outcome each row tells besides.
      order: "down": directories before what they hold; "up": after it; "": any.
    """

    predicate: Predicate
    prune: Predicate | None = None
    tests: list[Predicate] = field(default_factory=list)
    mindepth: int = 0
    maxdepth: int = DEPTH_MAX
    order: str = ""


def register(connection: apsw.Connection) -> None:
    """Give a reading connection the functions that `find` statements use."""
    functions: dict[str, tuple[Any, int]] = {
        "fnmatch": (patterns.fnmatch, 3),
        "regex": (patterns.regex, 4),
    }
    for name, (function, arguments) in functions.items():
        connection.create_scalar_function(name, function, arguments, deterministic=True)


def resolve(connection: apsw.Connection, path: str) -> int:
    """Inode at an absolute path, symbolic links not followed.

    Raises: UsageError, NotFound.
    """
    if not path.startswith("/"):
        raise UsageError(f"{path[:100]!r} does not begin with /")
    ino = ROOT
    for name in path.split("/"):
        if name in ("", "."):
            continue
        row = connection.execute(_INO_OF, (ino, name)).fetchone()
        if row is None:
            raise NotFound(f"{path}: no such file or directory")
        ino = row[0]
    return ino


def directory_of(connection: apsw.Connection, path: str) -> tuple[int, str]:
    """Inode of the directory at `path`, and its path as the view spells it.

    Raises: UsageError, NotFound, NotADirectory.
    """
    ino = resolve(connection, path)
    spelled = connection.execute("SELECT path FROM directories WHERE ino = ?", (ino,)).fetchone()
    if spelled is None:
        raise NotADirectory(f"{path}: not a directory")
    return ino, spelled[0]


def sources(connection: apsw.Connection) -> list[Source]:
    """Where names are; those of links, if there are any, come before those of inodes."""
    some = connection.execute("SELECT 1 FROM links LIMIT 1").get
    return [NAMES] if some is None else [LINKS, NAMES]


def find(
    connection: apsw.Connection, starts: list[Start], question: Question
) -> Iterator[tuple[Any, ...]]:
    """Rows of everything found, each start in turn: path as shown, `COLUMNS`, the tests.

    Raises: UsageError, NotFound; before the first row.
    """
    trees = [_Tree(connection, start, question) for start in starts]
    return (row for tree in trees for row in tree.rows())


@dataclass
class _Statement:
    """A SELECT of `path`, and what is bound."""

    sql: str
    bound: list[Any]


class _Tree:
    """One start point and what is asked about it."""

    def __init__(self, connection: apsw.Connection, start: Start, question: Question) -> None:
        self.connection = connection
        self.question = question
        self.ino = resolve(connection, start.path)
        self.shown = start.shown or start.path
        row = connection.execute(_BELOW, (self.ino,)).fetchone()
        self.path: str = row[0] if row is not None else ""
        self.holds = row[1] if row is not None and question.maxdepth > 0 else None
        self.statements = self._statements(question.predicate, question.tests, question.order)
        self.prunes: list[_Statement] = []
        if question.prune is not None:
            self.prunes = self._statements(And([Type("d"), question.prune]), [], "down")

    def rows(self) -> Iterator[tuple[Any, ...]]:
        pruned = Pruned()
        for path, *_ in self._run(self.prunes):
            below = relative(path, self.shown)
            if not pruned.hides(0, below):
                pruned.add(0, below)
        for row in self._run(self.statements):
            if not pruned.below or not pruned.hides(0, relative(row[0], self.shown)):
                yield row

    def _run(self, statements: list[_Statement]) -> Iterator[tuple[Any, ...]]:
        for one in statements:
            yield from self.connection.execute(one.sql, one.bound)

    def _statements(
        self, predicate: Predicate, tests: list[Predicate], order: str
    ) -> list[_Statement]:
        itself = [self._itself(predicate, tests)] if self.question.mindepth == 0 else []
        if self.holds is None:
            return itself
        below = _Below(self, predicate, tests, order).statements()
        return [*below, *itself] if order == "up" else [*itself, *below]

    def where(self, path: str = "", name: str = "") -> Where:
        def inode_at(path: str) -> int:
            return resolve(self.connection, path)

        def time_of(path: str, which: str) -> int:
            column = "created_ns" if which == "B" else f"{which}time_ns"  # a, c or m: checked
            sql = f"SELECT {column} FROM inodes WHERE ino = ?"
            found: int = self.connection.execute(sql, (resolve(self.connection, path),)).get
            return found

        return Where(inode_at, time_of, path, name)

    def _itself(self, predicate: Predicate, tests: list[Predicate]) -> _Statement:
        where = self.where("?1", "?2")
        where.bind(self.shown)
        where.bind(self.shown.rstrip("/").rpartition("/")[2] or "/")
        inode = where.bind(self.ino)
        columns = ", ".join(["?1", SELECTED, *map(where.sql, tests)])
        sql = f"SELECT {columns} FROM inodes i WHERE i.ino = {inode} AND {where.sql(predicate)}"
        return _Statement(sql, where.parameters)


class _Below:
    """Statements for what lies below a directory."""

    def __init__(
        self, tree: _Tree, predicate: Predicate, tests: list[Predicate], order: str
    ) -> None:
        self.tree, self.predicate, self.tests, self.order = tree, predicate, tests, order

    def statements(self) -> list[_Statement]:
        """What an index gives, or else a walk. Links, no directories, come last; or first."""
        found = sources(self.tree.connection)
        if self.order != "up":
            found.reverse()
        return [statement for source in found for statement in self._of(source)]

    def _of(self, source: Source) -> list[_Statement]:
        tree, predicate = self.tree, self.predicate
        if (inode := inode_of(predicate, tree.where())) is not None:
            return [self._from(source, source.rows, f"{source.ino} = {{}}", inode)]
        if tree.holds is not None and tree.holds > WALKED and tree.question.maxdepth > 1:
            if (words := name_words(predicate)) is not None:
                return [self._from(source, source.words, source.numbered, match_of(words))]
            word = path_word(predicate)
            if word is not None and not self.order and word.lower() not in tree.shown.lower():
                return self._paths_with(source, word)
            if (attribute := attribute_of(predicate)) is not None:
                return [self._from(source, source.holders, "x.name = {}", attribute.name)]
        entries = source.entries
        own = self._from(source, entries, "d.ino = {}", tree.ino, everywhere=True)
        if tree.question.maxdepth == 1:
            return [own]
        low, high = tree.path + "/", tree.path + "0"  # between them sorts what lies below
        inside = "d.path > {} AND d.path < {}"
        below = self._from(source, entries, inside, low, high, everywhere=True)
        return [own, below] if self.order != "up" else [below, own]

    def _paths_with(self, source: Source, word: str) -> list[_Statement]:
        """Everything below directories whose path has the word, and names that have it."""
        held = "instr(lower(substr(d.path, ?2)), lower({})) > 0"
        low, high = self.tree.path + "/", self.tree.path + "0"
        inside, few = "d.path > {} AND d.path < {}", source.numbered
        return [
            self._from(source, source.entries, f"{inside} AND {held}", low, high, word,
                       everywhere=True),
            self._from(source, source.words, f"{few} AND NOT {held}", match_of([word]), word),
        ]  # fmt: skip

    def _from(
        self, source: Source, tables: str, condition: str, *values: Any, everywhere: bool = False
    ) -> _Statement:
        """Rows of `tables` of a source; `{}` in them and in the condition are `values`.

        `everywhere`: the condition itself keeps to what lies below the start.
        """
        tree, question = self.tree, self.tree.question
        where = tree.where(f"(?1 || substr(d.path, ?2) || '/' || {source.name})", source.name)
        where.bind(tree.shown.removesuffix("/"))
        where.bind(len(tree.path) + 1)
        names = list(map(where.bind, values))
        split = tables.count("{}")
        limits = [condition.format(*names[split:])] if condition else []
        if not everywhere:
            ino, low, high = map(where.bind, (tree.ino, tree.path + "/", tree.path + "0"))
            limits.append(f"(d.ino = {ino} OR (d.path > {low} AND d.path < {high}))")
        slashes = "(length(substr(d.path, ?2)) - length(replace(substr(d.path, ?2), '/', '')) + 1)"
        if question.mindepth > 1:
            limits.append(f"{slashes} >= {where.bind(question.mindepth)}")
        if question.maxdepth < DEPTH_MAX:
            limits.append(f"{slashes} <= {where.bind(question.maxdepth)}")
        columns = ", ".join([where.path, SELECTED, *map(where.sql, self.tests)])
        limits.append(where.sql(self.predicate))
        sql = f"SELECT {columns} FROM {tables.format(*names[:split])} WHERE {' AND '.join(limits)}"
        if self.order:
            sql += " ORDER BY d.path" + (" DESC" if self.order == "up" else "")
        return _Statement(sql, where.parameters)
