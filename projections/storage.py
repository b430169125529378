"""Where a view lies: an SQLite or DuckDB file that knows how far it has come.

`write` runs a change and moves the cursor in one transaction: after a crash at any
moment the file holds both or neither. History lies in a second file with its own
cursor, because it survives when the view is built anew.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any, Protocol

import apsw
import duckdb

from gfs.changes import Cursor
from gfs.errors import Overloaded
from gfs.ids import MIB
from projections.core.dead_letters import Letter

APPLICATION_ID = 0x47465356  # "GFSV"
CACHE_BYTES = 64 * MIB
CLOSE_S = 10.0  # running queries, once interrupted, may end in this time
WAL_PAGES = 16000  # written back, with fsyncs, each 64 MiB: a page that changes again, once
HISTORY_FORMAT = 1
PART = "main_"  # of the name of a table that a view without it shows together with other rows
_AT = "SELECT epoch, position FROM progress"
_NOT_OURS = " AND name NOT IN ('progress', 'dead_letters') AND name NOT LIKE 'sqlite%'"
_PROGRESS = """
CREATE TABLE progress (
  id INTEGER PRIMARY KEY CHECK (id = 0),
  epoch BIGINT NOT NULL,
  position BIGINT NOT NULL,  -- of the last record applied
  format BIGINT NOT NULL
);
"""
_DEAD_LETTERS = """
CREATE TABLE IF NOT EXISTS dead_letters (  -- records that could not be applied
  cursor VARCHAR NOT NULL,
  time_ns BIGINT NOT NULL,
  operation VARCHAR NOT NULL,
  error VARCHAR NOT NULL,
  suspect VARCHAR NOT NULL,   -- JSON: paths of directories below which rows may be wrong
  events VARCHAR NOT NULL     -- JSON, as they came
);
"""
# A failure of these kinds is the host's, not the events': it passes, or the view is built anew.
HOST_ERRORS = (
    OSError,
    MemoryError,
    *(apsw.BusyError, apsw.LockedError, apsw.FullError, apsw.IOError, apsw.NoMemError),
    *(apsw.ReadOnlyError, apsw.CantOpenError, apsw.InterruptError),
    *(duckdb.IOException, duckdb.OutOfMemoryException, duckdb.InterruptException),
    duckdb.ConnectionException,
)


class Damaged(Exception):
    """The file at `path` cannot be used: not readable, or of another format."""

    def __init__(self, path: Path, why: object) -> None:
        super().__init__(f"{path}: {why}")
        self.path = path


class Store(Protocol):
    """An open view."""

    path: Path

    @property
    def cursor(self) -> Cursor:
        """How far the view has come."""
        ...

    @property
    def history_cursor(self) -> Cursor | None:
        """How far its history has come; None if it keeps none."""
        ...

    def write(self, change: Callable[[Any], None], cursor: Cursor) -> None:
        """Run `change` with the connection and move to `cursor`, in one transaction.

        Raises: Damaged: build anew. Whatever `change` raises; nothing is changed then.
        """

    def write_history(self, change: Callable[[Any, Any], None], cursor: Cursor) -> None:
        """The same for the history; `change` gets (history, view) connections."""

    def put_aside(self, letter: Letter, cursor: Cursor, *, history: bool) -> None:
        """Keep a record that cannot be applied (or noted in the history) and move on."""

    def snapshot(self) -> AbstractContextManager[tuple[Any, Cursor]]:
        """A connection in a read transaction, and the cursor that what it reads is true for."""
        ...

    def rows(self) -> dict[str, int]:
        """How many rows each table has, or the view of it. Blocks: it may count them."""
        ...

    def letters(self) -> list[Letter]:
        """All that was put aside since the view, or its history, was made."""
        ...

    def close(self) -> None:
        """Close; a second call does nothing."""


def identity(path: Path) -> tuple[int, int]:
    """Which file lies there; (0, 0) for none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return 0, 0
    return found.st_dev, found.st_ino


