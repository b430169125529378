"""A snapshot into an empty search view: rows as they come, then all that is computed of them.

Each row is written once and in order, indexes and sums are made when all rows are there:
a third of the work of taking the items for changes. The tables come out the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import apsw

from gfs.changes import Line
from projections.search_schema import (
    INDEXES,
    NOWHERE,
    ORPHANS,
    ROOT,
    STORED,
    TRASH,
    extension_of,
)

_ATTRIBUTES = (
    "mode, uid, gid, nlink, size, stored, atime_ns, mtime_ns, ctime_ns, created_ns,"
    " data_version, rdev, target"
)
_BEGUN = "SELECT 1 FROM sqlite_temp_schema WHERE name = 'loading'"
_EMPTY = "SELECT NOT EXISTS (SELECT 1 FROM inodes) AND NOT EXISTS (SELECT 1 FROM dirents)"
_TABLE = f"CREATE TEMP TABLE loading (ino INTEGER PRIMARY KEY, {_ATTRIBUTES}, xattrs)"
_PUT_INODE = f"INSERT INTO temp.loading VALUES ({', '.join('?' * 15)})"
_PUT_DIRENT = "INSERT INTO dirents (parent, name, ino) VALUES (?, ?, ?)"
_PUT_XATTR = "INSERT INTO xattrs VALUES (?, ?, ?)"
_DIRECTORY, _FILE, _TYPE = 0o040000, 0o100000, 0o170000
_INODES = f"""
INSERT INTO inodes (ino, {STORED})
SELECT l.ino, mode, uid, gid, nlink, size, stored,
  atime_ns - mtime_ns, mtime_ns, ctime_ns - mtime_ns, created_ns - ctime_ns,
  data_version, rdev, target,
  CASE WHEN l.ino IN ({ROOT}, {TRASH}) THEN {NOWHERE} ELSE ifnull(d.parent, {ORPHANS}) END,
  CASE WHEN l.mode & {_TYPE} = {_FILE} THEN extension_of(ifnull(d.name, '')) ELSE '' END, l.xattrs
FROM temp.loading l LEFT JOIN dirents d ON d.id = (
  SELECT x.id FROM dirents x WHERE x.ino = l.ino ORDER BY x.parent, x.name LIMIT 1
) ORDER BY l.ino
"""
_PLACES = f"""
SELECT i.ino, i.home, ifnull(min(d.name), '') FROM inodes i LEFT JOIN dirents d
  ON d.ino = i.ino AND d.parent = i.home
WHERE i.mode & {_TYPE} = {_DIRECTORY} AND i.home <> {NOWHERE} GROUP BY i.ino
"""
_SUMS = (
    f"sum(mode & {_TYPE} <> {_DIRECTORY}), sum(mode & {_TYPE} = {_DIRECTORY}),"
    " sum(size), sum((stored + 511) / 512 * 512)"
)
_BY_HOME = f"SELECT home, {_SUMS} FROM inodes WHERE home <> {NOWHERE} GROUP BY home"
_OWNERS = f"INSERT INTO owners SELECT uid, {_SUMS} FROM inodes GROUP BY uid"
_EXTENSIONS = (
    "INSERT INTO extensions SELECT extension, count(*), sum(size),"
    f" sum((stored + 511) / 512 * 512) FROM inodes WHERE mode & {_TYPE} = {_FILE}"
    " GROUP BY extension"
)
_PUT_DIRECTORY = f"INSERT INTO directories VALUES ({', '.join('?' * 8)})"
_NAMES = "INSERT INTO names (names) VALUES ('rebuild')"
_BASE = {ORPHANS: "<orphans>", ROOT: "", TRASH: "<trash>"}  # their paths


def is_loading(connection: apsw.Connection) -> bool:
    """Whether the view is empty, or its load has begun and not ended."""
    return connection.execute(_BEGUN).get is not None or connection.execute(_EMPTY).get == 1


def load_items(lines: Iterable[Line], connection: apsw.Connection) -> None:
    """Write items of a snapshot; the view is of use only after `finish`."""
    if connection.execute(_BEGUN).get is None:
        for name in INDEXES:
            connection.execute(f"DROP INDEX {name}")
        connection.execute(_TABLE)
    inodes, dirents, xattrs = [], [], []
    for line in lines:
        keys, new = line.keys, line.new
        if keys is None or new is None:
            continue
        if line.table == "dirents":
            dirents.append((keys.parent, keys.name, new.ino))
            continue
        inodes.append(_row(keys.ino, new))
        if new.attributes:
            xattrs += [(keys.ino, name, value) for name, value in new.attributes.items()]
    for sql, rows in ((_PUT_DIRENT, dirents), (_PUT_INODE, inodes), (_PUT_XATTR, xattrs)):
        if rows:
            connection.executemany(sql, rows)


def _row(ino: int, one: Any) -> tuple[Any, ...]:
    return (
        ino,
        one.mode,
        one.uid,
        one.gid,
        one.nlink,
        one.size,
        one.stored,
        one.atime_ns,
        one.mtime_ns,
        one.ctime_ns,
        one.created_ns,
        one.data_version,
        one.rdev,
        one.target,
        len(one.attributes),
    )


def finish(connection: apsw.Connection) -> None:
    """Nothing more comes: homes, directories, sums, indexes."""
    execute = connection.execute
    function: Any = extension_of
    connection.create_scalar_function("extension_of", function, 1, deterministic=True)
    execute("REINDEX dirents")  # as it filled its pages were left an eighth empty
    execute(INDEXES["dirents_ino"])
    execute(_INODES)
    execute("DROP TABLE temp.loading")
    execute(INDEXES["inodes_size"])
    execute("DELETE FROM directories")
    connection.executemany(_PUT_DIRECTORY, _directories(connection))
    execute(INDEXES["directories_path"])
    execute(INDEXES["directories_parent"])
    execute(_OWNERS)
    execute(_EXTENSIONS)
    execute(_NAMES)


def _directories(connection: apsw.Connection) -> list[tuple[Any, ...]]:
    """All rows of the table, parents before their children."""
    found: list[Any] = connection.execute(_PLACES).fetchall()
    places: dict[int, tuple[int, str]] = {
        ino: (home, name if home != ORPHANS else str(ino)) for ino, home, name in found
    }
    by_home: list[Any] = connection.execute(_BY_HOME).fetchall()
    sums: dict[int, list[int]] = {home: counts for home, *counts in by_home}
    # What has content but no inode (any more) hangs on nothing.
    for ino in {*sums, *(home for home, _ in places.values())} - places.keys() - _BASE.keys():
        places[ino] = ORPHANS, str(ino)
    children: dict[int, list[int]] = {}
    for ino, (parent, _) in places.items():
        children.setdefault(parent, []).append(ino)
    order = list(_BASE)
    paths = dict(_BASE)
    for ino in order:  # grows as it is walked
        for child in children.get(ino, ()):
            paths[child] = f"{paths[ino]}/{places[child][1]}"
            order.append(child)
    for ino in reversed(order):
        below = sums.setdefault(ino, [0, 0, 0, 0])
        if ino not in _BASE:
            above = sums.setdefault(places[ino][0], [0, 0, 0, 0])
            for at, value in enumerate(below):
                above[at] += value
    base = (NOWHERE, "")
    return [(ino, *places.get(ino, base), paths[ino], *sums[ino]) for ino in sorted(order)]
