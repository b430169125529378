"""One run of a seed: a cluster under faults, then healed, then looked at.

First safety: programs work while things fail, and check what they are given. Then all is
mended, and within a bound of virtual time every call must have ended and the cluster have
come to rest. Then the checks on what is left.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import trio

from gfs.client.client import open_client
from gfs.client.settings import ClientSettings
from gfs.errors import GfsError
from gfs.items import CHUNKS, ChunkState
from gfs.sections import MasterConfig
from master.checking import pages
from tests.sim.checks import check_all
from tests.sim.commands import Commander, check_all_clones
from tests.sim.faults import Faults
from tests.sim.followers import FollowingView
from tests.sim.interpose import KEY, interpose
from tests.sim.kernel import SimulationError, World
from tests.sim.locking import Locker
from tests.sim.network import Network, NetworkOptions
from tests.sim.nodes import (
    CLUSTER,
    MASTER,
    ChunkMachine,
    ClientMachine,
    MasterMachine,
)
from tests.sim.oracle import Oracle
from tests.sim.parts import Parts
from tests.sim.replicas import current
from tests.sim.requests import Requests
from tests.sim.shadow import ShadowMachine
from tests.sim.view import View
from tests.sim.workload import LOGS, User

FAULTS_MIN = 20
SAFETY_MAX_S = 900.0
HEAL_MAX_S = 150.0
REST_MAX_S = 60.0
DRIFT = 200e-6  # of a quartz clock
SHADOWED = 0.5  # of the seeds have a shadow master
CHUNK_BYTES = (64 * 1024, 128 * 1024, 512 * 1024)


@dataclass
class Report:
    """What a run was and did; plain values, for totals over many seeds."""

    seed: int
    operations: dict[str, int] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    crash_points: dict[str, int] = field(default_factory=dict)
    upkeep: dict[str, int] = field(default_factory=dict)
    virtual_s: float = 0.0
    records: int = 0
    events: int = 0
    cache_hits: int = 0
    local_opens: int = 0
    cpu_s: float = 0.0
    failure: str = ""


class Cluster:
    """All machines of one seed. `run` once."""

    def __init__(self, seed: int, *, trace: bool = False, operations: int = 1000) -> None:
        self.world = World(seed)
        self.trace = trace
        self._operations = operations
        self.world.note = self.say
        chance = self.world.random("options")
        self.network = Network(self.world, NetworkOptions(spike=chance.choice((0.0, 0.002, 0.01))))
        interpose(self.world, self.network)
        self.oracle = Oracle()
        self.requests = Requests()
        self.network.tap = self.requests.saw
        self._directory = Path(tempfile.mkdtemp(prefix="gfs-sim-", dir=_memory()))
        config = MasterConfig(
            data_dir=str(self._directory), chunk_bytes=chance.choice(CHUNK_BYTES), goal=3,
            cache_lease_s=chance.choice((3.0, 8.0)), reclaim_delay_s=chance.choice((5.0, 30.0)),
            safe_start_s=5.0, trash_min_age_s=chance.choice((1.0, 600.0)), trash_keep_s=20.0,
        )  # fmt: skip
        self.say(
            f"options: {config.chunk_bytes=} {config.cache_lease_s=} {config.reclaim_delay_s=}"
        )

        def rate() -> float:
            return 1 + chance.uniform(-DRIFT, DRIFT)

        self.master = MasterMachine(
            self.world, self.network, self._directory / "master", config, rate=rate()
        )
        self.servers = [
            ChunkMachine(self.world, self.network, number, rate=rate())
            for number in range(1, 1 + chance.choice((3, 3, 4)))
        ]
        for server in self.servers:
            server.on_loss = lambda: self.oracle.power_losses.append(self.world.now)
        self.clients = [
            ClientMachine(self.world, self.network, number, rate=rate(), work=self._work)
            for number in range(1, 1 + chance.choice((2, 3)))
        ]
        shadow = None
        if chance.random() < SHADOWED:
            shadow = ShadowMachine(
                self.world, self.network, self._directory / "shadow", self.master, rate=rate()
            )
        self.parts = Parts(
            self.world, self.network, self.oracle, self.requests, self.say, self.master,
            self.servers, self.clients, shadow,
        )  # fmt: skip
        self.faults = Faults(self.parts, self.world.random("faults"))
        self.following = FollowingView(self.parts, self._directory, self.world.random("view"))
        self._users = 0
        self._resting = False
        self._judged = False

    def say(self, text: str) -> None:
        """One line of the trace."""
        if self.trace:
            print(f"{self.world.now:10.4f} {text}", flush=True)

    # --- what clients do

    def _high(self) -> int:
        return self.master.position

    async def _work(self, machine: ClientMachine) -> None:
        view = View(self.world, self.oracle, machine.name, self._high)
        settings = ClientSettings(
            master=MASTER, key=KEY, cluster=CLUSTER, mount=f"/mnt/{machine.name}",
            flush_after_s=0.3,
        )  # fmt: skip
        async with open_client(settings, callbacks=view.callbacks) as client:
            view.attach(client)
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    self._users += 1
                    user = User(
                        view, self.world.random(f"user/{self._users}"), self._users, self._may_rest
                    )
                    nursery.start_soon(user.run)
                watcher = self.world.random(f"watcher/{self._users}")
                nursery.start_soon(User(view, watcher, 0, self._may_rest).watch)
                commands = self.world.random(f"commander/{self._users}")
                nursery.start_soon(Commander(view, commands, self._may_rest).run)
                locker = self.world.random(f"locker/{self._users}")
                nursery.start_soon(Locker(view, locker, self._may_rest).run)
        machine.needed = False

    def _may_rest(self) -> bool:
        return self._resting

    def _enough(self) -> bool:
        return sum(self.oracle.operations.values()) >= self._operations and sum(
            self.faults.counts.values()
        ) >= min(FAULTS_MIN, self._operations // 50)

    # --- the run

    def run(self) -> Report:
        """All phases; raises what is wrong."""
        world = self.world
        try:
            for machine in self.parts.machines:
                machine.start()
            world.after(2.0, self.faults.start)
            self.following.start()
            if not world.run(SAFETY_MAX_S, self._enough):
                raise SimulationError(
                    f"too little was done in {SAFETY_MAX_S} s: {self._standing()}"
                )
            self.say("heal")
            self.faults.heal()
            self._resting = True
            if not world.run(world.now + HEAL_MAX_S, self._clients_ended):
                raise SimulationError(f"calls do not end after healing: {self._standing()}")
            self.say("judge")
            judge = ClientMachine(world, self.network, 99, rate=1.0, work=self._judge)
            judge.start()
            if not world.run(world.now + REST_MAX_S, lambda: self._judged):
                raise SimulationError("what was written cannot be read after healing")
            until = world.now + REST_MAX_S
            while unrest := self._unrest():
                if world.now >= until:
                    raise SimulationError(f"the cluster does not come to rest: {unrest}")
                world.run(world.now + 0.5, lambda: False)
            self.following.check(check_all(self.parts))
            return self.report()
        finally:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _clients_ended(self) -> bool:
        return not any(client.needed for client in self.clients)

    def _standing(self) -> str:
        waiting = [
            f"{call.client} {call.kind} since {call.begin:.3f}"
            for call in self.oracle.calls[-400:]
            if call.outcome is None and self._is_running(call.client)
        ]
        dead = [machine.name for machine in self.parts.machines if not machine.alive]
        return f"operations {sum(self.oracle.operations.values())}, dead {dead}, waiting {waiting}"

    def _is_running(self, name: str) -> bool:
        return any(client.name == name and client.alive for client in self.clients)

    async def _judge(self, machine: ClientMachine) -> None:
        """A new mount reads everything."""
        settings = ClientSettings(master=MASTER, key=KEY, cluster=CLUSTER, mount="/judge")
        view = View(self.world, self.oracle, machine.name, self._high)
        async with open_client(settings, callbacks=view.callbacks) as client:
            view.attach(client)
            reader = User(view, self.world.random("judge"), 0, lambda: True)
            for path in LOGS:
                log = self.oracle.append_file(path)
                promised = log.promised(closed_counts=self.oracle.closed_counts())
                log.check(await self._content(reader, path), promised, "after healing")
            for known in self.oracle.privates.values():
                content = await self._content(reader, known.path)
                known.check(content, known.certain, "after healing")
            await check_all_clones(view)
        self._judged = True

    async def _content(self, reader: User, path: bytes) -> bytes:
        file = await reader._open(path, 0)
        if file is None:
            return b""
        try:
            return bytes(await file.read(0, 1 << 22))
        except GfsError as error:
            raise SimulationError(
                f"after healing: {path.decode()} cannot be read: {error}"
            ) from error
        finally:
            file.release()

    def _unrest(self) -> str:
        """Why the cluster is not at rest yet; "" when it is."""
        server = self.master.server
        if server is None:
            return "no master"
        seals = server._core.machine.seals
        if len(seals):
            return f"{len(seals)} seals pending"
        shadow = self.parts.shadow
        if shadow is not None and (behind := shadow.behind()):
            return f"the shadow is {behind} records behind"
        servers = server._core.engine.servers
        for (handle,), chunk in pages(server._core.engine.reader, CHUNKS):
            if chunk.state == ChunkState.SEALED and chunk.references:
                if not chunk.checksum:
                    return f"nobody has condensed chunk {handle:x}"
                known = len(servers.holders(handle))
                copies = min(known, sum(bool(current(one, handle, chunk)) for one in self.servers))
                if copies < min(chunk.goal, len(self.servers)):
                    return f"chunk {handle:x} has {copies} copies of {chunk.goal}"
        if flip := self.faults.rot.unnoticed():
            return f"{flip.machine.name} takes chunk {flip.handle:x} for right, which has rotted"
        return ""

    def report(self) -> Report:
        """Figures of this run."""
        return Report(
            self.world.seed, self.oracle.operations, self.oracle.errors, self.faults.counts,
            self.faults.crash_points, self.master.witness.counts, self.world.now, self._high(),
            self.world.events_total, self.oracle.cache_hits, self.oracle.local_opens,
        )  # fmt: skip


def _memory() -> str | None:
    """A directory in memory for SQLite's files, where there is one."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None
