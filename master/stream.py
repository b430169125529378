"""The change stream's server: a process of its own beside the master.

It reads log files up to the committed position and nothing else, so a hundred slow
readers never hold the master up. ``GET /stream`` answers with one long response of
NDJSON: events, and while nothing happens a heartbeat each second that says how far
the log was scanned. A cursor that is not of this log, or older than what it keeps,
gets a `reset` line; the reader then asks ``GET /snapshot``. How far named
consumers have come is kept in a file of its own.

Ends when the master, its parent, ends.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from gfs import logs, readiness
from gfs.errors import GfsError, UsageError
from gfs.handshake import load_key
from gfs.running import prepare_process
from gfs.serving import Deferred, serve_http
from master.stream_service import READERS_MAX, Service

if TYPE_CHECKING:
    from starlette.types import ASGIApp

log = logging.getLogger(__name__)

NICE = 3  # where the processor is short of time the master answers first
CONNECTIONS_BESIDES = 64  # of readers: those who commit, ask, measure


async def serve(
    service: Service, key: bytes | None, address: str, unix: str = "", ready_file: str = ""
) -> None:
    """Serve until `service.stop` is set or this is cancelled."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(service.tip.run)
        nursery.start_soon(service.consumers.run)

        async def http(task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
            await serve_http(
                Deferred(partial(_application, service, key)),
                address,
                unix,
                stop=service.stop,
                connections_max=2 * service.readers_max + CONNECTIONS_BESIDES,
                task_status=task_status,
            )
            nursery.cancel_scope.cancel()

        bound = await nursery.start(http)
        readiness.announce(ready_file, stream_http=bound, epoch=service.tip.epoch)
        log.info("stream.serving http=%s unix=%s position=%s", bound, unix, service.tip.cursor)
    service.close()


def _application(service: Service, key: bytes | None) -> ASGIApp:
    from master.stream_handlers import app

    return app(service, key)


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
            with suppress(ProcessLookupError):  # gone already
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
    parser.add_argument("--consumers", type=Path, help="file of named consumers' positions")
    parser.add_argument("--cluster-id", required=True)
    parser.add_argument("--readers-max", type=int, default=READERS_MAX, help="at the same time")
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
    os.nice(NICE)
    prepare_process()
    logs.set_up(given.log_level, given.log_file)
    try:
        key = load_key(Path(given.key_file)) if given.key_file else None
        service = Service(
            log_directory=given.log,
            committed=given.committed,
            state=given.state,
            checkpoints=given.checkpoints,
            consumers=given.consumers or given.committed.with_name("consumers.db"),
            cluster_id=given.cluster_id,
            readers_max=given.readers_max,
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
