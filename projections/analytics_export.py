"""The namespace at one position, row by row: what `gfs export` writes down as Parquet.

All of it is read in one transaction, so it is as of one record of the log, however long
that takes and whatever is applied meanwhile. It is read in slices of inode numbers: the
memory of a slice is all that is needed, whatever the size of the view. Lines are made
by DuckDB; Python hands them on.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import duckdb
import msgspec

from gfs.errors import NotReady
from projections.analytics_tree import NOTHING, TREE, climbing, inode_at

SLICE_INODES = 100_000
LINES_AT_ONCE = 2_000
# One JSON object a row, in this order; times in nanoseconds since 1970.
COLUMNS = {
    "path": "CASE WHEN i.ino = 1 THEN '/' WHEN i.ino = 2 THEN '<trash>'"
    " ELSE coalesce(p.path, '<orphans>') || '/' || coalesce(h.name, i.ino::VARCHAR) END",
    "ino": "i.ino",
    "parent": "coalesce(h.parent, 0)",
    "name": "coalesce(h.name, '')",
    "extension": "coalesce(h.extension, '')",
    "kind": "kind_of(i.mode)",
    "permissions": "i.mode & 4095",
    "uid": "i.uid",
    "gid": "i.gid",
    "nlink": "i.nlink",
    "size": "i.size",
    "disk_bytes": "(i.stored + 511) // 512 * 512",
    "atime_ns": "i.atime_ns",
    "mtime_ns": "i.mtime_ns",
    "ctime_ns": "i.ctime_ns",
    "created_ns": "i.created_ns",
    "target": "i.target",
}
_LINE = "to_json({" + ", ".join(f"'{name}': {sql}" for name, sql in COLUMNS.items()) + "})::VARCHAR"
_NUMBERS = "ino BETWEEN $low AND $high"


def _statement(begin: str, within: str, join: str) -> str:
    """Lines of the inodes numbered $low to $high, in order."""
    least = "min({'parent': parent, 'name': name, 'extension': extension})"
    names = (
        ", h AS (SELECT ino, l.parent AS parent, l.name AS name, l.extension AS extension FROM"
        f" (SELECT ino, {least} AS l FROM dirents WHERE {_NUMBERS}{within} GROUP BY ino))"
    )
    return (
        f"{begin}{names}{climbing('h')} SELECT {_LINE}"
        f" FROM (SELECT * FROM inodes WHERE {_NUMBERS}) i {join} h USING (ino)"
        " LEFT JOIN places p ON p.ino = h.parent ORDER BY i.ino"
    )


_ALL = _statement(NOTHING, "", "LEFT JOIN")
_IN_TREE = _statement(TREE, " AND (parent IN (FROM tree) OR ino = $top)", "JOIN")


def export_lines(
    connection: duckdb.DuckDBPyConnection, path: str | None, fields: dict[str, object]
) -> Iterator[msgspec.Raw]:
    """Lines of an export: what it is true for, a line an inode, how many there were.

    Inside the caller's read transaction. `fields` go into the first line.

    Raises: UsageError, NotFound: there is no such path.
    """
    encode = msgspec.json.encode
    top = None if path is None else inode_at(connection, path)
    yield msgspec.Raw(encode({"kind": "export", **fields, **_position(connection), "path": path}))
    rows = 0
    for low, high in _slices(connection):
        bound: dict[str, Any] = {"low": low, "high": high}
        if top is not None:
            bound["top"] = top
        result = connection.execute(_ALL if top is None else _IN_TREE, bound)
        while lines := result.fetchmany(LINES_AT_ONCE):
            rows += len(lines)
            yield msgspec.Raw("\n".join(line for (line,) in lines).encode())
    yield msgspec.Raw(encode({"kind": "end", "rows": rows}))


def _position(connection: duckdb.DuckDBPyConnection) -> dict[str, object]:
    """Of the transaction: the view may have gone on since the request came."""
    row = connection.execute(
        "SELECT epoch, position, (SELECT count(*) FROM inodes) FROM progress"
    ).fetchone()
    if row is None:
        raise NotReady("the view is being built")
    epoch, position, inodes = row
    return {
        "cursor": f"{epoch}-{position}",
        "position": position,
        "epoch": epoch,
        "inodes": inodes,  # of the whole view: an upper bound
    }


def _slices(connection: duckdb.DuckDBPyConnection) -> Iterator[tuple[int, int]]:
    """Ranges of inode numbers with about `SLICE_INODES` of the view each."""
    row = connection.execute("SELECT count(*), min(ino), max(ino) FROM inodes").fetchone()
    if row is None or not row[0]:
        return
    count, low, last = row
    parts = -(-count // SLICE_INODES)
    cuts: list[int] = []
    if parts > 1:
        shares = [number / parts for number in range(1, parts)]
        found = connection.execute(f"SELECT quantile_disc(ino, {shares}) FROM inodes").fetchone()
        assert found is not None
        cuts = sorted(set(found[0]))
    for high in [*cuts, last]:
        if high >= low:
            yield low, high
            low = high + 1
