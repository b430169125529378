"""What a writer knows of what is fresh in its analytics view: see `projections.analytics_fresh`."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import duckdb

from gfs.changes import Line
from projections import analytics_fresh_schema as schema
from projections.core.following import DirentKey

SMALL_LINES = 2_000  # of a batch that goes there
LINES_MAX = 20_000  # kept in memory, until they are worked in
SETTLE_S = 10.0  # after which they are, whatever their number


@dataclass
class Rows:
    """What the table holds.

    Attributes:
      inodes: that are there, or gone.
      names: all of each inode whose names are there, or that has none.
      moved: directories that have got another name.
      resized: bytes and disk bytes more of files whose extension is not known here.
    """

    inodes: set[int] = field(default_factory=set)
    names: dict[int, list[DirentKey]] = field(default_factory=dict)
    moved: set[int] = field(default_factory=set)
    resized: dict[int, tuple[int, int]] = field(default_factory=dict)


class Fresh:
    """Of one writing connection: rows, and the lines of the stream that they came from."""

    def __init__(self) -> None:
        self.rows = Rows()
        self._lines: list[Line] = []
        self._before: list[Line] | None = None  # the same, before the transaction at hand
        self._spoiled = False  # a transaction failed: `rows` is not what is there
        # Never: who is killed again and again gets on all the same.
        self._settled_at = float("-inf")

    @property
    def is_empty(self) -> bool:
        """Whether nothing is there, as far as is known."""
        return not (self._lines or self._spoiled)

    def takes(self, lines: list[Line]) -> bool:
        """Whether these may come to it now, by their number."""
        return (
            not self._spoiled
            and len(lines) <= SMALL_LINES
            and len(self._lines) + len(lines) <= LINES_MAX
            and time.monotonic() - self._settled_at < SETTLE_S
        )

    def add(self, lines: list[Line]) -> None:
        """Keep lines, whose rows are there if this transaction is committed."""
        self._begin()
        self._lines = [*self._lines, *lines]

    def clear(self, connection: duckdb.DuckDBPyConnection) -> list[Line]:
        """Take all rows away; the lines that are to be applied instead."""
        lines = self._lines
        if not self.is_empty:
            empty(connection)
        self._begin()
        self._lines, self.rows, self._spoiled = [], Rows(), False
        self._settled_at = time.monotonic()
        return lines

    def _begin(self) -> None:
        if self._before is None:
            self._before = self._lines

    def ended(self, *, committed: bool) -> None:
        """The transaction has ended."""
        if self._before is not None and not committed:
            self._lines, self._spoiled = self._before, True
        self._before = None


def empty(connection: duckdb.DuckDBPyConnection) -> None:
    """Take all rows away."""
    connection.execute("DELETE FROM fresh")
    connection.execute("DELETE FROM fresh_since")
    show(schema.PLAIN, connection)


def show(shown: dict[str, str], connection: duckdb.DuckDBPyConnection) -> None:
    """Make the views so."""
    for name, sql in shown.items():
        connection.execute(f"CREATE OR REPLACE VIEW {name} AS {sql}")
