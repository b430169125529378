"""History of the analytics view as it is written: events, copies, and how long they are kept.

History is bounded: by age, and the table of events by rows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from gfs.config import ProjectionsConfig
from projections.analytics_schema import EVENT_COLUMNS
from projections.core.happenings import Happening, Told
from projections.duck_rows import Form, Inlet, form_of, put

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

_EVENTS_IN = Inlet(
    "history.events",
    {**EVENT_COLUMNS, "epoch": "INTEGER"},
    flipped=("position", "size", "size_before", "owner", "uid", "pid"),
    empty={
        **dict.fromkeys(("parent", "from_parent"), "0"),
        **dict.fromkeys(("name", "from_name", "detail"), "''"),
    },
    ordered=True,  # events of one inode in one record are told apart by it
)


class EventHistory:
    """Writes events; bounds the history."""

    def __init__(self, config: ProjectionsConfig) -> None:
        self._age_ns = int(config.history_days * _DAY_NS)
        self._rows_max = config.history_rows
        self._pruned_at = -PRUNE_S

    def record(self, told: Told, history: Any) -> None:
        """Add events and copies; inside a transaction of the history."""
        if told.events:
            form = form_of(len(told.events))
            _EVENTS_IN.put(history, _event_rows(told.events, form), form)
        put(history, "history.copies", told.copies)

    def prune_when_due(self, history: Any, now_ns: int) -> None:
        """`prune`, if that was not done lately."""
        if time.monotonic() - self._pruned_at >= PRUNE_S:
            self._pruned_at = time.monotonic()
            self.prune(history, now_ns)

    def prune(self, history: Any, now_ns: int) -> None:
        """Drop what is too old, and the oldest events of too many.

        `now_ns` is the time of the last record: a log that is caught up with is not old.
        """
        for sql in _OLD:
            history.execute(sql, [max(0, now_ns - self._age_ns)])
        history.execute(_TOO_MANY, [self._rows_max])


def _event_rows(events: list[Happening], form: Form) -> Iterator[tuple[Any, ...]]:
    flip, zero, empty = form
    for number, one in enumerate(events):
        at, ino, event, kind, parent, name, from_parent, from_name, size, before, owner, detail = (
            one
        )
        epoch, position, time_ns, uid, pid, host, mount = at
        yield (
            number,
            epoch,
            position ^ flip,
            time_ns,
            ino,
            event,
            kind,
            parent or zero,
            name or empty,
            from_parent or zero,
            from_name or empty,
            size ^ flip,
            before ^ flip,
            owner ^ flip,
            detail or empty,
            uid ^ flip,
            pid ^ flip,
            host,
            mount,
        )
