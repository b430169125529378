"""Tables on an SQLite connection: the port of `master.core.tables`, nothing more.

Statements are prepared once and found by table name; on a warm cache a get
costs about 4 us and a put 3 to 10, by how many pages it is the first to change; of
thousands at once, in the order of their keys, about 1 us each.
SQLite's errors become `gfs.errors` here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import apsw
import msgspec

from gfs import errors
from gfs.items import INDEXES, TABLES, Key
from master.core.tables import AnyItem
from master.schema import Statements, index_statements, walk_statements

STATEMENTS_CACHED = 256  # more than the schema has, so nothing is ever parsed twice

STATEMENTS = {name: Statements(table) for name, table in TABLES.items()}
_READS = {name: (statements.get, statements.decode) for name, statements in STATEMENTS.items()}
_WRITES = {name: (statements.put, statements.bindings()) for name, statements in STATEMENTS.items()}
_DELETES = {name: statements.delete for name, statements in STATEMENTS.items()}
_BY_INDEX = index_statements()
_WALK_INDEX = walk_statements()


def translate(error: apsw.Error, doing: str) -> errors.GfsError:
    """The error of ours for one of SQLite's."""
    kind: type[errors.GfsError] = errors.StorageFailed
    if isinstance(error, apsw.FullError):
        kind = errors.NoSpace
    elif isinstance(error, apsw.CorruptError | apsw.NotADBError):
        kind = errors.Corrupt
    elif isinstance(error, apsw.BusyError | apsw.LockedError | apsw.InterruptError):
        kind = errors.Overloaded
    return kind(f"{doing}: {error}")


class SqliteReadTables:
    """Reads through one connection; each call sees what is committed when it starts."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._cursor = connection.cursor()
        self._execute = self._cursor.execute

    def get(self, table: str, key: Key) -> AnyItem | None:
        sql, decode = _READS[table]
        try:
            content = self._execute(sql, key).get
        except OverflowError:
            raise errors.InvalidArgument(f"{table} {key}: a number out of range") from None
        except apsw.Error as error:
            raise translate(error, f"get {table} {key}") from error
        return None if content is None else decode(content)

    def range(
        self,
        table: str,
        partition: int | bytes,
        *,
        after: int | bytes | None = None,
        before: int | bytes | None = None,
        limit: int | None = None,
    ) -> list[tuple[Key, AnyItem]]:
        statements = STATEMENTS[table]
        sql = statements.range[after is not None, before is not None]
        bounds = [bound for bound in (after, before) if bound is not None]
        rows = self._rows(sql, (partition, *bounds, -1 if limit is None else limit))
        decode = statements.decode
        return [((partition, sort), decode(content)) for sort, content in rows]

    def get_many(self, table: str, keys: Iterable[int]) -> list[tuple[int, AnyItem]]:
        decode = STATEMENTS[table].decode
        return [(key, decode(content)) for key, content in self._many(table, keys)]

    def range_many(self, table: str, partitions: Iterable[int]) -> list[tuple[Key, AnyItem]]:
        decode = STATEMENTS[table].decode
        return [
            ((partition, sort), decode(content))
            for partition, sort, content in self._many(table, partitions)
        ]

    def _many(self, table: str, numbers: Iterable[int]) -> list[Any]:
        rows = self._rows(STATEMENTS[table].many, (msgspec.json.encode(list(numbers)).decode(),))
        rows.sort()  # no two have the same key, so items are not compared
        return rows

    def floor(self, table: str, key: Key) -> tuple[Key, AnyItem] | None:
        statements = STATEMENTS[table]
        for sort, content in self._rows(statements.floor, key):
            return (key[0], sort), statements.decode(content)
        return None

    def scan(
        self, table: str, *, after: Key | None = None, limit: int = 1000
    ) -> list[tuple[Key, AnyItem]]:
        statements = STATEMENTS[table]
        sql = statements.first if after is None else statements.next
        rows = self._rows(sql, (*(after or ()), limit))
        decode, width = statements.decode, statements.width
        return [(row[:width], decode(row[width])) for row in rows]

    def by_index(
        self, index: str, value: int, *, after: Key | None = None, limit: int | None = None
    ) -> list[Key]:
        first, following = _BY_INDEX[index]
        sql = first if after is None else following
        return self._rows(sql, (value, *(after or ()), -1 if limit is None else limit))

    def walk_index(self, index: str) -> Iterator[tuple[int, Key, AnyItem]]:
        """Indexed value, key and item of each item that the index has, ascending by both.

        Reads as it is asked: nothing may be written by this connection meanwhile.
        """
        statements = STATEMENTS[INDEXES[index].table]
        width, decode = statements.width, statements.decode
        try:
            for row in self._connection.cursor().execute(_WALK_INDEX[index]):
                yield row[0], row[1 : 1 + width], decode(row[1 + width])
        except apsw.Error as error:
            raise translate(error, f"walk {index}") from error

    def count(self, table: str) -> int:
        number: int = self._rows(STATEMENTS[table].count, ())[0][0]
        return number

    def _rows(self, sql: str, bindings: tuple[Any, ...]) -> list[Any]:
        try:
            return self._execute(sql, bindings).fetchall()
        except OverflowError:
            raise errors.InvalidArgument(f"{bindings}: a number out of range") from None
        except apsw.Error as error:
            raise translate(error, sql) from error


class SqliteTables(SqliteReadTables):
    """Reads and writes through one connection, inside its open transaction if there is one."""

    def put(self, table: str, key: Key, item: AnyItem) -> None:
        sql, bindings = _WRITES[table]
        try:
            self._execute(sql, bindings(key, item))
        except apsw.Error as error:
            raise translate(error, f"put {table} {key}") from error

    def put_many(self, table: str, items: Iterable[tuple[Key, AnyItem]]) -> None:
        sql, bindings = _WRITES[table]
        try:
            self._cursor.executemany(sql, [bindings(key, item) for key, item in items])
        except apsw.Error as error:
            raise translate(error, f"put into {table}") from error

    def delete(self, table: str, key: Key) -> None:
        try:
            self._execute(_DELETES[table], key)
        except apsw.Error as error:
            raise translate(error, f"delete {table} {key}") from error
