"""One mutation's view of the tables: reads see its own writes, nothing else does.

A decision reads and writes here; what comes out is the list of changes for
the record. The tables themselves are written by `apply` alone, so a refusal
leaves no trace by simply being dropped.
"""

from __future__ import annotations

import typing
from collections import defaultdict

from sortedcontainers import SortedList

from gfs.ids import MIB
from gfs.items import LANDED, SESSIONS, Item, Key, Landed
from gfs.records import CHANGE_OF, ENCODER, TABLE_OF, Record
from master.core.copying import apply_copy
from master.core.tables import ReadTables, Tables

LANDED_SWEEP = 64  # about every so many records of a session, older dedup facts go
MARK = 0  # request numbers begin at 1; here stands the mark below which they went
RECORD_BYTES_MAX = 15 * MIB  # the log's frames hold a little more
CHANGES_UNMEASURED = 64  # so few fit with the largest attributes that inodes may have
_SPREAD = 0x9E3779B1  # golden ratio: numbers in any stride are hit about equally often


class Transaction:
    """Overlay over `tables`. Items are immutable: put a changed copy."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._old: dict[tuple[str, Key], typing.Any] = {}
        self._new: dict[tuple[str, Key], typing.Any] = {}
        # Keys of `_new` by partition, in order once a partition has been looked through: a
        # batch looks at many partitions, and at one of them perhaps thousands of times.
        self._written: defaultdict[tuple[str, typing.Any], set[Key]] = defaultdict(set)
        self._ordered: dict[tuple[str, typing.Any], SortedList[typing.Any]] = {}

    @property
    def before(self) -> ReadTables:
        """The tables without this transaction's writes: for who reads much and writes last."""
        return self._tables

    def get(self, table: str, key: Key) -> typing.Any:
        """The item or None."""
        where = (table, key)
        if where in self._new:
            return self._new[where]
        item = self._tables.get(table, key)
        self._old[where] = item
        return item

    def put(self, table: str, key: Key, item: Item) -> None:
        where = (table, key)
        if where not in self._old:
            self._old[where] = self._tables.get(table, key)
        self._write(table, key, item)

    def create(self, table: str, key: Key, item: Item) -> None:
        """Put where there can be no item yet (a number just drawn): spares the read."""
        self._old.setdefault((table, key), None)
        self._write(table, key, item)

    def delete(self, table: str, key: Key) -> None:
        self.get(table, key)
        self._write(table, key, None)

    def _write(self, table: str, key: Key, item: Item | None) -> None:
        self._new[table, key] = item
        if len(key) == 1:
            return
        where = (table, key[0])
        written = self._written[where]
        if key not in written:
            written.add(key)
            if where in self._ordered:
                self._ordered[where].add(key[1])

    def _sort_keys(self, table: str, partition: int) -> SortedList[typing.Any]:
        """Sort keys written in a partition, deleted ones too."""
        where = (table, partition)
        found = self._ordered.get(where)
        if found is None:
            found = SortedList(key[1] for key in self._written.get(where, ()))
            self._ordered[where] = found
        return found

    def range(
        self,
        table: str,
        partition: int,
        *,
        after: typing.Any = None,
        before: typing.Any = None,
        limit: int | None = None,
    ) -> list[tuple[Key, typing.Any]]:
        """Items of a partition in key order, this transaction's writes included.

        Sort keys strictly between `after` and `before`.
        """
        mine = {
            (partition, sort): self._new[table, (partition, sort)]
            for sort in self._sort_keys(table, partition).irange(after, before, (False, False))
        }
        room = None if limit is None else limit + len(mine)
        stored = self._tables.range(table, partition, after=after, before=before, limit=room)
        for key, item in stored:
            self._old.setdefault((table, key), item)
        if not mine:
            return stored
        merged = dict(stored) | mine
        found = [(key, merged[key]) for key in sorted(merged) if merged[key] is not None]
        return found if limit is None else found[:limit]

    def floor(self, table: str, key: Key) -> tuple[Key, typing.Any] | None:
        """The item of `key`'s partition with the greatest sort key at or below `key`'s."""
        partition, at = key
        ordered = self._sort_keys(table, partition)
        while True:
            stored = self._tables.floor(table, (partition, at))
            mine = next(ordered.irange(None, at, reverse=True), None)
            if mine is not None and (stored is None or mine >= stored[0][1]):
                item = self._new[table, (partition, mine)]
                if item is not None:
                    return (partition, mine), item
                at = mine - 1  # deleted: below it, then
                continue
            if stored is not None:
                self._old.setdefault((table, stored[0]), stored[1])
            return stored

    def by_index(
        self, index: str, value: int, *, after: Key | None = None, limit: int | None = None
    ) -> list[Key]:
        """Keys by a secondary index, strictly after `after`, as of before this transaction."""
        return self._tables.by_index(index, value, after=after, limit=limit)

    def scan(self, table: str, *, limit: int) -> list[tuple[Key, typing.Any]]:
        """First items of a table, as of before this transaction."""
        return self._tables.scan(table, limit=limit)

    def changes(self) -> list[typing.Any]:
        """What differs, in the order it was first written."""
        found = []
        for where, new in self._new.items():
            old = self._old[where]
            if old != new:
                table, key = where
                found.append(CHANGE_OF[table](key, old, new))
        return found


def fits(record: Record) -> bool:
    """Does the log take a record of this size? Only big ones are measured."""
    few = len(record.changes) <= CHANGES_UNMEASURED
    return few or len(ENCODER.encode(record)) <= RECORD_BYTES_MAX


def apply(record: Record, tables: Tables) -> None:
    """Put the record's images, make its copy: the only writer of durable state.

    Replay, shadow, checkpoint and tests all go through here.
    """
    for change in record.changes:
        table = TABLE_OF[type(change)]
        if change.new is None:
            tables.delete(table, change.key)
            if table == SESSIONS:
                _forget_landed(tables, int(change.key[0]), below=None)
        else:
            tables.put(table, change.key, change.new)
    if record.copy is not None:
        apply_copy(record.copy, record.time_ns, tables)
    if record.session and record.number:
        tables.put(LANDED, (record.session, record.number), Landed(record.position))
        if (record.number * _SPREAD & 0xFFFFFFFF) < (1 << 32) // LANDED_SWEEP:
            _forget_landed(tables, record.session, below=record.low)
            tables.put(LANDED, (record.session, MARK), Landed(record.low))


def _forget_landed(tables: Tables, session: int, *, below: int | None) -> None:
    for key, _ in tables.range(LANDED, session, before=below):
        tables.delete(LANDED, key)
