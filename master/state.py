"""The master's state: tables in one SQLite file, and the position applied to it.

The operation log decides, this follows: WAL with `synchronous=NORMAL`, so a
power loss may undo the last transactions but never damages the file, and replay
brings them back. Position and items change in one transaction. One task owns
the writing connection; readers have connections of their own and see exactly
what is committed. Nothing here copies the WAL back by itself (that would stall
the loop): the server calls `checkpoint_wal` from a thread.

There is no cache of decoded items before SQLite: measured, it gained nothing (a
get costs 3 us), and one that is right under rollback is one more thing to trust.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import apsw

from gfs import errors
from gfs.disk import PosixDisk
from gfs.ids import MIB, Epoch, Position
from gfs.items import INDEXES, TABLES
from master.schema import prepare
from master.sqlite_tables import (
    STATEMENTS,
    STATEMENTS_CACHED,
    SqliteReadTables,
    SqliteTables,
    translate,
)

WRITER_CACHE_BYTES = 64 * MIB
READER_CACHE_BYTES = 32 * MIB
WAL_BYTES_KEPT = 64 * MIB  # the WAL file is cut to this when it starts over
WAL_FRAMES_MAX = 16_384  # 64 MiB of pages; beyond, the writer finishes the copy itself
READ_TRANSACTION_S = 1.0  # older ones would keep the WAL from starting over
_STEPS_BETWEEN_CHECKS = 20_000  # of SQLite's machine; under a millisecond
_MEMORY = Path(":memory:")


@dataclass(frozen=True)
class WalProgress:
    """WAL frames (one page each) written, and how many of them are in the file again."""

    frames: int
    copied: int


class State(SqliteTables):
    """The writing side of the state file. One owner, one thread."""

    def __init__(
        self, path: Path, cluster_id: str, *, vfs: str | None = None, exclusive: bool = False
    ) -> None:
        """Open or make the state at `path`.

        Args:
          vfs: name of an SQLite VFS; None is the system's.
          exclusive: the WAL index lies in this process's memory instead of a shared
            file, so there can be no other connection. For a VFS without shared memory.

        Raises:
          Corrupt: the file is damaged or not a state.
          NewerFormat, WrongCluster: it is not ours to open.
        """
        self.path = path
        self.cluster_id = cluster_id
        self._vfs = vfs
        self._exclusive = exclusive or path == _MEMORY
        self._wal: apsw.Connection | None = None
        self._wal_overdue = False
        if vfs is None and path != _MEMORY:
            PosixDisk().open(path, create=True).close()  # readable by nobody else
        try:
            connection = apsw.Connection(str(path), vfs=vfs, statementcachesize=STATEMENTS_CACHED)
            try:
                self._configure(connection)
                prepare(connection, cluster_id)
            except BaseException:
                connection.close()
                raise
        except apsw.Error as error:
            raise translate(error, f"open {path}") from error
        super().__init__(connection)
        self.position, self.epoch = self._committed = _applied(connection)

    def _configure(self, connection: apsw.Connection) -> None:
        if self._exclusive:
            connection.pragma("locking_mode", "exclusive")
        connection.set_busy_timeout(2000)
        connection.pragma("journal_mode", "wal")
        connection.pragma("synchronous", "normal")
        connection.pragma("wal_autocheckpoint", 0)
        connection.pragma("journal_size_limit", WAL_BYTES_KEPT)
        connection.pragma("cache_size", -WRITER_CACHE_BYTES // 1024)
        connection.pragma("temp_store", "memory")

    # Transactions.

    def begin(self) -> None:
        """Open a transaction; puts until `commit` become visible together."""
        if self._wal_overdue:
            self._finish_wal()
        self._run("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Make the open transaction visible to readers, with its position.

        Raises: StorageFailed, NoSpace: the master must exit, the outcome is unknown.
        """
        if (self.position, self.epoch) != self._committed:
            try:
                self._execute(
                    "UPDATE about SET position = ?, epoch = ?", (self.position, self.epoch)
                )
            except apsw.Error as error:
                raise translate(error, "set the position applied") from error
        self._run("COMMIT")
        self._committed = (self.position, self.epoch)

    def rollback(self) -> None:
        """Forget the open transaction, position included."""
        self.position, self.epoch = self._committed
        if self._connection.in_transaction:  # SQLite may have rolled back by itself
            self._run("ROLLBACK")

    def set_position(self, position: int, epoch: int) -> None:
        """State, in the open transaction, which record was applied last."""
        self.position, self.epoch = Position(position), Epoch(epoch)

    def _run(self, sql: str) -> None:
        try:
            self._execute(sql)
        except apsw.Error as error:
            raise translate(error, sql) from error

    # Beside the writer.

    def reader(self) -> Reader:
        """Reads on a connection of their own. For a state in memory or exclusive: of this one."""
        if self._exclusive:
            return Reader(self._connection, owned=False)
        return open_reader(self.path)

    def checkpoint_wal(self) -> WalProgress:
        """Copy what the WAL holds into the file, as far as no reader needs it; syncs both.

        Blocks for as long as the disk takes, never the writer: call it from a
        thread, one at a time, some times a second when there are writes. The WAL
        starts over at the first transaction after a call that copied all. Under
        writes without a pause none does: then, once the WAL is long, the next `begin`
        copies the little that was written since (some milliseconds).
        """
        connection = self._connection
        if not self._exclusive:
            if self._wal is None:
                self._wal = apsw.Connection(str(self.path), vfs=self._vfs)
                self._wal.pragma("synchronous", "normal")
            connection = self._wal
        progress = _copy_wal(connection)
        self._wal_overdue = progress.frames > WAL_FRAMES_MAX
        return progress

    def _finish_wal(self) -> None:
        self._wal_overdue = False  # if a reader is in the way, the next call says so again
        _copy_wal(self._connection)

    def verify(self, *, thorough: bool = True) -> list[str]:
        """What is wrong with the file: nothing, or a line each. See `verify_tables`."""
        return verify_tables(self._connection, thorough=thorough)

    def close(self) -> None:
        """Close all connections; the last one copies the WAL back."""
        if self._wal is not None:
            self._wal.close()
        self._connection.close()


