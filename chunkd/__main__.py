"""`gfs chunkd`: one chunk server, until SIGTERM or SIGINT.

Exit codes: 0 stopped as asked, 1 failed, 2 a mistake in arguments, configuration or
data directory.
"""

from __future__ import annotations

import gc
import signal
import sys

import trio

from chunkd.server import ChunkServer
from gfs import logs
from gfs.config import ChunkdConfig, load
from gfs.disk import PosixDisk
from gfs.errors import GfsError, UsageError
from gfs.readiness import announce


async def _run(config: ChunkdConfig) -> None:
    server = ChunkServer(config, PosixDisk())
    gc.freeze()  # the replicas found at the start need no more looking at
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run)
            announce(
                config.ready_file, address=server.address, http=server.http,
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
        trio.run(_run, config, strict_exception_groups=False)
    except (UsageError, GfsError, OSError) as error:
        print(f"gfs chunkd: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
