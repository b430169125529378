"""The operation log as the stream's readers share it.

Two views, and whoever else follows, read the same records: what was decoded and
encoded once is kept as a stretch of NDJSON and given to all (GFS §2.6.3: the log
is what defines order, so it can be cached without a thought). Memory is bounded by
bytes of stretches and by the number of open log readers, whatever readers do.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import trio

from gfs import changes
from gfs.changes import Cursor, Event
from gfs.ids import KIB, MIB
from gfs.records import DECODER, Record
from master.log_reader import CommittedPosition, LogReader
from master.segments import LogRecord

READ_BYTES = 128 * KIB  # of log for one stretch: about 5 ms of work
CACHE_BYTES = 64 * MIB
READERS_MAX = 8
POLL_S = 0.004  # between looks at the mapped committed position while somebody waits
QUIET_POLL_S = 0.02  # where nothing has moved for QUIET_S
QUIET_S = 1.0
GATHER_S = 0.02  # what comes within it goes out together: HTTP costs more a piece than a byte


class ReaderPool:
    """Log readers by the position they are to read next, so that none has to search."""

    def __init__(self, open_reader: Callable[[], LogReader]) -> None:
        self._open = open_reader
        self._waiting: OrderedDict[int, LogReader] = OrderedDict()

    def read(self, position: int, limit_bytes: int = READ_BYTES) -> list[LogRecord]:
        """Committed records from `position` on; raises as `LogReader.read` does."""
        reader = self._waiting.pop(position, None) or self._open()
        try:
            found = reader.read(position, limit_bytes=limit_bytes)
        except BaseException:
            reader.close()
            raise
        self._keep(position + len(found), reader)
        return found

    def knows(self, position: int) -> bool:
        """Whether reading there begins at once; else it is work for a thread."""
        return position in self._waiting

    def _keep(self, position: int, reader: LogReader) -> None:
        double = self._waiting.pop(position, None)
        self._waiting[position] = reader
        if double is not None:
            double.close()
        while len(self._waiting) > READERS_MAX:
            self._waiting.popitem(last=False)[1].close()

    def close(self) -> None:
        """Close all readers."""
        while self._waiting:
            self._waiting.popitem()[1].close()


class Tip:
    """Where the log ends now, and a way to wait for more; one poller for all readers."""

    def __init__(self, committed: CommittedPosition) -> None:
        self._committed = committed
        self._changed = trio.Event()
        self._wanted = trio.Event()
        self.position, self.epoch = (int(number) for number in committed.read())

    async def run(self) -> None:
        """Look at the committed position while somebody waits for it to move."""
        moved_at = trio.current_time()
        while True:
            await self._wanted.wait()
            if self.look():
                moved_at = trio.current_time()
                self._wanted = trio.Event()
                self._changed.set()
                self._changed = trio.Event()
                await trio.sleep(GATHER_S)
            else:
                quiet = trio.current_time() - moved_at > QUIET_S
                await trio.sleep(QUIET_POLL_S if quiet else POLL_S)

    def look(self) -> bool:
        """Read the committed position; says whether it has moved."""
        before = self.position, self.epoch
        self.position, self.epoch = (int(number) for number in self._committed.read())
        return before != (self.position, self.epoch)

    async def wait_moved(self) -> None:
        """Return when the log has grown (or is another one)."""
        self._wanted.set()
        await self._changed.wait()

    @property
    def cursor(self) -> Cursor:
        return Cursor(self.epoch, self.position)


@dataclass(frozen=True)
class Stretch:
    """Events of consecutive records, encoded: positions [start, end)."""

    end: int
    scanned_to: Cursor
    previous: str  # what the first event says came before it
    head: Event | None
    lines: bytes
    tail_at: int  # where the second event begins in `lines`
    last: str  # cursor of the last event, or `previous`
    events: int
    time_ns: int  # of the last record

    def encoded(self, previous: str) -> bytes:
        """NDJSON for a reader that has seen `previous`."""
        if self.head is None or previous == self.previous:
            return self.lines
        saved, self.head.previous = self.head.previous, previous
        try:
            return changes.encode((self.head,)) + self.lines[self.tail_at :]
        finally:
            self.head.previous = saved


class SharedLog:
    """Stretches of the default events, read and encoded once for all who follow."""

    def __init__(self, pool: ReaderPool) -> None:
        self.pool = pool
        self._kept: OrderedDict[int, Stretch] = OrderedDict()
        self._bytes = 0
        self.hits = self.misses = self.events = 0

    def stretch(self, position: int, previous: str) -> Stretch | None:
        """Events from the record at `position` on; None if that is not committed yet."""
        known = self._kept.get(position)
        if known is not None:
            self._kept.move_to_end(position)
            self.hits += 1
            return known
        records = self.pool.read(position)
        if not records:
            return None
        made = _encode(records, previous)
        self.misses += 1
        self.events += made.events
        self._kept[position] = made
        self._bytes += len(made.lines)
        while self._bytes > CACHE_BYTES and len(self._kept) > 1:
            self._bytes -= len(self._kept.popitem(last=False)[1].lines)
        return made

    def knows(self, position: int) -> bool:
        """Whether `stretch` there is quick."""
        return position in self._kept or self.pool.knows(position)


def decode(record: LogRecord) -> Record:
    """The record of a frame."""
    return DECODER.decode(record.payload)


def _encode(records: list[LogRecord], previous: str) -> Stretch:
    found: list[Event] = []
    last, time_ns = previous, 0
    for raw in records:
        record = decode(raw)
        events = changes.events_of(record)
        last = changes.chain(events, last)
        found += events
        time_ns = record.time_ns
    lines = changes.encode(found)
    end = records[-1]
    return Stretch(
        end=end.position + 1,
        scanned_to=Cursor(end.epoch, end.position),
        previous=previous,
        head=found[0] if found else None,
        lines=lines,
        tail_at=lines.find(b"\n") + 1,
        last=last,
        events=len(found),
        time_ns=time_ns,
    )
