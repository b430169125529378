"""What the analytics view keeps besides items, so that questions about everything are small.

`counts` holds the histograms of all regular files, and their sums by extension, as differences
that add up (`projections.core.counting`, `analytics_extensions`), `large` the largest of them
(`analytics_large`), `directory_names` the names of directories once more: to climb to the root
through all names takes a hundred times as long. All are functions of the items and move in
their transactions; a snapshot is loaded without them, and `fill` makes them when it is in.

With as many extensions as files `counts` is as large as a column of names, adding up costs a
row a microsecond, and the report of extensions takes twice as long as one made of the names.
"""

from __future__ import annotations

import stat
from collections.abc import Collection, Iterable, Iterator

import duckdb

from gfs.changes import Copied
from projections import analytics_extensions as extensions
from projections import analytics_large as large
from projections.analytics_known import Known
from projections.analytics_large import LARGE
from projections.analytics_names import Change
from projections.core.comparing import Difference
from projections.core.counting import AGES, DAY_NS, SIZES
from projections.core.following import Items
from projections.duck_rows import delete, put

COUNTS_ROWS = 50_000  # rows that are no key's sum, until they are added up
_NOTE_SUMS = "UPDATE counts_from SET sums = (SELECT count(*) FROM main_counts)"
POWER = "power_of(size)"


def day(of: str) -> str:
    """SQL of the day at which a file counts, by one of `AGES`."""
    column = "greatest(atime_ns, mtime_ns)" if of == "used" else f"{of}_ns"
    return f"{column} // {DAY_NS}"


KEPT = f"""
CREATE TABLE main_counts (    -- of regular files; several rows may be about one key: add them up
  of VARCHAR NOT NULL,   -- size; mtime, atime, ctime, created, used (the later of two); extension
  key BIGINT NOT NULL,   -- the power of two not above it; days since 1970; 0
  extension VARCHAR NOT NULL,
  files BIGINT NOT NULL,
  bytes BIGINT NOT NULL,
  disk_bytes BIGINT NOT NULL  -- 0 but for extensions
);
CREATE TABLE counts_from (sums BIGINT NOT NULL);  -- one row: how many there were added up last
INSERT INTO counts_from VALUES (0);
{LARGE}
CREATE TABLE main_directory_names (
  ino BIGINT NOT NULL,
  parent BIGINT NOT NULL,
  name VARCHAR NOT NULL,
  moved BIGINT NOT NULL  -- 0, or what `moves` had come to when the directory was renamed last
);
-- One row: of which file, and in how many batches a directory was renamed.
CREATE TABLE moves (file VARCHAR NOT NULL, moves BIGINT NOT NULL);
INSERT INTO moves VALUES (uuid()::VARCHAR, 0);
CREATE MACRO power_of(size) AS CASE WHEN size = 0 THEN 0
  WHEN (1::BIGINT << floor(log2(size))::INTEGER) > size  -- log2 was rounded up
  THEN 1::BIGINT << (floor(log2(size))::INTEGER - 1)
  ELSE 1::BIGINT << floor(log2(size))::INTEGER END;
"""
_FILE = "mode & 61440 = 32768"
_COUNTED = " UNION ALL ".join(
    f"SELECT '{of}' AS of, {key} AS key, '' AS extension, count(*) AS files,"
    f" sum(size)::BIGINT AS bytes, 0 AS disk_bytes FROM {{source}} WHERE {_FILE} GROUP BY ALL"
    for of, key in ((SIZES, POWER), *((of, day(of)) for of in AGES))
)
_ALL_COUNTED = f"{_COUNTED.format(source='inodes')} UNION ALL {extensions.SUMS}"
ADDED_UP = (
    "SELECT of, key, extension, sum(files)::BIGINT AS files, sum(bytes)::BIGINT AS bytes,"
    " sum(disk_bytes)::BIGINT AS disk_bytes FROM counts GROUP BY ALL"
    " HAVING sum(files) <> 0 OR sum(bytes) <> 0 OR sum(disk_bytes) <> 0"
)
_FOLDERS = (
    "INSERT INTO main_directory_names SELECT ino, parent, name, 0 FROM {source} WHERE kind = 16384"
)
ONE_MOVE_MORE = "UPDATE moves SET moves = moves + 1 RETURNING moves"
_NAMES = """
SELECT d.ino, d.name, d.kind, coalesce(i.mode & 61440, d.kind)
FROM (SELECT * FROM dirents WHERE ino > ? AND ino <= ?) d LEFT JOIN inodes i USING (ino)
WHERE d.kind <> i.mode & 61440
  OR d.extension <> CASE WHEN d.kind = 32768 THEN extension_of(d.name) ELSE '' END
"""


