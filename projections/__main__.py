"""`python -m projections`: keep views of the metadata and answer questions on them.

One process may keep one view or all of them. The queries of each are below its name,
``/search/...``, ``/analytics/...``, and those of the first one also at the top.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import trio
from starlette.types import ASGIApp

from gfs import config as configuration
from gfs import logs, readiness
from gfs.config import ProjectionsConfig
from gfs.errors import GfsError, UsageError
from gfs.handshake import load_key
from gfs.http import application
from gfs.routes import Operation
from gfs.running import first_of, prepare_process
from gfs.serving import serve_http
from projections.analytics_queries import AnalyticsQueries
from projections.analytics_routes import sql_operations as sql_of_duckdb
from projections.analytics_view import AnalyticsView
from projections.control import Control, list_operation
from projections.projection import Projection, SqliteProjection, choose
from projections.queries import QueryService
from projections.search_queries import SearchQueries
from projections.search_routes import sql_operations as sql_of_sqlite
from projections.search_view import SearchView
from projections.stream_source import StreamSource
from projections.verifier import Verifier
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
    source = source_of(config, key)
    return [View(one(config), config, source) for one in choose(BUILT_IN, config.view)]


def source_of(config: ProjectionsConfig, key: bytes | None) -> StreamSource:
    """Where the change stream is."""
    return StreamSource(config.stream, config.stream_unix, key)


def operations_of(control: Control) -> list[Operation]:
    """All that one view can be asked."""
    service = control.service
    projection = service.view.projection
    own = [*control.operations(), *projection.operations(service)]
    if not any(one.path == "/sql" for one in own):  # which every view has
        if isinstance(projection, SqliteProjection):
            own += sql_of_sqlite(SearchQueries(service))
        else:
            own += sql_of_duckdb(AnalyticsQueries(service))
    return own


def controls_of(views: list[View], config: ProjectionsConfig, key: bytes | None) -> list[Control]:
    """Queries and verification of each view; the latter reads the stream on its own."""
    source = source_of(config, key)
    return [Control(QueryService(view, config), Verifier(view, config, source)) for view in views]


def app(
    views: list[View],
    config: ProjectionsConfig,
    key: bytes | None,
    controls: list[Control] | None = None,
) -> ASGIApp:
    """Queries, status, health and metrics of the views."""
    controls = controls_of(views, config, key) if controls is None else controls
    table = [list_operation(controls)]
    for number, control in enumerate(controls):
        own = operations_of(control)
        table += [replace(one, path=f"/{control.name}{one.path}") for one in own]
        table += own if number == 0 else []
    return application(
        daemon="projections",
        key=key,
        health=lambda: {
            "ok": all(view.store is not None for view in views),
            "views": {view.name: str(view.cursor) for view in views},
        },
        statistics=lambda: {control.name: control.statistics() for control in controls},
        operations=table,
    )


async def serve(views: list[View], config: ProjectionsConfig, key: bytes | None) -> None:
    """Run until SIGTERM or SIGINT.

    Raises: UsageError, GfsError.
    """
    stop = trio.Event()
    for view in views:
        view.lock()
    controls = controls_of(views, config, key)
    async with trio.open_nursery() as nursery:
        for view, control in zip(views, controls, strict=True):
            nursery.start_soon(view.run)
            nursery.start_soon(control.verifier.run)

        async def http(task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
            await serve_http(
                app(views, config, key, controls),
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
    prepare_process()
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
