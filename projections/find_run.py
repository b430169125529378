"""find over the search view: start points, depth, and rows as they come.

The start point itself is one row, everything below it comes from one statement: the
directories below it by path, their names, their inodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import apsw
from msgspec import Struct

from gfs import findexpr
from gfs.errors import NotADirectory, NotFound, UsageError
from projections.find_query import Where, fnmatch, selective_name
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
    "target",
)
_SELECTED = ", ".join(f"i.{name}" for name in COLUMNS)
_INO_OF = "SELECT ino FROM dirents WHERE parent = ? AND name = ?"


class Start(Struct, frozen=True):
    """A start point: where it is, and how it is to be shown (as the caller typed it)."""

    path: str
    shown: str = ""


class Found(Struct):
    """A row of the answer."""

    path: str
    ino: int
    mode: int
    uid: int
    gid: int
    nlink: int
    size: int
    stored: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    target: str


def register(connection: apsw.Connection) -> None:
    """Give a reading connection the functions that `find` statements use."""
    function: Any = fnmatch
    connection.create_scalar_function("fnmatch", function, 3, deterministic=True)


def resolve(connection: apsw.Connection, path: str) -> int:
    """Inode at an absolute path, symbolic links not followed.

    Raises: UsageError, NotFound.
    """
    if not path.startswith("/"):
        raise UsageError(f"{path!r} does not begin with /")
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


def find(
    connection: apsw.Connection,
    starts: list[Start],
    predicate: findexpr.Predicate,
    *,
    mindepth: int = 0,
    maxdepth: int = findexpr.DEPTH_MAX,
) -> Iterator[tuple[Any, ...]]:
    """Rows (path as shown, then `COLUMNS`) of everything found, each start in turn.

    Raises: UsageError, NotFound; before the first row.
    """

    def reference(path: str, which: str) -> int:
        sql = f"SELECT {which}time_ns FROM inodes WHERE ino = ?"  # a, c or m: checked
        found: int = connection.execute(sql, (resolve(connection, path),)).get
        return found

    statements: list[tuple[str, list[Any]]] = []
    for start in starts:
        ino = resolve(connection, start.path)
        shown = start.shown or start.path
        if mindepth == 0:
            statements.append(_itself(ino, shown, predicate, reference))
        sql = "SELECT path FROM directories WHERE ino = ?"
        row = connection.execute(sql, (ino,)).fetchone()
        if row is not None and maxdepth > 0:
            statements.append(_below(ino, row[0], shown, predicate, reference, mindepth, maxdepth))
    return _rows(connection, statements)


def _rows(
    connection: apsw.Connection, statements: list[tuple[str, list[Any]]]
) -> Iterator[tuple[Any, ...]]:
    for sql, parameters in statements:
        yield from connection.execute(sql, parameters)


def _itself(
    ino: int, shown: str, predicate: findexpr.Predicate, reference: Any
) -> tuple[str, list[Any]]:
    where = Where(reference, "?1", [shown])
    name = where.bind(shown.rstrip("/").rpartition("/")[2] or "/")
    inode = where.bind(ino)
    condition = where.sql(predicate)
    sql = (
        f"SELECT ?1, {_SELECTED} FROM (SELECT {name} AS name) AS e CROSS JOIN inodes i"
        f" WHERE i.ino = {inode} AND {condition}"
    )
    return sql, where.parameters


def _below(
    ino: int,
    path: str,
    shown: str,
    predicate: findexpr.Predicate,
    reference: Any,
    mindepth: int,
    maxdepth: int,
) -> tuple[str, list[Any]]:
    prefix = shown.rstrip("/")
    where = Where(reference, "(?1 || substr(d.path, ?2) || '/' || e.name)")
    where.bind(prefix)
    where.bind(len(path) + 1)
    condition = where.sql(predicate)
    limits = []
    if maxdepth == 1:
        limits.append(f"d.ino = {where.bind(ino)}")
    else:
        low, high = where.bind(path + "/"), where.bind(path + "0")
        limits.append(f"(d.ino = {where.bind(ino)} OR (d.path > {low} AND d.path < {high}))")
    slashes = "(length(substr(d.path, ?2)) - length(replace(substr(d.path, ?2), '/', '')) + 1)"
    if mindepth > 1:
        limits.append(f"{slashes} >= {where.bind(mindepth)}")
    if 1 < maxdepth < findexpr.DEPTH_MAX:
        limits.append(f"{slashes} <= {where.bind(maxdepth)}")
    word = selective_name(predicate)
    tables = "directories d CROSS JOIN dirents e ON e.parent = d.ino"
    if word is not None:
        # Rare names come from the index of trigrams, not from a walk over everything.
        tables = "names n CROSS JOIN dirents e ON e.id = n.rowid CROSS JOIN directories d"
        limits.append("d.ino = e.parent")
        limits.append(f"n.name LIKE {where.bind(word)}")
    sql = (
        f"SELECT {where.path}, {_SELECTED} FROM {tables} CROSS JOIN inodes i ON i.ino = e.ino"
        f" WHERE {' AND '.join(limits)} AND {condition}"
    )
    return sql, where.parameters
