"""The port through which every core reads and writes items.

A DynamoDB-like model (gfs.items): a table has a partition key and perhaps a
sort key. Behind it is SQLite, in production on a file and in simulation on
memory, so semantics live in the cores and the port stays dumb.

Items are immutable by agreement: an item that was got or put may be shared by
a cache, so whoever wants another value makes one with
`msgspec.structs.replace` (new lists and maps too) and puts it. Integer keys
and indexed attributes lie in [0, 2**63).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from gfs.items import Key

# An item of the table asked for. The shape follows from the table's name, which
# a type checker cannot see, so callers annotate: `inode: Inode | None = get(...)`.
AnyItem = Any


class Readable(Protocol):
    """What is read of the tables, or of a transaction over them."""

    def get(self, table: str, key: Key) -> Any: ...

    def by_index(self, index: str, value: int, *, limit: int | None = None) -> list[Key]: ...


class ReadTables(Protocol):
    """Items by key, in order and by index."""

    def get(self, table: str, key: Key) -> AnyItem | None:
        """The item at `key`, or None."""

    def range(
        self,
        table: str,
        partition: int | bytes,
        *,
        after: int | bytes | None = None,
        before: int | bytes | None = None,
        limit: int | None = None,
    ) -> list[tuple[Key, AnyItem]]:
        """Items of a partition by ascending sort key, strictly between `after` and `before`."""
        ...

    def get_many(self, table: str, keys: Iterable[int]) -> list[tuple[int, AnyItem]]:
        """Key and item of those of `keys` that are there, ascending; no key is asked for twice."""
        ...

    def range_many(self, table: str, partitions: Iterable[int]) -> list[tuple[Key, AnyItem]]:
        """All items of these partitions by ascending keys; no partition is asked for twice."""
        ...

    def floor(self, table: str, key: Key) -> tuple[Key, AnyItem] | None:
        """The item of `key`'s partition with the greatest sort key at or below `key`'s."""

    def scan(
        self, table: str, *, after: Key | None = None, limit: int = 1000
    ) -> list[tuple[Key, AnyItem]]:
        """The next `limit` items of the whole table in key order, strictly after `after`."""
        ...

    def by_index(
        self, index: str, value: int, *, after: Key | None = None, limit: int | None = None
    ) -> list[Key]:
        """Keys, ascending, of the items whose indexed attribute is `value` (never 0)."""
        ...

    def count(self, table: str) -> int:
        """Number of items; looks at all of them."""
        ...


class Tables(ReadTables, Protocol):
    """Items that may be changed; only `apply` of a record does so."""

    def put(self, table: str, key: Key, item: AnyItem) -> None:
        """Make `item` the one at `key`, whether or not there was one."""

    def put_many(self, table: str, items: Iterable[tuple[Key, AnyItem]]) -> None:
        """`put` of each, in this order."""

    def delete(self, table: str, key: Key) -> None:
        """Remove the item at `key`, if there is one."""
