"""The change stream as a follower reads it: lines from one long HTTP response.

httpx with a Unix socket when there is one on this host. What comes is cut at line
ends as bytes and decoded a block at a time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path

import httpx
import msgspec
import trio

from gfs.bearer import authorization, is_tls
from gfs.changes import RESET, Cursor, Line, decode_lines
from gfs.errors import BadKey, NotReady, RemoteProtocolError, Unreachable
from gfs.masters import places
from gfs.stream_proof import LineCutter
from projections.core.following import Batch, Follower, HistoryLost
from projections.wide_reads import WideTransport

SILENCE_S = 5.0  # heartbeats come each second
CONNECT_S = 3.0
PENDING_MAX = 60_000  # events read ahead of the batch being applied


class StreamSource:
    """Where the stream is, and how to prove that we may read it.

    `url` and `unix` may name several with commas, those of shadow masters too: only the
    master in charge has one, so the next is tried when one does not answer.
    """

    def __init__(self, url: str, unix: str, key: bytes | None) -> None:
        self._places = places(url, unix)
        self._turn = 0
        self._headers = authorization(key) if key else {}

    def _client(self) -> httpx.AsyncClient:
        timeout = httpx.Timeout(SILENCE_S, connect=CONNECT_S)
        place = self._places[self._turn % len(self._places)]
        url, unix = place.address, place.unix
        use_unix = bool(unix) and Path(unix).exists()
        if not use_unix and not url:
            self._turn += 1
            raise Unreachable(f"the change stream's socket {unix} is not there")
        base = "http://stream" if use_unix else url if "://" in url else f"http://{url}"
        return httpx.AsyncClient(
            transport=WideTransport(unix if use_unix else "", verify=is_tls(base)),
            base_url=base,
            headers=self._headers,
            timeout=timeout,
        )

    @asynccontextmanager
    async def lines(self, path: str, **query: str) -> AsyncIterator[AsyncIterator[list[Line]]]:
        """Blocks of lines of ``GET path``; ends when the response does.

        Raises: Unreachable, BadKey, NotReady, RemoteProtocolError.
        """
        try:
            async with (
                self._client() as client,
                client.stream("GET", path, params=query) as answer,
            ):
                await _check(answer)
                chunks = answer.aiter_raw()
                try:
                    yield _blocks(chunks)
                finally:
                    # The generators within httpx end only from inside.
                    with trio.CancelScope() as scope, suppress(StopAsyncIteration):
                        scope.cancel()
                        await anext(chunks)
        except httpx.HTTPError as error:
            self._turn += 1
            raise Unreachable(f"change stream: {error!r}") from error
        except msgspec.MsgspecError as error:
            raise RemoteProtocolError(f"change stream: {error}") from error

    async def require(self, cursor: Cursor) -> None:
        """Ask whether the log has this place.

        Raises: HistoryLost: it has not. Unreachable and the like.
        """
        query = {"from": str(cursor), "follow": "0", "limit": "1"}
        async with (
            self.lines("/stream", **query) as blocks,
            aclosing(blocks),  # type: ignore[type-var]
        ):
            async for lines in blocks:
                for line in lines:
                    if line.kind == RESET:
                        raise HistoryLost(line.reason)


async def _check(answer: httpx.Response) -> None:
    if answer.status_code == 200:
        return
    text = (await answer.aread()).decode("utf-8", "replace")[:300]
    kind = {401: BadKey, 503: NotReady}.get(answer.status_code, RemoteProtocolError)
    raise kind(f"change stream answers {answer.status_code}: {text}")


async def _blocks(chunks: AsyncIterator[bytes]) -> AsyncIterator[list[Line]]:
    cutter = LineCutter()
    async for chunk in chunks:
        if lines := cutter.whole(chunk):
            yield decode_lines(lines)


class Pump:
    """Reads the stream ahead of who applies it, up to a bound.

    Who gathers a batch is told by `wake` as often as something came and there are `enough` events.
    """

    def __init__(
        self,
        source: StreamSource,
        start: Cursor,
        enough: int = PENDING_MAX,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        self._source = source
        self._start = start
        self._enough, self._wake = enough, wake
        self._follower = Follower(start)
        self._news = trio.Event()
        self._space = trio.Event()
        self.heard_at = trio.current_time()  # when the last line came

    @property
    def pending(self) -> int:
        """Events of whole records that wait to be applied."""
        return self._follower.pending

    @property
    def has_news(self) -> bool:
        """Whether `batch` would give one."""
        return self._follower.has_news

    @property
    def committed(self) -> str:
        """Cursor of the log's end, as far as it was told; "" before the first heartbeat."""
        return self._follower.committed

    @property
    def is_at_end(self) -> bool:
        """Whether batches were given of all that the log holds, as far as it was told."""
        follower = self._follower
        return not follower.has_news and str(follower.taken) == follower.committed

    async def receive(self) -> None:
        """Read until the stream ends.

        Raises: Unreachable and the like, always; Gap, HistoryLost.
        """
        async with (
            self._source.lines("/stream", **{"from": str(self._start)}) as blocks,
            aclosing(blocks),  # type: ignore[type-var]
        ):
            async for lines in blocks:
                self.heard_at = trio.current_time()
                self._follower.take(lines)
                self._news.set()
                if self._follower.pending >= self._enough:
                    self._wake()
                while self._follower.pending > PENDING_MAX:
                    self._space = trio.Event()
                    await self._space.wait()
        raise RemoteProtocolError("the change stream ended")

    async def wait_news(self, limit_s: float) -> None:
        """Return when something came, or after `limit_s`."""
        with trio.move_on_after(limit_s):
            await self._news.wait()

    def batch(self, limit: int) -> Batch | None:
        """The next whole records, about `limit` events; None if there are none."""
        self._news = trio.Event()
        batch = self._follower.batch(limit)
        if self._follower.has_news:
            self._news.set()
        self._space.set()
        return batch
