"""`gfs chunkd`: one chunk server, until SIGTERM or SIGINT.

Exit codes: 0 stopped as asked, 1 failed, 2 a mistake in arguments, configuration or
data directory.
"""

from __future__ import annotations

import gc
import signal
import sys
from functools import partial

import trio

from chunkd.server import ChunkServer
from gfs import logs
from gfs.config import ChunkdConfig, load
from gfs.disk import PosixDisk
from gfs.errors import GfsError, Refused, UsageError
from gfs.readiness import announce
from gfs.running import complain, run_daemon

NAME = "gfs chunkd"


async def _run(server: ChunkServer, ready_file: str) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run)
            announce(
                ready_file, address=server.address, http=server.http,
                epoch=server.machine.epoch, server=server.server,
            )  # fmt: skip
            async for _ in signals:
                server.stop.set()
                break


def main(argv: list[str]) -> int:
    """Run with the command line `argv`; returns the exit code."""
    try:
        config, _ = load("chunkd", argv)
        logs.set_up(config.log_level, config.log_file)
        server = _take_hold(config)
    except (UsageError, GfsError, OSError) as error:
        return complain(NAME, error)
    gc.freeze()  # the replicas found at the start need no more looking at
    return run_daemon(NAME, partial(_run, server, config.ready_file))


def _take_hold(config: ChunkdConfig) -> ChunkServer:
    try:
        return ChunkServer(config, PosixDisk())
    except Refused as error:  # whoever chose the directory can mend it
        raise UsageError(str(error)) from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
