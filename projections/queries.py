"""The query service of a view: waiting, limits, and what every answer says.

Every answer carries the position and epoch that it is true for, the lag in
milliseconds, whether a rebuild runs and whether the view is paused: in the headers
``X-GFS-Cursor``, ``X-GFS-Lag-Ms``, ``X-GFS-Rebuilding``, ``X-GFS-Paused``, and in JSON
answers as fields too; so do the directories, if any, of which the view could not take a
record (``X-GFS-Suspect``). With
``wait=CURSOR`` it waits until the view has come that far. Queries run in threads, on
connections of their own, and are ended when their time is up.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self, TypeVar
from urllib.parse import quote

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gfs import changes
from gfs.changes import Cursor
from gfs.config import ProjectionsConfig
from gfs.errors import GfsError, InvalidArgument, NotReady, TimedOut, TooLarge, UsageError
from gfs.http import JsonResponse
from gfs.routes import Parameter
from projections.core.dead_letters import suspects
from projections.worker import View

log = logging.getLogger(__name__)

T = TypeVar("T")
BLOCK_BYTES = 256 * 1024  # of a streamed answer handed over at a time
AGAIN_S = 0.05  # between looks at what queries are late, and interruptions of one
QUERIES_MAX = 16  # at once; more wait
REPLACED_MAX = 3  # times a query begins again because a rebuilt view took the place of its own
_ENCODER = msgspec.json.Encoder()
WAIT = Parameter("wait", "answer once everything up to this cursor is in", "cursor", example="0-0")
SQL_PARAMETERS = (
    Parameter("q", "the statement", example="SELECT count(*) FROM inodes"),
    Parameter("limit", "rows at most", "number", most=1 << 40),
)


@dataclass(frozen=True)
class Freshness:
    """What an answer is true for."""

    cursor: Cursor
    lag_ms: float
    rebuilding: bool
    paused: bool = False  # nothing is applied: it grows older until somebody resumes it
    suspect: tuple[str, ...] = ()  # directories below which it may be wrong

    def fields(self) -> dict[str, object]:
        """For a JSON answer."""
        return {
            "cursor": str(self.cursor),
            "position": self.cursor.position,
            "epoch": self.cursor.epoch,
            "lag_ms": round(self.lag_ms, 1),
            "rebuilding": self.rebuilding,
            "paused": self.paused,
            "suspect": self.suspect,
        }

    def headers(self) -> dict[str, str]:
        """For any answer."""
        return {
            "X-GFS-Cursor": str(self.cursor),
            "X-GFS-Lag-Ms": f"{self.lag_ms:.1f}",
            "X-GFS-Rebuilding": str(int(self.rebuilding)),
            "X-GFS-Paused": str(int(self.paused)),
            "X-GFS-Suspect": ",".join(map(quote, self.suspect)),
        }


class Deadline:
    """Ends a query when its time is up: calls `interrupt`, until the query has ended.

    Once is not enough: an interruption that comes between two statements has no effect.
    """

    def __init__(self, seconds: float, interrupt: Callable[[], None]) -> None:
        self._due = time.monotonic() + seconds
        self._interrupt = interrupt
        self._lock = threading.Lock()
        self._over = False
        self.passed = False

    def look(self) -> None:
        """Interrupt the query if its time is up."""
        with self._lock:
            if not self._over and time.monotonic() >= self._due:
                self.passed = True
                self._interrupt()

    def __enter__(self) -> Self:
        _WATCH.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._over = True
        _WATCH.remove(self)


class _Watch:
    """One thread for all deadlines: to start one for each takes as long as a small query."""

    def __init__(self) -> None:
        self._live: set[Deadline] = set()
        self._some = threading.Event()  # there are some, or have just been
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, deadline: Deadline) -> None:
        """Look at it from now on."""
        with self._lock:
            self._live.add(deadline)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="deadlines", daemon=True)
                self._thread.start()
            self._some.set()

    def remove(self, deadline: Deadline) -> None:
        """Look at it no more."""
        with self._lock:
            self._live.discard(deadline)

    def _run(self) -> None:
        while True:
            self._some.wait()
            with self._lock:
                live = [*self._live]
                if not live:
                    self._some.clear()
            for deadline in live:
                try:
                    deadline.look()
                except Exception:  # the others still have theirs
                    log.exception("query.interrupt failed")
            if live:
                time.sleep(AGAIN_S)


_WATCH = _Watch()


class QueryService:
    """What the query handlers of one view share."""

    def __init__(self, view: View, config: ProjectionsConfig) -> None:
        self.view = view
        self.config = config
        self._limit = trio.CapacityLimiter(QUERIES_MAX)

    async def fresh(self, request: Request, *, history: bool = False) -> Freshness:
        """Wait as the request asks; what the view's answers are true for from now on.

        Raises: InvalidArgument, TimedOut, NotReady.
        """
        wanted = request.query_params.get("wait")
        if wanted:
            cursor = changes.parse_cursor(wanted)
            await self.view.wait_for(cursor, self.config.wait_s, history=history)
        else:
            await self.view.freshen()
            await self.view.in_place()
        if self.view.store is None:
            raise NotReady(f"view {self.view.name} is being built")
        now = self.now()
        return replace(now, cursor=self.view.history_cursor) if history else now

    def now(self) -> Freshness:
        """What is known at this moment."""
        view = self.view
        suspect = tuple(suspects(view.letters))
        return Freshness(view.cursor, view.lag_ms, view.rebuilding, view.paused, suspect)

    async def run(self, query: Callable[[], T]) -> T:
        """Run a query in a thread; once more if the view's file was replaced under it.

        Raises: NotReady: it was replaced again and again. TimedOut. What the query raises.
        """
        told = self.view.cursor  # what the answer says that it is true for
        for _ in range(REPLACED_MAX):
            generation = self.view.generation
            try:
                return await self.run_once(query)
            except NotReady:
                if self.view.generation == generation:
                    raise
            await self.view.in_place()
            await self.view.wait_for(told, self.config.wait_s)
        return await self.run_once(query)

    async def run_once(self, query: Callable[[], T]) -> T:
        """Run a part of a query, of which other parts are done.

        Raises: NotReady: the view's file was replaced under it. What the query raises.
        """
        generation = self.view.generation
        try:
            return await trio.to_thread.run_sync(query, limiter=self._limit)
        except (GfsError, UsageError):
            raise
        except Exception:
            if self.view.store is not None and self.view.generation == generation:
                raise
            raise NotReady(f"view {self.view.name} is being replaced; ask again") from None

    def answer(self, fresh: Freshness, **fields: object) -> Response:
        """A JSON answer."""
        return JsonResponse({**fresh.fields(), **fields}, headers=fresh.headers())

    def limit_of(self, request: Request, default: int, most: int) -> int:
        """Parameter `limit`."""
        return number(request, "limit", default, most)


def number(request: Request, name: str, default: int, most: int) -> int:
    """An integer parameter in [0, most].

    Raises: InvalidArgument.
    """
    text = request.query_params.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= most):
        raise InvalidArgument(f"{name} must be a number up to {most}, not {text[:40]!r}")
    return int(text)


def parameters(request: Request, *known: str) -> None:
    """Refuse what the handler does not know: a mistyped parameter is not silence.

    Raises: InvalidArgument.
    """
    if strange := set(request.query_params) - {*known, "wait"}:
        raise InvalidArgument(f"unknown parameter {min(strange)!r}")


class RowsResponse(Response):
    """Rows as NDJSON or, of their first column, NUL-ended bytes; written as they come.

    The rows are made in a thread, a block at a time: memory stays small however long
    the answer is. A failure in the middle breaks the connection, so that half an
    answer cannot be taken for a whole one.
    """

    def __init__(
        self,
        service: QueryService,
        fresh: Freshness,
        rows: AbstractContextManager[Iterator[Any]],
        *,
        nul: bool = False,
    ) -> None:
        media = "application/octet-stream" if nul else "application/x-ndjson"
        super().__init__(headers=fresh.headers(), media_type=media)
        del self.headers["content-length"]
        self._service = service
        self._rows = rows
        self._nul = nul

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        run = self._service.run_once
        rows = await run(self._rows.__enter__)
        try:
            first = await run(partial(self._block, rows))
            start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
            await send(start)
            block = first
            while block:
                await send({"type": "http.response.body", "body": block, "more_body": True})
                block = await run(partial(self._block, rows))
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            with trio.CancelScope(shield=True):
                await run(partial(self._rows.__exit__, None, None, None))

    def _block(self, rows: Iterator[Any]) -> bytes:
        out = bytearray()
        for row in rows:
            if self._nul:
                out += changes.bytes_of(row["path"]) + b"\0"
            else:
                out += _ENCODER.encode(row) + b"\n"
            if len(out) >= BLOCK_BYTES:
                break
        return bytes(out)


class SqlRequest(msgspec.Struct, forbid_unknown_fields=True):
    """Body of ``POST /sql``; ``GET /sql?q=`` is the short form."""

    sql: str
    parameters: list[str | int | float | None] = []
    limit: int | None = None


async def sql_request(request: Request) -> SqlRequest:
    """The statement somebody sends.

    Raises: UsageError, InvalidArgument.
    """
    if request.method == "GET":
        parameters(request, "q", "limit")
        text = request.query_params.get("q", "")
        limit = number(request, "limit", -1, 1 << 40)
        return SqlRequest(text, limit=None if limit < 0 else limit)
    try:
        return msgspec.json.decode(await request.body(), type=SqlRequest)
    except msgspec.MsgspecError as error:
        raise UsageError(f"body: {error}") from None


@dataclass
class Collected:
    """Rows of an SQL answer."""

    columns: list[str]
    rows: list[list[Any]]
    truncated: bool


def plain(value: Any) -> Any:
    """A cell as JSON can hold it."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return changes.text_of(bytes(value))
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, dict):
        return {str(plain(key)): plain(part) for key, part in value.items()}
    return str(value)


def collect(columns: list[str], rows: Iterator[Any], limit: int, bytes_max: int) -> Collected:
    """Take rows up to the limit; more than `bytes_max` of them is refused.

    Raises: TooLarge.
    """
    found = Collected(columns, [], False)
    size = 0
    for row in rows:
        if len(found.rows) == limit:
            found.truncated = True
            break
        cells = [plain(cell) for cell in row]
        size += 32 + sum(len(cell) if isinstance(cell, str) else 16 for cell in cells)
        if size > bytes_max:
            raise TooLarge(f"the answer is larger than {bytes_max} bytes; use LIMIT")
        found.rows.append(cells)
    return found


def out_of_time(seconds: float) -> TimedOut:
    """The error of a query that was ended."""
    return TimedOut(f"the query took longer than {seconds:g} s and was ended")


Handler = Callable[[Request], Awaitable[Response]]
