"""What the stream knows of the log's past: epochs, when records were made, how much is kept.

Kept in memory as it is learned, because consumers ask about the same places again and
again: whether a cursor is of this history, how long ago the record behind it was made.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from gfs import errors
from gfs.disk import PosixDisk
from gfs.records import DECODER
from master.log_reader import LogReader
from master.segments import LogRecord, list_segments, name_of

TIMES_KEPT = 4096


class History:
    """Questions about single records; each may open a segment, so ask from a thread."""

    def __init__(self, directory: Path, open_reader: Callable[[], LogReader]) -> None:
        self._directory = directory
        self._open = open_reader
        self._lock = threading.Lock()
        # Epochs never fall along a log: what lies between two records of one is of it, too.
        self._epochs: dict[int, tuple[int, int]] = {}
        self._times: OrderedDict[int, int] = OrderedDict()

    def first_position(self) -> int:
        """The oldest record kept; 0: there is none yet."""
        with closing(self._open()) as reader:
            return int(reader.first_position)

    def kept_bytes(self) -> int:
        """Size of the log's files."""
        sizes = 0
        for first in list_segments(PosixDisk(), self._directory):
            with suppress(FileNotFoundError):  # removed meanwhile
                sizes += (self._directory / name_of(first)).stat().st_size
        return sizes

    def learn(self, position: int, epoch: int) -> None:
        """The record there is of this epoch."""
        if position:
            with self._lock:
                low, high = self._epochs.get(epoch, (position, position))
                self._epochs[epoch] = min(low, position), max(high, position)

    def epoch_at(self, position: int) -> int:
        """Epoch of a committed record.

        Raises: Truncated, LogDamaged, NotFound (not committed yet).
        """
        with self._lock:
            for epoch, (low, high) in self._epochs.items():
                if low <= position <= high:
                    return epoch
        epoch = int(self._read(position).epoch)
        self.learn(position, epoch)
        return epoch

    def time_at(self, position: int) -> int:
        """When a committed record was made, ns; raises as `epoch_at`."""
        with self._lock:
            known = self._times.get(position)
        if known is None:
            known = DECODER.decode(self._read(position).payload).time_ns
            with self._lock:
                self._times[position] = known
                while len(self._times) > TIMES_KEPT:
                    self._times.popitem(last=False)
        return known

    def _read(self, position: int) -> LogRecord:
        with closing(self._open()) as reader:
            for record in reader.read(position, limit_records=1):
                return record
        raise errors.NotFound(f"record {position} is not committed")
