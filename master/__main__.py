"""`gfs master`: one master, until SIGTERM or SIGINT; SIGHUP has it read its exports again.

Exit codes: 0 stopped as asked, 1 failed, 2 a mistake in arguments, configuration or
data directory.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import trio

from gfs import logs
from gfs.config import load
from gfs.disk import PosixDisk
from gfs.errors import UsageError
from gfs.handshake import load_key
from gfs.running import complain, run_daemon
from gfs.sections import MasterConfig
from master.opening import Opened


def _open(config: MasterConfig) -> Opened:
    """Log and state recovered by a thread; the rest of the program is loaded meanwhile.

    SQLite looks through all pages of the state, which takes longer than the loading.
    """
    with ThreadPoolExecutor(1) as beside:
        opening = beside.submit(Opened, config, PosixDisk())
        from master import daemon, leading  # noqa: F401

        return opening.result()


async def _run(config: MasterConfig, key: bytes) -> None:
    opened = _open(config)
    from master.daemon import Daemon
    from master.leading import until_in_charge

    ends = (signal.SIGTERM, signal.SIGINT)
    with trio.open_signal_receiver(*ends, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:

            async def serve_on() -> None:
                lead = await until_in_charge(opened, key)
                gc.freeze()
                await Daemon(opened, key, lead).run()

            nursery.start_soon(serve_on)
            async for number in signals:
                if number in ends:
                    nursery.cancel_scope.cancel()
                    break
                opened.read_exports()
    opened.ledger.close()
    with suppress(OSError):
        os.unlink(config.unix)


def main(argv: Sequence[str]) -> int:
    """Run with the command line `argv`; returns the exit code."""
    try:
        config, _ = load("master", argv)
        if not config.data_dir:
            raise UsageError("master: --data-dir is needed")
        logs.set_up(config.log_level, config.log_file)
        key = load_key(Path(config.key_file))
    except UsageError as error:
        return complain("gfs master", error)
    return run_daemon("gfs master", partial(_run, config, key))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
