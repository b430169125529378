"""History of the analytics view as it is written: events, copies, and how long they are kept.

Rows enter as one JSON object of columns, which DuckDB takes apart in half the time
that a list of rows costs. History is bounded: by age, and the table of events by rows.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec

from gfs.changes import Line
from gfs.config import ProjectionsConfig
from projections.analytics_schema import COPY_COLUMNS, EVENT_COLUMNS
from projections.core.happenings import happenings_of

PRUNE_S = 600.0  # between looks for what is too old
_DAY_NS = 86400 * 10**9
_ENCODER = msgspec.json.Encoder()
_OLD = (
    "DELETE FROM history.events WHERE time_ns < ?",
    "DELETE FROM history.copies WHERE time_ns < ?",
    "DELETE FROM history.deletions WHERE time_ns < ?",
    "DELETE FROM history.growth WHERE hour < make_timestamp_ns(?)::TIMESTAMP",
)
# Row numbers follow the order in which rows came, also after some were deleted.
_TOO_MANY = "DELETE FROM history.events WHERE rowid <= (SELECT max(rowid) FROM history.events) - ?"


def put_columns(table: str, columns: dict[str, str]) -> str:
    """Statement that inserts what `encoded` makes of rows."""
    shape = ", ".join(f'"{name}": "{kind}[]"' for name, kind in columns.items())
    parts = ", ".join(f"unnest(j.{name})" for name in columns)
    return (
        f"INSERT INTO {table} SELECT {parts} FROM (SELECT from_json(?::JSON, '{{{shape}}}') AS j)"
    )


def encoded(columns: dict[str, str], rows: Sequence[tuple[Any, ...]]) -> str:
    """Rows, in the order of `columns`, as the parameter of `put_columns`."""
    return _ENCODER.encode(dict(zip(columns, zip(*rows, strict=True), strict=True))).decode()


_PUT_EVENTS = put_columns("history.events", EVENT_COLUMNS)
_PUT_COPIES = put_columns("history.copies", COPY_COLUMNS)


class EventHistory:
    """Writes events; bounds the history."""

    def __init__(self, config: ProjectionsConfig) -> None:
        self._age_ns = int(config.history_days * _DAY_NS)
        self._rows_max = config.history_rows
        self._pruned_at = -PRUNE_S

    def record(self, lines: list[Line], history: Any) -> None:
        """Add the events of whole records; inside a transaction of the history."""
        events, copies = happenings_of(lines)
        if events:
            history.execute(_PUT_EVENTS, [encoded(EVENT_COLUMNS, events)])
        if copies:
            history.execute(_PUT_COPIES, [encoded(COPY_COLUMNS, copies)])
        if lines and time.monotonic() - self._pruned_at >= PRUNE_S:
            self._pruned_at = time.monotonic()
            self.prune(history, lines[-1].time_ns)

    def prune(self, history: Any, now_ns: int) -> None:
        """Drop what is too old, and the oldest events of too many.

        `now_ns` is the time of the last record: a log that is caught up with is not old.
        """
        for sql in _OLD:
            history.execute(sql, [max(0, now_ns - self._age_ns)])
        history.execute(_TOO_MANY, [self._rows_max])
