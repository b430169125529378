"""The change stream's process: started with the master, started again if it ends."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import trio

from gfs import readiness
from gfs.errors import StorageFailed
from gfs.sections import MasterConfig
from master.ledger import Ledger

log = logging.getLogger(__name__)

START_S = 20.0
PAUSE_S = 1.0
END_S = 5.0
# The process of a master that was killed may still have the port when this one asks for it.
FIRST_TRIES = 3


def _command(
    config: MasterConfig, ledger: Ledger, cluster: str, http: str, ready: Path
) -> list[str]:
    directory = ledger.directory
    given = {
        "--log": directory / "log",
        "--committed": directory / "committed",
        "--state": ledger.state.path,
        "--checkpoints": ledger.checkpoints,
        "--consumers": directory / "consumers.db",
        "--cluster-id": cluster,
        "--readers-max": config.stream_readers,
        "--key-file": config.key_file,
        "--http": http,
        "--unix": config.stream_unix,
        "--ready-file": ready,
        "--parent": os.getpid(),
        "--log-level": config.log_level,
    }
    flags = [str(word) for pair in given.items() for word in pair]
    return [sys.executable, "-m", "master.stream", *flags]


async def keep_stream(
    config: MasterConfig,
    ledger: Ledger,
    cluster: str,
    *,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Tells `task_status` the address; the same one is used again after a crash.

    Raises:
      StorageFailed: it could not be started at all, in a few tries.
    """
    http, told, tries = config.stream_http, False, 0
    ready = ledger.directory / "stream-ready"
    while True:
        ready.unlink(missing_ok=True)
        process = await trio.lowlevel.open_process(
            _command(config, ledger, cluster, http, ready), stdin=None
        )
        try:
            bound = await _until_ready(process, ready)
            tries += 1
            if not bound and not told:
                if tries == FIRST_TRIES:
                    raise StorageFailed("the change stream's process did not start")
                log.warning("stream.not_started tries=%d", tries)
            else:
                http = bound or http
                if not told:
                    task_status.started(http)
                    told = True
                code = await process.wait()
                log.error("stream.ended code=%d", code)
        finally:
            await _end(process)
        await trio.sleep(PAUSE_S)


async def _end(process: trio.Process) -> None:
    """Until it has ended: the next master wants its port, and nobody is to be left behind."""
    process.terminate()
    with trio.move_on_after(END_S, shield=True):
        await process.wait()
    process.kill()


async def _until_ready(process: trio.Process, ready: Path) -> str:
    with trio.move_on_after(START_S):
        while process.returncode is None:
            found = readiness.read(ready)
            if found is not None:
                return found.stream_http
            await trio.sleep(0.02)
            process.poll()
    return ""
