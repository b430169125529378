"""The analytics view: the namespace in columns, in DuckDB, for questions over all of it.

A batch enters as one JSON text: DuckDB unpacks it faster than rows can be bound one by
one, and no data-frame library is needed. Items that were touched are deleted and put
again: two scans of a key column a batch, whatever its size, so larger batches are cheaper.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb
import msgspec

from gfs.changes import Image, Line
from gfs.config import ProjectionsConfig
from gfs.routes import Operation
from projections import analytics_routes
from projections.analytics_copy import apply_copy
from projections.analytics_history import EventHistory
from projections.analytics_queries import AnalyticsQueries
from projections.analytics_schema import DIRENT_COLUMNS, HISTORY, INODE_COLUMNS, SCHEMA
from projections.core.comparing import Compared
from projections.core.facts import facts_of
from projections.core.following import Batch, Items, stages
from projections.projection import DuckProjection

_ENCODER = msgspec.json.Encoder()
_COMPARED = tuple(name for name in INODE_COLUMNS if name != "ino")


def _rows(columns: dict[str, str]) -> str:
    """SQL that unpacks the parameter, a JSON list of maps, into these columns."""
    shape = "{" + ", ".join(f'"{name}": "{kind}"' for name, kind in columns.items()) + "}"
    return f"SELECT unnest(from_json(?::JSON, '[{shape}]'), recursive := true)"


_KEY = {"ino": "BIGINT"}
_NAME_KEY = {"parent": "BIGINT", "name": "VARCHAR"}
_XATTR = {"ino": "BIGINT", "name": "VARCHAR", "value": "VARCHAR"}
_DROP_INODES = f"DELETE FROM inodes WHERE ino IN ({_rows(_KEY)})"
_DROP_XATTRS = f"DELETE FROM xattrs WHERE ino IN ({_rows(_KEY)})"
_DROP_DIRENTS = (
    f"DELETE FROM dirents USING ({_rows(_NAME_KEY)}) AS gone"
    " WHERE dirents.parent = gone.parent AND dirents.name = gone.name"
)
_PUT_INODES = f"INSERT INTO inodes {_rows(INODE_COLUMNS)}"
_PUT_DIRENTS = (
    "INSERT INTO dirents SELECT *, CASE WHEN kind = 32768 THEN extension_of(name) ELSE '' END"
    f" FROM ({_rows(DIRENT_COLUMNS)})"
)
_PUT_XATTRS = f"INSERT INTO xattrs {_rows(_XATTR)}"
_GROWTH = {
    "hour": "BIGINT",
    "uid": "BIGINT",
    "created": "BIGINT",
    "removed": "BIGINT",
    "bytes_added": "BIGINT",
    "bytes_removed": "BIGINT",
}
_DELETION = {
    "cursor": "VARCHAR",
    "time_ns": "BIGINT",
    "parent": "BIGINT",
    "name": "VARCHAR",
    "ino": "BIGINT",
    "kind": "INTEGER",
    "size": "BIGINT",
    "to_trash": "BOOLEAN",
    "uid": "BIGINT",
    "pid": "BIGINT",
    "host": "VARCHAR",
    "mount": "VARCHAR",
}
_PUT_GROWTH = (
    "INSERT INTO history.growth SELECT make_timestamp(hour * 3600000000), * EXCLUDE (hour)"
    f" FROM ({_rows(_GROWTH)})"
)
_PUT_DELETIONS = f"INSERT INTO history.deletions {_rows(_DELETION)}"


class AnalyticsView(DuckProjection):
    """Histograms, growth, top lists, free SQL."""

    name = "analytics"
    format = 2
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

    def apply(self, batch: Batch, connection: Any) -> None:
        for items, copy in stages(batch.lines):
            apply_items(items, connection)
            if copy is not None:
                apply_copy(copy, connection)

    def record(self, lines: list[Line], history: Any, connection: Any) -> None:
        facts = facts_of(lines)
        growth = [
            {
                "hour": hour,
                "uid": uid,
                "created": one.created,
                "removed": one.removed,
                "bytes_added": one.bytes_added,
                "bytes_removed": one.bytes_removed,
            }
            for (hour, uid), one in facts.growth.items()
        ]
        _run(history, _PUT_GROWTH, growth)
        _run(history, _PUT_DELETIONS, facts.deletions)
        self._events.record(lines, history)

    def operations(self, service: Any) -> Sequence[Operation]:
        return analytics_routes.operations(AnalyticsQueries(service))


def apply_items(items: Items, connection: duckdb.DuckDBPyConnection) -> None:
    """Bring the tables to `items`; inside the caller's transaction."""
    _run(connection, _DROP_INODES, [{"ino": ino} for ino in items.old_inodes])
    _run(connection, _DROP_XATTRS, [{"ino": ino} for ino in items.old_xattrs])
    gone = [{"parent": parent, "name": name} for parent, name in items.old_dirents]
    _run(connection, _DROP_DIRENTS, gone)
    put = [_inode(ino, image) for ino, image in items.inodes.items() if image is not None]
    _run(connection, _PUT_INODES, put)
    names = [
        {"parent": parent, "name": name, "ino": image.ino, "kind": image.kind}
        for (parent, name), image in items.dirents.items()
        if image is not None
    ]
    _run(connection, _PUT_DIRENTS, names)
    xattrs = [
        {"ino": ino, "name": name, "value": value}
        for ino, image in items.inodes.items()
        if image is not None and image.attributes
        for name, value in image.attributes.items()
    ]
    _run(connection, _PUT_XATTRS, xattrs)


def _inode(ino: int, image: Image) -> dict[str, object]:
    return {
        "ino": ino,
        "mode": image.mode,
        "uid": image.uid,
        "gid": image.gid,
        "nlink": image.nlink,
        "size": image.size,
        "stored": image.stored,
        "atime_ns": image.atime_ns,
        "mtime_ns": image.mtime_ns,
        "ctime_ns": image.ctime_ns,
        "created_ns": image.created_ns,
        "data_version": image.data_version,
        "rdev": image.rdev,
        "target": image.target,
    }


def _run(connection: duckdb.DuckDBPyConnection, sql: str, rows: Sequence[object]) -> None:
    if rows:
        connection.execute(sql, [_ENCODER.encode(rows).decode()])
