"""What goes wrong, chosen by the seed; and how all of it is undone.

Faults stay within what the promises are about: the log's disk is never lost, never so
many chunk servers lose power at once that no member of a chain is left to know, and bits
flip only where two other replicas are right.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from gfs.messages import Condensed, Done, FencedAt, RecordsAppended
from tests.sim.replicas import BitRot

if TYPE_CHECKING:
    from tests.sim.nodes import Machine
    from tests.sim.parts import Parts

PAUSE_S = (0.1, 1.5)  # between two faults
BACK_S = (0.05, 0.05, 0.3, 0.3, 1.0, 1.0, 2.0, 8.0)  # until it is started again, about
HANG_S = (0.2, 0.2, 1.0, 1.0, 2.5, 2.5, 5.0, 12.0)
LONG_S = 10.0
ANSWERS = (Done, Done, Done, RecordsAppended, FencedAt, Condensed)
AT_ONCE = 3  # faults that last; with more of them nothing would be done


class Faults:
    """Injects one fault after another until told to stop.

    Attributes:
      counts: faults done, by kind.
      crash_points: operations of disks in which power went.
      rot: the bits that flipped.
    """

    def __init__(self, cluster: Parts, chance: Random) -> None:
        self.cluster = cluster
        self.world = cluster.world
        self.chance = chance
        self.counts: dict[str, int] = {}
        self.crash_points: dict[str, int] = {}
        self.stopped = False
        self.rot = BitRot(cluster, chance)
        self._undo: dict[int, Callable[[], None]] = {}
        self._serial = 0
        self._kinds: list[tuple[int, str, Callable[[], bool]]] = [
            (4, "kill chunk server", self._kill_server),
            (2, "kill master", lambda: self._kill(cluster.master)),
            (2, "kill client", lambda: self._kill(chance.choice(cluster.clients))),
            (2, "power loss of chunk server", self._power_of_server),
            (2, "power loss in an operation of chunk server's disk", self._crash_point_of_server),
            (1, "power loss of master", lambda: self._power(cluster.master)),
            (2, "power loss in an operation of master's disk", self._crash_point_of_master),
            (3, "hang of chunk server", lambda: self._hang(chance.choice(cluster.servers))),
            (1, "hang of master", lambda: self._hang(cluster.master)),
            (2, "hang of client", lambda: self._hang(chance.choice(cluster.clients))),
            (4, "connection cut", self._cut),
            (6, "answer lost", self._lose_answer),
            (3, "link silent both ways", lambda: self._block(both=True)),
            (3, "link silent one way", lambda: self._block(both=False)),
            (2, "client cut off from master", self._cut_off),
            (3, "bit flipped", self.rot.flip),
            (2, "slow disk", self._slow_disk),
            (1, "slow network", self._slow_network),
            (1, "calendar set", self._set_calendar),
        ]  # fmt: skip
        if (shadow := cluster.shadow) is not None:
            self._kinds += [
                (1, "kill shadow", lambda: self._kill(shadow)),
                (1, "hang of shadow", lambda: self._hang(shadow)),
                (1, "power loss of shadow", lambda: self._power(shadow)),
                (1, "power loss in an operation of shadow's disk",
                 lambda: self._crash_point(shadow)),
            ]  # fmt: skip

    def start(self) -> None:
        """Begin; each fault plans the next."""
        self._plan()

    def _plan(self) -> None:
        self.world.after(self.chance.uniform(*PAUSE_S), self._next)

    def _next(self) -> None:
        if self.stopped:
            return
        weights = [weight for weight, _, _ in self._kinds]
        _, kind, inject = self.chance.choices(self._kinds, weights)[0]
        if len(self._undo) < AT_ONCE and inject():
            self.counts[kind] = self.counts.get(kind, 0) + 1
            self.cluster.say(f"fault: {kind}")
        self._plan()

    def _later(self, delay_s: float, undo: Callable[[], None]) -> None:
        """Undo a fault after a while, or when all is healed, once."""
        self._serial += 1
        serial = self._serial
        self._undo[serial] = undo

        def now() -> None:
            if self._undo.pop(serial, None) is not None:
                undo()

        self.world.after(delay_s, now)

    def heal(self) -> None:
        """Stop, and undo everything that is still wrong."""
        self.stopped = True
        undo, self._undo = self._undo, {}
        for one in undo.values():
            one()
        for machine in self.cluster.machines:
            machine.disk._crash_at = None
            if not machine.alive and machine.needed:
                self._revive(machine)

    # --- processes

    def _back_s(self) -> float:
        return self.chance.choice(BACK_S) * self.chance.uniform(0.5, 1.5)

    def _revive(self, machine: Machine) -> None:
        if not machine.alive and machine.needed:
            machine.start()

    def _servers_down(self) -> int:
        return sum(not server.alive for server in self.cluster.servers)

    def _kill_server(self) -> bool:
        return self._kill(self.chance.choice(self.cluster.servers))

    def _kill(self, machine: Machine) -> bool:
        if not machine.alive:
            return False
        machine.kill()
        self._later(self._back_s(), lambda: self._revive(machine))
        return True

    def _may_lose_power(self) -> bool:
        """Others keep what is on no disk yet: one loss at a time, and some time between."""
        recent = [at for at in self.cluster.oracle.power_losses if self.world.now - at < 15.0]
        return not recent and not self._servers_down()

    def _power_of_server(self) -> bool:
        return self._may_lose_power() and self._power(self.chance.choice(self.cluster.servers))

    def _power(self, machine: Machine) -> bool:
        if not machine.alive:
            return False
        machine.lose_power()
        self._later(self._back_s(), lambda: self._revive(machine))
        return True

    def _crash_point_of_server(self) -> bool:
        if not self._may_lose_power():
            return False
        return self._crash_point(self.chance.choice(self.cluster.servers))

    def _crash_point_of_master(self) -> bool:
        return self._crash_point(self.cluster.master)

    def _crash_point(self, machine: Machine) -> bool:
        """The power goes in one of the next operations of the disk."""
        if not machine.alive:
            return False
        machine.disk.crash_after(self.chance.choice((1, 2, 3, 5, 8, 13, 40)))
        machine.note_loss()
        self._later(2.0 + self._back_s(), lambda: self._recover(machine))
        return True

    def _recover(self, machine: Machine) -> None:
        machine.disk._crash_at = None
        if not machine.alive:
            point = machine.died_in
            self.crash_points[point] = self.crash_points.get(point, 0) + 1
        self._revive(machine)

    def _hang(self, machine: Machine) -> bool:
        process = machine.process
        if process is None or process.dead or process.suspended:
            return False
        process.suspend()
        self.cluster.network.listen_again()

        def wake() -> None:
            if not process.dead:
                process.wake()
                self.cluster.network.woke(process)

        self._later(self.chance.choice(HANG_S) * self.chance.uniform(0.5, 1.5), wake)
        return True

    # --- links

    def _cut(self) -> bool:
        ends = list(self.cluster.network.ends)
        if not ends:
            return False
        self.cluster.network.cut(self.chance.choice(ends))
        return True

    def _lose_answer(self) -> bool:
        """Done, but nobody heard: who asked must ask again."""
        self.cluster.network.losing.add(self.chance.choice(ANSWERS))
        return True

    def _block(self, *, both: bool) -> bool:
        names = [machine.name for machine in self.cluster.machines]
        source, target = self.chance.sample(names, 2)
        return self._silence(source, target, self.chance.choice(HANG_S), both=both)

    def _cut_off(self) -> bool:
        """A mount that hears nothing of its master for longer than its lease."""
        client = self.chance.choice(self.cluster.clients).name
        return self._silence(client, self.cluster.master.name, LONG_S, both=True)

    def _silence(self, source: str, target: str, about_s: float, *, both: bool) -> bool:
        network = self.cluster.network
        pairs = [(source, target), (target, source)] if both else [(source, target)]
        for pair in pairs:
            network.block(*pair)

        def unblock() -> None:
            for pair in pairs:
                network.unblock(*pair)

        self._later(about_s * self.chance.uniform(0.5, 1.5), unblock)
        return True

    # --- slowness

    def _slow_disk(self) -> bool:
        machine = self.chance.choice([self.cluster.master, *self.cluster.servers])
        if machine.disk_delay_s:
            return False
        machine.set_disk_delay(self.chance.choice((0.003, 0.05, 0.3)))
        self._later(self.chance.uniform(0.5, 6.0), lambda: machine.set_disk_delay(0.0))
        return True

    def _slow_network(self) -> bool:
        options = self.cluster.network.options
        before = options.jitter_s
        options.jitter_s = self.chance.choice((0.01, 0.1))

        def restore() -> None:
            options.jitter_s = before

        self._later(self.chance.uniform(0.5, 4.0), restore)
        return True

    def _set_calendar(self) -> bool:
        machine = self.chance.choice(self.cluster.machines)
        machine.wall_skew_ns = int(self.chance.uniform(-3600, 3600) * 1e9)
        if machine.process is not None:
            machine.process.wall_skew_ns = machine.wall_skew_ns
        return True
