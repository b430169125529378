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
_EMPTY = "SELECT NOT EXISTS (SELECT 1 FROM inodes) AND NOT EXISTS (SELECT 1 FROM links)"
_TABLES = f"""
CREATE TEMP TABLE loading (ino INTEGER PRIMARY KEY, {_ATTRIBUTES}, xattrs);
CREATE TEMP TABLE loading_names (parent INTEGER, name TEXT, ino INTEGER);
"""
_PUT_INODE = f"INSERT INTO temp.loading VALUES ({', '.join('?' * 15)})"
_PUT_NAME = "INSERT INTO temp.loading_names VALUES (?, ?, ?)"
_PUT_XATTR = "INSERT INTO xattrs VALUES (?, ?, ?)"
_DIRECTORY, _FILE, _TYPE = 0o040000, 0o100000, 0o170000
# The first of each inode stays. To sort whole rows costs less than to look for each.
_LEAST = """
CREATE TEMP TABLE least (ino INTEGER PRIMARY KEY, parent INTEGER, name TEXT);
INSERT OR IGNORE INTO temp.least
SELECT ino, parent, name FROM temp.loading_names ORDER BY ino, parent, name;
"""
_INODES = f"""
INSERT INTO inodes (ino, {STORED})
SELECT l.ino,
  CASE WHEN l.ino IN ({ROOT}, {TRASH}) THEN {NOWHERE} ELSE ifnull(d.parent, {ORPHANS}) END,
  ifnull(d.name, ''),
  CASE WHEN l.mode & {_TYPE} = {_FILE} THEN extension_of(ifnull(d.name, '')) ELSE '' END,
  mode, uid, gid, nlink, size, stored, atime_ns - mtime_ns, mtime_ns, ctime_ns - mtime_ns,
  created_ns - ctime_ns, data_version, rdev, target, l.xattrs
FROM temp.loading l LEFT JOIN temp.least d ON d.ino = l.ino ORDER BY l.ino
"""
_ALL_LEAST = """
SELECT (SELECT count(*) FROM temp.loading_names) = (SELECT count(*) FROM inodes WHERE home > 0)
"""
_LINKS = """
INSERT INTO links (id, parent, name, ino)
SELECT -row_number() OVER (ORDER BY parent DESC, name DESC), parent, name, ino
FROM temp.loading_names n WHERE NOT EXISTS (
  SELECT 1 FROM inodes i WHERE i.ino = n.ino AND i.home = n.parent AND i.name = n.name
) ORDER BY 1
"""
_PLACES = f"""
SELECT ino, home, name FROM inodes WHERE mode & {_TYPE} = {_DIRECTORY} AND home <> {NOWHERE}
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
_NAMES = (  # by number, which FTS5's own `rebuild` would not keep to
    "INSERT INTO names (rowid, name) SELECT id, name FROM links ORDER BY id",
    "INSERT INTO names (rowid, name) SELECT ino, name FROM inodes WHERE +home > 0 ORDER BY ino",
)
_BASE = {ORPHANS: "<orphans>", ROOT: "", TRASH: "<trash>"}  # their paths


def is_loading(connection: apsw.Connection) -> bool:
    """Whether the view is empty, or its load has begun and not ended."""
    return connection.execute(_BEGUN).get is not None or connection.execute(_EMPTY).get == 1


def load_items(lines: Iterable[Line], connection: apsw.Connection) -> None:
    """Write items of a snapshot; the view is of use only after `finish`."""
    if connection.execute(_BEGUN).get is None:
        for name in INDEXES:
            connection.execute(f"DROP INDEX {name}")
        connection.execute(_TABLES)
    inodes, names, xattrs = [], [], []
    for line in lines:
        keys, new = line.keys, line.new
        if keys is None or new is None:
            continue
        if line.table == "dirents":
            names.append((keys.parent, keys.name, new.ino))
            continue
        inodes.append(_row(keys.ino, new))
        if new.attributes:
            xattrs += [(keys.ino, name, value) for name, value in new.attributes.items()]
    for sql, rows in ((_PUT_NAME, names), (_PUT_INODE, inodes), (_PUT_XATTR, xattrs)):
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
    execute(_LEAST)
    execute(_INODES)
    if not execute(_ALL_LEAST).get:
        execute(_LINKS)
    for table in ("loading", "loading_names", "least"):
        execute(f"DROP TABLE temp.{table}")
    for name in ("inodes_name", "inodes_size", "links_name", "links_ino"):
        execute(INDEXES[name])
    execute("DELETE FROM directories")
    connection.executemany(_PUT_DIRECTORY, _directories(connection))
    execute(INDEXES["directories_path"])
    execute(INDEXES["directories_parent"])
    execute(_OWNERS)
    execute(_EXTENSIONS)
    for names in _NAMES:
        execute(names)


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
