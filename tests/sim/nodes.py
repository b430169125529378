"""The machines of the simulated cluster: each a disk, and a process when one runs.

What runs are the production shells: the master's loop over its ledger, `ChunkServer` from
its start to its heartbeats, the client library. Only host, network and threads are not
there (see interpose).
"""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from chunkd.server import ChunkServer
from gfs.disk import Disk, File, PosixDisk
from gfs.sections import ChunkdConfig, MasterConfig
from master.core.master import Master
from master.daemon import core_of
from master.ledger import Ledger
from master.server import Server
from tests.sim.disk import ENDLESS_BYTES, SimDisk
from tests.sim.interpose import KEY
from tests.sim.keeping import Keeping, Witness
from tests.sim.kernel import Process, SimulationError

if TYPE_CHECKING:
    from tests.sim.kernel import World
    from tests.sim.network import Network

CLUSTER = "simulated"
MASTER = "master:1"
SILENCE_S = 1.5
SEGMENT_BYTES = 16 * 1024
SCRUB_S = 20.0  # in which every block is verified once
OLD_STATE, NO_STATE = "old state", "no state"
RESTORED = "states restored from a checkpoint"


class Machine:
    """A host with one program. `start`, `kill`, `lose_power`; again and again.

    Attributes:
      process: what runs, or ran last.
      restarts: how often it was started.
      needed: is to be started again when it has died.
      died_in: the operation of the disk in which its power went last.
    """

    def __init__(self, world: World, network: Network, name: str, *, rate: float) -> None:
        self.world = world
        self.network = network
        self.name = name
        self.rate = rate
        self.disk = SimDisk(f"{world.seed}/{name}")
        self.disk.on_power_loss = self._died_inside
        self.disk.before_operation = self._operation
        self.process: Process | None = None
        self.restarts = 0
        self.boots = 1
        self.wall_skew_ns = 0
        self.disk_delay_s = 0.0
        self.needed = True
        self.died_in = ""

    def set_disk_delay(self, delay_s: float) -> None:
        """How long the disk takes from now on."""
        self.disk_delay_s = delay_s
        if self.process is not None:
            self.process.disk_delay_s = delay_s

    def note_loss(self) -> None:
        """Its power goes, or will go any time."""

    @property
    def alive(self) -> bool:
        """Is its process there (perhaps stopped)?"""
        return self.process is not None and not self.process.dead

    def start(self) -> None:
        """Run the program, on whatever the disk holds."""
        assert not self.alive
        self.network.off.discard(self.name)
        process = self.process = Process(
            self.world, self.name, rate=self.rate, wall_skew_ns=self.wall_skew_ns
        )
        process.boot = f"{self.name}/{self.boots}"
        process.disk_delay_s = self.disk_delay_s
        process.on_exit.append(lambda: self._exited(process))
        self.world.note(f"{self.name}: started, {self.restarts + 1}")
        self.restarts += 1
        process.start(self._run)
        if self.restarts > 1:
            self.network.back(self.name)

    async def _run(self) -> None:
        await self.main()

    async def main(self) -> None:
        """What the program does."""
        raise NotImplementedError

    def kill(self) -> None:
        """kill -9."""
        if not self.alive:
            return
        assert self.process is not None
        self.disk.process_ended()
        self.process.die("killed")
        self.network.process_died(self.process, silently=False)
        self.gone(power=False)

    def lose_power(self) -> None:
        """The machine is off: unsynced writes are kept, dropped or torn, nobody is told."""
        assert self.process is not None
        self.process.die("power loss")
        self.network.process_died(self.process, silently=True)
        self._power_gone()

    def _power_gone(self) -> None:
        self.note_loss()
        self.network.off.add(self.name)
        self.disk.crash()
        self.boots += 1
        self.gone(power=True)

    def _operation(self, operation: str, path: Path) -> None:
        self._last = f"{operation} of {path.suffix or path.name}"
        if self.disk_delay_s and operation in ("fdatasync", "fsync") and self.process is not None:
            self.process.stolen_s += self.disk_delay_s

    def _died_inside(self) -> None:
        """The power went in the middle of an operation on the disk."""
        assert self.process is not None
        self.died_in = f"{self.name.rstrip('0123456789')}: {self._last}"
        self.process.die("power loss")

    def gone(self, *, power: bool) -> None:
        """What else a machine loses with its process."""

    def _exited(self, process: Process) -> None:
        self.world.note(f"{self.name}: {process.dead}")
        if process.dead == "power loss" and self.disk.off:
            self.network.process_died(process, silently=True)
            self._power_gone()
        elif process.dead == "ended":
            self.network.process_died(process, silently=False)
            self.disk.process_ended()
            if process.error is not None:
                self.failed(process.error)

    def failed(self, error: BaseException) -> None:
        """The program ended with an error that nobody asked for."""
        text = SimulationError(f"{self.name} ended by itself: {error!r}")
        text.__cause__ = error
        self.world.bugs.append(text)


