"""One view kept true: follow the stream, apply, commit with the cursor, rebuild if need be.

Batches form by themselves: while one is applied in a thread, the next gathers. Every
failure of the stream is waited out; a view that is missing, damaged, of another format
or of a history the master has lost is built anew, and one may ask for that. The running
one answers, and follows as long as it can, until the new one takes its place.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from pathlib import Path

import trio

from gfs import changes
from gfs.changes import Cursor
from gfs.config import ProjectionsConfig
from gfs.disk import File, PosixDisk
from gfs.errors import GfsError, NotReady, Refused, TimedOut
from gfs.running import until_one_ends
from projections.core.dead_letters import Letter
from projections.core.following import Batch, Gap, HistoryLost
from projections.core.pacing import Pace
from projections.figures import LOOK_S, Figures
from projections.projection import Projection
from projections.rebuilding import Rebuild
from projections.standing import Standing, load_standing, save_standing
from projections.storage import Damaged, Store, identity, remove_view
from projections.stream_source import Pump, StreamSource
from projections.writer import Writer

log = logging.getLogger(__name__)

RETRY_S = (0.05, 2.0)  # first and longest pause before the stream is asked again
FAILURES_MAX = 3  # one after another, of the view itself, until it is built anew
ASKED_S = 5.0  # for so long after a question the next one is expected
CROWD = 10_000  # so many events are worth a batch, unless more are just coming in
FRESHEN_S = 1.0  # a question waits at most for what has come before it


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
        self._standing_path = directory / f"{self.name}.standing"
        self.standing = Standing()
        self._config = config
        self._source = source
        self.store: Store | None = None
        self.generation = 0  # changes when `store` does: readers open the file again
        self.rebuilding = True
        self.rebuild: Rebuild | None = None  # the one under way
        self._built: Rebuild | None = None  # one that is done, to be put in place
        self.error = ""  # why the stream is not heard
        self.rebuild_error = ""  # why the last rebuild that was asked for failed
        self._swapping = False
        self._lost = False  # the log is not the one that the history had followed
        self.cursor = changes.START
        self.figures = Figures()
        self.pace = Pace(config.batch_s)
        self._moved = trio.Event()
        self._asked = trio.Event()
        self._asked_at = -1e9  # trio's clock
        self._writer: Writer | None = None  # of `store`
        self._identity = (0, 0)
        self._lock: File | None = None
        self._following = trio.CancelScope()
        self._resumed = trio.Event()
        self._wanted = trio.Event()  # a rebuild is

    # What queries ask.

    @property
    def lag_ms(self) -> float:
        """Age of what is not in the view yet; 0 when nothing is known to be missing."""
        return self.figures.lag_ms(self.standing.paused_ns)

    @property
    def paused(self) -> bool:
        """Whether somebody has paused it: it answers, and applies nothing."""
        return self.standing.paused_ns != 0

    def ask(self) -> None:
        """Somebody wants an answer: what waits is applied soon, now and for a while."""
        self._asked_at = trio.current_time()
        self._asked.set()

    async def in_place(self) -> None:
        """Return when no other file is just being put in this one's place."""
        while self._swapping:
            await self._moved.wait()

    async def freshen(self) -> None:
        """Return when what came more than `batch_s` ago is in the view, or will be late."""
        self.ask()
        since = self.figures.unapplied_since
        if since is not None and trio.current_time() - since > self._config.batch_s:
            with trio.move_on_after(FRESHEN_S):
                await self._moved.wait()

    async def wait_for(
        self, cursor: Cursor, limit_s: float, *, history: bool = False, asked: bool = True
    ) -> None:
        """Return when everything up to `cursor` is in the view (or in its history).

        Without `asked` nobody is in a hurry.

        Raises: TimedOut; NotReady: it is paused.
        """
        if asked:
            self.ask()
        with trio.move_on_after(limit_s):
            while True:
                reached = self.history_cursor if history else self.cursor
                if self.store is not None and reached.position >= cursor.position:
                    return
                if self.paused:
                    raise NotReady(f"view {self.name} is paused at {self.cursor}, before {cursor}")
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

    @property
    def state(self) -> str:
        """In a word or two, for people."""
        if self.paused:
            return "paused"
        if self.rebuilding:
            return "building" if self.store is None else "rebuilding"
        return "cut off" if self.error and self.figures.idle_since is None else "following"

    def statistics(self) -> dict[str, object]:
        """Numbers for /statistics and /metrics, words for status."""
        standing = self.standing
        found: dict[str, object] = {
            "state": self.state,
            "position": self.cursor.position,
            "epoch": self.cursor.epoch,
            "history_position": self.history_cursor.position,
            "lag_ms": round(self.lag_ms, 3),
            "rebuilding": self.rebuilding,
            "paused": self.paused,
            "dead_letters": len(self.letters),
            "last_rebuild_ns": standing.rebuilt_ns,
            "last_rebuild_s": standing.rebuild_s,
            "problem": self.error or self.rebuild_error,
            **self.figures.statistics(),
        }
        return found if self.rebuild is None else {**found, "rebuild": self.rebuild.progress()}

    # What people tell it.

    def pause(self) -> None:
        """Apply nothing until `resume`, also after a restart; answers go on.

        Raises: OSError: it could not be written down.
        """
        if not self.paused:
            self._stand(Standing(time.time_ns(), self.standing.rebuilt_ns, self.standing.rebuild_s))
            log.info("view.paused view=%s cursor=%s", self.name, self.cursor)
            self._following.cancel()
            self._move(self.cursor)

    def resume(self) -> None:
        """Follow again.

        Raises: OSError.
        """
        if self.paused:
            self._stand(Standing(0, self.standing.rebuilt_ns, self.standing.rebuild_s))
            log.info("view.resumed view=%s cursor=%s", self.name, self.cursor)
            self._resumed.set()
            self._resumed = trio.Event()

    def ask_rebuild(self) -> None:
        """Begin to build it anew beside the running one, which follows meanwhile.

        Raises: Refused: it is paused, or being built.
        """
        if self.paused:
            raise Refused(f"view {self.name} is paused: resume it first")
        if self.rebuilding or self._wanted.is_set():
            raise Refused(f"view {self.name} is being built already")
        self.rebuilding, self.rebuild_error = True, ""
        self._wanted.set()

    def _stand(self, standing: Standing) -> None:
        save_standing(self._standing_path, standing)
        self.standing = standing

    # Life.

    def lock(self) -> None:
        """Be the one process that keeps this view.

        Raises: DirectoryInUse: another is.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = PosixDisk().lock(self._lock_path)
        self.standing = load_standing(self._standing_path)

    async def run(self) -> None:
        """Keep the view, which is locked, until cancelled."""
        assert self._lock is not None
        try:
            await until_one_ends(self._keep, self._build_when_asked)
        finally:
            if self._writer is not None:
                self._writer.leave()
            self._close()
            self._lock.close()

    async def _keep(self) -> None:
        pause, failures = RETRY_S[0], 0
        while True:
            before = self.figures.events_total
            try:
                await self._put_in_place()
                with trio.CancelScope() as self._following:
                    await self._follow_unless_told()
                continue
            except Damaged as error:
                log.warning("view.damaged view=%s %s", self.name, error)
                self._drop(error.path)
            except (GfsError, Gap, HistoryLost, OSError) as error:
                log.info("stream.retry view=%s %s", self.name, error)
                self.error = str(error)
            except Exception as error:
                log.exception("view.failed view=%s, trying again", self.name)
                self.error = f"{type(error).__name__}: {error}"
                failures = 0 if self.figures.events_total > before else failures + 1
                if failures == FAILURES_MAX:  # damage has many names; a new file has none
                    self._drop(self.path)
                    failures = 0
            self.figures.retries_total += 1
            self.figures.cut_off()
            progress = self.figures.events_total > before
            pause = RETRY_S[0] if progress else min(pause * 2, RETRY_S[1])
            await trio.sleep(pause)

    async def _follow_unless_told(self) -> None:
        """Follow until the stream breaks or, cancelled, for a pause or a new file."""
        if self._built is not None:
            return
        if not self.paused:
            await self._live()
            return
        self.figures.cut_off()
        if self.store is None and identity(self.path) != (0, 0):
            await self._open()
        await self._resumed.wait()

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
                await self._source.require(store.cursor)
        except HistoryLost as error:
            start = store.cursor
            log.warning("stream.reset view=%s from=%s %s", self.name, start, error)
            await self._rebuild(lost=True)
            return
        pump = Pump(self._source, start, self._config.batch_events, lambda: self._asked.set())
        try:
            await until_one_ends(pump.receive, partial(self._apply_all, writer, pump))
        except HistoryLost as error:
            log.warning("stream.reset view=%s from=%s %s", self.name, start, error)
            if start != store.cursor:  # history alone is behind what the log keeps: a gap in it
                store.write_history(_nothing, store.cursor)
                return
            await self._rebuild(lost=True)

    async def _open(self) -> None:
        opened = partial(self.projection.open_store, self.path, self.history_path)
        self.store = await trio.to_thread.run_sync(opened)
        self._writer = Writer(self.projection, self._config, self.store)
        self._identity = identity(self.path)
        self.generation += 1
        self._move(self.store.cursor)
        self.rebuilding = self.rebuild is not None
        log.info("view.opened view=%s cursor=%s", self.name, self.cursor)

    def _move(self, cursor: Cursor) -> None:
        self.cursor = cursor
        self._moved.set()
        self._moved = trio.Event()

    # Following.

    async def _apply_all(self, writer: Writer, pump: Pump) -> None:
        began, figures = 0.0, self.figures
        while True:
            await pump.wait_news(LOOK_S)
            figures.heard_at = pump.heard_at
            if pump.committed:
                self.error = ""
            await self._gather(pump, began)
            if self._identity != (0, 0) and identity(self.path) != self._identity:
                raise Damaged(self.path, "has been removed or replaced")
            if not pump.has_news:
                await trio.to_thread.run_sync(writer.settle)
                self._move(self.cursor)
            began = trio.current_time()
            batch = pump.batch(self._config.batch_events)
            if batch is not None:
                await self._apply(writer, batch)
            figures.unapplied_since = trio.current_time() if pump.has_news else None
            if pump.is_at_end:
                figures.idle_since = trio.current_time()

    async def _gather(self, pump: Pump, began: float) -> None:
        """Let more come in: a batch has a price of its own, whatever its size.

        While somebody asks the first event of a quiet time goes at once and others as `Pace` has
        it, each `batch_s` at least; what nobody asks for may wait `unasked_s`, a crowd `batch_s`.
        """
        figures = self.figures
        while 0 < pump.pending < self._config.batch_events:
            now = trio.current_time()
            figures.idle_since = None
            if figures.unapplied_since is None:
                figures.unapplied_since = now
            asked = now < self._asked_at + ASKED_S
            due = began + (self.pace.period_s if asked else self._config.unasked_s)
            quiet_s = now - pump.heard_at if pump.pending >= CROWD else 0.0
            if now >= due or quiet_s > self._config.batch_s:
                return
            self._asked = trio.Event()
            with trio.move_on_at(min(due, now + self._config.batch_s)):
                await self._asked.wait()

    async def _apply(self, writer: Writer, batch: Batch) -> None:
        began, busy = time.perf_counter(), time.process_time()
        live = batch.cursor.position > writer.store.cursor.position
        await trio.to_thread.run_sync(writer.write, batch)
        self.pace.took(time.process_time() - busy)
        self.figures.applied(batch, time.perf_counter() - began, live=live)
        self._move(max(batch.cursor, self.cursor, key=lambda one: one.position))

    # Rebuilding.

    def _new_rebuild(self) -> Rebuild:
        self.rebuilding = True
        self.figures.rebuilds_total += 1
        log.info("view.rebuild view=%s", self.name)
        return Rebuild(self.projection, self._config, self._source, self.path)

    async def _rebuild(self, *, lost: bool) -> None:
        """Build, then swap. `lost`: the log is not the one we had followed."""
        self._lost |= lost
        if self._wanted.is_set():  # one that was asked for is under way and will do
            await trio.sleep_forever()
        self.rebuild = rebuild = self._new_rebuild()
        try:
            await rebuild.build()
            await self._swap(rebuild)
        finally:
            self.rebuild, self.rebuilding = None, self.store is None

    async def _build_when_asked(self) -> None:
        """Build beside the running view, which follows meanwhile; `_keep` then swaps."""
        while True:
            await self._wanted.wait()
            self.rebuild = rebuild = self._new_rebuild()
            try:
                await rebuild.build()
                self._built = rebuild
            except Exception as error:
                log.warning("view.rebuild failed view=%s %r", self.name, error)
                self.rebuild_error = f"the rebuild failed: {type(error).__name__}: {error}"
                self.rebuild, self.rebuilding = None, self.store is None
            self._wanted = trio.Event()
            self._following.cancel()

    async def _put_in_place(self) -> None:
        if (built := self._built) is not None:
            self._built = None
            await self._swap(built)

    async def _swap(self, built: Rebuild) -> None:
        self.rebuild = None
        self._swapping = True
        try:
            self._close()
            remove_view(self.path)
            built.path.rename(self.path)
            self.figures.events_total += built.items
            await self._open()
        finally:
            self._swapping = False
            self._move(self.cursor)
        assert self.store is not None
        if self._lost and self.store.history_cursor is not None:
            self.store.write_history(_nothing, self.store.cursor)
        self._lost = False
        self._stand(Standing(self.standing.paused_ns, time.time_ns(), round(built.seconds, 3)))
        log.info("view.rebuilt view=%s cursor=%s", self.name, self.cursor)


def _nothing(*_: object) -> None:
    """A change that only moves a cursor."""
