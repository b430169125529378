"""The state's SQLite schema, made from the data model in `gfs.items`.

One table a table: key columns `k0` and perhaps `k1`, the item as MessagePack,
and a column for each indexed attribute. An index is SQLite's own, partial
(0 is left out), so it changes with its table in one statement and cannot
disagree without `PRAGMA integrity_check` seeing it. `about` has one row: which
cluster this is and the position applied. The format number is `user_version`.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

import apsw
import msgspec

from gfs import errors
from gfs.items import INDEXES, TABLES, Key, Table

APPLICATION_ID = 0x4746534D  # "GFSM": file(1) and we know whose file it is
FORMAT = 3  # 2: table quotas; 3: table locks


def add_missing_tables(connection: apsw.Connection) -> None:
    """Make the tables of the data model that an older release did not know."""
    present = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
    for table in TABLES.values():
        if table.name not in present:
            _create_table(connection, table)


# From format n to n + 1, in the transaction that also raises the number.
UPGRADES: dict[int, Callable[[apsw.Connection], None]] = {
    1: add_missing_tables,
    2: add_missing_tables,
}

_ABOUT = """
CREATE TABLE about (
  id INTEGER PRIMARY KEY CHECK (id = 0),
  cluster TEXT NOT NULL,
  position INTEGER NOT NULL,  -- of the last record applied
  epoch INTEGER NOT NULL      -- of that record
)
"""


class Statements:
    """All SQL of one table, written once, and its item's codec."""

    def __init__(self, table: Table) -> None:
        self.indexed = tuple(i.attribute for i in INDEXES.values() if i.table == table.name)
        self.width = len(table.key)
        self.item = table.item
        self.decode: Callable[[bytes], Any] = msgspec.msgpack.Decoder(table.item).decode
        self.keys = ("k0", "k1")[: self.width]
        name, keys = table.name, ", ".join(self.keys)
        match = " AND ".join(f"{key} = ?" for key in self.keys)
        columns = (*self.keys, "item", *self.indexed)
        marks = ", ".join("?" * len(columns))
        self.get = f"SELECT item FROM {name} WHERE {match}"
        self.put = f"REPLACE INTO {name} ({', '.join(columns)}) VALUES ({marks})"
        self.delete = f"DELETE FROM {name} WHERE {match}"
        self.count = f"SELECT count(*) FROM {name}"
        self.first = f"SELECT {keys}, item FROM {name} ORDER BY {keys} LIMIT ?"
        after = "k0 > ?" if self.width == 1 else "(k0, k1) > (?, ?)"
        self.next = f"SELECT {keys}, item FROM {name} WHERE {after} ORDER BY {keys} LIMIT ?"
        # One statement is a fifth of the time of as many as there are numbers.
        self.many = f"SELECT {keys}, item FROM json_each(?) CROSS JOIN {name} ON k0 = value"
        partition = f"SELECT k1, item FROM {name} WHERE k0 = ?"
        self.floor = f"{partition} AND k1 <= ? ORDER BY k1 DESC LIMIT 1"
        self.range = {
            (after, before): f"{partition}{' AND k1 > ?' * after}{' AND k1 < ?' * before}"
            " ORDER BY k1 LIMIT ?"
            for after in (False, True)
            for before in (False, True)
        }

    def bindings(self) -> Callable[[Key, Any], tuple[Any, ...]]:
        """Function from key and item to what `put` is to be given."""
        encode = msgspec.msgpack.Encoder().encode
        if not self.indexed:
            return lambda key, item: (*key, encode(item))
        if len(self.indexed) == 1:
            only = attrgetter(self.indexed[0])
            return lambda key, item: (*key, encode(item), only(item))
        several = attrgetter(*self.indexed)
        return lambda key, item: (*key, encode(item), *several(item))


def index_statements() -> dict[str, tuple[str, str]]:
    """For each index: keys of a value from the first on, and from after a key on."""
    found = {}
    for index in INDEXES.values():
        width = len(TABLES[index.table].key)
        keys = ", ".join(("k0", "k1")[:width])
        # The second term lets the planner prove that the partial index serves.
        base = (
            f"SELECT {keys} FROM {index.table} INDEXED BY {index.name}"
            f" WHERE {index.attribute} = ? AND {index.attribute} != 0"
        )
        after = " AND k0 > ?" if width == 1 else " AND (k0, k1) > (?, ?)"
        tail = f" ORDER BY {keys} LIMIT ?"
        found[index.name] = (base + tail, base + after + tail)
    return found


def walk_statements() -> dict[str, str]:
    """For each index: value, keys and item of all that it has, in its order."""
    found = {}
    for index in INDEXES.values():
        keys = ", ".join(("k0", "k1")[: len(TABLES[index.table].key)])
        found[index.name] = (
            f"SELECT {index.attribute}, {keys}, item FROM {index.table} INDEXED BY {index.name}"
            f" WHERE {index.attribute} != 0 ORDER BY {index.attribute}, {keys}"
        )
    return found


def prepare(connection: apsw.Connection, cluster: str) -> None:
    """Make the schema in an empty file, or bring an older one up to `FORMAT`.

    Raises:
      NewerFormat: a newer release has written the file.
      WrongCluster: the file belongs to another cluster.
      Corrupt: the file is SQLite's, but not a state.
    """
    with connection:
        # Both schema reads and the making of it in one transaction: a crash
        # leaves an empty file or a whole state.
        found = connection.pragma("user_version")
        if found == 0 and not connection.execute("SELECT count(*) FROM sqlite_schema").get:
            _create(connection, cluster)
            return
        if connection.pragma("application_id") != APPLICATION_ID:
            raise errors.Corrupt("not a state of a master")
        if found > FORMAT:
            raise errors.NewerFormat(f"state of format {found}; this release reads {FORMAT}")
        owner = connection.execute("SELECT cluster FROM about").get
        if owner != cluster:
            raise errors.WrongCluster(f"state of cluster {owner}, expected {cluster}")
        for number in range(found, FORMAT):
            UPGRADES[number](connection)
        if found < FORMAT:
            connection.pragma("user_version", FORMAT)


def _create(connection: apsw.Connection, cluster: str) -> None:
    connection.execute(_ABOUT)
    connection.execute("INSERT INTO about VALUES (0, ?, 0, 0)", (cluster,))
    for table in TABLES.values():
        _create_table(connection, table)
    for index in INDEXES.values():
        connection.execute(
            f"CREATE INDEX {index.name} ON {index.table} ({index.attribute})"
            f" WHERE {index.attribute} != 0"
        )
    connection.pragma("application_id", APPLICATION_ID)
    connection.pragma("user_version", FORMAT)


def _create_table(connection: apsw.Connection, table: Table) -> None:
    columns = [
        f"{name} {'INTEGER' if kind is int else 'BLOB'} NOT NULL"
        for name, kind in zip(("k0", "k1"), table.key, strict=False)
    ]
    columns.append("item BLOB NOT NULL")
    columns += [
        f"{index.attribute} INTEGER NOT NULL"
        for index in INDEXES.values()
        if index.table == table.name
    ]
    if table.key == (int,):  # SQLite's own row number is the key
        columns[0] = "k0 INTEGER PRIMARY KEY"
        suffix = ""
    else:
        columns.append(f"PRIMARY KEY ({', '.join(('k0', 'k1')[: len(table.key)])})")
        suffix = " WITHOUT ROWID"
    connection.execute(f"CREATE TABLE {table.name} ({', '.join(columns)}){suffix}")
