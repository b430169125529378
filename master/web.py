"""What a master in charge has on HTTP: health and numbers, and the change stream's process.

Started once the master answers, since nobody waits for it.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from gfs.sections import MasterConfig
from gfs.serving import common_application, serve_http
from master.ledger import Ledger
from master.streaming import keep_stream


async def start_web(
    nursery: trio.Nursery,
    config: MasterConfig,
    ledger: Ledger,
    cluster: str,
    key: bytes,
    statistics: Callable[[], object],
) -> tuple[str, str]:
    """Start both in `nursery`; their addresses, once they are there.

    Raises:
      UsageError: an address cannot be bound. StorageFailed: the stream does not start.
    """
    app = common_application(
        daemon="master",
        key=key,
        health=lambda: {"ok": True, "epoch": ledger.epoch},
        statistics=statistics,
    )
    http: str = await nursery.start(serve_http, app, config.http, config.http_unix)
    stream: str = await nursery.start(keep_stream, config, ledger, cluster)
    return http, stream
