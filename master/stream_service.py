"""What the change stream's handlers share: log, state, checkpoints, consumers, figures."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import trio

from gfs import changes
from gfs.changes import Cursor
from gfs.disk import PosixDisk
from gfs.errors import GfsError, Overloaded
from gfs.labelled import Labelled
from master.checkpoint import Checkpoint, newest_whole
from master.consumer_file import Consumer, ConsumerFile
from master.log_reader import CommittedPosition, LogReader
from master.segments import Truncated
from master.state import open_reader
from master.stream_consumers import Consumers
from master.stream_filter import Pattern, Place, resolve
from master.stream_history import History
from master.stream_links import Links
from master.stream_log import ReaderPool, Records, SharedLog, Tip

READERS_MAX = 200


@dataclass
class Figures:
    """Counters of the process."""

    readers: int = 0
    readers_total: int = 0
    readers_refused_total: int = 0
    readers_dropped_total: int = 0  # they took nothing for long
    events_sent_total: int = 0
    bytes_sent_total: int = 0
    resets_total: int = 0
    snapshots_total: int = 0


class Service:
    """Log, state and checkpoints as the HTTP handlers need them."""

    def __init__(
        self,
        *,
        log_directory: Path,
        committed: Path,
        state: Path,
        checkpoints: Path,
        consumers: Path,
        cluster_id: str,
        readers_max: int = READERS_MAX,
    ) -> None:
        """Raises: GfsError: a file is damaged or of a newer release."""
        self._committed = CommittedPosition(committed)
        new_reader = partial(LogReader, log_directory, PosixDisk(), cluster_id, self._committed)
        self.state = state
        self._checkpoints = checkpoints
        self.readers_max = readers_max
        self.pool = ReaderPool(new_reader)
        self.records = Records(self.pool)
        self.shared = SharedLog(self.records)
        self.reading = trio.Lock()  # of those who begin somewhere one makes what others then share
        self.history = History(log_directory, new_reader)
        self.consumers = Consumers(ConsumerFile(consumers))
        self.tip = Tip(self._committed)
        self.figures = Figures()
        self.stop = trio.Event()
        self._lags: dict[str, dict[str, Any]] = {}
        self._kept: dict[str, int] = {}

    def admit(self) -> None:
        """One more reader, who is counted out by `leave`.

        Raises: Overloaded: there are as many as there may be.
        """
        if self.figures.readers >= self.readers_max:
            self.figures.readers_refused_total += 1
            raise Overloaded(
                f"{self.readers_max} readers follow the stream already (stream_readers)"
            )
        self.figures.readers += 1
        self.figures.readers_total += 1

    def leave(self) -> None:
        """A reader has gone."""
        self.figures.readers -= 1

    def first_position(self) -> int:
        """The oldest position a reader can begin with; 1 before the first record."""
        return self.history.first_position() or self.tip.position + 1

    def stranger(self, cursor: Cursor) -> str:
        """Why `cursor` is not of this history, or "". Blocks: it may walk a segment."""
        # Not from the tip, which the loop moves while this runs in a thread: of two who
        # look at once, the one that looked first may be the last to write it down.
        position, epoch_now = self._committed.read()
        self.history.learn(position, epoch_now)
        if cursor.position > position:
            return f"the log ends at {Cursor(int(epoch_now), int(position))}, before {cursor}"
        if cursor.position == 0:
            return "" if cursor.epoch == 0 else f"there is no record 0 of epoch {cursor.epoch}"
        try:
            epoch = self.history.epoch_at(cursor.position)
        except Truncated:
            # The record just before the oldest kept, as after a snapshot, or an older one:
            # its epoch cannot be looked up, so any that may precede what follows is believed.
            return ""
        if epoch != cursor.epoch:
            return f"record {cursor.position} is of epoch {epoch}, not {cursor.epoch}"
        return ""

    def refusal(self, cursor: Cursor) -> str:
        """Why a reader cannot go on from `cursor`, or "". Blocks as `stranger`."""
        if reason := self.stranger(cursor):
            return reason
        if _following(cursor) < self.first_position():
            return f"the log begins at {self.first_position()}, behind {cursor}"
        return ""

    def checkpoint(self) -> Checkpoint | None:
        """The newest whole checkpoint. Blocks: it reads its checksum."""
        disk = PosixDisk()
        if not disk.exists(self._checkpoints):
            return None
        return next(iter(newest_whole(disk, self._checkpoints)), None)

    def place(self, prefix: str, pattern: Pattern | None, next_position: int) -> Place:
        """The tree at `prefix` and names in it that fit; raises as `resolve`, TooLarge."""
        state = open_reader(self.state)
        try:
            root = resolve(state, prefix) if prefix else 0
            links = Links(state, self.records, next_position)
            links.prepare()
        except BaseException:
            state.close()
            raise
        return Place(root, pattern, links)

    # Consumers and figures.

    def told(self, consumer: Consumer) -> dict[str, Any]:
        """A consumer for people and programs, with its lag. Blocks."""
        cursor = changes.parse_cursor(consumer.cursor)
        position = int(self._committed.read()[0])
        behind = max(0, position + 1 - _following(cursor))
        reason, lag_ms = self.refusal(cursor), 0.0
        if behind and not reason:
            try:
                made_ns = self.history.time_at(_following(cursor))
                lag_ms = max(0.0, (time.time_ns() - made_ns) / 1e6)
            except GfsError as error:  # gone since, or damaged
                reason = str(error)
        return {
            "consumer": consumer.name,
            "cursor": consumer.cursor,
            "created_ns": consumer.created_ns,
            "committed_ns": consumer.committed_ns,
            "readers": self.consumers.reading[consumer.name],
            "lag_positions": behind,
            "lag_ms": None if reason else round(lag_ms, 3),
            "reset": reason,
        }

    def look(self) -> None:
        """Find out what `statistics` cannot wait for. Blocks."""
        self._lags = {one.name: self.told(one) for one in self.consumers.all()}
        first = self.history.first_position()
        kept = {"first_position": self.first_position(), "log_bytes": self.history.kept_bytes()}
        try:
            age_ns = time.time_ns() - self.history.time_at(first) if first else 0
        except GfsError:  # removed meanwhile; or nothing is committed
            age_ns = 0
        self._kept = {**kept, "log_age_s": max(0, age_ns) // 1_000_000_000}

    def statistics(self) -> dict[str, object]:
        """Numbers for /statistics and /metrics; lags and the log's bounds as of `look`."""
        shown = ("lag_positions", "lag_ms", "readers")
        rows = {name: {key: told[key] for key in shown} for name, told in self._lags.items()}
        return {
            "position": self.tip.position,
            "epoch": self.tip.epoch,
            **self._kept,
            "readers": self.figures.readers,
            "readers_max": self.readers_max,
            "readers_total": self.figures.readers_total,
            "readers_refused_total": self.figures.readers_refused_total,
            "readers_dropped_total": self.figures.readers_dropped_total,
            "events_sent_total": self.figures.events_sent_total,
            "bytes_sent_total": self.figures.bytes_sent_total,
            "events_encoded_total": self.shared.events,
            "stretches_shared_total": self.shared.hits,
            "stretches_made_total": self.shared.misses,
            "resets_total": self.figures.resets_total,
            "snapshots_total": self.figures.snapshots_total,
            "consumers": len(self.consumers.all()),
            "consumer_commits_total": self.consumers.commits_total,
            "consumer": Labelled("consumer", rows),
        }

    def close(self) -> None:
        """Close what is open."""
        self.pool.close()
        self.consumers.close()


def _following(cursor: Cursor) -> int:
    """The first record of which a reader at `cursor` lacks something."""
    return cursor.position + (cursor.rank == changes.WHOLE_RECORD)
