"""Answers for the largest files, from the few thousand that are kept.

Half of such a question's time was DuckDB's ordering of them. So it is remembered how large the
last file of an answer was: if as many are at least of that size now, they are the answer.
"""

from __future__ import annotations

from typing import Any

import duckdb

_COLUMNS = (
    "parent, name, ino, size, uid, make_timestamp_ns(mtime_ns) AS mtime,"
    " make_timestamp_ns(atime_ns) AS atime, nlink"
)
_INO, _SIZE = 2, 3
_FROM = f"SELECT {_COLUMNS} FROM large WHERE size >= $1"
_FIRST = f"SELECT {_COLUMNS} FROM large ORDER BY size DESC, ino LIMIT $1"

Row = tuple[Any, ...]  # parent, name, then the columns of the report


class Largest:
    """What several threads have been told."""

    def __init__(self) -> None:
        self._least: dict[int, int] = {}  # size of the last one, by how many were wanted

    def rows(self, connection: duckdb.DuckDBPyConnection, wanted: int) -> list[Row] | None:
        """So many, the largest first; None if fewer are kept."""
        least = self._least.get(wanted)
        rows = [] if least is None else connection.execute(_FROM, [least]).fetchall()
        if len(rows) < wanted:
            rows = connection.execute(_FIRST, [wanted]).fetchall()
        rows.sort(key=lambda row: (-row[_SIZE], row[_INO]))
        if len(rows) < wanted:
            return None
        self._least[wanted] = rows[wanted - 1][_SIZE]
        return rows[:wanted]
