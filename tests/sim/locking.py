"""Locks of the cluster in the simulation: nobody acts under one after the next holder has.

Whoever holds a lock acts again and again, each time after a look at its own clock, as a
program does that calls `require`. By true time no act may come after one of a later grant,
unless both are shared.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

import trio

from gfs.client.client import open_client
from gfs.client.filesystem import Filesystem
from gfs.client.settings import Callbacks, ClientSettings
from tests.sim.interpose import KEY
from tests.sim.nodes import CLUSTER, MASTER
from tests.sim.workload import LOGS

if TYPE_CHECKING:
    from tests.sim.view import View

PAUSE_S = 2.0
ACT_S = 0.2
HELD_S = (0.5, 3.0, 15.0)  # the longest is longer than a lease
TIMEOUT_S = 20.0
CONNECT_S = 5.0


class Locker:
    """Somebody at one host who runs commands under locks, each in a session of its own."""

    def __init__(self, view: View, chance: Random, until: Callable[[], bool]) -> None:
        self._view = view
        self._chance = chance
        self._until = until

    async def run(self) -> None:
        """One lock after another."""
        while not self._until():
            await trio.sleep(self._chance.random() * PAUSE_S)
            await self._view.call("lock", self._hold(b"/" + self._chance.choice(LOGS)))

    async def _hold(self, path: bytes) -> bool:
        view, chance = self._view, self._chance
        settings = ClientSettings(
            master=MASTER, key=KEY, cluster=CLUSTER, connect_timeout_s=CONNECT_S
        )
        shared, enough = chance.random() < 0.3, view.world.now + chance.choice(HELD_S)
        async with open_client(settings, callbacks=Callbacks(groups_of=lambda _: ())) as client:
            files = Filesystem(client, client.actor)
            async with files.lock(path, shared=shared, timeout_s=TIMEOUT_S) as held:
                while view.world.now < enough:
                    held.require()
                    where = f"{view.name} at {view.world.now:.3f} s"
                    view.oracle.acts(path).act(held.fence, shared, where)
                    await trio.sleep(chance.random() * ACT_S)
        return True
