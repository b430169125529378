"""Hypercorn's server of one connection, for an application of ours.

A module of its own, because it takes longer to load than most of a daemon does, and
most daemons are hardly ever asked by HTTP: `gfs.serving` loads it with the first
connection.
"""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Callable
from typing import Any

import hypercorn
import trio
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from starlette.types import ASGIApp, Receive, Scope, Send

from gfs.bearer import Peer

_PEERCRED = struct.Struct("3i")


class Host:
    """Serves connections of one application until told to finish."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.context = WorkerContext(None)
        self.config = hypercorn.Config()
        self.config.accesslog = None
        self.config.errorlog = logging.getLogger("gfs.http.hypercorn")
        self.config.include_server_header = False

    async def serve(self, stream: trio.SocketStream) -> None:
        """Until this connection ends; raises whatever broke it."""
        state = ConnectionState({})
        app = _hosted(self.app, stream.socket)
        await TCPServer(app, self.config, self.context, state, stream)  # type: ignore[arg-type]

    async def finish(self) -> None:
        """Close idle connections; those with a request end after its answer."""
        await self.context.terminated.set()


def _hosted(app: ASGIApp, sock: trio.socket.SocketType) -> Callable[..., Any]:
    peer = _peer_of(sock)

    async def hypercorn_app(scope: Scope, receive: Receive, send: Send, *_: object) -> None:
        scope["gfs.peer"] = peer
        scope["gfs.hang_up"] = sock.close
        await app(scope, receive, send)

    return hypercorn_app


def _peer_of(sock: trio.socket.SocketType) -> Peer | None:
    if sock.family != socket.AF_UNIX:
        return None
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size)
    return Peer(*_PEERCRED.unpack(raw))
