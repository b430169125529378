"""Snapshots in the search view: rows of the copy made of the source's rows.

As in the master's tables new numbers follow the order of the old ones, so that the view
comes to the rows that a rebuild would find. Sums are those of the copy's own inodes:
a hard link that leaves the tree makes them differ from the source's.
"""

from __future__ import annotations

from typing import Any

import apsw

from gfs.changes import Line
from projections.copied import copied_inodes
from projections.core.following import SourceDiffers
from projections.core.owning import owning
from projections.search_apply import ADD_EXTENSION, ADD_OWNER, DROP_LINK, DROP_NAME
from projections.search_schema import ORPHANS, STORED, extension_of
from projections.search_tree import Sums, Tree

_DIRECTORY, _FILE, _TYPE = 0o040000, 0o100000, 0o170000
_NAMES_IN = {"inodes": "home", "links": "parent"}
_LINKS = """
INSERT INTO links (id, parent, name, ino)
SELECT (SELECT ifnull(min(id), 0) FROM links) - row_number() OVER (), p.new, l.name, i.new
FROM temp.copied p CROSS JOIN links l ON l.parent = p.old CROSS JOIN temp.copied i ON i.old = l.ino
"""
_LINK_NAMES = (
    "INSERT INTO names (rowid, name) SELECT id, name FROM links"
    " WHERE parent BETWEEN :first AND :last ORDER BY id"
)
_NAMES = (
    "INSERT INTO names (rowid, name) SELECT ino, name FROM inodes"
    " WHERE ino BETWEEN :first AND :last AND name <> '' ORDER BY ino"
)
_XATTRS = """
INSERT INTO xattrs SELECT c.new, x.name, x.value
FROM temp.copied c JOIN xattrs x ON x.ino = c.old WHERE {kept}
"""
_INODES = f"""
INSERT INTO inodes (ino, {STORED})
SELECT c.new, ifnull(h.new, {ORPHANS}), CASE WHEN h.new IS NULL THEN '' ELSE i.name END,
  i.extension, {{mode}}, {{uid}}, {{gid}},
  CASE WHEN i.nlink = 1 OR i.mode & {_TYPE} = {_DIRECTORY} THEN i.nlink
    ELSE (h.new IS NOT NULL) + (SELECT count(*) FROM links WHERE ino = c.new) END,
  i.size, i.stored, i.atime_after, i.mtime_ns, :time - i.mtime_ns, 0, 0, i.rdev, i.target,
  CASE WHEN i.xattrs = 0 THEN 0 ELSE (SELECT count(*) FROM xattrs WHERE ino = c.new) END
FROM temp.copied c JOIN inodes i ON i.ino = c.old LEFT JOIN temp.copied h ON h.old = i.home
"""
_HOMELESS = f"""
SELECT i.ino, i.mode, l.id, l.parent, l.name FROM inodes i JOIN links l ON l.ino = i.ino
WHERE i.ino BETWEEN :first AND :last AND i.home = {ORPHANS}
ORDER BY i.ino, l.parent DESC, l.name DESC
"""
_SET_HOME = "UPDATE inodes SET home = ?, name = ?, extension = ? WHERE ino = ?"
_PATH = "SELECT path FROM directories WHERE ino = ?"
_DIRECTORIES = """
INSERT INTO directories
SELECT c.new, p.new, d.name, :to || substr(d.path, length(:of) + 1), 0, 0, 0, 0
FROM temp.copied c JOIN directories d ON d.ino = c.old JOIN temp.copied p ON p.old = d.parent
WHERE c.old <> :source
"""
_COPIES = "FROM inodes WHERE ino BETWEEN :first AND :last"
_SUMS = (
    f"sum(mode & {_TYPE} <> {_DIRECTORY}), sum(mode & {_TYPE} = {_DIRECTORY}),"
    " sum(size), sum((stored + 511) / 512 * 512)"
)
_BY_HOME = f"SELECT home, {_SUMS} {_COPIES} GROUP BY home"
_BY_OWNER = f"SELECT uid, {_SUMS} {_COPIES} GROUP BY uid"
_BY_EXTENSION = (
    f"SELECT extension, count(*), sum(size), sum((stored + 511) / 512 * 512) {_COPIES}"
    f" AND mode & {_TYPE} = {_FILE} GROUP BY extension"
)


def apply_copy(line: Line, connection: apsw.Connection) -> None:
    """Make the rows; inside the caller's transaction.

    Raises: SourceDiffers: this view does not hold what was copied.
    """
    copy = line.copy
    assert copy is not None
    execute = connection.cursor().execute
    numbers = {"first": copy.first, "last": copy.first + copy.count - 1}
    with copied_inodes(copy, connection, _NAMES_IN):
        execute(_LINKS)
        execute(_LINK_NAMES, numbers)
        owner = owning(copy)
        execute(_XATTRS.format(kept=owner.kept))
        inodes = _INODES.format(mode=owner.mode, uid=owner.uid, gid=owner.gid)
        execute(inodes, {"time": line.time_ns})
        if connection.changes() != copy.count:
            raise SourceDiffers(f"{connection.changes()} inodes, {copy.count} were copied")
        _find_homes(execute, numbers)
        execute(_NAMES, numbers)
        _place_directories(execute, copy.source, copy.root)
    tree = Tree(connection)
    rows: list[Any] = execute(_BY_HOME, numbers).fetchall()
    for home, *sums in rows:
        tree.add_sums(home, Sums(*sums))
    tree.flush()
    connection.executemany(ADD_OWNER, execute(_BY_OWNER, numbers).fetchall())
    connection.executemany(ADD_EXTENSION, execute(_BY_EXTENSION, numbers).fetchall())


def _find_homes(execute: Any, numbers: dict[str, int]) -> None:
    """Of the copy's root, and of what counted at a link outside: the least link is the last."""
    rows = {ino: row for ino, *row in execute(_HOMELESS, numbers).fetchall()}
    for ino, (mode, link, parent, name) in rows.items():
        extension = extension_of(name) if mode & _TYPE == _FILE else ""
        execute(_SET_HOME, (parent, name, extension, ino))
        execute(DROP_NAME, (link, name))
        execute(DROP_LINK, (link,))


def _place_directories(execute: Any, source: int, root: int) -> None:
    """The root's row is there since its name came."""
    old, new = execute(_PATH, (source,)).get, execute(_PATH, (root,)).get
    if old is not None:
        execute(_DIRECTORIES, {"of": old, "to": new, "source": source})
