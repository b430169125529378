"""Positions of the stream's named consumers, on disk: an SQLite file of the stream's own.

Neither state nor log know of it. `synchronous=NORMAL` with a WAL: no sync for each
commit, which would be one beside the log's; kill -9 loses nothing, a power loss perhaps
the last commits, after which a consumer reads a little again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from pathlib import Path

import apsw
from msgspec import Struct

from gfs import errors
from master.sqlite_tables import translate

log = logging.getLogger(__name__)

APPLICATION_ID = 0x47465343  # "GFSC"
FORMAT = 1
_SCHEMA = """
CREATE TABLE consumers (
  name TEXT PRIMARY KEY, cursor TEXT NOT NULL, created_ns INTEGER NOT NULL,
  committed_ns INTEGER NOT NULL
) WITHOUT ROWID
"""
_PUT = "INSERT OR REPLACE INTO consumers VALUES (?, ?, ?, ?)"
_DELETE = "DELETE FROM consumers WHERE name = ?"


class Consumer(Struct):
    """A name and how far it has come."""

    name: str
    cursor: str
    created_ns: int
    committed_ns: int  # 0: never; `cursor` is where its first reading began


class ConsumerFile:
    """All consumers; written from one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Open or make the file; a damaged one is put aside, for the stream must go on.

        Raises: NewerFormat, StorageFailed, NoSpace.
        """
        try:
            self._connection, self.loaded = _open(path)
        except errors.Corrupt as error:
            aside = path.with_name(f"{path.name}.damaged-{time.time_ns()}")
            path.rename(aside)
            for suffix in ("-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            log.error("stream.consumers-lost old=%s %s", aside, error)
            self._connection, self.loaded = _open(path)

    def write(self, changed: Iterable[tuple[str, Consumer | None]]) -> None:
        """Make all of `changed` so, None being removed.

        Raises: NoSpace, StorageFailed: none of it is.
        """
        try:
            with self._connection:
                for name, one in changed:
                    if one is None:
                        self._connection.execute(_DELETE, (name,))
                    else:
                        row = (name, one.cursor, one.created_ns, one.committed_ns)
                        self._connection.execute(_PUT, row)
        except apsw.Error as error:
            raise translate(error, "write down the positions of consumers") from error

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def _open(path: Path) -> tuple[apsw.Connection, list[Consumer]]:
    try:
        connection = apsw.Connection(str(path))
        try:
            connection.pragma("journal_mode", "wal")
            connection.pragma("synchronous", "normal")
            _check(connection, path)
            rows = connection.execute("SELECT * FROM consumers ORDER BY name")
            return connection, [Consumer(*row) for row in rows]
        except BaseException:
            connection.close()
            raise
    except apsw.Error as error:
        raise translate(error, f"open {path}") from error


def _check(connection: apsw.Connection, path: Path) -> None:
    found = connection.pragma("user_version")
    owner = connection.pragma("application_id")
    if not found and not owner:
        with connection:
            connection.execute(_SCHEMA)
            connection.pragma("application_id", APPLICATION_ID)
            connection.pragma("user_version", FORMAT)
    elif owner != APPLICATION_ID:
        raise errors.Corrupt(f"{path} does not hold consumers")
    elif found > FORMAT:
        raise errors.NewerFormat(f"{path} has format {found}; this release reads {FORMAT}")
