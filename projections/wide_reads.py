"""HTTP over sockets that are read in large pieces.

A piece costs the same on its way through trio, h11 and httpx whatever its size, as much as some
fifty events do that are in it; and while another thread computes, each read waits for its turn.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Any

import httpcore
import httpx

from gfs.ids import KIB

READ_BYTES = 256 * KIB  # a socket holds less than that, if its system is as it comes


class WideTransport(httpx.AsyncHTTPTransport):
    """httpx's own, with READ_BYTES for each read instead of 64 KiB; `unix` or TCP."""

    def __init__(self, unix: str, *, verify: bool) -> None:
        context = httpx.create_ssl_context(verify=verify)
        super().__init__(verify=context)
        # httpx has no parameter for a backend, and httpcore none for the size.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=context, uds=unix or None, network_backend=_Backend()
        )


class _Backend(httpcore.TrioBackend):
    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(
            await super().connect_tcp(host, port, timeout, local_address, socket_options)
        )

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(await super().connect_unix_socket(path, timeout, socket_options))


class _Stream(httpcore.AsyncNetworkStream):
    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner = inner
        self.write, self.aclose = inner.write, inner.aclose  # type: ignore[method-assign]
        self.get_extra_info = inner.get_extra_info  # type: ignore[method-assign]

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._inner.read(max(max_bytes, READ_BYTES), timeout)

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._inner.start_tls(ssl_context, server_hostname, timeout))
