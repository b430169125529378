"""A view compared with the master all the time, a slice at a time, at a bounded cost.

A slice is some hundred inodes: the master's side comes from ``GET /items`` and is true
for one cursor, the view's side is one read transaction of its file. What changed between
the two cursors is left out (`projections.core.comparing`), and a slice in which something
differs is compared again before it counts. Nothing is repaired: a difference is a fault
to be known, and ``rebuild`` mends the view.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

import trio

from gfs import changes
from gfs.changes import Cursor, Line
from gfs.config import ProjectionsConfig
from gfs.errors import NotReady, RemoteProtocolError, Unsupported
from projections.core.comparing import (
    LAST_INO,
    Difference,
    Held,
    Touched,
    differences,
    held_by_master,
    held_by_view,
)
from projections.core.following import HistoryLost
from projections.stream_source import StreamSource
from projections.worker import View

log = logging.getLogger(__name__)

SLICE_INODES = (50, 1000)  # fewest and most in one slice of the background
PASS_INODES = 1000  # in one slice of a pass that somebody waits for
BEHIND_S = 10.0  # a view that is further behind is not compared now
LOOK_S = 0.5  # between looks whether the view is there
TRIES = 5  # of one slice, when the master has no time for it
RETRY_S = 5.0  # until the next try, when master or view could not be asked
FOUND_MAX = 10_000  # differences kept; a view that has more is broken altogether
EXAMPLES = 5  # of each kind that are told


@dataclass
class Pass:
    """How far one look at everything has come; times in nanoseconds since 1970."""

    begun_ns: int = 0
    ended_ns: int = 0
    inodes: int = 0
    skipped: int = 0  # inodes that changed while they were looked at
    cursor: str = ""  # of the master, at the last slice


@dataclass(frozen=True)
class _Slice:
    last: int  # greatest inode number it is about
    inodes: int
    skipped: int
    cursor: Cursor
    found: list[Difference]

    @property
    def is_last(self) -> bool:
        return self.last == LAST_INO


class Verifier:
    """The comparison of one view; `differences` is what its last looks have found."""

    def __init__(self, view: View, config: ProjectionsConfig, source: StreamSource) -> None:
        self._view = view
        self._config = config
        self._source = source
        self._found: dict[int, list[Difference]] = {}
        self._generation = -1
        self._after = 0
        self._running = Pass()
        self._last = Pass()
        self._lock = trio.Lock()
        self.inodes_total = self.slices_total = self.passes_total = 0

    @property
    def offered(self) -> bool:
        """Whether the view says what of it can be compared."""
        return self._view.projection.compared is not None

    def statistics(self) -> dict[str, object]:
        """Numbers for /statistics and /metrics: `differences` is always 0."""
        return {
            "differences": sum(map(len, self._found.values())),
            "inodes_total": self.inodes_total,
            "slices_total": self.slices_total,
            "passes_total": self.passes_total,
            "last_pass_ns": self._last.ended_ns,
            "last_pass_inodes": self._last.inodes,
            "last_pass_s": round((self._last.ended_ns - self._last.begun_ns) / 1e9, 3),
        }

    # In the background.

    async def run(self) -> None:
        """Compare slice after slice until cancelled."""
        rate = self._config.verify_inodes_per_s
        if not rate or not self.offered:
            await trio.sleep_forever()
        least, most = SLICE_INODES
        size = min(max(rate, least), most)
        while True:
            began, pause = trio.current_time(), LOOK_S
            try:
                if self._can_look():
                    pause = await self._next_slice(size, size / rate)
            except Exception as error:  # of the stream; or the file was swapped, or is damaged
                log.info("view.verify later view=%s %r", self._view.name, error)
                pause = RETRY_S
            await trio.sleep_until(began + pause)

    def _can_look(self) -> bool:
        view = self._view
        return view.store is not None and not view.paused

    async def _next_slice(self, size: int, pause: float) -> float:
        """Seconds from its beginning after which the next one is due."""
        async with self._lock:
            if self._after == 0 or self._generation != self._view.generation:
                self._begin()
            found = await self._compare(self._after, size)
            self._note(self._running, found)
            self._after = found.last
            if not found.is_last:
                return pause
            self._end()
        since_s = (time.time_ns() - self._running.begun_ns) / 1e9
        return max(pause, self._config.verify_period_s - since_s)

    # Because somebody asks.

    def check_offer(self) -> None:
        """Whether `whole` can be asked for now.

        Raises: Unsupported: the view does not say how. NotReady: it is paused or not built.
        """
        if not self.offered:
            raise Unsupported(f"view {self._view.name} does not say what could be compared")
        if not self._can_look():
            raise NotReady(f"view {self._view.name} is {self._view.state}")

    async def whole(self, tell: Callable[[dict[str, object]], Awaitable[None]]) -> None:
        """Everything, now: `tell` of progress by and by, and last of what was found.

        Raises: as `check_offer`; Unreachable and the like; TimedOut: it is too far behind.
        """
        async with self._lock:
            self._begin()
            found = None
            while found is None or not found.is_last:
                self.check_offer()
                found = await self._compare(self._after, PASS_INODES, asked=True)
                self._note(self._running, found)
                self._after = found.last
                await tell({"inodes": self._running.inodes, "inodes_before": self._last.inodes})
            self._end()
        await tell(self.summary())

    def summary(self) -> dict[str, object]:
        """What the last whole pass has found, with examples of each kind."""
        kinds: Counter[str] = Counter()
        examples: list[Difference] = []
        for one in (one for found in self._found.values() for one in found):
            kinds[one.kind] += 1
            if kinds[one.kind] <= EXAMPLES:
                examples.append(one)
        last = self._last
        return {
            "differences": kinds.total(),
            "kinds": dict(kinds),
            "examples": [{"kind": one.kind, "ino": one.ino, "text": one.text} for one in examples],
            "inodes": last.inodes,
            "skipped": last.skipped,
            "cursor": last.cursor,
            "seconds": round((last.ended_ns - last.begun_ns) / 1e9, 3),
        }

    # Both.

    def _begin(self) -> None:
        if self._generation != self._view.generation:  # another file: nothing is known of it
            self._found.clear()
        self._generation = self._view.generation
        self._running = Pass(begun_ns=time.time_ns())
        self._after = 0

    def _note(self, running: Pass, found: _Slice) -> None:
        running.inodes += found.inodes
        running.skipped += found.skipped
        running.cursor = str(found.cursor)
        self.inodes_total += found.inodes
        self.slices_total += 1
        if found.found:
            first = found.found[0]
            log.error(
                "view.differs view=%s differences=%d first=%s inode=%d %s",
                self._view.name, len(found.found), first.kind, first.ino, first.text,
            )  # fmt: skip

    def _end(self) -> None:
        self._last = replace(self._running, ended_ns=time.time_ns())
        self.passes_total += 1
        self._after = 0

    async def _compare(self, after: int, limit: int, *, asked: bool = False) -> _Slice:
        """One slice, and once more if something differs. `asked`: somebody waits for it."""
        found = await self._look(after, limit, asked=asked)
        if found.found:
            first = {(one.kind, one.ino) for one in found.found}
            found = await self._look(after, limit, asked=asked)
            again = [one for one in found.found if (one.kind, one.ino) in first]
            found = replace(found, found=again)
        for ino in [ino for ino in self._found if after < ino <= found.last]:
            del self._found[ino]
        for one in found.found[: FOUND_MAX - len(self._found)]:
            self._found.setdefault(one.ino, []).append(one)
        return found

    async def _look(self, after: int, limit: int, *, asked: bool) -> _Slice:
        view, compared = self._view, self._view.projection.compared
        assert compared is not None
        lines, cursor = await self._items_at_last(after, limit)
        inodes = [one.keys.ino for one in lines if one.table == "inodes" and one.keys is not None]
        last = inodes[-1] if len(inodes) == limit else LAST_INO
        await view.wait_for(cursor, BEHIND_S, asked=asked)
        master = held_by_master(lines, compared)
        held, own, at = await trio.to_thread.run_sync(self._held, after, last)
        low, high = sorted((cursor, at), key=lambda one: one.position)
        touched = await self._touched(low, high)
        found = [*differences(compared, master, held, touched), *own]
        skipped = sum(ino in touched for ino in master)
        return _Slice(last, len(inodes), skipped, cursor, found)

    async def _items_at_last(self, after: int, limit: int) -> tuple[list[Line], Cursor]:
        """`_items`, again if the master is too busy: its read transactions are short."""
        for _ in range(TRIES - 1):
            try:
                return await self._items(after, limit)
            except NotReady as error:
                log.info("view.verify again view=%s %s", self._view.name, error)
                await trio.sleep(LOOK_S)
        return await self._items(after, limit)

    async def _items(self, after: int, limit: int) -> tuple[list[Line], Cursor]:
        """The master's inodes above `after`, with their names, and what they are true for."""
        found: list[Line] = []
        query = {"after": str(after), "limit": str(limit)}
        async with (
            self._source.lines("/items", **query) as blocks,
            aclosing(blocks),  # type: ignore[type-var]
        ):
            async for lines in blocks:
                found += lines
        if len(found) < 2 or found[-1].kind != changes.END or found[-1].items != len(found) - 2:
            raise RemoteProtocolError("the items were cut short")
        return found[1:-1], changes.parse_cursor(found[0].cursor)

    def _held(self, after: int, last: int) -> tuple[dict[int, Held], list[Difference], Cursor]:
        """The view's rows, what contradicts itself in them, and what they are true for."""
        projection, store = self._view.projection, self._view.store
        if store is None or projection.compared is None:
            raise NotReady(f"view {self._view.name} is being built")
        with store.snapshot() as (connection, cursor):

            def rows(sql: str, bound: Sequence[int]) -> list[Any]:
                found: list[Any] = connection.execute(sql, bound).fetchall()
                return found

            held = held_by_view(projection.compared, after, last, rows)
            own = list(projection.contradictions(after, last, connection))
            if last == LAST_INO:
                own += projection.contradictions_of_sums(connection)
            return held, own, cursor

    async def _touched(self, low: Cursor, high: Cursor) -> Touched:
        """What events between the two cursors are about.

        Raises: HistoryLost.
        """
        touched = Touched()
        if low.position >= high.position:
            return touched
        async with (
            self._source.lines("/stream", **{"from": str(low)}) as blocks,
            aclosing(blocks),  # type: ignore[type-var]
        ):
            async for lines in blocks:
                for line in lines:
                    if line.kind == changes.RESET:
                        raise HistoryLost(line.reason)
                    if line.table:
                        touched.take(line)
                if _scanned(lines[-1]) >= high.position:
                    return touched
        raise RemoteProtocolError("the change stream ended")


def _scanned(line: Line) -> int:
    """Position up to which all was told, when this line was."""
    if line.table:
        return changes.parse_cursor(line.cursor).position - line.more
    return changes.parse_cursor(line.scanned_to).position if line.scanned_to else 0
