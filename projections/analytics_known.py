"""What the writer of an analytics view remembers of its small tables, instead of asking again.

A small batch is mostly the planning of its statements. What is remembered was so before the
transaction at hand, and holds whether that is committed or not: if a transaction changes it,
or fails, it is forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import duckdb


@dataclass
class Known:
    """Of one writing connection.

    Attributes:
      large: `least` and `found` of `large_from`.
      counts_room: rows that may at least come to `counts` until they are to be added up.
      changed: whether this transaction changed what is remembered.
    """

    large: tuple[int, int] | None = None
    counts_room: int = 0
    changed: bool = False

    def forget(self) -> None:
        """Ask again."""
        self.large, self.counts_room, self.changed = None, 0, False


class Memory:
    """What is known, by connection."""

    def __init__(self) -> None:
        self._known: WeakKeyDictionary[duckdb.DuckDBPyConnection, Known] = WeakKeyDictionary()

    @contextmanager
    def during(self, connection: duckdb.DuckDBPyConnection) -> Iterator[Known]:
        """Around what changes the tables in one transaction."""
        known = self._known.setdefault(connection, Known())
        try:
            yield known
        except BaseException:
            known.forget()
            raise
        if known.changed:
            known.forget()
