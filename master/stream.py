"""The change stream's server: a process of its own beside the master.

It reads log files up to the committed position and nothing else, so a hundred slow
readers never hold the master up. ``GET /stream`` answers with one long response of
NDJSON: events, and while nothing happens a heartbeat each second that says how far
the log was scanned. A cursor that is not of this log, or older than what it keeps,
gets a `reset` line; the reader then asks ``GET /snapshot``.

Ends when the master, its parent, ends.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from gfs import changes, logs, readiness
from gfs.errors import GfsError, InvalidArgument, NotReady, UsageError
from gfs.handshake import load_key
from gfs.http import JsonResponse, application, serve_http
from master import stream_items
from master.state import open_reader
from master.stream_filter import Filter
from master.stream_responses import Asked, SnapshotResponse, StreamResponse
from master.stream_service import Service
from master.stream_snapshot import snapshot_lines

log = logging.getLogger(__name__)


class Handlers:
    """The routes of the stream."""

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
        start = {"start": changes.START, "now": service.tip.cursor}.get(asked.start)
        cursor = start or changes.parse_cursor(asked.start)
        refusal = await trio.to_thread.run_sync(service.refusal, cursor)
        following = cursor.position + (cursor.rank == changes.WHOLE_RECORD)
        subtree = None
        if asked.prefix and not refusal:
            subtree = await trio.to_thread.run_sync(service.subtree, asked.prefix, following)
        chosen = Filter(asked.tables, asked.kinds, subtree)
        return StreamResponse(service, cursor, chosen, asked, refusal)

    async def snapshot(self, request: Request) -> Response:
        """``GET /snapshot``."""
        service = self._service
        path = await trio.to_thread.run_sync(service.checkpoint)
        if path is None and service.first_position() > 1:
            raise NotReady("there is no checkpoint yet")
        service.figures.snapshots_total += 1
        return SnapshotResponse(snapshot_lines(path))

    async def items(self, request: Request) -> Response:
        """``GET /items?after=INO&limit=N``: a page of the state as it is now."""
        query = request.query_params
        if strange := set(query) - {"after", "limit"}:
            raise InvalidArgument(f"unknown parameter {min(strange)!r}")
        after = stream_items.number(query.get("after", "0"), "after", (1 << 63) - 1)
        most = stream_items.PAGE_INODES_MAX
        text = query.get("limit", str(stream_items.DEFAULT_INODES))
        limit = stream_items.number(text, "limit", most)
        content = await trio.to_thread.run_sync(self._items, after, limit)
        return Response(content, media_type="application/x-ndjson")

    def _items(self, after: int, limit: int) -> bytes:
        with closing(open_reader(self._service.state)) as state:
            return stream_items.page(state, after, limit)


def app(service: Service, key: bytes | None) -> ASGIApp:
    """The stream's HTTP."""
    handlers = Handlers(service)
    return application(
        daemon="stream",
        key=key,
        health=lambda: {"ok": True, "cursor": str(service.tip.cursor)},
        statistics=service.statistics,
        routes=[
            Route("/stream", handlers.stream),
            Route("/snapshot", handlers.snapshot),
            Route("/position", handlers.position),
            Route("/items", handlers.items),
        ],
    )


async def serve(
    service: Service, key: bytes | None, address: str, unix: str = "", ready_file: str = ""
) -> None:
    """Serve until `service.stop` is set or this is cancelled."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(service.tip.run)

        async def http(task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
            await serve_http(
                app(service, key), address, unix, stop=service.stop, task_status=task_status
            )
            nursery.cancel_scope.cancel()

        bound = await nursery.start(http)
        readiness.announce(ready_file, stream_http=bound, epoch=service.tip.epoch)
        log.info("stream.serving http=%s unix=%s position=%s", bound, unix, service.tip.cursor)
    service.pool.close()


async def _until_told(stop: trio.Event, parent: int) -> None:
    """Set `stop` at SIGTERM, SIGINT, or when the parent is gone."""
    async with trio.open_nursery() as nursery:

        async def signalled() -> None:
            with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                async for _ in signals:
                    break
            nursery.cancel_scope.cancel()

        nursery.start_soon(signalled)
        if parent:
            # Not PR_SET_PDEATHSIG: that follows the thread that forked, not the process.
            descriptor = os.pidfd_open(parent)
            if os.getppid() == parent:
                await trio.lowlevel.wait_readable(descriptor)
            log.info("stream.orphaned parent=%d", parent)
            nursery.cancel_scope.cancel()
    stop.set()


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m master.stream", description="change stream")
    parser.add_argument("--log", type=Path, required=True, help="directory of the operation log")
    parser.add_argument("--committed", type=Path, required=True, help="committed position's file")
    parser.add_argument("--state", type=Path, required=True, help="the master's state")
    parser.add_argument("--checkpoints", type=Path, required=True, help="directory of checkpoints")
    parser.add_argument("--cluster-id", required=True)
    parser.add_argument("--key-file", default="", help="none: only the Unix socket serves")
    parser.add_argument("--http", default="127.0.0.1:0", help="HOST:PORT to listen on")
    parser.add_argument("--unix", default="", help="Unix socket to listen on")
    parser.add_argument("--ready-file", default="")
    parser.add_argument("--parent", type=int, default=0, help="pid with which to end")
    parser.add_argument("--log-level", default="info")
    parser.add_argument("--log-file", default="")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stream's server; exit code 2 for a mistake of the caller."""
    given = _arguments(sys.argv[1:] if argv is None else argv)
    logs.set_up(given.log_level, given.log_file)
    try:
        key = load_key(Path(given.key_file)) if given.key_file else None
        service = Service(
            log_directory=given.log,
            committed=given.committed,
            state=given.state,
            checkpoints=given.checkpoints,
            cluster_id=given.cluster_id,
        )
        trio.run(_run, service, key, given)
    except (UsageError, GfsError) as error:
        print(f"gfs: {error}", file=sys.stderr)
        return 2
    return 0


async def _run(service: Service, key: bytes | None, given: argparse.Namespace) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_until_told, service.stop, given.parent)
        await serve(service, key, given.http, given.unix, given.ready_file)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    sys.exit(main())
