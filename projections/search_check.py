"""What contradicts itself in the search view: homes, paths, sums, the index of names.

Compared with the rows that they are made of, in one read transaction, so that nothing
can have changed between. A directory's sums are checked one step deep: what counts at
it, and the sums of the directories in it; each of those is checked in its turn.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import Any

import apsw

from projections.core.comparing import Compared, Difference
from projections.search_schema import NOWHERE, ORPHANS, ROOT, TRASH, extension_of

_COLUMNS = (
    *("mode", "uid", "gid", "nlink", "size", "stored", "atime_ns", "mtime_ns", "ctime_ns"),
    *("created_ns", "data_version", "rdev", "target"),
)
_RANGE = "ino > ? AND ino <= ?"
COMPARED = Compared(
    _COLUMNS,
    f"SELECT ino, {', '.join(_COLUMNS)} FROM inodes WHERE {_RANGE}",
    f"SELECT ino, parent, name FROM dirents WHERE {_RANGE}",
    f"SELECT ino, name, value FROM xattrs WHERE {_RANGE}",
)
_MADE = (
    "SELECT i.ino, i.mode, i.home, i.name, i.extension, i.xattrs, d.ino IS NULL,"
    " (SELECT count(*) FROM xattrs x WHERE x.ino = i.ino)"
    " FROM inodes i LEFT JOIN directories d ON d.ino = i.ino WHERE i.ino > ? AND i.ino <= ?"
)
_LEAST = "SELECT parent, name FROM dirents WHERE ino = ? ORDER BY parent, name LIMIT 1"
_NAMES = f"SELECT id, ino, name FROM dirents WHERE {_RANGE} AND length(name) >= 3"
_NAMED = "SELECT 1 FROM names WHERE names MATCH ? AND rowid = ?"
_DIRECTORIES = (
    "SELECT d.ino, d.parent, d.name, d.path, p.path || '/' || d.name, d.files, d.directories,"
    " d.bytes, d.disk_bytes FROM directories d LEFT JOIN directories p ON p.ino = d.parent"
    " WHERE d.ino > ? AND d.ino <= ?"
)
_SUMS = (
    "ifnull(sum(mode & 61440 <> 16384), 0), ifnull(sum(mode & 61440 = 16384), 0),"
    " ifnull(sum(size), 0), ifnull(sum((stored + 511) / 512 * 512), 0)"
)
_COUNTED = f"SELECT {_SUMS} FROM inodes WHERE home = ?1"
_BELOW = (
    "SELECT ifnull(sum(files), 0), ifnull(sum(directories), 0), ifnull(sum(bytes), 0),"
    " ifnull(sum(disk_bytes), 0) FROM directories WHERE parent = ?1"
)
_BY_EXTENSION = (
    "SELECT extension, count(*), sum(size), sum((stored + 511) / 512 * 512) FROM inodes"
    " WHERE mode & 61440 = 32768 GROUP BY extension"
)
_TOTALS = {
    "owners": (
        f"SELECT uid, {_SUMS} FROM inodes GROUP BY uid",
        "SELECT uid, files, directories, bytes, disk_bytes FROM owners",
    ),
    "extensions": (_BY_EXTENSION, "SELECT extension, files, bytes, disk_bytes FROM extensions"),
}


def contradictions(after: int, last: int, connection: apsw.Connection) -> Iterator[Difference]:
    """Of inodes in (after, last], and of directories with such a number."""
    execute: Any = connection.cursor().execute
    for row in execute(_MADE, (after, last)).fetchall():
        yield from _of_inode(execute, *row)
    for rowid, ino, name in execute(_NAMES, (after, last)).fetchall():
        # One trigram of it; names begin and end alike, so one from the middle is rarer.
        middle = len(name) // 2 - 1
        trigram = name[middle : middle + 3].replace('"', '""')
        if execute(_NAMED, (f'"{trigram}"', rowid)).fetchone() is None:
            yield Difference("names", ino, f"{name!r} is not in the index of names")
    for row in execute(_DIRECTORIES, (after, last)).fetchall():
        yield from _of_directory(execute, *row)


def _of_inode(
    execute: Any,
    ino: int,
    mode: int,
    home: int,
    name: str,
    extension: str,
    xattrs: int,
    placeless: int,
    xattrs_there: int,
) -> Iterator[Difference]:
    least = execute(_LEAST, (ino,)).fetchone() or (ORPHANS, "")
    expected = (NOWHERE, "") if ino in (ROOT, TRASH) else least
    if (home, name) != expected:
        yield Difference("home", ino, f"counts at {(home, name)!r}, not at {expected!r}")
    if extension != (extension_of(least[1]) if stat.S_ISREG(mode) else ""):
        yield Difference("extension", ino, f"{extension!r} is not that of {least[1]!r}")
    if xattrs != xattrs_there:
        yield Difference("xattrs", ino, f"has {xattrs_there}, says {xattrs}")
    if placeless and stat.S_ISDIR(mode):
        yield Difference("path", ino, "a directory without a row of its own")


def _of_directory(
    execute: Any, ino: int, parent: int, name: str, path: str, expected: str, *sums: int
) -> Iterator[Difference]:
    if ino not in (ROOT, TRASH):
        named = execute(_LEAST, (ino,)).fetchone() or (ORPHANS, str(ino))
        if (parent, name) != named:
            yield Difference("path", ino, f"lies at {(parent, name)!r}, not at {named!r}")
        elif path != expected:
            yield Difference("path", ino, f"{path!r}, not {expected!r}")
    counted, below = (execute(sql, (ino,)).fetchone() for sql in (_COUNTED, _BELOW))
    right = tuple(a + b for a, b in zip(counted, below, strict=True))
    if sums != right:
        yield Difference("sums", ino, f"files, directories, bytes, disk {sums}, not {right}")


def contradictions_of_sums(connection: apsw.Connection) -> Iterator[Difference]:
    """Of what is summed over everything; reads all inodes once."""
    for table, (made, kept) in _TOTALS.items():
        right = {key: tuple(sums) for key, *sums in connection.execute(made)}
        found = {key: tuple(sums) for key, *sums in connection.execute(kept)}
        for key in sorted(right.keys() | found.keys()):
            if right.get(key) != found.get(key):
                text = f"{key!r}: {found.get(key)}, not {right.get(key)}"
                yield Difference(table, ORPHANS, text)