class MemoryTables(State):
    """A state that lives in memory: for simulation and tests, the same in all else."""

    def __init__(self, cluster_id: str = "memory") -> None:
        super().__init__(_MEMORY, cluster_id)


class Reader(SqliteReadTables):
    """Committed items. Each call is a transaction; `snapshot` joins several."""

    def __init__(self, connection: apsw.Connection, *, owned: bool = True) -> None:
        super().__init__(connection)
        self._owned = owned

    @property
    def applied(self) -> tuple[Position, Epoch]:
        """Position and epoch of the last record whose effect reads here see."""
        return _applied(self._connection)

    @contextmanager
    def snapshot(self) -> Iterator[tuple[Position, Epoch]]:
        """Reads inside see one position, the one given; for at most a second.

        Raises: Overloaded: a read began or ran later than that. Read less, by `after`.
        """
        if not self._owned:  # the writer's connection: nothing commits meanwhile
            yield self.applied
            return
        deadline = time.monotonic() + READ_TRANSACTION_S
        self._connection.set_progress_handler(
            lambda: time.monotonic() > deadline, _STEPS_BETWEEN_CHECKS
        )
        self._execute("BEGIN")
        try:
            yield self.applied
            if time.monotonic() > deadline:
                raise errors.Overloaded(f"read transaction longer than {READ_TRANSACTION_S} s")
        finally:
            self._connection.set_progress_handler(None)
            self._execute("ROLLBACK")

    def close(self) -> None:
        """Close the connection, unless it is the writer's."""
        if self._owned:
            self._connection.close()


def open_reader(path: Path) -> Reader:
    """Read a state that another connection, perhaps of another process, writes."""
    try:
        connection = apsw.Connection(
            str(path), flags=apsw.SQLITE_OPEN_READONLY, statementcachesize=STATEMENTS_CACHED
        )
        connection.set_busy_timeout(2000)
        connection.pragma("cache_size", -READER_CACHE_BYTES // 1024)
        return Reader(connection)
    except apsw.Error as error:
        raise translate(error, f"open {path}") from error


def _copy_wal(connection: apsw.Connection) -> WalProgress:
    try:
        return WalProgress(*connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE))
    except apsw.Error as error:
        raise translate(error, "copy the WAL back") from error


def _applied(connection: apsw.Connection) -> tuple[Position, Epoch]:
    for position, epoch in connection.execute("SELECT position, epoch FROM about"):
        return Position(position), Epoch(epoch)
    raise errors.Corrupt("the state does not say which position it has applied")


def verify_tables(connection: apsw.Connection, *, thorough: bool) -> list[str]:
    """Check the pages of a state; `thorough` also every index, item and indexed column.

    At a million files quick takes 0.3 s, thorough 3 s.
    """
    try:
        check = "integrity_check" if thorough else "quick_check"
        problems = [row[0] for row in connection.execute(f"PRAGMA {check}(20)")]
        problems = [problem for problem in problems if problem != "ok"]
        if thorough and not problems:
            for table in TABLES:
                problems += _verify_items(connection, table)
    except apsw.Error as error:
        problems = [str(error)]
    return problems


def _verify_items(connection: apsw.Connection, table: str) -> list[str]:
    """Items of `table` that cannot be read or disagree with their indexed columns."""
    statements = STATEMENTS[table]
    attributes = [index.attribute for index in INDEXES.values() if index.table == table]
    columns = ", ".join((*statements.keys, "item", *attributes))
    problems = []
    for row in connection.execute(f"SELECT {columns} FROM {table}"):
        key, content, stored = (
            row[: statements.width],
            row[statements.width],
            row[statements.width + 1 :],
        )
        try:
            item = statements.decode(content)
        except ValueError as error:  # msgspec's errors all are
            problems.append(f"{table} {key}: {error}")
            continue
        expected = tuple(getattr(item, attribute) for attribute in attributes)
        if expected != stored:
            problems.append(f"{table} {key}: indexed {stored}, item has {expected}")
    return problems
