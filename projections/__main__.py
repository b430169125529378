"""`python -m projections`: keep views of the metadata and answer questions on them.

One process may keep one view or all of them; their queries are then below
``/search/...`` and ``/analytics/...`` as well, and the first one's also at the top.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import trio
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp

from gfs import config as configuration
from gfs import logs, readiness
from gfs.config import ProjectionsConfig
from gfs.errors import GfsError, UsageError
from gfs.handshake import load_key
from gfs.http import application, serve_http
from gfs.running import first_of
from projections.analytics_view import AnalyticsView
from projections.projection import Projection, choose
from projections.queries import QueryService
from projections.search_view import SearchView
from projections.stream_source import StreamSource
from projections.worker import View

log = logging.getLogger(__name__)

BUILT_IN: tuple[type[Projection], ...] = (SearchView, AnalyticsView)


def views_of(config: ProjectionsConfig, key: bytes | None) -> list[View]:
    """The views that this process keeps.

    Raises: UsageError.
    """
    if not config.data_dir:
        raise UsageError("projections: data_dir is not set")
    if not config.stream and not config.stream_unix:
        raise UsageError("projections: stream is not set")
    source = StreamSource(config.stream, config.stream_unix, key)
    return [View(one(config), config, source) for one in choose(BUILT_IN, config.view)]


def app(views: list[View], config: ProjectionsConfig, key: bytes | None) -> ASGIApp:
    """Queries, status, health and metrics of the views."""
    routes: list[BaseRoute] = []
    for view in views:
        service = QueryService(view, config)
        own = [Route("/status", service.show_status), *view.projection.routes(service)]
        routes.append(Mount(f"/{view.name}", routes=own))
        if view is views[0]:
            routes += own
    return application(
        daemon="projections",
        key=key,
        health=lambda: {
            "ok": all(view.store is not None for view in views),
            "views": {view.name: str(view.cursor) for view in views},
        },
        statistics=lambda: {view.name: view.statistics() for view in views},
        routes=routes,
    )


async def serve(views: list[View], config: ProjectionsConfig, key: bytes | None) -> None:
    """Run until SIGTERM or SIGINT.

    Raises: UsageError, GfsError.
    """
    stop = trio.Event()
    for view in views:
        view.lock()
    async with trio.open_nursery() as nursery:
        for view in views:
            nursery.start_soon(view.run)

        async def http(task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
            await serve_http(
                app(views, config, key),
                config.http,
                config.unix,
                stop=stop,
                task_status=task_status,
            )
            nursery.cancel_scope.cancel()

        bound = await nursery.start(http)
        readiness.announce(config.ready_file, http=bound)
        log.info("projections.serving http=%s views=%s", bound, [view.name for view in views])
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for number in signals:
                log.info("projections.stopping signal=%d", number)
                stop.set()
                break


def main(argv: Sequence[str] | None = None) -> int:
    """Run the projections; 2 for a mistake of the caller, 1 for a failure."""
    try:
        config, _ = configuration.load("projections", sys.argv[1:] if argv is None else argv)
        logs.set_up(config.log_level, config.log_file)
        key = load_key(Path(config.key_file)) if config.key_file else None
        views = views_of(config, key)
        trio.run(serve, views, config, key)
    except (UsageError, GfsError) as error:
        print(f"gfs: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except BaseExceptionGroup as group:
        known = group.subgroup((UsageError, GfsError))
        if known is None or group.split((UsageError, GfsError))[1] is not None:
            raise
        first = first_of(known)
        print(f"gfs: {first}", file=sys.stderr)
        return 2 if isinstance(first, UsageError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
