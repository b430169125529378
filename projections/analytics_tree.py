"""Paths and trees in the analytics view: the inode at a path, and all inodes below one.

What is below counts each inode once, as du(1) does on a mount: also one whose other
names lie elsewhere. A directory is part of its own tree.
"""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from gfs.errors import NotFound, UsageError
from gfs.ids import ROOT_INO


@dataclass(frozen=True)
class Words:
    """What of a report is part of its SQL: chosen out of lists, never taken from a request."""

    by: str
    of: str
    in_tree: bool  # about the tree below $top
    per_owner: bool


NOTHING = "WITH RECURSIVE nothing AS (SELECT 1)"  # so that CTEs can follow
# Directories of the tree of the inode bound as $top.
TREE = """WITH RECURSIVE tree (ino) AS (
  SELECT $top::BIGINT
  UNION ALL SELECT d.ino FROM directory_names d JOIN tree t ON d.parent = t.ino
)"""
# All inodes of it, for SEMI JOIN: those with several names may come twice.
BELOW = f"""{TREE}, below AS (
  SELECT ino FROM tree
  UNION ALL SELECT d.ino FROM dirents d SEMI JOIN tree t ON d.parent = t.ino WHERE d.kind <> 16384
)
"""
# Directories and what they lie in; those in the trash and those gone, what they lay in last.
_LINEAGE = """lying_dirs AS (
  SELECT ino, parent FROM directory_names WHERE parent <> 2
), lineage AS (
  SELECT * FROM lying_dirs
  UNION ALL SELECT ino, arg_max(from_parent, position) FROM history.events
  ANTI JOIN lying_dirs USING (ino) WHERE kind = 16384 AND from_parent NOT IN (0, 2) GROUP BY ino
)"""
LINEAGE = f"WITH RECURSIVE {_LINEAGE}"
# Directories in the tree of $top, or once in it and not elsewhere now.
ONCE_BELOW = f"""{LINEAGE}, once (ino) AS (
  SELECT $top::BIGINT UNION SELECT d.ino FROM once o JOIN lineage d ON d.parent = o.ino
)
"""


def climbing(rows: str) -> str:
    """CTEs behind a WITH RECURSIVE: `places` (ino, path) of what `rows` have as `parent`.

    From the few directories up, which is much less than all directories down; those
    that hang on nothing are not in it.
    """
    return f"""
, up (leaf, above, path) AS (
  SELECT DISTINCT parent, parent, '' FROM {rows}
  UNION ALL SELECT u.leaf, d.parent, '/' || d.name || u.path
  FROM up u JOIN directory_names d ON d.ino = u.above
), places AS (
  SELECT leaf AS ino, CASE above WHEN 2 THEN '<trash>' ELSE '' END || path AS path
  FROM up WHERE above IN (1, 2)
)"""


_INO_OF = "SELECT ino FROM dirents WHERE parent = ? AND name = ?"


def parts_of(path: str) -> list[str]:
    """Names of an absolute path.

    Raises: UsageError.
    """
    if not path.startswith("/"):
        raise UsageError(f"{path[:100]!r} does not begin with /")
    return [name for name in path.split("/") if name not in ("", ".")]


def inode_at(connection: duckdb.DuckDBPyConnection, path: str) -> int:
    """Inode at an absolute path, symbolic links not followed.

    Raises: UsageError, NotFound.
    """
    ino = ROOT_INO
    for name in parts_of(path):
        row = connection.execute(_INO_OF, [ino, name]).fetchone()
        if row is None:
            raise NotFound(f"{path}: no such file or directory")
        ino = row[0]
    return ino
