"""The change stream as a follower reads it: lines from one long HTTP response.

httpx with a Unix socket when there is one on this host. What comes is cut at line
ends as bytes and decoded a block at a time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import msgspec
import trio

from gfs.changes import Line, decode_lines
from gfs.errors import BadKey, NotReady, RemoteProtocolError, Unreachable
from gfs.http import authorization

SILENCE_S = 5.0  # heartbeats come each second
CONNECT_S = 3.0
LINE_BYTES_MAX = 16 * 1024 * 1024


class StreamSource:
    """Where the stream is, and how to prove that we may read it."""

    def __init__(self, url: str, unix: str, key: bytes | None) -> None:
        self._url = url if "://" in url or not url else f"http://{url}"
        self._unix = unix
        self._headers = authorization(key) if key else {}

    def _client(self) -> httpx.AsyncClient:
        timeout = httpx.Timeout(SILENCE_S, connect=CONNECT_S)
        use_unix = bool(self._unix) and Path(self._unix).exists()
        if not use_unix and not self._url:
            raise Unreachable(f"the change stream's socket {self._unix} is not there")
        return httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(uds=self._unix if use_unix else None),
            base_url="http://stream" if use_unix else self._url,
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
            raise Unreachable(f"change stream: {error!r}") from error
        except msgspec.MsgspecError as error:
            raise RemoteProtocolError(f"change stream: {error}") from error


async def _check(answer: httpx.Response) -> None:
    if answer.status_code == 200:
        return
    text = (await answer.aread()).decode("utf-8", "replace")[:300]
    kind = {401: BadKey, 503: NotReady}.get(answer.status_code, RemoteProtocolError)
    raise kind(f"change stream answers {answer.status_code}: {text}")


async def _blocks(chunks: AsyncIterator[bytes]) -> AsyncIterator[list[Line]]:
    rest: list[bytes] = []
    size = 0
    async for chunk in chunks:
        cut = chunk.rfind(b"\n") + 1
        if not cut:
            rest.append(chunk)
            size += len(chunk)
            if size > LINE_BYTES_MAX:
                raise RemoteProtocolError("change stream: a line without end")
            continue
        rest.append(chunk[:cut])
        yield decode_lines(b"".join(rest))
        rest, size = [chunk[cut:]], len(chunk) - cut
