"""The few thousand largest files, kept beside all the others, each with its least name.

A question for the largest reads this table alone. It holds every file of at least `least`
bytes; when too many have gone, or come, it is made anew from the inodes.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter

import duckdb

from projections.analytics_known import Known
from projections.analytics_names import Change
from projections.core.following import DirentKey
from projections.duck_rows import delete, put

LARGE_FILES = 4000  # so many are kept; half of them may go until they are looked for again
LARGE = """
CREATE TABLE main_large (  -- every file, no directories, of at least `least` bytes
  ino BIGINT NOT NULL,
  size BIGINT NOT NULL,
  uid BIGINT NOT NULL,
  mtime_ns BIGINT NOT NULL,
  atime_ns BIGINT NOT NULL,
  nlink BIGINT NOT NULL,
  parent BIGINT NOT NULL,  -- of its least name; 0 and '' if it has none
  name VARCHAR NOT NULL
);
CREATE TABLE large_from (least BIGINT NOT NULL, found BIGINT NOT NULL);  -- one row
INSERT INTO large_from VALUES (0, 0);
"""
_OWN = "mode & 61440 <> 16384"
_NAMELESS: DirentKey = (0, "")
# The size that as many files reach as are wanted; one more if too many are of just that size.
_LEAST = f"""
UPDATE large_from SET least = bound.least, found = bound.found FROM (
  SELECT CASE WHEN at_least > 2 * $wanted THEN edge + 1 ELSE edge END AS least,
    CASE WHEN at_least > 2 * $wanted THEN above ELSE at_least END AS found
  FROM (SELECT edge, count(*) FILTER (size >= edge) AS at_least,
      count(*) FILTER (size > edge) AS above
    FROM inodes, (SELECT coalesce(min(size), 0) AS edge FROM (
      SELECT size FROM inodes WHERE {_OWN} ORDER BY size DESC LIMIT $wanted))
    WHERE {_OWN} GROUP BY edge)
) bound
"""
columns_of = attrgetter("size", "uid", "mtime_ns", "atime_ns", "nlink")  # of an image, in `large`
_COLUMNS = "ino, size, uid, mtime_ns, atime_ns, nlink"
_BIG = f"SELECT {_COLUMNS} FROM inodes WHERE {_OWN} AND size >= (SELECT least FROM large_from)"
_NAMED = (
    f"WITH big AS MATERIALIZED ({_BIG} AND {{numbers}}), least AS ("
    "SELECT ino, min({{'parent': parent, 'name': name}}) AS home FROM dirents"
    " SEMI JOIN big USING (ino) GROUP BY ino)"
    " SELECT b.*, coalesce(home.parent, 0) AS parent, coalesce(home.name, '') AS name"
    " FROM big b LEFT JOIN least USING (ino)"
)
ALL = _NAMED.format(numbers="true")  # what `large` is to be
_KEPT_NAMES = "SELECT ino, parent, name FROM large WHERE ino IN (SELECT unnest($1))"


def keep(change: Change, connection: duckdb.DuckDBPyConnection, known: Known) -> None:
    """Bring `main_large` to `change`, which the tables hold by now and which knows its bound."""
    items, names = change.items, change.names
    least, found = known.bound_of_large(connection)
    gone = [ino for ino, one in items.old_inodes.items() if one.size >= least]
    came = {ino: columns_of(one) for ino, one in change.large.items()}
    # Names that changed and nothing else: of an inode that this batch has no image of.
    renamed = [ino for ino in {**names.lost, **names.got} if ino not in items.inodes]
    if renamed:
        sql = f"SELECT {_COLUMNS} FROM main_large WHERE ino IN (SELECT unnest($1))"
        others = {row[0]: row[1:] for row in connection.execute(sql, [renamed]).fetchall()}
        came |= others
        gone += others
    if not gone and not came:
        return
    homes = homes_of(change, came, connection)
    delete(connection, "main_large", ["ino"], [(ino,) for ino in gone])
    rows = [(ino, *one, *homes.get(ino, _NAMELESS)) for ino, one in came.items()]
    put(connection, "main_large", rows)
    ((kept,),) = connection.execute("SELECT count(*) FROM main_large").fetchall()
    if kept * 2 < found or kept > 3 * LARGE_FILES:
        fill(connection)
        known.refilled()


def homes_of(
    change: Change, inodes: Iterable[int], connection: duckdb.DuckDBPyConnection
) -> dict[int, DirentKey]:
    """Least names of large files; what has none is not among them.

    What is large and was so before, under the name that it has, is in `large`.
    """
    homes: dict[int, DirentKey] = {}
    lost, got, same = change.names.lost, change.names.got, list[int]()
    for ino in inodes:
        if change.knows(ino):
            if (least := change.after(ino)) is not None:
                homes[ino] = least
        elif ino in got:
            homes[ino] = got[ino]
        elif ino not in lost:
            same.append(ino)
    if same:
        for ino, parent, name in connection.execute(_KEPT_NAMES, [same]).fetchall():
            homes[ino] = parent, name
    return homes


def fill(connection: duckdb.DuckDBPyConnection) -> None:
    """Make it from the items."""
    connection.execute("DELETE FROM main_large")
    connection.execute(_LEAST, {"wanted": LARGE_FILES})
    connection.execute(f"INSERT INTO main_large {ALL}")


def put_in_copy(connection: duckdb.DuckDBPyConnection, numbers: str) -> None:
    """Add inodes that a snapshot made; `numbers` is the SQL condition that they fulfil."""
    connection.execute(f"INSERT INTO main_large {_NAMED.format(numbers=numbers)}")
