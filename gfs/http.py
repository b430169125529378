"""What a daemon answers by HTTP: an application on Starlette; `gfs.serving` listens for it.

Every daemon has ``/health`` (open to all who reach it), ``/statistics``, ``/metrics`` and
``/openapi.json``, which lists them all; the rest are operations of its own. A caller proves
the cluster's key by a bearer token derived from it, or comes by the Unix socket as the
daemon's own user or root (the kernel says who). Errors are JSON
``{"error": code, "message": text}``. Nothing a caller does raises into the daemon.
"""

from __future__ import annotations

import hmac
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any

import msgspec
import prometheus_client
import trio
from prometheus_client.core import CollectorRegistry, CounterMetricFamily, GaugeMetricFamily
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gfs import errors
from gfs.bearer import Peer, token
from gfs.labelled import Labelled
from gfs.routes import Operation, document

log = logging.getLogger(__name__)

BODY_BYTES_MAX = 1024 * 1024
_STATUS: list[tuple[type[Exception], int]] = [
    (errors.BadKey, 401),
    (errors.NotFound, 404),
    (errors.StaleInode, 404),
    (errors.PermissionDenied, 403),
    (errors.NotPermitted, 403),
    (errors.InvalidArgument, 400),
    (errors.NotADirectory, 400),
    (errors.NameTooLong, 400),
    (errors.UsageError, 400),
    (errors.Unsupported, 501),
    (errors.TooLarge, 413),
    (errors.NoSpace, 507),
    (errors.Refused, 409),
    (errors.TryAgain, 503),
    (errors.TimedOut, 504),
    (errors.Unreachable, 502),
]


