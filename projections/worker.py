"""One view kept true: follow the stream, apply, commit with the cursor, rebuild if need be.

Batches form by themselves: while one is applied in a thread, the next gathers. Every
failure of the stream is waited out; a view that is missing, damaged, of another format
or of a history the master has lost is built anew beside the running one, which answers
until the new one has caught up and takes its place.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from functools import partial
from pathlib import Path

import trio

from gfs import changes
from gfs.changes import Cursor, Line
from gfs.config import ProjectionsConfig
from gfs.disk import File, PosixDisk
from gfs.errors import GfsError, RemoteProtocolError, TimedOut
from projections.core.dead_letters import Letter
from projections.core.following import Batch, Gap, HistoryLost
from projections.projection import Projection
from projections.storage import Damaged, Store, identity, remove_view
from projections.stream_source import Pump, StreamSource
from projections.writer import Writer

log = logging.getLogger(__name__)

RETRY_S = (0.05, 2.0)  # first and longest pause before the stream is asked again
FAILURES_MAX = 3  # one after another, of the view itself, until it is built anew
LOOK_S = 1.0  # between looks whether the view's file is still there
ASKED_S = 5.0  # for so long after a question the next one is expected
FRESHEN_S = 1.0  # a question waits at most for what has come before it
LAGS_KEPT = 4000
LAGS_OF_BATCH = 10  # events of each batch, evenly, the first among them


class View:
    """A running view. `store` is what queries read; None while the first is being built."""

    def __init__(
        self, projection: Projection, config: ProjectionsConfig, source: StreamSource
    ) -> None:
        self.projection = projection
        self.name = projection.name
        directory = Path(config.data_dir)
        self.path = directory / f"{self.name}{projection.suffix}"
        self.history_path = (
            directory / f"{self.name}-history{projection.suffix}" if config.history else None
        )
        self._lock_path = directory / f"{self.name}.lock"
        self._config = config
        self._source = source
        self.store: Store | None = None
        self.generation = 0  # changes when `store` does: readers open the file again
        self.rebuilding = True
        self.cursor = changes.START
        self._moved = trio.Event()
        self._asked = trio.Event()
        self._asked_at = -1e9  # trio's clock, as all of these
        self._unapplied_since: float | None = None  # events lie here that the view lacks
        self._idle_since: float | None = None  # nothing was left to apply
        self._heard_at = -1e9
        self._last_ns = 0
        self._writer: Writer | None = None  # of `store`
        self._identity = (0, 0)
        self.lags_ms: deque[float] = deque(maxlen=LAGS_KEPT)
        self.events_total = self.batches_total = self.rebuilds_total = self.retries_total = 0
        self.apply_s_total = 0.0
        self._lock: File | None = None

    # What queries ask.

    @property
    def lag_ms(self) -> float:
        """Age of what is not in the view yet; 0 when nothing is known to be missing."""
        now = trio.current_time()
        if self._idle_since is not None:
            silent = now - self._heard_at
            return 0.0 if silent < 2 * LOOK_S else silent * 1000
        return max(0.0, (time.time_ns() - self._last_ns) / 1e6) if self._last_ns else -1.0

    def ask(self) -> None:
        """Somebody wants an answer: what waits is applied soon, now and for a while."""
        self._asked_at = trio.current_time()
        self._asked.set()

    async def freshen(self) -> None:
        """Return when what came more than `batch_s` ago is in the view, or will be late."""
        self.ask()
        since = self._unapplied_since
        if since is not None and trio.current_time() - since > self._config.batch_s:
            with trio.move_on_after(FRESHEN_S):
                await self._moved.wait()

    async def wait_for(self, cursor: Cursor, limit_s: float, *, history: bool = False) -> None:
        """Return when everything up to `cursor` is in the view (or in its history).

        Raises: TimedOut.
        """
        self.ask()
        with trio.move_on_after(limit_s):
            while True:
                reached = self.history_cursor if history else self.cursor
                if self.store is not None and reached.position >= cursor.position:
                    return
                await self._moved.wait()
        raise TimedOut(f"view {self.name} is at {self.cursor}, waited {limit_s:g} s for {cursor}")

    @property
    def history_cursor(self) -> Cursor:
        """How far the history has come; where nothing happened since, as far as the view."""
        return changes.START if self._writer is None else self._writer.history_cursor

    @property
    def letters(self) -> list[Letter]:
        """Records that could not be applied."""
        return [] if self._writer is None else self._writer.letters

    def statistics(self) -> dict[str, object]:
        """Numbers for /statistics and /metrics."""
        lags = sorted(self.lags_ms)
        return {
            "position": self.cursor.position,
            "epoch": self.cursor.epoch,
            "history_position": self.history_cursor.position,
            "lag_ms": round(self.lag_ms, 3),
            "batch_lag_p50_ms": lags[len(lags) // 2] if lags else 0.0,
            "batch_lag_p99_ms": lags[len(lags) * 99 // 100] if lags else 0.0,
            "rebuilding": self.rebuilding,
            "events_total": self.events_total,
            "batches_total": self.batches_total,
            "apply_seconds_total": round(self.apply_s_total, 3),
            "rebuilds_total": self.rebuilds_total,
            "stream_retries_total": self.retries_total,
            "dead_letters": len(self.letters),
        }

    # Life.

    def lock(self) -> None:
        """Be the one process that keeps this view.

        Raises: DirectoryInUse: another is.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = PosixDisk().lock(self._lock_path)

    async def run(self) -> None:
        """Keep the view, which is locked, until cancelled."""
        assert self._lock is not None
        pause, failures = RETRY_S[0], 0
        try:
            while True:
                before = self.events_total
                try:
                    await self._live()
                except Damaged as error:
                    log.warning("view.damaged view=%s %s", self.name, error)
                    self._drop(error.path)
                except (GfsError, Gap, OSError) as error:
                    log.info("stream.retry view=%s %s", self.name, error)
                except Exception:
                    log.exception("view.failed view=%s, trying again", self.name)
                    failures = 0 if self.events_total > before else failures + 1
                    if failures == FAILURES_MAX:  # damage has many names; a new file has none
                        self._drop(self.path)
                        failures = 0
                self.retries_total += 1
                self._idle_since = self._unapplied_since = None
                pause = RETRY_S[0] if self.events_total > before else min(pause * 2, RETRY_S[1])
                await trio.sleep(pause)
        finally:
            self._close()
            self._lock.close()

    def _drop(self, path: Path) -> None:
        """Make room for a new file; history cannot be made again, so it is put aside."""
        self._close()
        if path == self.history_path:
            path.rename(f"{path}.damaged-{time.time_ns()}")
        remove_view(path)

    def _close(self) -> None:
        store, self.store = self.store, None
        self._writer = None  # what it had noted is in the log behind the history's cursor
        self.generation += 1
        if store is not None:
            store.close()

    async def _live(self) -> None:
        """Open, or build, the view; follow until the stream breaks."""
        if self.store is None:
            if identity(self.path) == (0, 0):
                await self._rebuild(lost=False)
            else:
                await self._open()
        store = self.store
        assert store is not None
        writer = self._writer
        assert writer is not None
        writer.forget()
        start = store.cursor
        if store.history_cursor is not None and store.history_cursor.position < start.position:
            start = store.history_cursor
        try:
            if start != store.cursor:  # that the log has one place does not prove the other
                await self._check(store.cursor)
        except HistoryLost as error:
            start = store.cursor
            log.warning("stream.reset view=%s from=%s %s", self.name, start, error)
            await self._rebuild(lost=True)
            return
        try:
            await self._follow(writer, start)
        except HistoryLost as error:
            log.warning("stream.reset view=%s from=%s %s", self.name, start, error)
            if start != store.cursor:  # history alone is behind what the log keeps: a gap in it
                store.write_history(_nothing, store.cursor)
                return
            await self._rebuild(lost=True)

    async def _check(self, cursor: Cursor) -> None:
        """Ask whether the log has this place.

        Raises: HistoryLost.
        """
        query = {"from": str(cursor), "follow": "0", "limit": "1"}
        async with (
            self._source.lines("/stream", **query) as blocks,
            aclosing(blocks),  # type: ignore[type-var]
        ):
            async for lines in blocks:
                for line in lines:
                    if line.kind == changes.RESET:
                        raise HistoryLost(line.reason)

    async def _open(self) -> None:
        self.store = await trio.to_thread.run_sync(self._open_store, self.path, True)
        self._writer = Writer(self.projection, self._config, self.store)
        self._identity = identity(self.path)
        self.generation += 1
        self._move(self.store.cursor)
        self.rebuilding = False
        log.info("view.opened view=%s cursor=%s", self.name, self.cursor)

    def _open_store(self, path: Path, with_history: bool) -> Store:
        history = self.history_path if with_history else None
        return self.projection.open_store(path, history)

    def _move(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self._moved.set()
        self._moved = trio.Event()

    # Following.

    async def _follow(
        self, writer: Writer, start: Cursor, *, until_caught_up: bool = False
    ) -> None:
        """Apply what the stream brings; raises what ends it."""
        pump = Pump(self._source, start)
        failures: list[Exception] = []
        async with trio.open_nursery() as nursery:

            async def run(part: Callable[[], Awaitable[None]]) -> None:
                try:
                    await part()
                except Exception as error:
                    failures.append(error)
                nursery.cancel_scope.cancel()

            nursery.start_soon(run, pump.receive)
            nursery.start_soon(run, partial(self._apply_all, writer, pump, until_caught_up))
        if failures:
            raise failures[0]

    async def _apply_all(self, writer: Writer, pump: Pump, until_caught_up: bool) -> None:
        began = 0.0
        while True:
            await pump.wait_news(LOOK_S)
            self._heard_at = pump.heard_at
            if not until_caught_up:
                await self._gather(pump, began)
            self._look()
            if writer.noted and not pump.has_news:
                await trio.to_thread.run_sync(writer.write_history)
                self._move(self.cursor)
            began = trio.current_time()
            batch = pump.batch(self._config.batch_events)
            if batch is not None:
                await self._apply(writer, batch)
            self._unapplied_since = trio.current_time() if pump.has_news else None
            if pump.is_at_end:
                self._idle_since = trio.current_time()
                if until_caught_up:
                    return

    async def _gather(self, pump: Pump, began: float) -> None:
        """Let more come in: a batch has a price of its own, whatever its size.

        While somebody asks the first event of a quiet time goes at once and a crowd each
        `batch_s`; what nobody asks for may wait `unasked_s`.
        """
        while 0 < pump.pending < self._config.batch_events:
            now = trio.current_time()
            self._idle_since = None
            if self._unapplied_since is None:
                self._unapplied_since = now
            asked = now < self._asked_at + ASKED_S
            due = began + (self._config.batch_s if asked else self._config.unasked_s)
            if now >= due:
                return
            self._asked = trio.Event()
            with trio.move_on_at(min(due, now + self._config.batch_s)):
                await self._asked.wait()

    def _look(self) -> None:
        if self._identity != (0, 0) and identity(self.path) != self._identity:
            raise Damaged(self.path, "has been removed or replaced")

    async def _apply(self, writer: Writer, batch: Batch) -> None:
        began = time.perf_counter()
        live = writer is self._writer and batch.cursor.position > writer.store.cursor.position
        await trio.to_thread.run_sync(writer.write, batch)
        self.apply_s_total += time.perf_counter() - began
        self.batches_total += 1
        self.events_total += len(batch.lines)
        if batch.lines and live:  # what is caught up with after a start is no lag
            self._last_ns = batch.lines[-1].time_ns
            now_ns = time.time_ns()
            some = batch.lines[:: max(1, len(batch.lines) // LAGS_OF_BATCH)]
            self.lags_ms.extend((now_ns - line.time_ns) / 1e6 for line in some)
        if writer is self._writer:
            self._move(max(batch.cursor, self.cursor, key=lambda one: one.position))

    # Rebuilding.

    async def _rebuild(self, *, lost: bool) -> None:
        """Build beside, catch up, swap. `lost`: the log is not the one we had followed."""
        self.rebuilding = True
        self.rebuilds_total += 1
        fresh = self.path.with_name(f"{self.path.name}.new")
        remove_view(fresh)
        log.info("view.rebuild view=%s", self.name)
        store = await trio.to_thread.run_sync(self._open_store, fresh, False)
        writer = Writer(self.projection, self._config, store)
        try:
            await self._load(writer)
            kept, self._identity = self._identity, (0, 0)
            with suppress(HistoryLost):
                await self._follow(writer, store.cursor, until_caught_up=True)
            self._identity = kept
            cursor = store.cursor
        finally:
            store.close()
        self._close()
        remove_view(self.path)
        fresh.rename(self.path)
        await self._open()
        assert self.store is not None
        if lost and self.store.history_cursor is not None:
            self.store.write_history(_nothing, cursor)
        log.info("view.rebuilt view=%s cursor=%s", self.name, cursor)

    async def _load(self, writer: Writer) -> None:
        """The items of the newest checkpoint."""
        cursor, count, pending = changes.START, 0, list[Line]()
        complete = False
        async with (
            self._source.lines("/snapshot") as blocks,
            aclosing(blocks),  # type: ignore[type-var]
        ):
            async for lines in blocks:
                for line in lines:
                    if line.kind == changes.SNAPSHOT:
                        cursor = changes.parse_cursor(line.cursor)
                    elif line.kind == changes.END:
                        complete = line.items == count
                    else:
                        pending.append(line)
                        count += 1
                if len(pending) >= self._config.batch_events or complete:
                    await self._apply(writer, Batch(pending, changes.START, snapshot=True))
                    pending = []
        if not complete:
            raise RemoteProtocolError("the snapshot was cut short")
        await self._apply(writer, Batch([], cursor, snapshot=True))


def _nothing(*_: object) -> None:
    """A change that only moves a cursor."""
