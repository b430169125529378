"""Snapshots in the analytics view: rows of the copy made of the source's rows."""

from __future__ import annotations

import duckdb

from gfs.changes import Line
from projections.analytics_kept import keep_copy
from projections.core.following import SourceDiffers
from projections.core.owning import owning

_NUMBERS = """
CREATE OR REPLACE TEMP TABLE copied AS
WITH RECURSIVE tree (ino) AS (
  SELECT $source::BIGINT UNION SELECT d.ino FROM dirents d JOIN tree ON d.parent = tree.ino
)
SELECT ino AS old, $first::BIGINT + row_number() OVER (ORDER BY ino) - 1 AS new FROM tree
"""
_INODES = """
INSERT INTO main_inodes
SELECT c.new, {mode}, {uid}, {gid},
  CASE WHEN i.nlink = 1 OR i.mode & 61440 = 16384 THEN i.nlink ELSE coalesce(l.links, 1) END,
  i.size, i.stored_apart, i.atime_xor, i.mtime_ns, $time, $time, 0, i.rdev, i.target, i.digest
FROM copied c JOIN inodes i ON i.ino = c.old LEFT JOIN (
  SELECT d.ino, count(*) AS links FROM dirents d JOIN copied p ON d.parent = p.old GROUP BY d.ino
) l ON l.ino = c.old
"""
_DIRENTS = """
INSERT INTO main_dirents SELECT p.new, d.name, i.new, d.kind, d.extension
FROM dirents d JOIN copied p ON d.parent = p.old JOIN copied i ON i.old = d.ino
"""
_XATTRS = """
INSERT INTO main_xattrs SELECT c.new, x.name, x.value FROM copied c JOIN xattrs x ON x.ino = c.old
WHERE {kept}
"""


def apply_copy(line: Line, connection: duckdb.DuckDBPyConnection) -> None:
    """Make the rows; inside the caller's transaction.

    Raises: SourceDiffers: this view does not hold what was copied.
    """
    copy = line.copy
    assert copy is not None
    owner = owning(copy)
    connection.execute(_NUMBERS, {"first": copy.first, "source": copy.source})
    inodes = _INODES.format(mode=owner.mode, uid=owner.uid, gid=owner.gid)
    made = connection.execute(inodes, {"time": line.time_ns}).fetchone()
    if made is None or made[0] != copy.count:
        raise SourceDiffers(f"{made} inodes, {copy.count} were copied")
    connection.execute(_DIRENTS)
    connection.execute(_XATTRS.format(kept=owner.kept))
    connection.execute("DROP TABLE copied")
    keep_copy(connection, copy)
