"""What a simulated cluster consists of, for those who break it and those who look at it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.sim.kernel import World
from tests.sim.network import Network
from tests.sim.nodes import ChunkMachine, ClientMachine, Machine, MasterMachine
from tests.sim.oracle import Oracle
from tests.sim.requests import Requests
from tests.sim.shadow import ShadowMachine


@dataclass
class Parts:
    """Machines and witnesses of one seed. `say` prints a line of the trace."""

    world: World
    network: Network
    oracle: Oracle
    requests: Requests
    say: Callable[[str], None]
    master: MasterMachine
    servers: list[ChunkMachine] = field(default_factory=list)
    clients: list[ClientMachine] = field(default_factory=list)
    shadow: ShadowMachine | None = None

    @property
    def machines(self) -> list[Machine]:
        """All of them."""
        shadows = [self.shadow] if self.shadow is not None else []
        return [self.master, *self.servers, *self.clients, *shadows]
