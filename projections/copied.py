"""What a snapshot or clone copies, by number, for views in SQLite that keep names.

The stream tells a copy by its source and its first new number. As in the master's tables
the new numbers follow the order of the old ones, so a view that holds what was copied
comes to the rows that a rebuild would find.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import apsw

from gfs.changes import Copied

_NUMBERS = """
INSERT INTO temp.copied SELECT ino, :first + row_number() OVER (ORDER BY ino) - 1 FROM (
  WITH RECURSIVE tree (ino) AS (VALUES (:source) {below}) SELECT ino FROM tree
) ORDER BY ino
"""
_BELOW = "UNION SELECT d.ino FROM tree JOIN {table} d ON d.{parent} = tree.ino"


@contextmanager
def copied_inodes(
    copy: Copied, connection: apsw.Connection, names: Mapping[str, str] | None = None
) -> Iterator[None]:
    """While it lasts, table `temp.copied` says which inode (`old`) became which (`new`).

    Found by the tables of names, which must not be changed before.

    Args:
      names: by table, its column for the directory; they have `ino` as well. Without it
        table `dirents` with `parent`.
    """
    tables = names or {"dirents": "parent"}
    below = " ".join(_BELOW.format(table=one, parent=column) for one, column in tables.items())
    connection.execute("DROP TABLE IF EXISTS temp.copied")  # of a copy that failed
    connection.execute("CREATE TEMP TABLE copied (old INTEGER PRIMARY KEY, new INTEGER NOT NULL)")
    numbers = {"first": copy.first, "source": copy.source}
    connection.execute(_NUMBERS.format(below=below), numbers)
    yield
    connection.execute("DROP TABLE temp.copied")
