"""A view built anew beside the running one: the newest checkpoint, then the stream.

It lies in a file of its own until it has caught up; whoever asked for it then puts it
in the other's place. A build that fails leaves nothing behind but its file, which the
next one removes.
"""

from __future__ import annotations

import time
from contextlib import aclosing
from pathlib import Path

import trio

from gfs import changes
from gfs.changes import Line
from gfs.config import ProjectionsConfig
from gfs.errors import RemoteProtocolError
from gfs.running import until_one_ends
from projections.core.following import Batch
from projections.projection import Projection
from projections.storage import remove_view
from projections.stream_source import Pump, StreamSource
from projections.writer import Writer

LOOK_S = 1.0


class Rebuild:
    """One build of a view. Its numbers may be read while it runs."""

    def __init__(
        self, projection: Projection, config: ProjectionsConfig, source: StreamSource, path: Path
    ) -> None:
        self.path = path.with_name(f"{path.name}.new")
        self.cursor = changes.START
        self._projection = projection
        self._config = config
        self._source = source
        self._began = time.monotonic()
        self._items = self._items_total = 0
        self._goal = ""  # cursor of the log's end, once the items are in

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.monotonic() - self._began

    @property
    def items(self) -> int:
        """How many of the checkpoint are in."""
        return self._items

    def progress(self) -> dict[str, object]:
        """For people: items of the checkpoint, then positions of the log."""
        return {
            "stage": "catching up" if self._goal else "loading",
            "items": self._items,
            "items_total": self._items_total,
            "position": self.cursor.position,
            "position_goal": changes.parse_cursor(self._goal).position if self._goal else 0,
            "seconds": round(self.seconds, 1),
        }

    async def build(self) -> None:
        """Make the file; return when it has caught up and is closed.

        Raises: GfsError, Gap, HistoryLost: of the stream. What the view itself raises.
        """
        remove_view(self.path)
        store = await trio.to_thread.run_sync(self._projection.open_store, self.path, None)
        try:
            writer = Writer(self._projection, self._config, store)
            await self._load(writer)
            await self._catch_up(writer)
            await trio.to_thread.run_sync(writer.settle)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(store.close)

    async def _load(self, writer: Writer) -> None:
        """The items of the newest checkpoint."""
        cursor, pending, complete = changes.START, list[Line](), False
        async with (
            self._source.lines("/snapshot") as blocks,
            aclosing(blocks),  # type: ignore[type-var]
        ):
            async for lines in blocks:
                for line in lines:
                    if line.kind == changes.SNAPSHOT:
                        cursor = changes.parse_cursor(line.cursor)
                        self._items_total = line.items
                    elif line.kind == changes.END:
                        complete = line.items == self._items
                    else:
                        pending.append(line)
                        self._items += 1
                if len(pending) >= self._config.batch_events or complete:
                    batch = Batch(pending, changes.START, snapshot=True)
                    await trio.to_thread.run_sync(writer.write, batch)
                    pending = []
        if not complete:
            raise RemoteProtocolError("the snapshot was cut short")
        await trio.to_thread.run_sync(writer.write, Batch([], cursor, snapshot=True))

    async def _catch_up(self, writer: Writer) -> None:
        """Apply what the log has behind the checkpoint, up to where it ends."""
        pump = Pump(self._source, writer.store.cursor)

        async def apply() -> None:
            while not pump.is_at_end:
                await pump.wait_news(LOOK_S)
                self._goal = pump.committed
                if (batch := pump.batch(self._config.batch_events)) is not None:
                    await trio.to_thread.run_sync(writer.write, batch)
                    self.cursor = batch.cursor

        await until_one_ends(pump.receive, apply)
