"""Data directories being emptied: the order passed on to their server, and how far they are.

The mark stands in the directory itself (chunkd.draining). The master makes copies elsewhere of
what the server has no other place for, and tells people.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from gfs import messages as m
from gfs.errors import NotFound, RemoteProtocolError
from gfs.items import SERVERS
from master.core.engine import Engine
from master.core.repair import Repair

ORDER_S = 8.0  # the mark has to be written

Order = Callable[[int, m.Message, float], Awaitable[m.Message]]


async def pass_on(engine: Engine, order: Order, ask: m.DrainDirectory) -> m.DirectoriesDraining:
    """Have the server begin or end; its answer.

    Raises:
      NotFound: there is no such server, or it has no such directory.
      Unreachable: the server is away.
      StorageFailed: the directory does not work.
    """
    if engine.reader.get(SERVERS, (ask.server,)) is None:
        raise NotFound(f"there is no chunk server {ask.server:016x}")
    answer = await order(ask.server, replace(ask, epoch=engine.epoch), ORDER_S)
    if not isinstance(answer, m.DirectoriesDraining):
        raise RemoteProtocolError(f"{type(answer).__name__} is no answer to a drain")
    live = engine.servers.live.get(ask.server)
    if live is not None:
        live.drains = answer.drains
    return answer


def report(engine: Engine, repair: Repair) -> list[dict[str, object]]:
    """Of each directory being emptied, as its server told last.

    `nowhere`: replicas of which neither another directory of the server nor another
    server can take a copy now. `done`: the disk may be taken out.
    """
    return [
        {
            "server": f"{server:016x}",
            "directory": drain.path,
            "replicas_left": drain.replicas_left,
            "bytes_left": drain.bytes_left,
            "nowhere": min(repair.count_stuck(live.outgoing), drain.homeless),
            "done": not drain.replicas_left,
        }
        for server, live in sorted(engine.servers.live.items())
        for drain in live.drains
    ]
