"""History of the analytics view as it is written: events, copies, and how long they are kept.

History is bounded: by age, and the table of events by rows.
"""

from __future__ import annotations

import time
from typing import Any

from gfs.changes import Line
from gfs.config import ProjectionsConfig
from projections.core.happenings import happenings_of

PRUNE_S = 600.0  # between looks for what is too old
_DAY_NS = 86400 * 10**9
_OLD = (
    "DELETE FROM history.events WHERE time_ns < ?",
    "DELETE FROM history.copies WHERE time_ns < ?",
    "DELETE FROM history.deletions WHERE time_ns < ?",
    "DELETE FROM history.growth WHERE hour < make_timestamp_ns(?)::TIMESTAMP",
)
# Row numbers follow the order in which rows came, also after some were deleted.
_TOO_MANY = "DELETE FROM history.events WHERE rowid <= (SELECT max(rowid) FROM history.events) - ?"


class EventHistory:
    """Writes events; bounds the history."""

    def __init__(self, config: ProjectionsConfig) -> None:
        self._age_ns = int(config.history_days * _DAY_NS)
        self._rows_max = config.history_rows
        self._pruned_at = -PRUNE_S

    def record(self, lines: list[Line], history: Any) -> None:
        """Add the events of whole records; inside a transaction of the history."""
        events, copies = happenings_of(lines)
        for table, rows in (("history.events", events), ("history.copies", copies)):
            if rows:
                with history.appender(table) as appender:
                    appender.append_rows(map(tuple, rows))  # a NamedTuple takes it longer
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
