"""What every view can be asked and told besides its queries: status, pause, rebuild, verify.

Everything that this process keeps is found by ``GET /views``; the rest is below the
view's own path, ``/NAME/...``, and for the first one at the top too.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gfs.errors import NotReady
from gfs.http import JsonResponse
from gfs.routes import Operation, Parameter
from projections.queries import QueryService
from projections.verifier import Verifier

log = logging.getLogger(__name__)

_ROWS = Parameter("rows", "count the rows of each table, too", "flag", default=0)
_ENCODER = msgspec.json.Encoder()


class Control:
    """The handlers of one view."""

    def __init__(self, service: QueryService, verifier: Verifier) -> None:
        self.service = service
        self.verifier = verifier
        self._view = service.view

    @property
    def name(self) -> str:
        """The view's."""
        return self._view.name

    def operations(self) -> Sequence[Operation]:
        """What they answer."""
        rows = "application/x-ndjson"
        return [
            Operation("/status", self.show_status, "How the view is", (_ROWS,)),
            Operation("/pause", self.pause, "Apply nothing until resumed", method="POST"),
            Operation("/resume", self.resume, "Follow again", method="POST"),
            Operation("/rebuild", self.rebuild, "Build it anew beside itself", method="POST"),
            Operation(
                "/verify",
                self.verify,
                "Compare all of it with the master now: progress, then what was found",
                method="POST",
                answers=rows,
            ),
        ]

    def statistics(self) -> dict[str, object]:
        """Numbers for /statistics and /metrics."""
        return {**self._view.statistics(), "verify": self.verifier.statistics()}

    async def status(self, *, rows: bool) -> dict[str, object]:
        """All that there is to say."""
        view = self._view
        found: dict[str, object] = {"view": view.name, **self.service.now().fields()}
        found |= {key: value for key, value in self.statistics().items() if key not in found}
        found["disk_bytes"] = sum(map(_bytes_of, (view.path, view.history_path)))
        if rows and view.store is not None:
            with suppress(NotReady):  # it is being replaced
                found["rows"] = await self.service.run_once(view.store.rows)
        return found

    async def show_status(self, request: Request) -> Response:
        """``GET /status``."""
        rows = request.query_params.get("rows") == "1"
        return JsonResponse(await self.status(rows=rows), headers=self.service.now().headers())

    async def pause(self, request: Request) -> Response:
        """``POST /pause``: twice is as good as once."""
        self._view.pause()
        return await self.show_status(request)

    async def resume(self, request: Request) -> Response:
        """``POST /resume``."""
        self._view.resume()
        return await self.show_status(request)

    async def rebuild(self, request: Request) -> Response:
        """``POST /rebuild``: begins it; ``rebuild`` in the status says how far it is."""
        self._view.ask_rebuild()
        return await self.show_status(request)

    async def verify(self, request: Request) -> Response:
        """``POST /verify``: lines of progress, the last one what was found, or an `error`."""
        self.verifier.check_offer()
        return _VerifyResponse(self.verifier)


class _VerifyResponse(Response):
    """Lines as they come; what fails in the middle is the last line, an `error`."""

    def __init__(self, verifier: Verifier) -> None:
        super().__init__(media_type="application/x-ndjson")
        del self.headers["content-length"]
        self._verifier = verifier

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})

        async def tell(line: dict[str, object]) -> None:
            body = _ENCODER.encode(line) + b"\n"
            await send({"type": "http.response.body", "body": body, "more_body": True})

        try:
            await self._verifier.whole(tell)
        except Exception as error:  # too late for a status
            log.info("view.verify failed: %r", error)
            await tell({"error": str(error) or type(error).__name__})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _bytes_of(path: Path | None) -> int:
    """Size of a view's file and of its log."""
    size = 0
    for suffix in ("", "-wal", ".wal") if path is not None else ():
        try:
            size += Path(f"{path}{suffix}").stat().st_size
        except FileNotFoundError:
            continue
    return size


def list_operation(controls: Sequence[Control]) -> Operation:
    """``GET /views``."""
    return Operation(
        "/views",
        functools.partial(_list, controls),
        "The views of this process, and how each is",
        (_ROWS,),
    )


async def _list(controls: Sequence[Control], request: Request) -> Response:
    rows = request.query_params.get("rows") == "1"
    return JsonResponse({"views": [await one.status(rows=rows) for one in controls]})
