"""Batches into a view's file: rows with the cursor, history, and what cannot be applied.

A batch that fails is tried again; if it goes on failing it is halved until one record
is found that fails by itself. That record goes to the table `dead_letters` with its
error, in the transaction that moves the cursor past it. Blocks: it runs in the thread
of its view, one call at a time.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from gfs.changes import START, Cursor, Line
from gfs.config import ProjectionsConfig
from gfs.errors import GfsError
from projections.core.dead_letters import EVERYWHERE, Letter, inodes_of, letter_of
from projections.core.following import Batch, SourceDiffers
from projections.projection import Projection
from projections.storage import HOST_ERRORS, Damaged, Store

log = logging.getLogger(__name__)

SAVE_CURSOR_S = 5.0  # how often progress without events is written down
RETRY_S = (0.05, 0.5)  # pauses before a batch that failed is tried again
LETTERS_MAX = 200  # a view that cannot take more records than that is broken itself
_NOT_THE_EVENTS = (*HOST_ERRORS, Damaged, GfsError)


class Writer:
    """Writes into one open store."""

    def __init__(
        self,
        projection: Projection,
        config: ProjectionsConfig,
        store: Store,
        retry_s: tuple[float, ...] = RETRY_S,
    ) -> None:
        self.store = store
        self._retry_s = retry_s
        self.noted: list[Line] = []  # events not yet in the history
        self.letters: list[Letter] = store.letters()
        self._projection = projection
        self._config = config
        self._noted_to: Cursor | None = None
        self._saved_at = self._noted_at = 0.0

    @property
    def history_cursor(self) -> Cursor:
        """How far the history has come; where nothing happened since, as far as the view."""
        if self.store.history_cursor is None:
            return START
        if self._noted_to is not None and not self.noted:
            return self._noted_to
        return self.store.history_cursor

    def forget(self) -> None:
        """Drop what is noted: the stream is followed anew from the history's cursor."""
        self.noted, self._noted_to = [], None

    def write(self, batch: Batch) -> None:
        """Apply what is new in `batch`; history first, it wants paths as they were before.

        Raises: Damaged, SourceDiffers: build anew. What the host's failures raise.
        """
        store = self.store
        if store.history_cursor is not None:
            self._note(batch)
        lines = batch.after(store.cursor)
        now = time.monotonic()
        if not lines and now - self._saved_at < SAVE_CURSOR_S and not batch.snapshot:
            return  # nothing to see in these records: progress can be written down later
        if batch.cursor.position >= store.cursor.position:
            self._saved_at = now
            self._take(Batch(lines, batch.cursor, batch.snapshot), self._apply, history=False)

    def settle(self) -> None:
        """Nothing comes for now: finish what the view, and its history, put off.

        Raises: as `write`.
        """
        self._projection.settle(self.store)
        if self.noted:
            self.write_history()

    def leave(self) -> None:
        """Leave a file in which nothing is put off; one that cannot be written does without."""
        try:
            self._projection.settle(self.store)
        except Exception as error:
            log.warning("view.unsettled view=%s %r", self._projection.name, error)

    def write_history(self) -> None:
        """Write down what is noted; raises as `write`."""
        lines, cursor = self.noted, self._noted_to
        self._noted_at = time.monotonic()
        if lines and cursor is not None:
            self._take(Batch(lines, cursor), self._record, history=True)
            self.noted = []

    def _note(self, batch: Batch) -> None:
        """Keep a batch for the history, and write that down when it is due."""
        noted = self._noted_to or self.store.history_cursor or START
        if batch.cursor.position <= noted.position:
            return
        self.noted += batch.after(noted)
        self._noted_to = batch.cursor
        due = self._noted_at + self._projection.history_delay_s
        if len(self.noted) > self._config.batch_events or time.monotonic() >= due:
            self.write_history()

    def _apply(self, batch: Batch) -> None:
        self.store.write(lambda view: self._projection.apply(batch, view), batch.cursor)

    def _record(self, batch: Batch) -> None:
        self.store.write_history(
            lambda history, view: self._projection.record(batch.lines, history, view), batch.cursor
        )

    def _take(self, batch: Batch, change: Callable[[Batch], None], *, history: bool) -> None:
        """Do `change`, but for records that fail by themselves: those are put aside."""
        for pause in self._retry_s:
            if self._try(batch, change) is None:
                return
            time.sleep(pause)
        self._narrow(batch, change, history=history)

    def _narrow(self, batch: Batch, change: Callable[[Batch], None], *, history: bool) -> None:
        error = self._try(batch, change)
        if error is None:
            return
        halves = batch.halves()
        if halves is None:
            self._put_aside(batch, error, history=history)
            return
        for half in halves:
            self._narrow(half, change, history=history)

    def _try(self, batch: Batch, change: Callable[[Batch], None]) -> Exception | None:
        """The error, if it may be one of these events; others are raised."""
        try:
            change(batch)
        except _NOT_THE_EVENTS:
            raise
        except SourceDiffers as error:
            if not self.letters:  # else it may be for want of what was put aside
                raise
            return error
        except Exception as error:
            return error
        return None

    def _put_aside(self, batch: Batch, error: Exception, *, history: bool) -> None:
        if len(self.letters) >= LETTERS_MAX or not batch.lines:
            raise error  # not any record's: the end of a snapshot
        store, found = self.store, [[EVERYWHERE]]

        def look(view: object) -> None:
            found.append(self._projection.paths_of(inodes_of(batch.lines), view))

        self._try(Batch([], store.cursor), lambda at: store.write(look, at.cursor))
        letter = letter_of(batch, error, found[-1])
        store.put_aside(letter, batch.cursor, history=history)
        self.letters.append(letter)
        log.error(
            "view.put_aside view=%s cursor=%s suspect=%s",
            self._projection.name,
            letter.cursor,
            letter.suspect,
            exc_info=error,
        )
