"""What the writer of an analytics view remembers of its tables, instead of asking again.

A small batch is mostly the planning of its statements. What is remembered was so before the
transaction at hand, and holds whether that is committed or not: if a transaction changes it,
or fails, it is forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import duckdb

from projections.analytics_fresh_state import Fresh

_BOUND = "SELECT least, found FROM large_from"


@dataclass
class Known:
    """Of one writing connection.

    Attributes:
      counts_room: rows that may at least come to `main_counts` until they are to be added up.
      changed: whether this transaction changed what is remembered.
    """

    counts_room: int = 0
    changed: bool = False
    fresh: Fresh = field(default_factory=Fresh)
    _large: tuple[int, int] | None = None

    def bound_of_large(self, connection: duckdb.DuckDBPyConnection) -> tuple[int, int]:
        """`least` and `found` of `large_from`."""
        if self._large is None:
            (self._large,) = connection.execute(_BOUND).fetchall()
        return self._large

    def refilled(self) -> None:
        """The largest files were made anew, with another bound."""
        self._large, self.changed = None, True

    def forget(self) -> None:
        """Ask again."""
        self._large, self.counts_room, self.changed = None, 0, False

    def ended(self, *, committed: bool) -> None:
        """The transaction has ended."""
        if self.changed or not committed:
            self.forget()
        self.fresh.ended(committed=committed)


class Memory:
    """What is known, by connection."""

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[duckdb.DuckDBPyConnection, Known] = WeakKeyDictionary()

    def of(self, connection: duckdb.DuckDBPyConnection) -> Known:
        """Of one of them; to be told when its transactions end."""
        return self._known.setdefault(connection, Known())
