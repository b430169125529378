"""The long answers of the change stream: following the log, and a snapshot.

A reader is sent the next stretch only when the one before is in its socket, so what
a slow one costs is its own position. Each response chains `previous` for itself.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial

import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gfs import changes, items
from gfs.changes import Control, Cursor, Event
from gfs.errors import InvalidArgument
from master.segments import Truncated
from master.stream_filter import KINDS, Filter, words
from master.stream_log import decode
from master.stream_service import Service

HEARTBEAT_S = 1.0
QUIET_HEARTBEAT_S = 0.02  # at most this often when records pass that show nothing
FILTER_BYTES = 32 * 1024  # of log that a filtered reader judges at a time

SendBody = Callable[[bytes], Awaitable[None]]


class Asked:
    """Parameters of one request for the stream.

    Raises: InvalidArgument.
    """

    def __init__(self, request: Request) -> None:
        query = request.query_params
        known = {"from", "follow", "prefix", "kind", "tables", "limit"}
        if strange := set(query) - known:
            raise InvalidArgument(f"unknown parameter {min(strange)!r}")
        self.start = query.get("from", "start")
        self.follow = query.get("follow", "1") not in ("0", "false", "no")
        self.prefix = query.get("prefix", "")
        self.kinds = words(query.get("kind", ""), KINDS, "kind")
        tables = words(query.get("tables", ""), tuple(items.TABLES), "table")
        self.tables = tables if query.get("tables") else changes.DEFAULT_TABLES
        limit = query.get("limit", "0")
        if not limit.isascii() or not limit.isdigit() or len(limit) > 18:
            raise InvalidArgument(f"limit {limit[:40]!r} is no number of events")
        self.limit = int(limit)


class _LongResponse(Response):
    """A response that is written as it comes and ends when the peer goes."""

    def __init__(self) -> None:
        super().__init__(media_type="application/x-ndjson")
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            await self.write(partial(_send_body, send))
            nursery.cancel_scope.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def write(self, send: SendBody) -> None:
        """Send the body."""
        raise NotImplementedError


async def _send_body(send: Send, content: bytes) -> None:
    await send({"type": "http.response.body", "body": content, "more_body": True})


class SnapshotResponse(_LongResponse):
    """``GET /snapshot``."""

    def __init__(self, pages: Iterator[bytes]) -> None:
        super().__init__()
        self._pages = pages

    async def write(self, send: SendBody) -> None:
        while page := await trio.to_thread.run_sync(next, self._pages, b""):
            await send(page)


class StreamResponse(_LongResponse):
    """``GET /stream``."""

    def __init__(
        self, service: Service, cursor: Cursor, chosen: Filter, asked: Asked, refusal: str
    ) -> None:
        super().__init__()
        self._service = service
        self._filter = chosen
        self._asked = asked
        self._refusal = refusal
        self._next = cursor.position + (cursor.rank == changes.WHOLE_RECORD)
        self._after = -1 if cursor.rank == changes.WHOLE_RECORD else cursor.rank
        self._scanned = cursor
        self._previous = str(cursor)
        self._left = asked.limit or -1
        self._heartbeat_at = 0.0  # when the last one left
        self._announced = False  # whether the reader knows `_scanned`
        self._time_ns = 0

    async def write(self, send: SendBody) -> None:
        figures = self._service.figures
        figures.readers += 1
        figures.readers_total += 1
        try:
            if not self._refusal:
                await self._follow(send)
        except Truncated as error:
            self._refusal = str(error)
        finally:
            figures.readers -= 1
        if self._refusal:
            figures.resets_total += 1
            await send(
                changes.encode(
                    (
                        Control(
                            changes.RESET,
                            committed=str(self._service.tip.cursor),
                            reason=self._refusal,
                        ),
                    )
                )
            )

    async def _follow(self, send: SendBody) -> None:
        tip = self._service.tip
        await self._heartbeat(send)
        while self._left and not self._service.stop.is_set():
            if self._next <= tip.position:
                await self._deliver(send)
                continue
            if self._next > tip.position + 1:
                # What was delivered may be newer than the last look at the tip.
                if tip.look():
                    continue
                self._refusal = f"the log ends at {tip.cursor}, before {self._scanned}"
                return
            if not self._asked.follow:
                await self._heartbeat(send)
                return
            await self._wait_moved(send)

    async def _wait_moved(self, send: SendBody) -> None:
        """At the end of the log: say so at once if the reader cannot know, then each second."""
        pause = HEARTBEAT_S if self._announced else QUIET_HEARTBEAT_S
        due = self._heartbeat_at + pause
        if trio.current_time() >= due:
            await self._heartbeat(send)
            return
        with trio.move_on_at(due):
            await self._service.tip.wait_moved()

    async def _heartbeat(self, send: SendBody) -> None:
        self._heartbeat_at = trio.current_time()
        self._announced = True
        await send(
            changes.encode(
                (
                    Control(
                        changes.HEARTBEAT,
                        scanned_to=str(self._scanned),
                        committed=str(self._service.tip.cursor),
                        time_ns=time.time_ns(),
                    ),
                )
            )
        )

    async def _deliver(self, send: SendBody) -> None:
        """Send what the next stretch of the log has for this reader."""
        shared = self._filter.passes_all and self._after < 0 and self._left < 0
        count, content = await (self._shared() if shared else self._filtered())
        self._announced = count > 0
        if count:
            self._service.figures.events_sent_total += count
            self._service.figures.bytes_sent_total += len(content)
            await send(content)
        else:
            await trio.lowlevel.checkpoint()

    async def _shared(self) -> tuple[int, bytes]:
        log = self._service.shared
        if log.knows(self._next):
            stretch = log.stretch(self._next, self._previous)
        else:
            stretch = await trio.to_thread.run_sync(log.stretch, self._next, self._previous)
        if stretch is None:
            return 0, b""
        content = stretch.encoded(self._previous)
        if stretch.events:
            self._previous = stretch.last
        self._next, self._scanned = stretch.end, stretch.scanned_to
        return stretch.events, content

    async def _filtered(self) -> tuple[int, bytes]:
        pool = self._service.pool
        if pool.knows(self._next):
            records = pool.read(self._next, FILTER_BYTES)
        else:
            records = await trio.to_thread.run_sync(pool.read, self._next, FILTER_BYTES)
        found: list[Event] = []
        for raw in records:
            events = self._filter.pick(decode(raw), after=self._after)
            if 0 < self._left < len(events):
                events = events[: self._left]
            self._after = -1
            self._left -= len(events) if self._left > 0 else 0
            self._previous = changes.chain(events, self._previous)
            found += events
            self._next = raw.position + 1
            self._scanned = Cursor(raw.epoch, raw.position)
            if self._left == 0:
                break
        return len(found), changes.encode(found)
