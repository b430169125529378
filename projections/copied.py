"""What a snapshot or clone copies, by number, for views in SQLite that keep `dirents`.

The stream tells a copy by its source and its first new number. As in the master's tables
the new numbers follow the order of the old ones, so a view that holds what was copied
comes to the rows that a rebuild would find.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import apsw

from gfs.changes import Copied

_NUMBERS = """
INSERT INTO temp.copied SELECT ino, :first + row_number() OVER (ORDER BY ino) - 1 FROM (
  WITH RECURSIVE tree (ino) AS (
    VALUES (:source) UNION SELECT d.ino FROM tree JOIN dirents d ON d.parent = tree.ino
  ) SELECT ino FROM tree
) ORDER BY ino
"""


@contextmanager
def copied_inodes(copy: Copied, connection: apsw.Connection) -> Iterator[None]:
    """While it lasts, table `temp.copied` says which inode (`old`) became which (`new`).

    Found by table `dirents` (`parent`, `name`, `ino`), which must not be changed before.
    """
    connection.execute("DROP TABLE IF EXISTS temp.copied")  # of a copy that failed
    connection.execute("CREATE TEMP TABLE copied (old INTEGER PRIMARY KEY, new INTEGER NOT NULL)")
    connection.execute(_NUMBERS, {"first": copy.first, "source": copy.source})
    yield
    connection.execute("DROP TABLE temp.copied")