def keep(
    change: Change, connection: duckdb.DuckDBPyConnection, known: Known, moved: Collection[int]
) -> None:
    """Bring what is kept to `change`, which the tables hold by now.

    `moved` are directories that have got other names, though it does not tell of all.
    """
    large.keep(change, connection, known)
    counts = extensions.counts_of(change, connection)
    if counts:
        put(connection, "main_counts", counts)
        known.counts_room -= len(counts)
        if known.counts_room < 0:
            _compact(connection, known)
    _keep_directories(change.items, connection, moved)


def _keep_directories(
    items: Items, connection: duckdb.DuckDBPyConnection, moved: Collection[int]
) -> None:
    gone = {one.ino for one in items.old_dirents.values() if stat.S_ISDIR(one.kind)}
    came = [
        (one.ino, *key)
        for key, one in items.dirents.items()
        if one is not None and stat.S_ISDIR(one.kind)
    ]
    delete(connection, "main_directory_names", ["ino"], [(ino,) for ino in gone])
    moves, moved = 0, gone.union(moved).intersection(ino for ino, *_ in came)
    if moved:
        ((moves,),) = connection.execute(ONE_MOVE_MORE).fetchall()
    rows = [(*one, moves if one[0] in moved else 0) for one in came]
    put(connection, "main_directory_names", rows)


def _compact(connection: duckdb.DuckDBPyConnection, known: Known) -> None:
    """Add up when the rows have doubled: each row's share is small, however many keys there are."""
    ((rows, sums),) = connection.execute(
        "SELECT (SELECT count(*) FROM main_counts), sums FROM counts_from"
    ).fetchall()
    known.counts_room = 2 * sums + COUNTS_ROWS - rows
    if known.counts_room < 0:
        connection.execute(f"CREATE TEMP TABLE added_up AS {ADDED_UP}")
        connection.execute("DELETE FROM main_counts")
        connection.execute("INSERT INTO main_counts FROM added_up")
        connection.execute("DROP TABLE added_up")
        connection.execute(_NOTE_SUMS)
        known.changed = True


def fill(connection: duckdb.DuckDBPyConnection) -> None:
    """Make all of it from the items."""
    connection.execute("DELETE FROM main_counts")
    connection.execute(f"INSERT INTO main_counts {_ALL_COUNTED}")
    connection.execute(_NOTE_SUMS)
    large.fill(connection)
    connection.execute("DELETE FROM main_directory_names")
    connection.execute(_FOLDERS.format(source="dirents"))


def keep_copy(connection: duckdb.DuckDBPyConnection, copy: Copied) -> None:
    """Add the inodes that a snapshot made, with their names; the root's came as a change."""
    numbers = f"ino BETWEEN {int(copy.first)} AND {int(copy.first + copy.count - 1)}"
    inodes = f"(SELECT * FROM inodes WHERE {numbers})"
    connection.execute(f"INSERT INTO main_counts {_COUNTED.format(source=inodes)}")
    extensions.put_in_copy(connection, numbers)
    large.put_in_copy(connection, numbers)
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
        "counts": (ADDED_UP, _ALL_COUNTED),
        "large": ("SELECT * FROM large", large.ALL),
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
