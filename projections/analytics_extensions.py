"""Sums of all regular files by extension, kept as differences that add up.

There is at most a row an extension when they are added up, and that is done whenever their
number has doubled: with as many extensions as files this table is as large as a column of
names, to add it up costs each difference the same, and the report is as slow as it would be
from the names. `projections.core.naming` tells what a batch changes.
"""

from __future__ import annotations

import duckdb

from projections.core.naming import ByExtension
from projections.duck_rows import put

DIFFERENCES_MAX = 20_000  # rows that are no extension's sum, until they are added up
DISK = "(stored + 511) // 512 * 512"
EXTENSIONS = """
CREATE TABLE extensions (  -- of regular files; several rows may have one extension: sum them
  extension VARCHAR NOT NULL,
  files BIGINT NOT NULL,
  bytes BIGINT NOT NULL,
  disk_bytes BIGINT NOT NULL
);
CREATE TABLE extensions_from (sums BIGINT NOT NULL);  -- one row: how many there were at last
INSERT INTO extensions_from VALUES (0);
"""
ADDED_UP = (
    "SELECT extension, sum(files)::BIGINT AS files, sum(bytes)::BIGINT AS bytes,"
    " sum(disk_bytes)::BIGINT AS disk_bytes FROM extensions GROUP BY extension"
    " HAVING sum(files) <> 0 OR sum(bytes) <> 0 OR sum(disk_bytes) <> 0"
)
_SUMS = (
    "SELECT coalesce(h.extension, '') AS extension, {sign} * count(*) AS files,"
    f" {{sign}} * sum(size)::BIGINT AS bytes, {{sign}} * sum({DISK})::BIGINT AS disk_bytes"
    " FROM (SELECT * FROM {inodes} WHERE mode & 61440 = 32768) i LEFT JOIN {homes} h USING (ino)"
    " GROUP BY ALL"
)
SUMS = _SUMS.format(sign=1, inodes="inodes", homes="homes")  # what ADDED_UP is to be
# Extensions of the least names of some inodes: to ask `homes` would look at all names.
_LEAST = (
    "(SELECT ino, min({{'parent': parent, 'name': name, 'extension': extension}}).extension"
    " AS extension FROM dirents WHERE {some} GROUP BY ino)"
)
_RESIZED = (
    "INSERT INTO extensions SELECT coalesce(d.extension, ''), 0, sum(a.bytes)::BIGINT,"
    " sum(a.disk_bytes)::BIGINT FROM appender_data a LEFT JOIN dirents d ON d.ino = a.ino"
    " GROUP BY ALL"
)
_RESIZED_COLUMNS = {"ino": "BIGINT", "bytes": "BIGINT", "disk_bytes": "BIGINT"}


def take_out(changes: ByExtension, connection: duckdb.DuckDBPyConnection) -> None:
    """Before the items change: what those count for whom the rows must be asked."""
    _ask(changes, connection, -1)


def put_in(changes: ByExtension, connection: duckdb.DuckDBPyConnection) -> None:
    """After the items have changed: all the rest."""
    _ask(changes, connection, 1)
    if changes.resized:
        with connection.query_appender(_RESIZED, _RESIZED_COLUMNS) as appender:
            appender.append_rows(changes.resized)
    known = [(suffix, *sums) for suffix, sums in changes.known.items() if any(sums)]
    if known:
        suffixes = [suffix for suffix, *_ in known]
        ((lower,),) = connection.execute(
            "SELECT list_transform($1::VARCHAR[], lambda one: lower(one))", [suffixes]
        ).fetchall()
        put(
            connection,
            "extensions",
            [(one, *sums) for one, (_, *sums) in zip(lower, known, strict=True)],
        )
    if known or changes.resized or changes.asked:
        _add_up(connection)


def _ask(changes: ByExtension, connection: duckdb.DuckDBPyConnection, sign: int) -> None:
    if changes.asked:
        some = "ino IN (SELECT unnest($1))"
        sums = _SUMS.format(
            sign=sign,
            inodes=f"(SELECT * FROM inodes WHERE {some})",
            homes=_LEAST.format(some=some),
        )
        connection.execute(f"INSERT INTO extensions {sums}", [changes.asked])


def _add_up(connection: duckdb.DuckDBPyConnection) -> None:
    ((rows, sums),) = connection.execute(
        "SELECT (SELECT count(*) FROM extensions), sums FROM extensions_from"
    ).fetchall()
    if rows > 2 * sums + DIFFERENCES_MAX:
        connection.execute(f"CREATE TEMP TABLE added_up AS {ADDED_UP}")
        connection.execute("DELETE FROM extensions")
        connection.execute("INSERT INTO extensions FROM added_up")
        connection.execute("UPDATE extensions_from SET sums = (SELECT count(*) FROM added_up)")
        connection.execute("DROP TABLE added_up")


def fill(connection: duckdb.DuckDBPyConnection) -> None:
    """Make all of it from the items."""
    connection.execute("DELETE FROM extensions")
    connection.execute(f"INSERT INTO extensions {SUMS}")
    connection.execute("UPDATE extensions_from SET sums = (SELECT count(*) FROM extensions)")


def put_in_copy(connection: duckdb.DuckDBPyConnection, numbers: str) -> None:
    """Add inodes that a snapshot made; `numbers` is the SQL condition that they fulfil."""
    sums = _SUMS.format(
        sign=1,
        inodes=f"(SELECT * FROM inodes WHERE {numbers})",
        homes=_LEAST.format(some=numbers),
    )
    connection.execute(f"INSERT INTO extensions {sums}")
