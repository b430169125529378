"""What a view is: a class with a schema and an `apply`; everything else is the framework's.

    class Owners(SqliteProjection):
        name = "owners"
        schema = "CREATE TABLE owners (uid INTEGER PRIMARY KEY, files INTEGER NOT NULL)"

        def apply(self, batch, connection): ...

The framework follows the stream, calls `apply` with whole records inside a
transaction, and commits the cursor in the same transaction, so that each event takes
effect exactly once. A class is found by the entry-point group ``gfs.projections``.
A view that cannot be read, or is of another `format`, is built anew beside and swapped in.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, ClassVar

from gfs.changes import Line
from gfs.config import ProjectionsConfig
from gfs.errors import UsageError
from gfs.routes import Operation
from projections.core.comparing import Compared, Difference
from projections.core.dead_letters import EVERYWHERE, PATHS_MAX
from projections.core.following import Batch
from projections.storage import DuckStore, SqliteStore, Store

GROUP = "gfs.projections"


class Projection(ABC):
    """A view of the namespace. One instance a process; not thread-safe, never called twice
    at once."""

    name: ClassVar[str]
    format: ClassVar[int] = 1  # raise it when schema or meaning changes: the view is rebuilt
    schema: ClassVar[str]
    history_schema: ClassVar[str] = ""  # tables that survive a rebuild; "" = none
    history_delay_s: ClassVar[float] = 0.0  # history may be written down so much later
    suffix: ClassVar[str]
    # One row: path of the directory that inode ? is, or (second ?) lies in. "" = no paths here.
    path_sql: ClassVar[str] = ""
    # What of it is items of the master, row for row: it is verified against them all the time.
    compared: ClassVar[Compared | None] = None

    def __init__(self, config: ProjectionsConfig) -> None:
        self.config = config

    @abstractmethod
    def open_store(self, path: Path, history: Path | None) -> Store:
        """The view at `path`, made if it is not there; with the history at `history`."""

    @abstractmethod
    def apply(self, batch: Batch, connection: Any) -> None:
        """Bring the tables to the state after `batch`; inside a transaction.

        A snapshot comes as batches of inserts (`batch.snapshot`), in any order, into an
        empty view; the last one has no items, and alone a cursor that is not START.
        """

    def settle(self, store: Store) -> None:  # noqa: B027 -- most views put nothing off
        """Finish what `apply` has put off, if it does that; the rows say the same after it.

        Called when nothing has come for a while, and before the view is closed.
        """

    def record(self, lines: list[Line], history: Any, connection: Any) -> None:
        """Add events to the history tables.

        `connection` shows the view as it was before them, unless `history_delay_s` is
        set. Called inside a transaction of the history, each event once. Only where
        `history_schema` is given.
        """
        raise NotImplementedError

    def paths_of(self, inodes: Sequence[int], connection: Any) -> list[str]:
        """Directories that hold these inodes; the root where that is not known."""
        if not self.path_sql or not inodes or len(inodes) > PATHS_MAX:
            return [EVERYWHERE]
        found = set()
        for ino in inodes:
            row = connection.execute(self.path_sql, (ino, ino)).fetchone()
            found.add((row and row[0]) or EVERYWHERE)
        return sorted(found)

    def contradictions(self, after: int, last: int, connection: Any) -> Iterable[Difference]:
        """What is not as the rows say that it is made of, of inodes in (after, last]."""
        return ()

    def contradictions_of_sums(self, connection: Any) -> Iterable[Difference]:
        """The same of what is about all rows; once in each pass of verification."""
        return ()

    def operations(self, service: Any) -> Sequence[Operation]:
        """Its queries over HTTP, besides SQL, which every view has.

        `service` is a `projections.queries.QueryService`.
        """
        return ()


class SqliteProjection(Projection):
    """A view in an SQLite file; `connection` is an `apsw.Connection`."""

    suffix = ".db"

    def open_store(self, path: Path, history: Path | None) -> Store:
        return SqliteStore(
            path, self.schema, self.format, history=history, history_schema=self.history_schema
        )


class DuckProjection(Projection):
    """A view in a DuckDB file; `connection` is a `duckdb.DuckDBPyConnection`."""

    suffix = ".duckdb"

    def open_store(self, path: Path, history: Path | None) -> Store:
        return DuckStore(
            path,
            self.schema,
            self.format,
            history=history,
            history_schema=self.history_schema,
            memory_bytes=self.config.query_memory_bytes,
            threads=self.config.query_threads,
        )


def find_projections(chosen: str) -> list[type[Projection]]:
    """The class named `chosen`, or all of them.

    Raises: UsageError: there is no such view.
    """
    found: dict[str, type[Projection]] = {}
    for entry in entry_points(group=GROUP):
        if chosen in ("all", entry.name):
            found[entry.name] = entry.load()
    return list(found.values())


def choose(built_in: Sequence[type[Projection]], chosen: str) -> list[type[Projection]]:
    """Built-in views and those of entry points, by name; "all" takes each once.

    Raises: UsageError: there is no such view.
    """
    known = {one.name: one for one in (*find_projections(chosen), *built_in)}
    if chosen == "all":
        return list(known.values())
    if chosen not in known:
        raise UsageError(f"there is no view {chosen!r} (there are {', '.join(sorted(known))})")
    return [known[chosen]]
