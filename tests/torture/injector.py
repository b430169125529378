"""Carries a schedule out: does each fault at its time, undoes it, notes both.

Whatever happens to the cluster, the injector goes on; a process that ends without being
killed is noted as such and started again.
"""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from tests.torture.cluster import TortureCluster
from tests.torture.schedule import CUTS, Fault, Kind

TICK_S = 0.02
DYING_S = 30.0
_DATA = re.compile(r"[0-9a-f]+\.data")


class Done(msgspec.Struct, frozen=True):
    """A fault that has happened; times of the monotonic clock in seconds."""

    kind: Kind
    target: str
    start: float
    end: float
    other: str = ""

    def hits_mount(self, number: int) -> bool:
        """Whether that mount itself was broken."""
        return self.target == f"mount{number}"


class Injector:
    """See the module's text.

    Attributes:
      done: what was injected, by time of its end.
      crashed: names of processes that ended by themselves, with the end of their logs.
    """

    def __init__(self, cluster: TortureCluster, faults: list[Fault], seed: int) -> None:
        self.cluster = cluster
        self.faults = faults
        self.rng = random.Random(seed)
        self.done: list[Done] = []
        self.crashed: list[str] = []
        self.dead: set[str] = set()  # killed by us and not started yet
        self._undo: list[tuple[float, Fault, float]] = []  # when, what, begun
        self._flipped: set[str] = set()  # handles
        self._cuts = 0

    def run(self, length_s: float, tell: Callable[[str], None]) -> None:
        """Inject until `length_s` seconds have passed."""
        start = time.monotonic()
        left = list(self.faults)
        while (now := time.monotonic() - start) < length_s:
            self._undo_due(time.monotonic())
            if left and left[0].at_s <= now:
                fault = left.pop(0)
                tell(f"{now:7.1f} s  {fault.kind} {fault.target} {fault.other} {fault.lasts_s} s")
                self._do(fault)
            self._watch()
            time.sleep(TICK_S)
        self._undo_due(float("inf"))

    def counts(self) -> dict[str, int]:
        """How many of each kind and target, targets without their numbers."""
        found = Counter(f"{done.kind} {group(done.target)}" for done in self.done)
        return dict(sorted(found.items()))

    # --- doing

    def _do(self, fault: Fault) -> None:
        begun = time.monotonic()
        if not self._apply(fault):
            return
        self._undo.append((begun + fault.lasts_s, fault, begun))

    def _apply(self, fault: Fault) -> bool:
        """Break it; False if it is broken already or there is nothing to break."""
        network = self.cluster.network
        if fault.kind in (Kind.KILL, Kind.HANG):
            return self._signal(fault)
        if fault.kind is Kind.FULL:
            self.cluster.fill_disk()
            return True
        if fault.kind is Kind.FLIP:
            return self._flip(fault.target)
        assert network is not None
        if self._cuts:  # links are mended together, so one at a time
            return False
        host = self.cluster.hosts[fault.target]
        if fault.kind is Kind.CUT:
            network.cut(host)
        elif fault.kind is Kind.MUTE:
            network.lose(host, network.numbers)
        elif fault.kind is Kind.DEAF:
            for other in network.numbers - {host}:
                network.lose(other, {host})
        else:
            network.lose(host, {self.cluster.hosts[fault.other]})
        self._cuts += 1
        return True

    def _signal(self, fault: Fault) -> bool:
        process = self.cluster.alive().get(fault.target)
        busy = any(other.target == fault.target for _, other, _ in self._undo)
        if process is None or (busy and fault.kind is Kind.HANG):
            return False
        if fault.kind is Kind.KILL:
            self.dead.add(fault.target)
        sent = signal.SIGKILL if fault.kind is Kind.KILL else signal.SIGSTOP
        with suppress(ProcessLookupError):
            os.kill(process.pid, sent)
        return True

    def _flip(self, name: str) -> bool:
        """Change a byte of a replica of which two others are whole."""
        for path in self._sealed(name):
            others = sum(
                (self.cluster.chunks(server) / "chunks" / path.parent.name / path.name)
                .with_suffix(".meta")
                .exists()
                for server in self.cluster.field().servers()
                if server != name
            )
            if others < 2 or path.stem in self._flipped:
                continue
            with suppress(OSError), open(path, "r+b", buffering=0) as file:
                offset = self.rng.randrange(path.stat().st_size)
                byte = os.pread(file.fileno(), 1, offset)
                os.pwrite(file.fileno(), bytes([byte[0] ^ (1 << self.rng.randrange(8))]), offset)
                self._flipped.add(path.stem)
                return True
        return False

    def _sealed(self, name: str) -> list[Path]:
        """Data files of sealed replicas with content, in an order of the seed."""
        found = [
            path
            for path in self.cluster.chunks(name).glob("chunks/*/*.data")
            if _DATA.fullmatch(path.name) and path.with_suffix(".meta").exists()
        ]
        self.rng.shuffle(found)
        return [path for path in found if _size(path) > 0]

    # --- undoing

    def _undo_due(self, now: float) -> None:
        due = [entry for entry in self._undo if entry[0] <= now]
        self._undo = [entry for entry in self._undo if entry[0] > now]
        for _, fault, begun in sorted(due, key=lambda entry: entry[0]):
            self._revert(fault)
            self.done.append(Done(fault.kind, fault.target, begun, time.monotonic(), fault.other))

    def _revert(self, fault: Fault) -> None:
        if fault.kind is Kind.KILL:
            if fault.target in self.dead:
                self._start_again(fault.target)
            self.dead.discard(fault.target)
        elif fault.kind is Kind.HANG:
            process = self.cluster.alive().get(fault.target)
            if process is not None:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGCONT)
        elif fault.kind is Kind.FULL:
            self.cluster.empty_disk()
        elif fault.kind in CUTS:
            assert self.cluster.network is not None
            self.cluster.network.mend()
            self._cuts -= 1

    def _start_again(self, name: str) -> None:
        """On a busy machine a killed process takes longer to die than it is to be away."""
        deadline = time.monotonic() + DYING_S
        while name in self.cluster.alive() and time.monotonic() < deadline:
            time.sleep(TICK_S)
        self.cluster.start(name)

    def _watch(self) -> None:
        """Nobody else ends a process: who is gone has crashed."""
        for name in self.cluster.died(self.dead):
            self.crashed.append(f"{name} ended by itself:\n{self.cluster.tail(name)}")
            self.cluster.start(name)


def group(target: str) -> str:
    """What a target is: chunk server, mount, master, view."""
    if target.startswith("projections"):
        return "view"
    kind = target.rstrip("0123456789")
    return "chunk server" if kind == "chunkd" else kind


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
