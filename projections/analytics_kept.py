"""What the analytics view keeps besides items, so that questions about everything are small.

`counts` holds the histograms of all regular files as differences that add up
(`projections.core.counting`), `large` the few thousand largest files, `directory_names` the
names of directories once more: to climb to the root through all names takes a hundred times
as long. All three are functions of the items and move in their transactions; a snapshot is
loaded without them, and `fill` makes them when it is in.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from operator import attrgetter

import duckdb

from gfs.changes import Copied
from projections.core.comparing import Difference
from projections.core.counting import AGES, DAY_NS, SIZES, counted
from projections.core.following import Items

LARGE_FILES = 4000  # so many are kept; half of them may go until they are looked for again
COUNTS_ROWS = 50_000  # differences until they are added up
POWER = "power_of(size)"


def day(of: str) -> str:
    """SQL of the day at which a file counts, by one of `AGES`."""
    column = "greatest(atime_ns, mtime_ns)" if of == "used" else f"{of}_ns"
    return f"{column} // {DAY_NS}"


KEPT = """
CREATE TABLE counts (    -- of regular files; several rows may be about one key: add them up
  of VARCHAR NOT NULL,   -- size; mtime, atime, ctime, created, used (the later of two)
  key BIGINT NOT NULL,   -- the power of two not above it; days since 1970
  files BIGINT NOT NULL,
  bytes BIGINT NOT NULL
);
CREATE TABLE large (     -- every file, no directories, of at least `least` bytes
  ino BIGINT NOT NULL,
  size BIGINT NOT NULL,
  uid BIGINT NOT NULL,
  mtime_ns BIGINT NOT NULL,
  atime_ns BIGINT NOT NULL,
  nlink BIGINT NOT NULL
);
CREATE TABLE large_from (least BIGINT NOT NULL, found BIGINT NOT NULL);  -- one row
INSERT INTO large_from VALUES (0, 0);
CREATE TABLE directory_names (ino BIGINT NOT NULL, parent BIGINT NOT NULL, name VARCHAR NOT NULL);
CREATE MACRO power_of(size) AS CASE WHEN size = 0 THEN 0
  WHEN (1::BIGINT << floor(log2(size))::INTEGER) > size  -- log2 was rounded up
  THEN 1::BIGINT << (floor(log2(size))::INTEGER - 1)
  ELSE 1::BIGINT << floor(log2(size))::INTEGER END;
"""
_FILE = "mode & 61440 = 32768"
_OWN = "mode & 61440 <> 16384"
_COUNTED = " UNION ALL ".join(
    f"SELECT '{of}' AS of, {key} AS key, count(*) AS files, sum(size)::BIGINT AS bytes"
    f" FROM {{source}} WHERE {_FILE} GROUP BY ALL"
    for of, key in ((SIZES, POWER), *((of, day(of)) for of in AGES))
)
ADDED_UP = (
    "SELECT of, key, sum(files)::BIGINT AS files, sum(bytes)::BIGINT AS bytes FROM counts"
    " GROUP BY ALL HAVING sum(files) <> 0 OR sum(bytes) <> 0"
)
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
_LARGE_COLUMNS = ("ino", "size", "uid", "mtime_ns", "atime_ns", "nlink")
_LARGE_ROW = attrgetter(*_LARGE_COLUMNS[1:])
_FROM = "(SELECT least FROM large_from)"
_LARGE = (
    f"INSERT INTO large SELECT {', '.join(_LARGE_COLUMNS)} FROM {{source}}"
    f" WHERE {_OWN} AND size >= {_FROM}"
)
_FOLDERS = "INSERT INTO directory_names SELECT ino, parent, name FROM {source} WHERE kind = 16384"
_NAMES = """
SELECT d.ino, d.name, d.kind, coalesce(i.mode & 61440, d.kind)
FROM (SELECT * FROM dirents WHERE ino > ? AND ino <= ?) d LEFT JOIN inodes i USING (ino)
WHERE d.kind <> i.mode & 61440
  OR d.extension <> CASE WHEN d.kind = 32768 THEN extension_of(d.name) ELSE '' END
