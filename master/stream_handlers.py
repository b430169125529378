"""The routes of the change stream's server."""

from __future__ import annotations

from contextlib import closing

import msgspec
import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from gfs import changes
from gfs.changes import Cursor
from gfs.errors import InvalidArgument, NotFound, NotReady, Refused
from gfs.http import JsonResponse, application
from gfs.routes import Operation, Parameter
from master.state import open_reader
from master.stream_consumers import check_name
from master.stream_items import DEFAULT_INODES, PAGE_INODES_MAX, page
from master.stream_responses import Asked, SnapshotResponse, StreamResponse
from master.stream_service import Service
from master.stream_snapshot import snapshot_lines


class Commit(msgspec.Struct, forbid_unknown_fields=True):
    """Body of ``POST /consumers/NAME``."""

    cursor: str


class Handlers:
    """What is asked, over the log and the consumers of `service`."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def position(self, request: Request) -> Response:
        """``GET /position``."""
        service = self._service
        service.tip.look()
        first = await trio.to_thread.run_sync(service.first_position)
        return JsonResponse({"cursor": str(service.tip.cursor), "first_position": first})

    async def stream(self, request: Request) -> Response:
        """``GET /stream``."""
        service = self._service
        asked = Asked(request)
        service.tip.look()
        cursor = self._start(asked)
        refusal = await trio.to_thread.run_sync(service.refusal, cursor)
        place = None
        if (asked.prefix or asked.pattern) and not refusal:
            following = cursor.position + (cursor.rank == changes.WHOLE_RECORD)
            place = await trio.to_thread.run_sync(
                service.place, asked.prefix, asked.pattern, following
            )
        chosen = asked.chosen(place)
        try:
            service.admit()
            if asked.consumer and not refusal:
                await self._begin(asked.consumer, cursor)
        except BaseException:
            chosen.close()
            raise
        return StreamResponse(service, cursor, chosen, asked, refusal)

    async def _begin(self, consumer: str, cursor: Cursor) -> None:
        try:
            await self._service.consumers.begin(consumer, cursor)
        except BaseException:
            self._service.leave()
            raise

    def _start(self, asked: Asked) -> Cursor:
        if not asked.start and asked.consumer:
            known = self._service.consumers.get(asked.consumer)
            if known is not None:
                return changes.parse_cursor(known.cursor)
        if asked.start in ("", "start"):
            return changes.START
        if asked.start == "now":
            return self._service.tip.cursor
        return changes.parse_cursor(asked.start)

    async def snapshot(self, request: Request) -> Response:
        """``GET /snapshot``."""
        service = self._service
        path = await trio.to_thread.run_sync(service.checkpoint)
        if path is None and service.first_position() > 1:
            raise NotReady("there is no checkpoint yet")
        service.figures.snapshots_total += 1
        return SnapshotResponse(service, snapshot_lines(path))

    async def items(self, request: Request) -> Response:
        """``GET /items?after=INO&limit=N``: a page of the state as it is now."""
        after = int(request.query_params.get("after", "0"))
        limit = int(request.query_params.get("limit", str(DEFAULT_INODES)))

        def made() -> bytes:
            with closing(open_reader(self._service.state)) as state:
                return page(state, after, limit)

        content = await trio.to_thread.run_sync(made)
        return Response(content, media_type="application/x-ndjson")

    async def consumers(self, request: Request) -> Response:
        """``GET /consumers``."""
        service = self._service

        def told() -> list[dict[str, object]]:
            return [service.told(one) for one in service.consumers.all()]

        service.tip.look()
        found = await trio.to_thread.run_sync(told)
        return JsonResponse({"cursor": str(service.tip.cursor), "consumers": found})

    async def consumer(self, request: Request) -> Response:
        """``GET``, ``POST`` and ``DELETE /consumers/NAME``."""
        service = self._service
        name = check_name(request.path_params["name"])
        if request.method == "DELETE":
            await service.consumers.remove(name)
            return JsonResponse({"consumer": name, "removed": True})
        if request.method == "POST":
            cursor = changes.parse_cursor(await _commit_in(request))
            # One behind what the log keeps is true all the same: reading on gives `reset`.
            if reason := await trio.to_thread.run_sync(service.stranger, cursor):
                raise Refused(reason)
            await service.consumers.commit(name, cursor)
        known = service.consumers.get(name)
        if known is None:
            raise NotFound(f"there is no consumer {name}")
        return JsonResponse(await trio.to_thread.run_sync(service.told, known))


async def _commit_in(request: Request) -> str:
    try:
        return msgspec.json.decode(await request.body(), type=Commit).cursor
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidArgument(
            f'the body is {{"cursor": "EPOCH-POSITION.INDEX"}}: {error}'
        ) from None


def app(service: Service, key: bytes | None) -> ASGIApp:
    """The stream's HTTP."""
    return application(
        daemon="stream",
        key=key,
        health=lambda: {"ok": True, "cursor": str(service.tip.cursor)},
        statistics=service.statistics,
        look=service.look,
        operations=operations(Handlers(service)),
    )


def operations(handlers: Handlers) -> list[Operation]:
    """What can be asked, as `gfs.routes` has it."""
    after = Parameter("after", "inodes above this number", "number", most=(1 << 63) - 1, default=0)
    limit = Parameter("limit", "at most", "number", most=PAGE_INODES_MAX, default=DEFAULT_INODES)
    name = Parameter("name", "the consumer's", where="path")
    rows = "application/x-ndjson"
    one = "/consumers/{name}"
    return [
        Operation("/stream", handlers.stream, "Events, one long answer", _ASKED, answers=rows),
        Operation("/snapshot", handlers.snapshot, "Items of the newest checkpoint", answers=rows),
        Operation("/items", handlers.items, "A page of the state", (after, limit), answers=rows),
        Operation("/position", handlers.position, "Where the log ends"),
        Operation("/consumers", handlers.consumers, "Named consumers and their lag"),
        Operation(one, handlers.consumer, "One of them", (name,)),
        Operation(one, handlers.consumer, "Say how far it has come", (name,), "POST", Commit),
        Operation(one, handlers.consumer, "Forget it", (name,), "DELETE"),
    ]


_ASKED = (
    Parameter("from", "a cursor, start or now", default="start"),
    Parameter("consumer", "go on where this one was, and count as it"),
    Parameter("follow", "0: end where the log ends now", "flag", default=1),
    Parameter("prefix", "only what lies below this directory"),
    Parameter("name", "a shell pattern for the name"),
    Parameter("kind", "insert, modify, remove, copy; with commas between"),
    Parameter("tables", "instead of inodes,dirents"),
    Parameter("operation", "what the record did; with commas between"),
    Parameter("owner", "only items of this user", "number", most=10**18 - 1),
    Parameter("limit", "events at most", "number", most=10**18 - 1),
)
