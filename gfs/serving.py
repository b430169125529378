"""HTTP of a daemon: the listening side, in a nursery of the daemon.

Listening is done here and not by Hypercorn, because only the accepted socket knows the
peer's credentials. What answers (Hypercorn, Starlette, `gfs.http`) is loaded by a thread
when somebody asks: it takes as long to load as all the rest of a daemon, which ought to
be there soon, and most are never asked.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import trio

from gfs.handshake import listen

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from gfs.hosting import Host

log = logging.getLogger(__name__)

CONNECTIONS_MAX = 256
STOP_GRACE_S = 3.0  # running requests may end in this time


def common_application(
    *,
    daemon: str,
    key: bytes | None,
    health: Callable[[], Mapping[str, object]],
    statistics: Callable[[], object],
) -> ASGIApp:
    """`gfs.http.application` of a daemon with no operations of its own, made when first asked."""

    def make() -> ASGIApp:
        from gfs.http import application

        return application(daemon=daemon, key=key, health=health, statistics=statistics)

    return Deferred(make)


class Deferred:
    """An application that is made, by a thread, when the first request comes."""

    def __init__(self, make: Callable[[], ASGIApp]) -> None:
        self._make = make
        self._made: ASGIApp | None = None
        self._making = trio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        made = self._made or await self._first()
        await made(scope, receive, send)

    async def _first(self) -> ASGIApp:
        async with self._making:
            if self._made is None:
                self._made = await trio.to_thread.run_sync(self._make)
        return self._made


async def serve_http(
    app: ASGIApp,
    address: str,
    unix: str = "",
    *,
    stop: trio.Event | None = None,
    connections_max: int = CONNECTIONS_MAX,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled, or until `stop` is set (then running requests get 3 s).

    Tells `task_status` the bound HOST:PORT. In the scope of a request stand `gfs.peer` (a
    `Peer`, on a Unix socket) and `gfs.hang_up`, a function that closes the connection.

    Raises:
      UsageError: the address cannot be bound; nothing later.
    """
    sockets = listen(address, unix)
    host, port = sockets[0].getsockname()[:2]
    listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(one)) for one in sockets]
    connections = _Connections(app, connections_max)
    try:
        async with trio.open_nursery() as handling:
            async with trio.open_nursery() as accepting:
                serving = partial(
                    trio.serve_listeners,
                    connections.handle,
                    listeners,
                    handler_nursery=handling,
                )
                accepting.start_soon(serving)
                task_status.started(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
                try:
                    await (trio.Event() if stop is None else stop).wait()
                    accepting.cancel_scope.cancel()
                    await connections.finish()
                finally:
                    connections.close()
    finally:
        for listener in listeners:
            listener.socket.close()
        if unix:
            with suppress(OSError):
                os.unlink(unix)


class _Connections:
    """The live connections, so that a stop can end them though a peer does not read."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self.app = app
        self.most = most
        self.live: set[trio.SocketStream] = set()
        self.none_left = trio.Event()
        self._host: Host | None = None
        self._loading = trio.Lock()

    async def handle(self, stream: trio.SocketStream) -> None:
        if len(self.live) >= self.most:
            await stream.aclose()
            return
        self.live.add(stream)
        try:
            host = self._host or await self._first()
            await host.serve(stream)
        except Exception as error:  # a broken connection must not end the daemon
            log.info("http.connection failed: %r", error)
        finally:
            self.live.discard(stream)
            if not self.live:
                self.none_left.set()

    async def _first(self) -> Host:
        async with self._loading:
            if self._host is None:
                self._host = await trio.to_thread.run_sync(self._load)
        return self._host

    def _load(self) -> Host:
        from gfs.hosting import Host

        return Host(self.app)

    async def finish(self) -> None:
        """Let running requests end; idle connections are closed at once."""
        if self._host is not None:
            await self._host.finish()
        self.none_left = trio.Event()
        if self.live:
            with trio.move_on_after(STOP_GRACE_S):
                await self.none_left.wait()

    def close(self) -> None:
        # Hypercorn shields its sends from cancellation: only a closed socket frees them.
        for stream in tuple(self.live):
            stream.socket.close()
