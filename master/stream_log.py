"""The operation log as the stream's readers share it.

Two views, and whoever else follows, read the same records: what was decoded once is
given to all, and so is what was encoded once, as a stretch of NDJSON, to all who ask for
the same (GFS §2.6.3: the log is what defines order, so it can be cached without a
thought). Stretches end at the same places wherever one began, so that readers who came
at different times meet. Memory is bounded by bytes of stretches, by records kept and by
the number of open log readers, whatever readers do.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import msgspec
import trio

from gfs import changes
from gfs.changes import Cursor, Event
from gfs.ids import KIB, MIB
from gfs.records import DECODER, Record
from master.log_reader import CommittedPosition, LogReader
from master.segments import LogRecord

READ_BYTES = 128 * KIB  # of log for one stretch: about 5 ms of work
CACHE_BYTES = 64 * MIB
STRETCHES_MAX = 20_000  # of events none of which passed a filter, say
STRETCH_BYTES = 1000  # of one, besides its lines
READERS_MAX = 8
ALIGNED_RECORDS = 512  # no stretch goes beyond a multiple of it
RECENT_PIECES = 8  # of decoded records, each of READ_BYTES of log at most
POLL_S = 0.004  # between looks at the mapped committed position while somebody waits
QUIET_POLL_S = 0.02  # where nothing has moved for QUIET_S
QUIET_S = 1.0
GATHER_S = 0.02  # what comes within it goes out together: HTTP costs more a piece than a byte
GATHER_READER_S = 0.0005  # the same for each reader: a hundred get what 50 ms brought


_EVENT = msgspec.json.Decoder(Event)


class ReaderPool:
    """Log readers by the position they are to read next, so that none has to search."""

    def __init__(self, open_reader: Callable[[], LogReader]) -> None:
        self._open = open_reader
        self._waiting: OrderedDict[int, LogReader] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, position: int, limit_records: int = ALIGNED_RECORDS) -> list[LogRecord]:
        """Committed records from `position` on; raises as `LogReader.read` does."""
        with self._lock:
            reader = self._waiting.pop(position, None)
        reader = reader or self._open()
        try:
            found = reader.read(position, limit_bytes=READ_BYTES, limit_records=limit_records)
        except BaseException:
            reader.close()
            raise
        self._keep(position + len(found), reader)
        return found

    def knows(self, position: int) -> bool:
        """Whether reading there begins at once; else it is work for a thread."""
        return position in self._waiting

    def _keep(self, position: int, reader: LogReader) -> None:
        with self._lock:
            surplus = [self._waiting.pop(position, None)]
            self._waiting[position] = reader
            while len(self._waiting) > READERS_MAX:
                surplus.append(self._waiting.popitem(last=False)[1])
        for one in surplus:
            if one is not None:
                one.close()

    def close(self) -> None:
        """Close all readers."""
        while self._waiting:
            self._waiting.popitem()[1].close()


class Records:
    """Decoded records; those read last are kept for readers who follow side by side."""

    def __init__(self, pool: ReaderPool) -> None:
        self._pool = pool
        self._recent: OrderedDict[int, list[Record]] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, position: int) -> list[Record]:
        """Committed records from `position` on, none or some; raises as `LogReader.read` does."""
        known = self._recall(position)
        if known:
            return known
        read = self._pool.read(position, ALIGNED_RECORDS - position % ALIGNED_RECORDS)
        found = [DECODER.decode(raw.payload) for raw in read]
        with self._lock:
            if found:
                self._recent[position] = found
            while len(self._recent) > RECENT_PIECES:
                self._recent.popitem(last=False)
        return found

    def knows(self, position: int) -> bool:
        """Whether `read` there begins at once; else it is work for a thread."""
        return bool(self._recall(position)) or self._pool.knows(position)

    def _recall(self, position: int) -> list[Record]:
        with self._lock:
            for first, piece in self._recent.items():
                if first <= position < first + len(piece):
                    return piece[position - first :]
        return []


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
                readers = self._changed.statistics().tasks_waiting
                self._changed.set()
                self._changed = trio.Event()
                await trio.sleep(max(GATHER_S, readers * GATHER_READER_S))
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


@dataclass(frozen=True, slots=True)
class Stretch:
    """Events of consecutive records, encoded: positions [start, end).

    Nothing of it is kept as objects, which would take several times as much memory as their
    lines: where readers keep up a stretch is a single event, and there are thousands of them.
    """

    end: int
    scanned_to: Cursor
    previous: str  # what the first event says came before it
    lines: bytes
    tail_at: int  # where the second event begins in `lines`
    last: str  # cursor of the last event, or `previous`
    events: int

    def encoded(self, previous: str) -> bytes:
        """NDJSON for a reader that has seen `previous`."""
        if not self.events or previous == self.previous:
            return self.lines
        head = _EVENT.decode(self.lines[: self.tail_at])
        head.previous = previous
        return changes.encode((head,)) + self.lines[self.tail_at :]

    @property
    def memory_bytes(self) -> int:
        """What keeping it takes, about."""
        return STRETCH_BYTES + len(self.lines)


Pick = Callable[[Record], list[Event]]


class SharedLog:
    """Stretches of events, read and encoded once for all readers who ask for the same."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._kept: OrderedDict[tuple[Hashable, int], Stretch] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self.hits = self.misses = self.events = 0

    def stretch(self, asked: Hashable, pick: Pick, position: int, previous: str) -> Stretch | None:
        """Events from the record at `position` on; None if that is not committed yet.

        Args:
          asked: what `pick` lets pass; readers with an equal one get the same stretches.
        """
        with self._lock:
            known = self._kept.get((asked, position))
            if known is not None:
                self._kept.move_to_end((asked, position))
                self.hits += 1
                return known
        records = self._records.read(position)
        if not records:
            return None
        made = _encode(records, pick, previous)
        with self._lock:
            self.misses += 1
            self.events += made.events
            self._bytes += made.memory_bytes
            double = self._kept.pop((asked, position), None)  # made meanwhile by another thread
            self._bytes -= double.memory_bytes if double is not None else 0
            self._kept[asked, position] = made
            while (self._bytes > CACHE_BYTES or len(self._kept) > STRETCHES_MAX) and self._kept:
                self._bytes -= self._kept.popitem(last=False)[1].memory_bytes
        return made

    def knows(self, asked: Hashable, position: int) -> bool:
        """Whether `stretch` there is quick."""
        return (asked, position) in self._kept or self._records.knows(position)


def _encode(records: list[Record], pick: Pick, previous: str) -> Stretch:
    found: list[Event] = []
    last = previous
    for record in records:
        events = pick(record)
        last = changes.chain(events, last)
        found += events
    lines = changes.encode(found)
    end = records[-1]
    return Stretch(
        end=end.position + 1,
        scanned_to=Cursor(end.epoch, end.position),
        previous=previous,
        lines=lines,
        tail_at=lines.find(b"\n") + 1,
        last=last,
        events=len(found),
    )