class JsonResponse(Response):
    """Anything msgspec can encode, dataclasses and structs included."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        return msgspec.json.encode(content, enc_hook=str) + b"\n"


def application(
    *,
    daemon: str,
    key: bytes | None,
    health: Callable[[], Mapping[str, object]],
    statistics: Callable[[], object],
    look: Callable[[], object] | None = None,
    routes: Sequence[BaseRoute] = (),
    operations: Sequence[Operation] = (),
    body_bytes_max: int = BODY_BYTES_MAX,
) -> ASGIApp:
    """The HTTP side of a daemon.

    Args:
      daemon: name in metrics, ``gfs_<daemon>_...``.
      key: the cluster's; None lets only Unix peers in (tests).
      health: facts that ``/health`` prints; ``{"ok": False, ...}`` gives status 503.
      statistics: numbers (nested maps, structs, dataclasses) for ``/statistics`` and,
        flattened, ``/metrics``; names that end in ``_total`` are counters.
      look: run in a thread before `statistics` is, for what takes long to find out.
      operations: the daemon's own, checked and described by their table; a handler may
        raise GfsError, UsageError, HTTPException.
      routes: others, which check their parameters themselves.
    """
    registry = CollectorRegistry()
    registry.register(_Statistics(daemon, statistics))

    async def show_health(request: Request) -> Response:
        facts = health()
        return JsonResponse(facts, 200 if facts.get("ok", True) else 503)

    async def show_statistics(request: Request) -> Response:
        if look is not None:
            await trio.to_thread.run_sync(look)
        return JsonResponse(statistics())

    async def show_metrics(request: Request) -> Response:
        if look is not None:
            await trio.to_thread.run_sync(look)
        text = prometheus_client.generate_latest(registry)
        return Response(text, media_type=prometheus_client.CONTENT_TYPE_PLAIN_0_0_4)

    async def show_document(request: Request) -> Response:
        return JsonResponse(document(f"gfs {daemon}", metadata.version("gfs"), table))

    table = [
        Operation("/health", show_health, "Whether it is well; needs no key"),
        Operation("/statistics", show_statistics, "Numbers, as JSON"),
        Operation("/metrics", show_metrics, "Numbers, for Prometheus", answers="text/plain"),
        Operation("/openapi.json", show_document, "What can be asked here (OpenAPI)"),
        *operations,
    ]
    own = [one.route() for one in table]
    handlers: dict[Any, Any] = dict.fromkeys(
        (errors.GfsError, errors.UsageError, HTTPException, Exception), _answer_error
    )
    inner = Starlette(routes=[*own, *routes], exception_handlers=handlers)
    return _Guard(inner, key, body_bytes_max)


class _Guard:
    """Outermost: who may ask, how much they may send, and no exception leaves."""

    def __init__(self, inner: ASGIApp, key: bytes | None, body_bytes_max: int) -> None:
        self.inner = inner
        self.expected = f"Bearer {token(key)}".encode() if key else None
        self.body_bytes_max = body_bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] != "/health" and not self._allowed(scope):
            reply = _error_response(errors.BadKey("this cluster's key is needed"))
            await reply(scope, receive, send)
            return
        started = False
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.body_bytes_max:
                raise errors.TooLarge(f"more than {self.body_bytes_max} bytes in the request")
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.inner(scope, counted, watched)
        except ClientDisconnect:
            log.info("http.left path=%s", scope["path"])  # in the middle of its request
        except Exception as error:
            log.exception("http.failed path=%s", scope["path"])
            if not started:
                await _error_response(error)(scope, receive, send)

    def _allowed(self, scope: Scope) -> bool:
        peer: Peer | None = scope.get("gfs.peer")
        if peer is not None and peer.uid in (0, os.geteuid()):
            return True
        if self.expected is None:
            return False
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        return hmac.compare_digest(given, self.expected)


async def _answer_error(request: Request, error: Exception) -> Response:
    return _error_response(error)


def _error_response(error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return JsonResponse({"error": "http", "message": error.detail}, error.status_code)
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), 500)
    if isinstance(error, errors.GfsError):
        body = {"error": error.code, "message": str(error) or error.code}
    elif isinstance(error, errors.UsageError):
        body = {"error": "usage", "message": str(error)}
    else:
        body = {"error": "internal", "message": "internal error; the daemon's log has it"}
    # After 413 the rest of the request is not read, so the connection cannot be used again.
    headers = {503: {"Retry-After": "1"}, 413: {"Connection": "close"}}.get(status)
    return JsonResponse(body, status, headers)


class _Statistics:
    """Numbers of `statistics()` as Prometheus metrics, nested names joined by ``_``."""

    def __init__(self, daemon: str, statistics: Callable[[], object]) -> None:
        self.prefix = f"gfs_{daemon}"
        self.statistics = statistics

    def describe(self) -> list[Any]:
        return []  # names are known only when asked

    def collect(self) -> list[Any]:
        """One family a number; text and lists are left out."""
        found: list[Any] = []
        numbers = self.statistics()
        if isinstance(numbers, dict):
            for key, part in numbers.items():
                if isinstance(part, Labelled):
                    found += _families(f"{self.prefix}_{key}", part)
            numbers = {key: one for key, one in numbers.items() if not isinstance(one, Labelled)}
        self._walk(self.prefix, msgspec.to_builtins(numbers, enc_hook=str), found)
        return found

    def _walk(self, name: str, value: object, found: list[Any]) -> None:
        if isinstance(value, dict):
            for key, part in value.items():
                self._walk(f"{name}_{key}", part, found)
        elif isinstance(value, int | float):
            clean = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in name)
            if clean.endswith("_total"):
                found.append(CounterMetricFamily(clean, clean, value=value))
            else:
                found.append(GaugeMetricFamily(clean, clean, value=value))


def _families(prefix: str, rows: Labelled) -> list[Any]:
    """A gauge for each number that rows have."""
    found: dict[str, Any] = {}
    for name, row in rows.items():
        for key, value in row.items():
            if isinstance(value, int | float):
                full = f"{prefix}_{key}"
                family = found.get(key) or GaugeMetricFamily(full, full, labels=[rows.label])
                found[key] = family
                family.add_metric([name], value)
    return list(found.values())
