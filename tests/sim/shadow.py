"""A shadow master that follows through crashes, and must hold a prefix of the master's log.

The product's follower on a directory of its own: its log on a simulated disk, state and
checkpoints on the host's memory. It begins anew only when the master's log has been cut
behind what it has, and never comes back without what it has confirmed. Serving reads and
taking over are not part of this.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gfs.disk import Disk, File
from gfs.items import LANDED, TABLES
from gfs.sections import MasterConfig
from master.follower import BeginAnew, Follower
from master.leading import _begin_anew
from master.opening import Opened
from tests.sim.interpose import KEY
from tests.sim.kernel import SimulationError
from tests.sim.nodes import CLUSTER, MASTER, SEGMENT_BYTES, Machine, MasterDisk, let_go
from tests.sim.tables import dump

if TYPE_CHECKING:
    from master.ledger import Ledger
    from tests.sim.disk import SimDisk
    from tests.sim.kernel import World
    from tests.sim.network import Network
    from tests.sim.nodes import MasterMachine

ADDRESS = "shadow:1"
ANEW, SHADOWED = "shadow begun anew", "clusters with a shadow"
ON_HOST = ("state.db", "checkpoints", "incoming", "committed")


class ShadowDisk(MasterDisk):
    """As the master's, and what is put aside goes to where it came from."""

    def __init__(self, root: Path, simulated: SimDisk) -> None:
        super().__init__(root, simulated)
        self._root = root

    def _disk(self, path: Path) -> Disk:
        below = str(path).removeprefix(f"{self._root}/")
        return self._host if below.startswith(ON_HOST) else self._simulated

    def mkdir(self, path: Path, *, parents: bool = False) -> None:
        if _is_aside(path):
            self._host.mkdir(path, parents=parents)
        self._disk(path).mkdir(path, parents=parents)

    def exists(self, path: Path) -> bool:
        return self._disk(path).exists(path) or (self._host.exists(path) and _is_aside(path))

    def sync_directory(self, path: Path) -> None:
        if self._disk(path) is self._simulated:
            self._simulated.sync_directory(path)

    def lock(self, path: Path) -> File:
        return self._simulated.lock(path)


def _is_aside(path: Path) -> bool:
    """Is it where an old log and state are put aside?"""
    return path.name.startswith("before-")


class ShadowMachine(Machine):
    """The one shadow.

    Attributes:
      ledger: of the process that runs, once it has recovered.
    """

    def __init__(
        self, world: World, network: Network, root: Path, master: MasterMachine, *, rate: float
    ) -> None:
        super().__init__(world, network, "shadow", rate=rate)
        self.ledger: Ledger | None = None
        self._confirmed = 0  # what the master had heard of when it died
        self._master = master
        self._root = root
        self._chance = world.random("shadow's state")
        root.mkdir(parents=True)
        self._disks = ShadowDisk(root, self.disk)
        master.witness.did(SHADOWED)

    async def main(self) -> None:
        config = MasterConfig(
            data_dir=str(self._root), cluster_id=CLUSTER, follow=MASTER,
            log_segment_bytes=SEGMENT_BYTES,
        )  # fmt: skip
        opened = Opened(config, self._disks)
        if opened.ledger.position < self._confirmed:
            raise SimulationError(f"the shadow has lost record {self._confirmed}, once confirmed")
        while True:
            self.ledger = opened.ledger
            try:
                await Follower(opened, ADDRESS, KEY).run()
            except BeginAnew as anew:
                self._check_reason(opened.ledger.position)
                self._master.witness.did(ANEW)
                self.ledger, self._confirmed = None, 0
                _begin_anew(opened, anew)

    def _check_reason(self, position: int) -> None:
        leading = self._master.ledger
        if leading is not None and leading.log.first_position <= position <= leading.position:
            raise SimulationError(f"the shadow begins anew, though record {position} is known")

    def gone(self, *, power: bool) -> None:
        """SQLite's connections end; a power loss may take all of the state."""
        ledger, self.ledger = self.ledger, None
        if ledger is not None and self._master.core is not None:
            followers = self._master.core.shadows.followers.values()
            self._confirmed = max([self._confirmed, *(one.position for one in followers)])
        if ledger is not None:
            let_go(ledger)
        if power and self._chance.random() < 0.5:
            (self._root / "state.db").unlink(missing_ok=True)
            (self._root / "committed").unlink(missing_ok=True)

    def behind(self) -> int:
        """Records that it still has to get."""
        leading = self._master.ledger
        if self.ledger is None or leading is None:
            return 1
        return leading.position - self.ledger.position


def check_shadow(shadow: ShadowMachine, master: MasterMachine) -> None:
    """Its log is the master's, as far as it goes; its state is the master's once it has all."""
    ours, theirs = master.ledger, shadow.ledger
    assert ours is not None
    assert theirs is not None
    payloads = dict(master.witness.scan(ours, 1))
    for found in theirs.log.scan(int(theirs.log.first_position)):
        if payloads.get(int(found.position)) != found.payload:
            raise SimulationError(f"the shadow's record {found.position} is not the master's")
    if theirs.position != ours.position:
        raise SimulationError(f"the shadow ends at {theirs.position}, the log at {ours.position}")
    for table in TABLES:
        if table != LANDED and dump(theirs.state, table) != dump(ours.state, table):
            raise SimulationError(f"the shadow's state differs in {table}")