"""


def keep(items: Items, connection: duckdb.DuckDBPyConnection) -> None:
    """Bring what is kept to `items`, which the tables hold by now."""
    counts = [(*key, *sums) for key, sums in counted(items).items()]
    if counts:
        with connection.appender("counts") as appender:
            appender.append_rows(counts)
        _compact(connection)
    _keep_large(items, connection)
    gone = [one.ino for one in items.old_dirents.values() if stat.S_ISDIR(one.kind)]
    if gone:
        connection.execute("DELETE FROM directory_names WHERE ino IN (SELECT unnest($1))", [gone])
    names = [
        (one.ino, *key)
        for key, one in items.dirents.items()
        if one is not None and stat.S_ISDIR(one.kind)
    ]
    if names:
        with connection.appender("directory_names") as appender:
            appender.append_rows(names)


def _compact(connection: duckdb.DuckDBPyConnection) -> None:
    ((rows,),) = connection.execute("SELECT count(*) FROM counts").fetchall()
    if rows > COUNTS_ROWS:
        connection.execute(f"CREATE TEMP TABLE added_up AS {ADDED_UP}")
        connection.execute("DELETE FROM counts")
        connection.execute("INSERT INTO counts FROM added_up")
        connection.execute("DROP TABLE added_up")


def _keep_large(items: Items, connection: duckdb.DuckDBPyConnection) -> None:
    ((least, found),) = connection.execute("SELECT least, found FROM large_from").fetchall()
    gone = [ino for ino, one in items.old_inodes.items() if one.size >= least]
    came = [
        (ino, *_LARGE_ROW(one))
        for ino, one in items.inodes.items()
        if one is not None and one.size >= least and not stat.S_ISDIR(one.mode)
    ]
    if gone:
        connection.execute("DELETE FROM large WHERE ino IN (SELECT unnest($1))", [gone])
    if came:
        with connection.appender("large") as appender:
            appender.append_rows(came)
    if gone or came:
        ((kept,),) = connection.execute("SELECT count(*) FROM large").fetchall()
        if kept * 2 < found or kept > 3 * LARGE_FILES:
            _find_large(connection)


def _find_large(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("DELETE FROM large")
    connection.execute(_LEAST, {"wanted": LARGE_FILES})
    connection.execute(_LARGE.format(source="inodes"))


def fill(connection: duckdb.DuckDBPyConnection) -> None:
    """Make all of it from the items."""
    connection.execute("DELETE FROM counts")
    connection.execute(f"INSERT INTO counts {_COUNTED.format(source='inodes')}")
    _find_large(connection)
    connection.execute("DELETE FROM directory_names")
    connection.execute(_FOLDERS.format(source="dirents"))


def keep_copy(connection: duckdb.DuckDBPyConnection, copy: Copied) -> None:
    """Add the inodes that a snapshot made, with their names; the root's came as a change."""
    numbers = f"ino BETWEEN {int(copy.first)} AND {int(copy.first + copy.count - 1)}"
    inodes = f"(SELECT * FROM inodes WHERE {numbers})"
    connection.execute(f"INSERT INTO counts {_COUNTED.format(source=inodes)}")
    connection.execute(_LARGE.format(source=inodes))
    names = f"(SELECT * FROM dirents WHERE {numbers} AND ino <> {int(copy.root)})"
    connection.execute(_FOLDERS.format(source=names))


def contradictions_of_names(
    connection: duckdb.DuckDBPyConnection, after: int, last: int
) -> Iterator[Difference]:
    """Names of inodes in (after, last] whose kind or extension is not what they say."""
    for ino, name, kind, right in connection.execute(_NAMES, [after, last]).fetchall():
        if kind != right:
            yield Difference("kind", ino, f"{name!r} is of kind {kind:o}, its inode of {right:o}")
        else:
            yield Difference("extension", ino, f"of {name!r} is another")


def contradictions(connection: duckdb.DuckDBPyConnection) -> Iterator[Difference]:
    """What is kept otherwise than the items say; reads all of them once."""
    pairs = {
        "counts": (ADDED_UP, _COUNTED.format(source="inodes")),
        "large": (
            "SELECT * FROM large",
            f"SELECT {', '.join(_LARGE_COLUMNS)} FROM inodes WHERE {_OWN} AND size >= {_FROM}",
        ),
        "directory_names": (
            "SELECT ino, parent, name FROM directory_names",
            "SELECT ino, parent, name FROM dirents WHERE kind = 16384",
        ),
    }
    for kind, (kept, right) in pairs.items():
        for what, sql in (
            ("is too many", f"({kept}) EXCEPT ALL ({right})"),
            ("is missing", f"({right}) EXCEPT ALL ({kept})"),
        ):
            yield from _told(kind, what, connection.execute(sql).fetchall())


def _told(kind: str, what: str, rows: Iterable[tuple[object, ...]]) -> Iterator[Difference]:
    for row in rows:
        ino = row[0] if isinstance(row[0], int) else 0
        yield Difference(kind, ino, f"{row!r} {what}")
