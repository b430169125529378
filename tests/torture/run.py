"""One run: a cluster, its workers, faults by schedule, healing, and all checks.

    start, work, break things -> heal -> stop the workers -> converge -> compare
    -> kill everything at once, start, compare again -> stop -> replay the log

Whatever happens, nothing stays mounted or running; the directory stays if anything was wrong.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from gfs.errors import GfsError
from tests.system.network import Network, why_no_network
from tests.torture import checks, judge
from tests.torture.cluster import TortureCluster
from tests.torture.expected import Expected, merged
from tests.torture.injector import Done, Injector
from tests.torture.roles import LOGS
from tests.torture.schedule import CUTS, Fault, Kind, draw
from tests.torture.worker import BASE

ROOT = Path(__file__).parents[2]
CREW = ("appender", "appender", "appender", "saver", "saver", "namer", "copier", "streamer",
        "reader")  # fmt: skip
CALM_S = 1.5  # of work after the last fault is undone
END_S = 110.0  # beyond the limit of a call
CONVERGED_S = 180.0
PROBLEMS_SHOWN = 40


class Report(msgspec.Struct):
    """What a run tells; `problems` is empty when all is well.

    Attributes:
      injected: faults by kind and target; `totals`: kills, hangs, cuts, full disks, flips.
      acknowledged: calls by kind.
      lost: what was acknowledged and is not there, or is there and was not made.
      stalls_ms: longest call of a writer, by the kind of fault felt during it.
    """

    seed: int
    minutes: float
    links_cut: bool
    injected: dict[str, int] = {}
    totals: dict[str, int] = {}
    acknowledged: dict[str, int] = {}
    lost: list[str] = []
    problems: list[str] = []
    stalls_ms: dict[str, int] = {}
    excused_failures: int = 0
    converged_s: float = -1.0
    started_again_s: float = -1.0


class Run:
    """See the module's text.

    Args:
      faults: instead of those drawn from the seed.
      tell: gets a line about each step.
    """

    def __init__(
        self,
        directory: Path,
        *,
        seed: int,
        length_s: float,
        chunkservers: int = 5,
        mounts: int = 3,
        shadow: bool = True,
        crew: tuple[str, ...] = CREW,
        faults: list[Fault] | None = None,
        tell: Callable[[str], None] = print,
    ) -> None:
        why_not = why_no_network()
        if why_not:
            tell(f"no link is cut: {why_not}")
        self.place = directory / "work"
        self.place.mkdir(parents=True)
        self.length_s, self.crew, self.tell = length_s, crew, tell
        self.report = Report(seed, round(length_s / 60, 2), links_cut=not why_not)
        self.planned = faults
        self.faults: list[Done] = []
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self.network = None if why_not else Network()
        try:
            self.cluster = TortureCluster(
                directory / "c",
                network=self.network,
                chunkservers=chunkservers,
                mounts=mounts,
                shadow=shadow,
            )
        except BaseException:
            if self.network is not None:
                self.network.end()
            raise

    def run(self) -> Report:
        """All of it; the cluster is gone afterwards."""
        try:
            self.cluster.bring_up()
            self._start_workers()
            self._break_things()
            known = self._stop_workers()
            self._converge()
            self._compare(known)
            self._start_again(known)
            self.cluster.down()
            self._replay()
        finally:
            self._end()
        return self.report

    # --- steps

    def _start_workers(self) -> None:
        points = [str(self.cluster.mnt(1 + n)) for n in range(self.cluster.field().mounts)]
        (self.place / "mounts").write_text("\n".join(points))
        top = self.cluster.mnt(1) / BASE
        top.mkdir()
        for log in LOGS:
            (top / log).touch()
        for index, role in enumerate(self.crew):
            name = f"{role}{self.crew[:index].count(role)}"
            (top / name).mkdir()
            words = [role, name, str(self.report.seed + index), str(self.place)]
            with open(self.place / f"{name}.err", "wb") as errors:
                self.workers[name] = subprocess.Popen(
                    [sys.executable, "-m", "tests.torture.work", *words],
                    stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, cwd=ROOT,
                )  # fmt: skip

    def _break_things(self) -> None:
        seed = self.report.seed
        planned = self.planned or draw(seed, self.length_s, self.cluster.field())
        injector = Injector(self.cluster, planned, seed)
        try:
            injector.run(self.length_s, self.tell)
        finally:
            self.faults = injector.done
            self.report.injected = injector.counts()
            self.report.totals = totals(injector.done)
            self.report.problems += injector.crashed
        self.tell("healing")
        self.cluster.heal()
        time.sleep(CALM_S)

    def _stop_workers(self) -> Expected:
        """What all of them know; one that does not end is a problem."""
        (self.place / "stop").touch()
        parts = []
        deadline = time.monotonic() + END_S
        for name, process in self.workers.items():
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.report.problems.append(f"{name} is stuck in {_stack(process.pid)}")
                continue
            path = self.place / f"{name}.json"
            if path.exists():
                parts.append(msgspec.json.decode(path.read_bytes(), type=Expected))
            else:
                text = (self.place / f"{name}.err").read_text()[-1500:]
                self.report.problems.append(f"{name} failed: {text}")
        known = merged(parts)
        known.directories |= set(self.workers)
        known.files |= dict.fromkeys(LOGS)
        self.report.acknowledged = dict(sorted(known.calls.items()))
        self.report.problems += judge.unexcused(known, self.faults)
        self.report.excused_failures = len(known.failed) + len(known.wrong)
        self.report.excused_failures -= len(judge.unexcused(known, self.faults))
        stalls = judge.stalls(known.slow, self.faults)
        self.report.stalls_ms = {name: round(1000 * took) for name, took in stalls.items()}
        return known

    def _converge(self) -> None:
        """Until the deep check finds all chunks with all their copies."""
        start = time.monotonic()
        problems = ["never checked"]
        while problems and time.monotonic() - start < CONVERGED_S:
            try:
                problems = self.cluster.fsck()
            except GfsError as error:
                problems = [f"fsck: {error!r}"]
            if problems:
                time.sleep(0.5)
        self.report.problems += [f"fsck: {problem}" for problem in problems]
        self.report.converged_s = round(time.monotonic() - start, 1)
        self.tell(f"converged after {self.report.converged_s} s: {len(problems)} problems")

    def _compare(self, known: Expected) -> None:
        excused = partial(judge.excused_by_loss, faults=self.faults)
        lost = self.report.lost
        for number in range(1, self.cluster.field().mounts + 1):
            top = self.cluster.mnt(number) / BASE
            lost += [f"mount{number}: {one}" for one in checks.check_names(top, known)]
            lost += [f"mount{number}: {one}" for one in checks.check_logs(top, known)]
        lost += checks.check_files(self.cluster.mnt(1) / BASE, known, excused)
        lost += checks.check_views(self.cluster, self.cluster.mnt(1))
        self.tell(f"compared: {len(lost)} differences")

    def _start_again(self, known: Expected) -> None:
        """Everything killed at once loses nothing either."""
        now = time.monotonic()
        numbers = range(1, self.cluster.field().mounts + 1)
        self.faults += [Done(Kind.KILL, f"mount{number}", now, now) for number in numbers]
        self.cluster.kill(*self.cluster.names)
        self.cluster.start(*self.cluster.names)
        self.cluster.wait_ready()
        self.report.started_again_s = round(time.monotonic() - now, 1)
        excused = partial(judge.excused_by_loss, faults=self.faults)
        top = self.cluster.mnt(2) / BASE
        again = checks.check_names(top, known) + checks.check_logs(top, known)
        again += checks.check_files(top, known, excused)
        self.report.lost += [f"after everything was killed: {one}" for one in again]
        self.tell(f"all killed and started in {self.report.started_again_s} s: {len(again)} lost")

    def _replay(self) -> None:
        layout = self.cluster.layout
        facts = layout.load()
        self.report.lost += checks.check_replay(layout.data("master"), facts.id)
        if facts.shadow:
            both = layout.data("master"), layout.data("shadow")
            self.report.lost += checks.check_shadow(*both, facts.id)
        self.report.problems += [
            line for line in self.cluster.faults() if "Traceback" in line or " CRITICAL " in line
        ]

    def _end(self) -> None:
        for process in self.workers.values():
            if process.poll() is None:
                process.kill()
        self.cluster.end()
        for process in self.workers.values():
            process.wait(10)


def totals(done: list[Done]) -> dict[str, int]:
    """Kills, hangs, cuts, full disks, flipped bits."""
    kinds = [fault.kind for fault in done]
    return {
        "kills": kinds.count(Kind.KILL),
        "hangs": kinds.count(Kind.HANG),
        "cuts": sum(kind in CUTS for kind in kinds),
        "full disks": kinds.count(Kind.FULL),
        "flipped bits": kinds.count(Kind.FLIP),
    }


def _stack(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stack").read_text() if os.geteuid() == 0 else "a call"
    except OSError:
        return "a call"
