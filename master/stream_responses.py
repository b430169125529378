"""The long answers of the change stream: following the log, and a snapshot.

A reader is sent the next stretch only when the one before is in its socket, so what
a slow one costs is its own position. Each response chains `previous` for itself.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from math import inf
from typing import TypeVar, TypeVarTuple, Unpack

import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gfs import changes
from gfs.changes import Control, Cursor, Event
from gfs.errors import InvalidArgument, TooLarge
from gfs.operations import OPERATIONS
from gfs.records import TABLE_OF
from master.segments import Truncated
from master.stream_consumers import check_name
from master.stream_filter import KINDS, Filter, Pattern, Place, words
from master.stream_service import Service

HEARTBEAT_S = 1.0
QUIET_HEARTBEAT_S = 0.02  # at most this often when records pass that show nothing
PICK_S = 0.005  # that one reader's own filter may keep the others waiting
PIECE_BYTES = 1024 * 1024  # sent at a time, so that a slow reader is seen to take something
STALLED_S = 300.0  # a reader that has taken nothing for so long is hung up on

PARAMETERS = {
    "from", "consumer", "follow", "prefix", "name", "kind", "tables", "operation", "owner", "limit",
}  # fmt: skip

SendBody = Callable[[bytes], Awaitable[None]]
_T = TypeVar("_T")
_Args = TypeVarTuple("_Args")


class Asked:
    """Parameters of one request for the stream.

    Raises: InvalidArgument.
    """

    def __init__(self, request: Request) -> None:
        query = request.query_params
        if strange := set(query) - PARAMETERS:
            raise InvalidArgument(f"unknown parameter {min(strange)!r}")
        self.consumer = check_name(query["consumer"]) if "consumer" in query else ""
        self.start = query.get("from", "")  # "": where the consumer was, or the start
        self.follow = query.get("follow", "1") not in ("0", "false", "no")
        self.prefix = query.get("prefix", "")
        self.pattern = Pattern(query["name"]) if query.get("name") else None
        self.kinds = words(query.get("kind", ""), KINDS, "kind") or frozenset(KINDS)
        tables = words(query.get("tables", ""), TABLE_OF.values(), "table")
        self.tables = tables or changes.DEFAULT_TABLES
        self.operations = words(query.get("operation", ""), OPERATIONS, "operation")
        self.owner = _number(query["owner"], "owner") if "owner" in query else None
        self.limit = _number(query.get("limit", "0"), "limit")

    def chosen(self, place: Place | None) -> Filter:
        """What to let pass; `place` is what `prefix` and `name` have come to."""
        return Filter(self.tables, self.kinds, self.operations, self.owner, place)


def _number(text: str, what: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise InvalidArgument(f"{what} {text[:40]!r} is no number")
    return int(text)


class _LongResponse(Response):
    """A response that is written as it comes and ends when the peer goes, or takes nothing."""

    def __init__(self, service: Service) -> None:
        super().__init__(media_type="application/x-ndjson")
        del self.headers["content-length"]
        self._service = service
        self._sending_since = inf

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            nursery.start_soon(self._watch_progress, scope.get("gfs.hang_up"))
            await self.write(partial(self._send, send))
            nursery.cancel_scope.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: Send, content: bytes) -> None:
        self._sending_since = trio.current_time()
        for at in range(0, len(content), PIECE_BYTES):
            piece = content[at : at + PIECE_BYTES]
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            self._sending_since = trio.current_time()
        self._sending_since = inf

    async def _watch_progress(self, hang_up: Callable[[], None] | None) -> None:
        """Close the connection of a peer that has taken nothing for long: it may be dead."""
        while hang_up is not None:
            await trio.sleep(STALLED_S / 4)
            if trio.current_time() - self._sending_since > STALLED_S:
                self._service.figures.readers_dropped_total += 1
                hang_up()  # a send under way cannot be cancelled
                return

    async def write(self, send: SendBody) -> None:
        """Send the body."""
        raise NotImplementedError


class SnapshotResponse(_LongResponse):
    """``GET /snapshot``."""

    def __init__(self, service: Service, pages: Iterator[bytes]) -> None:
        super().__init__(service)
        self._pages = pages

    async def write(self, send: SendBody) -> None:
        while page := await trio.to_thread.run_sync(next, self._pages, b""):
            await send(page)


class StreamResponse(_LongResponse):
    """``GET /stream``."""

    def __init__(
        self, service: Service, cursor: Cursor, chosen: Filter, asked: Asked, refusal: str
    ) -> None:
        super().__init__(service)
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

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        consumer, reading = self._asked.consumer, self._service.consumers.reading
        reading[consumer] += 1
        try:
            await super().__call__(scope, receive, send)
        finally:
            reading[consumer] -= 1
            self._service.leave()
            self._filter.close()

    async def write(self, send: SendBody) -> None:
        try:
            if not self._refusal:
                await self._follow(send)
        except (Truncated, TooLarge) as error:
            self._refusal = str(error)
        if self._refusal:
            self._service.figures.resets_total += 1
            tip = str(self._service.tip.cursor)
            await send(
                changes.encode((Control(changes.RESET, committed=tip, reason=self._refusal),))
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
        alone = self._after >= 0 or self._left >= 0 or self._filter.shared is None
        count, content = await (self._picked() if alone else self._shared())
        self._announced = count > 0
        if count:
            self._service.figures.events_sent_total += count
            self._service.figures.bytes_sent_total += len(content)
            await send(content)
        else:
            await trio.lowlevel.checkpoint()

    async def _shared(self) -> tuple[int, bytes]:
        """Encoded once for all who ask for the same."""
        asked, pick = self._filter.shared, self._filter.pick
        knows = partial(self._service.shared.knows, asked)
        make = self._service.shared.stretch
        stretch = await self._made(knows, make, asked, pick, self._next, self._previous)
        if stretch is None:
            return 0, b""
        content = stretch.encoded(self._previous)
        if stretch.events:
            self._previous = stretch.last
        self._next, self._scanned = stretch.end, stretch.scanned_to
        return stretch.events, content

    async def _made(
        self,
        knows: Callable[[int], bool],
        make: Callable[[Unpack[_Args]], _T],
        *args: *_Args,
    ) -> _T:
        """`make(*args)`: here if that is quick, else in a thread, by one reader at a time."""
        if not knows(self._next):
            async with self._service.reading:
                if not knows(self._next):
                    return await trio.to_thread.run_sync(make, *args)
        return make(*args)

    async def _picked(self) -> tuple[int, bytes]:
        """For this reader alone, a few milliseconds of work at a time."""
        records = self._service.records
        began = time.perf_counter()
        found: list[Event] = []
        for record in await self._made(records.knows, records.read, self._next):
            events = self._filter.pick(record, after=self._after)
            if 0 < self._left < len(events):
                events = events[: self._left]
            self._after = -1
            self._left -= len(events) if self._left > 0 else 0
            self._previous = changes.chain(events, self._previous)
            found += events
            self._next = record.position + 1
            self._scanned = Cursor(record.epoch, record.position)
            if self._left == 0 or time.perf_counter() - began > PICK_S:
                break
        return len(found), changes.encode(found)
