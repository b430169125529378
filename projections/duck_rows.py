"""Rows of Python's into tables of DuckDB, at the least price.

An appender takes a number below 2^31 for an INTEGER and converts it where the column is a
BIGINT: that costs four times what a cell costs otherwise, and most numbers of an inode are
small. So those go in `flipped`, with bit 62 the other way, and come back to themselves where
DuckDB takes the rows over; and what is mostly empty goes in as NULL.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import duckdb

FLIP = 1 << 62  # xor with it is what flips a number, of any sign


class Inlet:
    """How rows get into one table; a row has a value for each of `columns`, in their order.

    Args:
      table: into which.
      columns: types by name, those of the table or narrower ones.
      flipped: columns whose numbers are flipped in the rows.
      empty: columns that may be None in the rows, and the SQL of what that stands for.
      more: SQL of what follows these columns in the table.
      ordered: rows begin with their number, and lie in that order; else in none.
    """

    def __init__(
        self,
        table: str,
        columns: Mapping[str, str],
        *,
        flipped: Collection[str] = (),
        empty: Mapping[str, str] | None = None,
        more: Sequence[str] = (),
        ordered: bool = False,
    ) -> None:
        self._columns = {"number": "INTEGER", **columns} if ordered else dict(columns)
        values = [*_restored(columns, flipped, empty or {}), *more]
        order = " ORDER BY number" if ordered else ""
        self._dml = f"INSERT INTO {table} SELECT {', '.join(values)} FROM appender_data{order}"

    def put(self, connection: duckdb.DuckDBPyConnection, rows: Iterable[Sequence[Any]]) -> None:
        """Add rows."""
        with connection.query_appender(self._dml, self._columns) as appender:
            appender.append_rows(rows)


def _restored(
    columns: Iterable[str], flipped: Collection[str], empty: Mapping[str, str]
) -> list[str]:
    """SQL of each column as it was before it was flipped, or given as None."""
    return [
        f"xor({name}, {FLIP})"
        if name in flipped
        else f"coalesce({name}, {empty[name]})"
        if name in empty
        else name
        for name in columns
    ]


def put(connection: duckdb.DuckDBPyConnection, table: str, rows: Sequence[Any]) -> None:
    """Add rows as they are; for few of them, or if their order is to be kept."""
    if rows:
        with connection.appender(table) as appender:
            appender.append_rows(rows)


def delete(
    connection: duckdb.DuckDBPyConnection, table: str, key: Sequence[str], rows: Sequence[Any]
) -> None:
    """Remove the rows of `table` whose columns `key` are any of these."""
    if rows:
        with connection.appender(table, action="delete", key=list(key)) as appender:
            appender.append_rows(rows)
