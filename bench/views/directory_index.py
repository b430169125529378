"""A peer for queries: an SQLite database a directory, as GUFI builds them.

GUFI (Grand Unified File Index) keeps for each directory of a tree a database with a table
`entries` (a row a file) and a row `summary` (counts and sums of this directory alone), in a
tree of the same shape; a query is run on every database, by many workers. `du` adds up the
summaries of the tree below. This is the same with Python's workers, one a core.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

NAME = "db.db"
SHARES_A_WORKER = 16
T = TypeVar("T")
_SCHEMA = """
CREATE TABLE entries (name TEXT, type TEXT, inode INT, mode INT, nlink INT, uid INT, gid INT,
  size INT, blksize INT, blocks INT, atime INT, mtime INT, ctime INT);
CREATE TABLE summary (name TEXT, totfiles INT, totlinks INT, totsize INT, minsize INT,
  maxsize INT, minmtime INT, maxmtime INT);
"""
_ENTRY = f"INSERT INTO entries VALUES ({', '.join('?' * 13)})"


def build(tree: Path, index: Path, workers: int) -> None:
    """Index `tree` into `index`."""
    places = [place for place, _, _ in os.walk(tree)]
    for place in places:
        (index / os.path.relpath(place, tree)).mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers) as pool:
        for _ in pool.map(partial(_build_one, tree, index), places, chunksize=64):
            pass


def _build_one(tree: Path, index: Path, place: str) -> None:
    rows = []
    with os.scandir(place) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                continue
            one = entry.stat(follow_symlinks=False)
            times = (int(one.st_atime), int(one.st_mtime), int(one.st_ctime))
            shape = (one.st_mode, one.st_nlink, one.st_uid, one.st_gid, one.st_size)
            kind = "l" if entry.is_symlink() else "f"
            sizes = (one.st_blksize, one.st_blocks)
            rows.append((entry.name, kind, one.st_ino, *shape, *sizes, *times))
    path = index / os.path.relpath(place, tree) / NAME
    with sqlite3.connect(path, isolation_level=None) as database:
        database.execute("PRAGMA journal_mode = off")
        database.execute("PRAGMA synchronous = off")
        database.executescript(_SCHEMA)
        database.execute("BEGIN")
        database.executemany(_ENTRY, rows)
        database.execute(
            "INSERT INTO summary SELECT ?, count(*), 0, coalesce(sum(size), 0), min(size),"
            " max(size), min(mtime), max(mtime) FROM entries",
            (os.path.basename(place),),
        )
        database.execute("COMMIT")
    database.close()


class Index:
    """Queries over a built index."""

    def __init__(self, index: Path, workers: int) -> None:
        self._index = index
        self._pool = ProcessPoolExecutor(workers)
        self._workers = workers

    def names(self, like: str) -> list[str]:
        """Paths of entries whose name is LIKE this."""
        return list(self._walk(self._index, partial(_names, like)))

    def du(self, below: str) -> int:
        """Bytes of all below a directory of the tree."""
        return sum(self._walk(self._index / below, _size))

    def top(self, count: int) -> list[tuple[int, str]]:
        """The largest files."""
        return sorted(self._walk(self._index, partial(_top, count)), reverse=True)[:count]

    def sizes(self) -> dict[int, int]:
        """Files by powers of sixteen of their size."""
        found: dict[int, int] = {}
        for power, files in self._walk(self._index, _sizes):
            found[power] = found.get(power, 0) + files
        return found

    def close(self) -> None:
        self._pool.shutdown()

    def _walk(self, top: Path, ask: Callable[[sqlite3.Connection, str], list[T]]) -> Iterator[T]:
        """`ask` of every database below `top`, subtrees shared out among the workers."""
        alone, trees = _shares(str(top), self._workers * SHARES_A_WORKER)
        work = [(place, False) for place in alone] + [(place, True) for place in trees]
        for part in self._pool.map(partial(_ask, ask), work):
            yield from part


def _shares(top: str, wanted: int) -> tuple[list[str], list[str]]:
    """Directories to be asked by themselves, and trees: at least `wanted`, if there are."""
    alone: list[str] = []
    trees = [top]
    while trees and len(trees) < wanted:
        place = trees.pop(0)
        alone.append(place)
        with os.scandir(place) as entries:
            trees += [entry.path for entry in entries if entry.is_dir()]
    return alone, trees


def _ask(ask: Callable[[sqlite3.Connection, str], list[T]], work: tuple[str, bool]) -> list[T]:
    top, whole = work
    found: list[T] = []
    for place, _, _ in os.walk(top) if whole else ((top, (), ()),):
        address = f"file:{quote(place)}/{NAME}?mode=ro&immutable=1"
        database = sqlite3.connect(address, uri=True)
        found += ask(database, place)
        database.close()
    return found


def _names(like: str, database: sqlite3.Connection, place: str) -> list[str]:
    rows = database.execute("SELECT name FROM entries WHERE name LIKE ?", (like,))
    return [f"{place}/{name}" for (name,) in rows]


def _size(database: sqlite3.Connection, place: str) -> list[int]:
    return [size for (size,) in database.execute("SELECT totsize FROM summary")]


def _top(count: int, database: sqlite3.Connection, place: str) -> list[tuple[int, str]]:
    sql = "SELECT size, name FROM entries ORDER BY size DESC LIMIT ?"
    return [(size, f"{place}/{name}") for size, name in database.execute(sql, (count,))]


def _sizes(database: sqlite3.Connection, place: str) -> list[tuple[int, int]]:
    sql = "SELECT length(printf('%x', size)), count(*) FROM entries GROUP BY 1"
    return list(database.execute(sql))
