"""`gfs master`: one master, until SIGTERM or SIGINT.

Exit codes: 0 stopped as asked, 1 failed, 2 a mistake in arguments, configuration or
data directory.
"""

from __future__ import annotations

import gc
import logging
import os
import random
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import trio

from gfs import logs, readiness
from gfs.config import load
from gfs.disk import PosixDisk
from gfs.errors import UsageError
from gfs.handshake import listen, load_key, serve
from gfs.http import application, serve_http
from gfs.running import complain, run_daemon
from gfs.sections import MasterConfig
from master.core.decision import Policy
from master.core.master import Master
from master.housekeeping import Housekeeping
from master.leading import until_in_charge
from master.ledger import Ledger
from master.opening import Opened
from master.promoting import Lead
from master.server import Server
from master.streaming import keep_stream

log = logging.getLogger(__name__)

SILENCE_S = 1.5  # of a chunk server, then it is down; mounts are judged by their lease
NS = 1_000_000_000


def _policy(config: MasterConfig) -> Policy:
    return Policy(
        config.chunk_bytes,
        config.goal,
        config.write_min,
        int(config.trash_min_age_s * NS),
        int(config.reclaim_delay_s * NS),
        int(config.trash_keep_s * NS),
        config.trash_min_free_percent,
        repair_delay_s=config.repair_delay_s,
        repair_streams=config.repair_streams,
        rebalance_bytes_per_s=config.rebalance_bytes_per_s,
        rebalance_band=config.rebalance_band,
        scattered_extents=config.scattered_extents,
    )


def _core(ledger: Ledger, config: MasterConfig, wait_s: float) -> Master:
    """The core on the recovered state; numbers drawn at random come from the system."""
    return Master(
        ledger.state,
        ledger.state.reader(),
        policy=_policy(config),
        epoch=ledger.epoch,
        position=ledger.position,
        last_time_ns=ledger.last_time_ns,
        random=random.SystemRandom(),
        lease_s=config.cache_lease_s,
        safe_start_s=config.safe_start_s,
        now_s=trio.current_time(),
        record_at=ledger.record_at,
        not_before_s=trio.current_time() + wait_s,
    )


class Daemon:
    """Everything of a master in charge, whose epoch is begun, to the last answer."""

    def __init__(self, opened: Opened, key: bytes, lead: Lead) -> None:
        config = self.config = opened.config
        self.key = key
        self.cluster = opened.cluster
        self.ledger = opened.ledger
        self.core = _core(self.ledger, config, lead.wait_s)
        self.core.shadows.own = opened.node
        self.server = Server(self.ledger, self.core, key=key, cluster=self.cluster)
        self.keeping = Housekeeping(
            self.ledger,
            self.core.engine.sessions.marks,
            checkpoint_records=config.checkpoint_records,
            retain_bytes=config.log_retain_bytes,
        )

    async def run(self) -> None:
        """Serve until a signal."""
        config = self.config
        listeners = listen(config.address, config.unix)
        bound = "{}:{}".format(*listeners[0].getsockname()[:2])
        app = application(
            daemon="master",
            key=self.key,
            health=lambda: {"ok": True, "epoch": self.ledger.epoch},
            statistics=self.server.statistics,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.server.run)
            nursery.start_soon(self.keeping.run)
            nursery.start_soon(
                partial(serve, listeners, self.server.handle, silence_limit_s=SILENCE_S)
            )
            http = await nursery.start(serve_http, app, config.http, config.http_unix)
            stream = await nursery.start(keep_stream, config, self.ledger, self.cluster)
            readiness.announce(
                config.ready_file,
                address=config.advertise or bound,
                http=http,
                stream_http=stream,
                epoch=self.ledger.epoch,
            )
            log.info(
                "master.serving address=%s epoch=%d position=%d",
                bound,
                self.ledger.epoch,
                self.ledger.position,
            )


async def _run(config: MasterConfig, key: bytes) -> None:
    opened = Opened(config, PosixDisk())
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with trio.open_nursery() as nursery:

            async def serve_on() -> None:
                lead = await until_in_charge(opened, key)
                gc.freeze()
                await Daemon(opened, key, lead).run()

            nursery.start_soon(serve_on)
            async for _ in signals:
                nursery.cancel_scope.cancel()
                break
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
