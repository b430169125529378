"""Reading connections of the search view, and SQL from strangers on them.

SQLite opened read-only; an authorizer that knows what may be done rather than what
may not; limits on time, size, depth. Whatever a statement says, it can read this
file's tables and nothing else of the host.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import apsw

from gfs.errors import TooLarge, UsageError
from gfs.ids import MIB
from projections import find_run
from projections.queries import Collected, Deadline, collect, out_of_time
from projections.storage import CACHE_BYTES

SQL_BYTES_MAX = 100_000
VALUE_BYTES_MAX = 16 * MIB
_ALLOWED = {
    apsw.SQLITE_SELECT,
    apsw.SQLITE_READ,
    apsw.SQLITE_FUNCTION,
    apsw.SQLITE_RECURSIVE,
}
# Functions that reach beyond the data, or reach into SQLite; the rest only compute.
_FUNCTIONS_REFUSED = {
    "load_extension",
    "readfile",
    "writefile",
    "edit",
    "fts3_tokenizer",
    "fts5_rowid",
    "fts5_decode",
    "zeroblob",
    "randomblob",
    "sqlite_log",
    "fnmatch",  # ours, for paths; a stranger's text may be a thousand times as long
    "regex",
}
_LIMITS = {
    apsw.SQLITE_LIMIT_LENGTH: VALUE_BYTES_MAX,
    apsw.SQLITE_LIMIT_SQL_LENGTH: SQL_BYTES_MAX,
    apsw.SQLITE_LIMIT_COLUMN: 500,
    apsw.SQLITE_LIMIT_EXPR_DEPTH: 200,
    apsw.SQLITE_LIMIT_COMPOUND_SELECT: 50,
    apsw.SQLITE_LIMIT_VDBE_OP: 100_000,
    apsw.SQLITE_LIMIT_ATTACHED: 0,
    apsw.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 5_000,
    apsw.SQLITE_LIMIT_TRIGGER_DEPTH: 1,
    apsw.SQLITE_LIMIT_WORKER_THREADS: 0,
}


class Readers:
    """Connections for queries on one view's file, kept open between them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._generation = -1
        self._idle: list[apsw.Connection] = []
        self._lock = threading.Lock()

    @contextmanager
    def reading(self, generation: int, seconds: float) -> Iterator[apsw.Connection]:
        """A connection inside a read transaction that ends after `seconds`.

        Raises: TimedOut: when the time is up.
        """
        connection = self._take(generation)
        with Deadline(seconds, connection.interrupt) as deadline:
            try:
                connection.execute("BEGIN")
                yield connection
            except apsw.InterruptError:
                if deadline.passed:
                    raise out_of_time(seconds) from None
                raise
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
        self._give(connection, generation)

    def _take(self, generation: int) -> apsw.Connection:
        with self._lock:
            if generation != self._generation:  # the file was swapped
                for old in self._idle:
                    old.close()
                self._idle, self._generation = [], generation
            if self._idle:
                return self._idle.pop()
        return self._open()

    def _give(self, connection: apsw.Connection, generation: int) -> None:
        with self._lock:
            if generation == self._generation and len(self._idle) < 4:
                self._idle.append(connection)
                return
        connection.close()

    def _open(self) -> apsw.Connection:
        connection = apsw.Connection(
            str(self._path), flags=apsw.SQLITE_OPEN_READONLY, statementcachesize=50
        )
        connection.set_busy_timeout(2000)
        connection.pragma("cache_size", -CACHE_BYTES // 1024 // 4)
        connection.pragma("query_only", True)
        find_run.register(connection)
        return connection

    def close(self) -> None:
        """Close idle connections."""
        with self._lock:
            for connection in self._idle:
                connection.close()
            self._idle, self._generation = [], -1


def run_sql(
    connection: apsw.Connection,
    sql: str,
    parameters: Sequence[Any],
    *,
    rows_max: int,
    bytes_max: int,
) -> Collected:
    """One SELECT from somebody, inside the connection's read transaction.

    Raises: UsageError: it is not one SELECT, or refused; TooLarge.
    """
    if len(sql) > SQL_BYTES_MAX:
        raise TooLarge(f"a statement may have {SQL_BYTES_MAX} characters")
    saved = {what: connection.limit(what, limit) for what, limit in _LIMITS.items()}
    connection.authorizer = _authorize
    try:
        cursor = connection.cursor()
        columns: list[str] = []
        cursor.exec_trace = _only_one(columns)
        found = collect(columns, iter(cursor.execute(sql, parameters)), rows_max, bytes_max)
        if not columns:
            raise UsageError("SQL: no statement")
        return found
    except apsw.InterruptError:
        raise
    except apsw.TooBigError as error:
        raise TooLarge(f"SQL: {error}") from None
    except (apsw.Error, TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"SQL: {str(error) or type(error).__name__}") from None
    finally:
        connection.authorizer = None
        for what, limit in saved.items():
            connection.limit(what, limit)


def _only_one(columns: list[str]) -> Any:
    """Execution hook: one reading statement, whose columns it notes, and no second."""
    seen = 0

    def trace(cursor: apsw.Cursor, sql: str, bindings: Any) -> bool:
        nonlocal seen
        seen += 1
        if seen > 1:
            raise UsageError("SQL: one statement at a time")
        if not cursor.is_readonly:
            raise UsageError("SQL: only statements that read")
        columns.extend(name for name, _ in cursor.get_description())
        return True

    return trace


def _authorize(
    operation: int, first: str | None, second: str | None, database: str | None, trigger: str | None
) -> int:
    if operation == apsw.SQLITE_FUNCTION and (second or "").lower() in _FUNCTIONS_REFUSED:
        return apsw.SQLITE_DENY
    if operation in _ALLOWED:
        return apsw.SQLITE_OK
    return apsw.SQLITE_DENY
