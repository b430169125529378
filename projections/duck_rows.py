"""Rows of Python's into tables of DuckDB, at the least price.

An appender takes a number below 2^31 for an INTEGER and converts it where the column is a
BIGINT: that costs four times what a cell costs otherwise, and most numbers of an inode are
small. So those go in `flipped`, with bit 62 the other way, and come back to themselves where
DuckDB takes the rows over; and what is mostly empty goes in as NULL. To plan that costs a
millisecond, so few rows go in as they are: a `Form` says how they are to be made.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import duckdb

FLIP = 1 << 62  # xor with it is what flips a number, of any sign
FEW_ROWS = 300  # so many are in sooner as they are
FEW_KEYS = 50  # the rows of so many are sooner found by a statement than by an appender


class Form(NamedTuple):
    """How an inlet wants rows: what flips numbers, and what stands for 0 and "" where most are."""

    flip: int
    zero: int | None
    empty: str | None


AS_THEY_ARE = Form(0, 0, "")
FLIPPED = Form(FLIP, None, None)


def form_of(count: int) -> Form:
    """The form that is best for so many rows."""
    return AS_THEY_ARE if count <= FEW_ROWS else FLIPPED


class Inlet:
    """How rows get into one table; a row has a value for each of `columns`, in their order.

    Rows that are as they are have those of `more` behind them.

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
        self._table, self._ordered = table, ordered
        self._columns = {"number": "INTEGER", **columns} if ordered else dict(columns)
        values = [*_restored(columns, flipped, empty or {}), *more]
        order = " ORDER BY number" if ordered else ""
        self._dml = f"INSERT INTO {table} SELECT {', '.join(values)} FROM appender_data{order}"

    def put(
        self,
        connection: duckdb.DuckDBPyConnection,
        rows: Iterable[Sequence[Any]],
        form: Form = FLIPPED,
    ) -> None:
        """Add rows of that form."""
        if form is AS_THEY_ARE:
            put(connection, self._table, [row[1:] for row in rows] if self._ordered else [*rows])
            return
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


def among(column: str, inodes: Sequence[int]) -> tuple[str, list[Sequence[int]]]:
    """SQL that `column` is one of these, some at least, and what is bound in it.

    One number in the statement lets DuckDB leave out what its blocks say is elsewhere. With more
    of them it compares each row with each, and reads what else is asked for of every row: that
    takes up to ten times as long as a join.
    """
    if len(inodes) == 1:
        return f"{column} = {int(inodes[0])}", []
    return f"{column} IN (SELECT unnest($1))", [inodes]


def delete(
    connection: duckdb.DuckDBPyConnection, table: str, key: Sequence[str], rows: Sequence[Any]
) -> None:
    """Remove the rows of `table` whose columns `key` are any of these."""
    if len(key) == 1 and 0 < len(rows) <= FEW_KEYS:
        condition, bound = among(key[0], [one for (one,) in rows])
        connection.execute(f"DELETE FROM {table} WHERE {condition}", bound)
    elif rows:
        with connection.appender(table, action="delete", key=list(key)) as appender:
            appender.append_rows(rows)
