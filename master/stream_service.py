"""What the change stream's handlers share: log, state, checkpoints, figures."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from gfs import changes
from gfs.changes import Cursor
from gfs.disk import PosixDisk
from master.checkpoint import Checkpoint, newest_whole
from master.log_reader import CommittedPosition, LogReader
from master.segments import Truncated
from master.state import open_reader
from master.stream_filter import Subtree, resolve
from master.stream_log import ReaderPool, SharedLog, Tip


@dataclass
class Figures:
    """Counters of the process."""

    readers: int = 0
    readers_total: int = 0
    events_sent_total: int = 0
    bytes_sent_total: int = 0
    resets_total: int = 0
    snapshots_total: int = 0
    started: float = field(default_factory=time.monotonic)


class Service:
    """Log, state and checkpoints as the HTTP handlers need them."""

    def __init__(
        self,
        *,
        log_directory: Path,
        committed: Path,
        state: Path,
        checkpoints: Path,
        cluster_id: str,
    ) -> None:
        self._committed = CommittedPosition(committed)
        self._new_reader = partial(
            LogReader, log_directory, PosixDisk(), cluster_id, self._committed
        )
        self.state = state
        self._checkpoints = checkpoints
        self.pool = ReaderPool(self._new_reader)
        self.shared = SharedLog(self.pool)
        self.tip = Tip(self._committed)
        self.figures = Figures()
        self.stop = trio.Event()

    def first_position(self) -> int:
        """The oldest position a reader can begin with; 1 before the first record."""
        with closing(self._new_reader()) as reader:
            return int(reader.first_position) or self.tip.position + 1

    def refusal(self, cursor: Cursor) -> str:
        """Why a reader cannot go on from `cursor`, or "". Blocks: it may walk a segment."""
        # Not from the tip, which the loop moves while this runs in a thread: of two who
        # look at once, the one that looked first may be the last to write it down.
        position, epoch_now = self._committed.read()
        following = cursor.position + (cursor.rank == changes.WHOLE_RECORD)
        if cursor.position > position:
            return f"the log ends at {Cursor(int(epoch_now), int(position))}, before {cursor}"
        if following < self.first_position():
            return f"the log begins at {self.first_position()}, behind {cursor}"
        if cursor.position == 0:
            return "" if cursor.epoch == 0 else f"there is no record 0 of epoch {cursor.epoch}"
        try:
            epoch = int(self.pool.read(cursor.position, 1)[0].epoch)
        except Truncated:
            # The record just before the oldest kept, as after a snapshot: its epoch
            # cannot be looked up, so any that may precede what follows is believed.
            return ""
        if epoch != cursor.epoch:
            return f"record {cursor.position} is of epoch {epoch}, not {cursor.epoch}"
        return ""

    def checkpoint(self) -> Checkpoint | None:
        """The newest whole checkpoint. Blocks: it reads its checksum."""
        disk = PosixDisk()
        if not disk.exists(self._checkpoints):
            return None
        return next(iter(newest_whole(disk, self._checkpoints)), None)

    def subtree(self, prefix: str, next_position: int) -> Subtree:
        """The tree at `prefix`; raises as `resolve`."""
        state = open_reader(self.state)
        try:
            tree = Subtree(resolve(state, prefix), state, self.pool, next_position)
            tree.prepare()
        except BaseException:
            state.close()
            raise
        return tree

    def statistics(self) -> dict[str, object]:
        """Numbers for /statistics and /metrics."""
        return {
            "position": self.tip.position,
            "epoch": self.tip.epoch,
            "first_position": self.first_position(),
            "readers": self.figures.readers,
            "readers_total": self.figures.readers_total,
            "events_sent_total": self.figures.events_sent_total,
            "bytes_sent_total": self.figures.bytes_sent_total,
            "events_encoded_total": self.shared.events,
            "stretches_shared_total": self.shared.hits,
            "stretches_made_total": self.shared.misses,
            "resets_total": self.figures.resets_total,
            "snapshots_total": self.figures.snapshots_total,
        }
