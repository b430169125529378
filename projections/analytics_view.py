"""The analytics view: the namespace in columns, in DuckDB, for questions over all of it.

A batch enters through DuckDB's appenders, which take rows of Python's and no data-frame
library. Items that were touched are deleted and put again: two scans of a key column a
batch, whatever its size, so larger batches are cheaper. Names are deleted by inode, or by the
number of their row: a comparison of a million names costs ten times a scan.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from typing import Any

import duckdb

from gfs.changes import START, Line
from gfs.config import ProjectionsConfig
from gfs.routes import Operation
from projections import analytics_kept, analytics_routes
from projections.analytics_copy import apply_copy
from projections.analytics_fresh import begin_of_fresh, put_fresh
from projections.analytics_fresh_state import empty
from projections.analytics_history import EventHistory
from projections.analytics_known import Memory
from projections.analytics_names import Change, extension_of
from projections.analytics_queries import AnalyticsQueries
from projections.analytics_rows import inode_rows
from projections.analytics_schema import (
    DELETION_COLUMNS,
    DIRENT_COLUMNS,
    HISTORY,
    INODE_COLUMNS,
    INODE_MADE,
    SCHEMA,
)
from projections.core.comparing import Compared, Difference
from projections.core.facts import Deletion
from projections.core.following import Batch, Items, items_of, stages
from projections.core.recording import Recorded
from projections.duck_rows import AS_THEY_ARE, Inlet, delete, form_of, put
from projections.projection import DuckProjection
from projections.storage import DuckStore, Store

_COMPARED = (
    *(name for name in INODE_COLUMNS if name not in ("ino", "stored_apart", "atime_xor")),
    *INODE_MADE,
)
_GROWTH = attrgetter("created", "removed", "bytes_added", "bytes_removed")
_INODES_IN = Inlet(
    "main_inodes",
    INODE_COLUMNS,
    flipped=("uid", "gid", "nlink", "size", "stored_apart", "atime_xor", "data_version"),
    empty={"rdev": "0", "target": "''", "digest": "0"},
)
_DIRENTS_IN = Inlet(
    "main_dirents",
    DIRENT_COLUMNS,
    more=["CASE WHEN kind = 32768 THEN extension_of(name) ELSE '' END"],
)
_DELETIONS_IN = Inlet("history.deletions", DELETION_COLUMNS, flipped=("size", "uid", "pid"))


class AnalyticsView(DuckProjection):
    """Histograms, growth, top lists, free SQL."""

    name = "analytics"
    format = 6
    schema = SCHEMA
    history_schema = HISTORY
    compared = Compared(
        _COMPARED,
        f"SELECT ino, {', '.join(_COMPARED)} FROM inodes WHERE ino > ? AND ino <= ?",
        "SELECT ino, parent, name FROM dirents WHERE ino > ? AND ino <= ?",
        "SELECT ino, name, value FROM xattrs WHERE ino > ? AND ino <= ?",
    )
    path_sql = (
        "SELECT path FROM directories WHERE ino = ? OR ino ="
        " (SELECT min(parent) FROM dirents WHERE ino = ?) ORDER BY depth DESC LIMIT 1"
    )
    history_delay_s = 1.0  # needs nothing of the view, and a commit costs milliseconds

    def __init__(self, config: ProjectionsConfig) -> None:
        super().__init__(config)
        self._events = EventHistory(config)
        self._memory = Memory()

    def open_store(self, path: Path, history: Path | None) -> Store:
        store = super().open_store(path, history)
        assert isinstance(store, DuckStore)
        known = self._memory.of(store.connection)
        store.ended = lambda committed: known.ended(committed=committed)
        if (place := begin_of_fresh(store.connection)) is not None:
            store.write(empty, place)
        return store

    def apply(self, batch: Batch, connection: Any) -> None:
        if batch.snapshot:
            self._load(batch, connection)
            return
        known, lines = self._memory.of(connection), batch.lines
        if lines and not (known.fresh.takes(lines) and put_fresh(lines, connection, known)):
            self._work_in(lines, connection)

    def settle(self, store: Store) -> None:
        assert isinstance(store, DuckStore)
        if not self._memory.of(store.connection).fresh.is_empty:
            store.write(lambda connection: self._work_in([], connection), store.cursor)

    def _work_in(self, lines: list[Line], connection: Any) -> None:
        """Bring the main tables to what is fresh and then to `lines`."""
        known = self._memory.of(connection)
        moved = known.fresh.rows.moved
        self._apply_lines(known.fresh.clear(connection), connection, moved)
        self._apply_lines(lines, connection)

    def _apply_lines(self, lines: list[Line], connection: Any, moved: Collection[int] = ()) -> None:
        known = self._memory.of(connection)
        for items, copy in stages(lines) if lines else ():
            least, _ = known.bound_of_large(connection)
            change = Change(items, connection, large=least)
            change.remove_names()
            apply_items(items, connection)
            analytics_kept.keep(change, connection, known, moved)
            if copy is not None:
                apply_copy(copy, connection)
                known.counts_room = 0

    def _load(self, batch: Batch, connection: Any) -> None:
        known = self._memory.of(connection)
        apply_items(items_of(batch.lines), connection)
        if batch.cursor != START or not batch.lines:  # all items are in
            analytics_kept.fill(connection)
            known.refilled()

    def contradictions(self, after: int, last: int, connection: Any) -> Iterable[Difference]:
        return analytics_kept.contradictions_of_names(connection, after, last)

    def contradictions_of_sums(self, connection: Any) -> Iterable[Difference]:
        return analytics_kept.contradictions(connection)

    def record(self, lines: list[Line], history: Any, connection: Any) -> None:
        recorded = Recorded()
        recorded.add(lines)
        facts, told = recorded.facts, recorded.told
        growth = [
            (datetime.fromtimestamp(hour * 3600, UTC).replace(tzinfo=None), uid, *_GROWTH(one))
            for (hour, uid), one in facts.growth.items()
        ]
        put(history, "history.growth", growth)
        form = form_of(len(facts.deletions))
        deletions = [_deletion_row(one, form.flip) for one in facts.deletions]
        if deletions:
            _DELETIONS_IN.put(history, deletions, form)
        self._events.record(told, history)
        if lines:
            self._events.prune_when_due(history, lines[-1].time_ns)

    def operations(self, service: Any) -> Sequence[Operation]:
        return analytics_routes.operations(AnalyticsQueries(service))


def _deletion_row(one: Deletion, flip: int) -> tuple[Any, ...]:
    return (
        one.cursor,
        one.time_ns,
        one.parent,
        one.name,
        one.ino,
        one.kind,
        one.size ^ flip,
        one.to_trash,
        one.uid ^ flip,
        one.pid ^ flip,
        one.host,
        one.mount,
    )


def apply_items(items: Items, connection: duckdb.DuckDBPyConnection) -> None:
    """Bring the tables to `items`, but for names that go; inside the caller's transaction."""
    delete(connection, "main_inodes", ["ino"], [(ino,) for ino in items.old_inodes])
    delete(connection, "main_xattrs", ["ino"], [(ino,) for ino in items.old_xattrs])
    _put_inodes(items, connection)
    _put_names(items, connection)
    xattrs = [
        (ino, name, value)
        for ino, one in items.inodes.items()
        if one is not None and one.attributes
        for name, value in one.attributes.items()
    ]
    put(connection, "main_xattrs", xattrs)


def _put_inodes(items: Items, connection: duckdb.DuckDBPyConnection) -> None:
    form = form_of(len(items.inodes))
    if rows := inode_rows(items.inodes.items(), form):
        _INODES_IN.put(connection, rows, form)


def _put_names(items: Items, connection: duckdb.DuckDBPyConnection) -> None:
    rows: list[tuple[Any, ...]] = [
        (*key, one.ino, one.kind) for key, one in items.dirents.items() if one is not None
    ]
    form = form_of(len(rows))
    if form is AS_THEY_ARE:
        rows = [(*row, extension_of(row[1], row[3], connection)) for row in rows]
    if rows:
        _DIRENTS_IN.put(connection, rows, form)