class MasterDisk(PosixDisk):
    """The log on the simulated disk; state and checkpoints, SQLite's, on the host's memory."""

    def __init__(self, root: Path, simulated: SimDisk) -> None:
        self._log = str(root / "log")
        self._simulated = simulated
        self._host = PosixDisk()
        simulated.mkdir(root, parents=True)
        for parent in root.parents:
            simulated.sync_directory(parent)

    def _disk(self, path: Path) -> Disk:
        return self._simulated if str(path).startswith(self._log) else self._host

    def open(self, path: Path, *, create: bool = False, exclusive: bool = False) -> File:
        return self._disk(path).open(path, create=create, exclusive=exclusive)

    def rename(self, source: Path, destination: Path) -> None:
        self._disk(source).rename(source, destination)

    def unlink(self, path: Path) -> None:
        self._disk(path).unlink(path)

    def mkdir(self, path: Path, *, parents: bool = False) -> None:
        self._disk(path).mkdir(path, parents=parents)

    def listdir(self, path: Path) -> list[str]:
        return self._disk(path).listdir(path)

    def exists(self, path: Path) -> bool:
        return self._disk(path).exists(path)

    def sync_directory(self, path: Path) -> None:
        if str(path / "log").startswith(self._log):
            self._simulated.sync_directory(path)

    def free_bytes(self, path: Path) -> tuple[int, int]:
        return ENDLESS_BYTES, ENDLESS_BYTES


def let_go(ledger: Ledger) -> None:
    """End SQLite's connections, as the end of the process would."""
    ledger.state.rollback()
    ledger.state.close()
    ledger.committed.close()


class MasterMachine(Machine):
    """The one master.

    Attributes:
      ledger, core, server: of the process that runs, once it has recovered.
      witness: has all committed records, those too that the log has dropped.
      losses: what a power loss has done to the state, by kind.
    """

    def __init__(
        self, world: World, network: Network, root: Path, config: MasterConfig, *, rate: float
    ) -> None:
        super().__init__(world, network, "master", rate=rate)
        self.config = config
        self.root = root
        self.both_disks = MasterDisk(root, self.disk)
        self.ledger: Ledger | None = None
        self.core: Master | None = None
        self.server: Server | None = None
        self.witness = Witness()
        self.losses: dict[str, int] = {}
        self._chance = world.random("master's state")
        self._position = 0
        root.mkdir(parents=True)

    async def main(self) -> None:
        ledger = Ledger(
            self.root, self.both_disks, CLUSTER, segment_bytes=SEGMENT_BYTES, uid=0, gid=0
        )
        self.ledger = ledger
        self.witness.did(RESTORED, int(ledger.recovered.checkpoint is not None))
        self.core = core = core_of(ledger, self.config, 0.0)
        self.server = server = Server(ledger, core, key=KEY, cluster=CLUSTER)
        keeping = Keeping(ledger, core, self.witness, self.keep_old_state)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.run)
            nursery.start_soon(keeping.run)
            await self.network.serve(MASTER, server.handle, silence_limit_s=SILENCE_S)

    @property
    def position(self) -> int:
        """Of the last record that anybody may know of."""
        if self.ledger is not None:
            self._position = max(self._position, self.ledger.position)
        return self._position

    def gone(self, *, power: bool) -> None:
        """SQLite's connections end; a power loss may take its last transactions, or all."""
        self._position = self.position
        ledger, self.ledger = self.ledger, None
        if ledger is not None:
            if self.core is not None:
                self.core.engine.reader.close()  # type: ignore[attr-defined]
            let_go(ledger)
        if power:
            kind = self._chance.choice(("kept", OLD_STATE, NO_STATE))
            self.losses[kind] = self.losses.get(kind, 0) + 1
            state, old = self.root / "state.db", self.root / "old-state.db"
            if kind == NO_STATE:
                state.unlink(missing_ok=True)
            elif kind == OLD_STATE and old.exists():
                shutil.copyfile(old, state)
            (self.root / "committed").unlink(missing_ok=True)
        self.core = self.server = None

    def keep_old_state(self) -> None:
        """The state has been synced: from now on a power loss leaves this, or a newer one."""
        shutil.copyfile(self.root / "state.db", self.root / "old-state.db")


class ChunkMachine(Machine):
    """A chunk server on one data directory."""

    def __init__(self, world: World, network: Network, number: int, *, rate: float) -> None:
        super().__init__(world, network, f"cs{number}", rate=rate)
        self.server: ChunkServer | None = None
        self.data = Path(f"/data{number}")
        self.on_loss: Callable[[], None] = lambda: None

    def note_loss(self) -> None:
        self.on_loss()

    async def main(self) -> None:
        config = ChunkdConfig(
            data_dirs=[str(self.data)], address=f"{self.name}:1", master=MASTER,
            cluster_id=CLUSTER, key_file="simulated", http="", scrub_period_s=SCRUB_S,
        )  # fmt: skip
        self.server = ChunkServer(config, self.disk)
        await self.server.run()

    def gone(self, *, power: bool) -> None:
        self.server = None


class ClientMachine(Machine):
    """A mount's process: the client library and those who call it."""

    def __init__(
        self, world: World, network: Network, number: int, *, rate: float,
        work: Callable[[ClientMachine], Awaitable[None]],
    ) -> None:  # fmt: skip
        super().__init__(world, network, f"client{number}", rate=rate)
        self.number = number
        self._work = work

    async def main(self) -> None:
        await self._work(self)