def remove_view(path: Path) -> None:
    """Remove a view and what its engine keeps beside it."""
    for suffix in ("", "-wal", "-shm", "-journal", ".wal"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


class _SqliteFile:
    """One SQLite file with a schema, a format and a cursor."""

    def __init__(self, path: Path, schema: str, view_format: int) -> None:
        self.path = path
        try:
            self.connection = apsw.Connection(str(path), statementcachesize=200)
            try:
                self._configure()
                self.cursor = self._prepare(schema, view_format)
            except BaseException:
                self.connection.close()
                raise
        except (apsw.Error, UnicodeDecodeError) as error:
            raise Damaged(path, error) from error

    def _configure(self) -> None:
        connection = self.connection
        connection.set_busy_timeout(5000)
        connection.pragma("journal_mode", "wal")
        connection.pragma("synchronous", "normal")
        connection.pragma("wal_autocheckpoint", WAL_PAGES)
        connection.pragma("cache_size", -CACHE_BYTES // 1024)
        connection.pragma("temp_store", "file")  # a load sorts and keeps more than memory holds

    def _prepare(self, schema: str, view_format: int) -> Cursor:
        connection = self.connection
        if not connection.execute("SELECT count(*) FROM sqlite_schema").get:
            with connection:
                connection.execute(_PROGRESS + schema)
                connection.execute("INSERT INTO progress VALUES (0, 0, 0, ?)", (view_format,))
                connection.pragma("application_id", APPLICATION_ID)
        if connection.pragma("application_id") != APPLICATION_ID:
            raise Damaged(self.path, "not a view")
        if (answer := connection.execute("PRAGMA quick_check(1)").get) != "ok":
            raise Damaged(self.path, answer)
        connection.execute(_DEAD_LETTERS)
        for epoch, position, found in connection.execute(
            "SELECT epoch, position, format FROM progress"
        ):
            if found == view_format:
                return Cursor(epoch, position)
            raise Damaged(self.path, f"format {found}, this release writes {view_format}")
        raise Damaged(self.path, "does not say how far it has come")

    def write(self, change: Callable[[], None], cursor: Cursor) -> None:
        connection = self.connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                change()
                connection.execute(
                    "UPDATE progress SET epoch = ?, position = ?", (cursor.epoch, cursor.position)
                )
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        except (apsw.CorruptError, apsw.NotADBError) as error:
            raise Damaged(self.path, error) from error
        self.cursor = cursor


class SqliteStore:
    """A view in an SQLite file, its history in another."""

    def __init__(
        self,
        path: Path,
        schema: str,
        view_format: int,
        *,
        history: Path | None = None,
        history_schema: str = "",
    ) -> None:
        self.path = path
        self._view = _SqliteFile(path, schema, view_format)
        self._history: _SqliteFile | None = None
        if history is not None and history_schema:
            try:
                self._history = _SqliteFile(history, history_schema, HISTORY_FORMAT)
            except BaseException:
                self._view.connection.close()
                raise

    @property
    def cursor(self) -> Cursor:
        return self._view.cursor

    @property
    def history_cursor(self) -> Cursor | None:
        return self._history.cursor if self._history else None

    @property
    def connection(self) -> apsw.Connection:
        """The writing connection."""
        return self._view.connection

    def write(self, change: Callable[[Any], None], cursor: Cursor) -> None:
        self._view.write(lambda: change(self._view.connection), cursor)

    def write_history(self, change: Callable[[Any, Any], None], cursor: Cursor) -> None:
        history = self._history
        assert history is not None
        history.write(lambda: change(history.connection, self._view.connection), cursor)

    def put_aside(self, letter: Letter, cursor: Cursor, *, history: bool) -> None:
        file = self._history if history else self._view
        assert file is not None
        file.write(lambda: _put(file.connection, "dead_letters", letter), cursor)

    @contextmanager
    def snapshot(self) -> Iterator[tuple[apsw.Connection, Cursor]]:
        flags = apsw.SQLITE_OPEN_READONLY
        with closing(apsw.Connection(str(self.path), flags=flags)) as connection:
            connection.set_busy_timeout(2000)
            connection.execute("BEGIN")
            yield connection, Cursor(*connection.execute(_AT).get)

    def rows(self) -> dict[str, int]:
        with self.snapshot() as (connection, _):
            tables = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table'"
            names = [name for (name,) in connection.execute(tables + _NOT_OURS)]
            counts = {one: connection.execute(f'SELECT count(*) FROM "{one}"').get for one in names}
        return dict(sorted(counts.items()))

    def letters(self) -> list[Letter]:
        files = [self._view, *([self._history] if self._history else [])]
        return [one for file in files for one in _letters(file.connection, "dead_letters")]

    def close(self) -> None:
        self._view.connection.close()
        if self._history is not None:
            self._history.connection.close()


class DuckStore:
    """A view in a DuckDB file; its history is attached as database `history`.

    After opening nothing outside these two files can be reached by any SQL, and no
    setting changed: user queries run on the same instance.

    More `threads` than one answer a question sooner, and all of them together later: who writes
    uses them too, and waits for them. A file that is not there is loaded by one, until it is opened
    again: two would mix up the order in which rows come. So it is a fifth smaller, and a block has
    numbers of one range.
    """

    def __init__(
        self,
        path: Path,
        schema: str,
        view_format: int,
        *,
        history: Path | None = None,
        history_schema: str = "",
        memory_bytes: int = 512 * MIB,
        threads: int = 1,
    ) -> None:
        self.path = path
        self.ended: Callable[[bool], None] = lambda committed: None  # called when `write` ends
        self._readers: set[duckdb.DuckDBPyConnection] = set()
        self._none_left = threading.Condition()
        doing = path
        try:
            threads = threads if path.exists() else 1
            self.connection = duckdb.connect(str(path))
            try:
                self._configure(memory_bytes, threads)
                self.cursor = self._prepare(schema, view_format)
                self.history_cursor: Cursor | None = None
                if history is not None and history_schema:
                    doing = history
                    self.history_cursor = self._attach(history, history_schema)
                for setting in ("enable_external_access = false", "lock_configuration = true"):
                    self.connection.execute(f"SET {setting}")
            except BaseException:
                self.connection.close()
                raise
        except duckdb.Error as error:
            if "Could not set lock" in str(error):  # somebody looks at it with another tool
                raise Overloaded(f"{doing} is open elsewhere: {error}") from error
            raise Damaged(doing, error) from error

    def _configure(self, memory_bytes: int, threads: int) -> None:
        for setting in (
            f"memory_limit = '{memory_bytes // MIB}MiB'",
            f"threads = {threads}",
            "temp_directory = ''",
            "autoinstall_known_extensions = false",
            "autoload_known_extensions = false",
            "preserve_insertion_order = false",
            "checkpoint_threshold = '64MiB'",
            "TimeZone = 'UTC'",
        ):
            self.connection.execute(f"SET {setting}")

    def _attach(self, history: Path, schema: str) -> Cursor:
        connection = self.connection
        home = connection.execute("SELECT current_database()").fetchall()[0][0]
        connection.execute(f"ATTACH '{_quoted(history)}' AS history")
        connection.execute("USE history")
        cursor = self._prepare(schema, HISTORY_FORMAT)
        connection.execute(schema)  # adds the tables that an older release did not have
        connection.execute(f'USE "{home}"')
        return cursor

    def _prepare(self, schema: str, view_format: int) -> Cursor:
        """Schema and cursor of the database in use; reads every block of it once."""
        connection = self.connection
        own = "FROM duckdb_tables() WHERE database_name = current_database()"
        tables = [name for (name,) in connection.execute(f"SELECT table_name {own}").fetchall()]
        if not tables:
            connection.execute("BEGIN")
            connection.execute(_PROGRESS + schema)
            connection.execute("INSERT INTO progress VALUES (0, 0, 0, ?)", [view_format])
            connection.execute("COMMIT")
        connection.execute(_DEAD_LETTERS)
        for name in tables:  # checksums are verified as blocks are read
            connection.execute(f'SELECT bit_xor(hash(t)) FROM "{name}" t').fetchall()
        rows = connection.execute("SELECT epoch, position, format FROM progress").fetchall()
        if not rows or rows[0][2] != view_format:
            raise duckdb.Error(f"format {rows}, this release writes {view_format}")
        return Cursor(rows[0][0], rows[0][1])

    def write(self, change: Callable[[Any], None], cursor: Cursor) -> None:
        try:
            self._transaction(lambda: change(self.connection), "progress", cursor)
        except BaseException:
            self.ended(False)
            raise
        self.ended(True)
        self.cursor = cursor

    def write_history(self, change: Callable[[Any, Any], None], cursor: Cursor) -> None:
        both = self.connection
        self._transaction(lambda: change(both, both), "history.progress", cursor)
        self.history_cursor = cursor

    def put_aside(self, letter: Letter, cursor: Cursor, *, history: bool) -> None:
        if history:
            self.write_history(lambda past, _: _put(past, "history.dead_letters", letter), cursor)
        else:
            self.write(lambda view: _put(view, "dead_letters", letter), cursor)

    def letters(self) -> list[Letter]:
        tables = ["dead_letters", *(["history.dead_letters"] if self.history_cursor else [])]
        return [one for table in tables for one in _letters(self.connection, table)]

    def _transaction(self, change: Callable[[], None], table: str, cursor: Cursor) -> None:
        connection = self.connection
        try:
            connection.execute("BEGIN")
            try:
                change()
                connection.execute(
                    f"UPDATE {table} SET epoch = ?, position = ?", [cursor.epoch, cursor.position]
                )
                connection.execute("COMMIT")
            except duckdb.FatalException:
                raise
            except BaseException:
                connection.execute("ROLLBACK")
                raise
        except (duckdb.FatalException, duckdb.SerializationException) as error:
            raise Damaged(self.path, error) from error

    @contextmanager
    def reader(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection for one query; `close` interrupts it and waits for its end."""
        with self._none_left:
            cursor = self.connection.cursor()
            self._readers.add(cursor)
        try:
            yield cursor
        finally:
            cursor.close()
            with self._none_left:
                self._readers.discard(cursor)
                self._none_left.notify_all()

    @contextmanager
    def snapshot(self) -> Iterator[tuple[duckdb.DuckDBPyConnection, Cursor]]:
        with self.reader() as connection:
            connection.execute("BEGIN TRANSACTION READ ONLY")
            yield connection, Cursor(*connection.execute(_AT).fetchall()[0])
            connection.execute("ROLLBACK")

    def rows(self) -> dict[str, int]:
        with self.snapshot() as (connection, _):
            own = "FROM duckdb_tables() WHERE database_name = current_database()"
            named = f"SELECT table_name AS name {own}"
            names = connection.execute(f"SELECT name FROM ({named}) WHERE true{_NOT_OURS}")
            counts = {
                one: connection.execute(f'SELECT count(*) FROM "{one}"').fetchall()[0][0]
                for one in (name.removeprefix(PART) for (name,) in names.fetchall())
            }
        return dict(sorted(counts.items()))

    def close(self) -> None:
        # DuckDB keeps one instance a path for as long as any connection lives: a file
        # swapped in would not be seen before the last one is closed.
        with self._none_left:
            for cursor in self._readers:
                cursor.interrupt()
            self._none_left.wait_for(lambda: not self._readers, CLOSE_S)
            self.connection.close()


def _put(connection: Any, table: str, letter: Letter) -> None:
    connection.execute(f"INSERT INTO {table} VALUES (?, ?, ?, ?, ?, ?)", letter.row())


def _letters(connection: Any, table: str) -> Iterator[Letter]:
    yield from map(Letter.of_row, connection.execute(f"SELECT * FROM {table}").fetchall())


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
