"""The search view: names, attributes, paths and sums of every directory, in SQLite."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from gfs.changes import START, Line
from gfs.routes import Operation
from projections import search_check, search_routes
from projections.core.comparing import Difference
from projections.core.facts import facts_of
from projections.core.following import Batch, stages
from projections.projection import SqliteProjection
from projections.search_apply import apply_items
from projections.search_copy import apply_copy
from projections.search_load import finish, is_loading, load_items
from projections.search_queries import SearchQueries
from projections.search_schema import HISTORY, SCHEMA

_DELETION = f"INSERT OR IGNORE INTO deletions VALUES ({', '.join('?' * 13)})"
_GROWTH = """
INSERT INTO growth VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (hour, uid) DO UPDATE SET
  created = created + excluded.created, removed = removed + excluded.removed,
  bytes_added = bytes_added + excluded.bytes_added,
  bytes_removed = bytes_removed + excluded.bytes_removed
"""


class SearchView(SqliteProjection):
    """`find`, `search` and `du` in milliseconds; who deleted what."""

    name = "search"
    format = 3
    schema = SCHEMA
    history_schema = HISTORY
    compared = search_check.COMPARED
    path_sql = (
        "SELECT path FROM directories WHERE ino = ? UNION ALL SELECT d.path"
        " FROM inodes i JOIN directories d ON d.ino = i.home WHERE i.ino = ? LIMIT 1"
    )

    def apply(self, batch: Batch, connection: Any) -> None:
        if batch.snapshot and is_loading(connection):
            load_items(batch.lines, connection)
            if batch.cursor != START or not batch.lines:  # all items are in
                finish(connection)
            return
        for items, copy in stages(batch.lines):
            apply_items(items, connection)
            if copy is not None:
                apply_copy(copy, connection)

    def record(self, lines: list[Line], history: Any, connection: Any) -> None:
        facts = facts_of(lines)
        paths: dict[int, str] = {}
        rows = []
        for one in facts.deletions:
            directory = paths.get(one.parent)
            if directory is None:
                sql = "SELECT path FROM directories WHERE ino = ?"
                directory = paths[one.parent] = connection.execute(sql, (one.parent,)).get or ""
            rows.append(
                (
                    one.cursor,
                    one.time_ns,
                    directory,
                    one.parent,
                    one.name,
                    one.ino,
                    one.kind,
                    one.size,
                    one.to_trash,
                    one.uid,
                    one.pid,
                    one.host,
                    one.mount,
                )
            )
        if rows:
            history.executemany(_DELETION, rows)
        growth = [
            (hour, uid, one.created, one.removed, one.bytes_added, one.bytes_removed)
            for (hour, uid), one in facts.growth.items()
        ]
        if growth:
            history.executemany(_GROWTH, growth)

    def contradictions(self, after: int, last: int, connection: Any) -> Iterable[Difference]:
        return search_check.contradictions(after, last, connection)

    def contradictions_of_sums(self, connection: Any) -> Iterable[Difference]:
        return search_check.contradictions_of_sums(connection)

    def operations(self, service: Any) -> Sequence[Operation]:
        return search_routes.operations(SearchQueries(service))
