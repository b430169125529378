"""Paths and trees in the analytics view: the inode at a path, and all inodes below one.

What is below counts each inode once, as du(1) does on a mount: also one whose other
names lie elsewhere. A directory is part of its own tree.
"""

from __future__ import annotations

import duckdb

from gfs.errors import NotFound, UsageError
from gfs.ids import ROOT_INO

# Of the inode bound as $top. A directory has one name, so no row comes twice but by links.
BELOW = """WITH RECURSIVE tree (ino) AS (
  SELECT $top::BIGINT
  UNION ALL SELECT d.ino FROM dirents d JOIN tree t ON d.parent = t.ino WHERE d.kind = 16384
), below AS (
  SELECT ino FROM tree UNION SELECT d.ino FROM dirents d SEMI JOIN tree t ON d.parent = t.ino
)
"""
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
