"""A master in charge: core, ledger, connections, and the order in which it comes up.

First of all it answers mounts and chunk servers. HTTP and the change stream, a process
that takes long to load, come when those that were there before are back.
"""

from __future__ import annotations

import logging
import random
from functools import partial

import trio

from gfs import readiness
from gfs.handshake import listen, serve
from gfs.sections import MasterConfig
from master.core.decision import Policy
from master.core.master import Master
from master.housekeeping import Housekeeping
from master.ledger import Ledger
from master.opening import Opened
from master.promoting import Lead
from master.server import Server
from master.web import start_web

log = logging.getLogger(__name__)

SILENCE_S = 1.5  # of a chunk server, then it is down; mounts are judged by their lease
BACK_S = 0.5  # then HTTP and the change stream wait for mounts no longer
LOOK_S = 0.02
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
        quota_grace_ns=int(config.quota_grace_s * NS),
    )


def core_of(ledger: Ledger, config: MasterConfig, wait_s: float) -> Master:
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
        self.core = core_of(self.ledger, config, lead.wait_s)
        self.core.shadows.own = opened.node
        self.server = Server(
            self.ledger, self.core, key=key, cluster=self.cluster, exports=opened.exports
        )
        self.keeping = Housekeeping(
            self.ledger,
            self.core.engine.sessions.marks,
            checkpoint_records=config.checkpoint_records,
            retain_bytes=config.log_retain_bytes,
            retain_s=config.log_retain_s,
        )

    async def run(self) -> None:
        """Serve until a signal."""
        listeners = listen(self.config.address, self.config.unix)
        bound = "{}:{}".format(*listeners[0].getsockname()[:2])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.server.run)
            nursery.start_soon(self.keeping.run)
            nursery.start_soon(
                partial(serve, listeners, self.server.handle, silence_limit_s=SILENCE_S)
            )
            log.info(
                "master.serving address=%s epoch=%d position=%d",
                bound,
                self.ledger.epoch,
                self.ledger.position,
            )
            await self._until_all_are_back()
            http, stream = await start_web(
                nursery, self.config, self.ledger, self.cluster, self.key, self.server.statistics
            )
            readiness.announce(
                self.config.ready_file,
                address=self.config.advertise or bound,
                http=http,
                stream_http=stream,
                epoch=self.ledger.epoch,
            )

    async def _until_all_are_back(self) -> None:
        """Mounts that were there before come first: their programs stand still."""
        for _ in range(int(BACK_S / LOOK_S)):
            if self.core.engine.sessions.gate_open():
                return
            await trio.sleep(LOOK_S)
