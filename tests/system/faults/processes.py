"""A local cluster whose processes a test kills, stops and starts one by one."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from gfs import mounts, readiness
from gfs.cluster import down as downing
from gfs.cluster import plan, processes
from gfs.cluster.asking import ask, cluster_status
from gfs.cluster.layout import Layout
from gfs.cluster.plan import Spec
from gfs.cluster.processes import Process, Registry
from gfs.cluster.up import Wishes, client_config, up
from gfs.errors import GfsError
from gfs.messages import CheckFilesystem, Status
from tests import leftovers

READY_S = 40.0
POLL_S, POLL_MAX_S = 0.01, 0.25
POLL_SHARE = 3  # as long as this many questions: who is waited for needs the processor, too
FAULT = re.compile(r" (ERROR|CRITICAL) |Traceback \(most recent call last\)")

# At most this long may anything take that waits for a session to die or to come back.
SHORT_LEASES = """
[master]
cache_lease_s = 3.0
chunk_bytes = 4194304
safe_start_s = 0.0
"""


class FaultyCluster:
    """`gfs cluster up` in a directory, and its processes by name.

    Names are those of DIR/pids: master, chunkd1.., projections-search, mount1...
    """

    def __init__(self, directory: Path) -> None:
        self.layout = Layout(directory)
        self.wishes = Wishes()
        self.replaced: dict[str, list[str]] = {}  # name -> flags given in place of the usual

    def up(self, *, config: str = "", **wishes: int | bool | None) -> None:
        """Start everything that is missing; the first call says what there is."""
        if wishes:
            file = None
            if config:
                self.layout.directory.mkdir(parents=True, exist_ok=True)
                file = self.layout.directory / "given.toml"
                file.write_text(config)
            self.wishes = Wishes(**wishes, config=file)  # type: ignore[arg-type]
        up(self.layout, self.wishes, print)

    def down(self) -> None:
        """Stop everything, and wait for what it had started."""
        ended = self.alive().values()
        downing.down(self.layout, print)
        _wait_until_gone(ended)

    def mnt(self, number: int) -> Path:
        return self.layout.mountpoint(number)

    @property
    def names(self) -> list[str]:
        return [spec.name for spec in plan.specs(self.layout, self.layout.load())]

    # --- one process

    def alive(self) -> dict[str, Process]:
        return Registry(self.layout).alive()

    def process(self, name: str) -> Process:
        return self.alive()[name]

    def pid(self, name: str) -> int:
        return self.process(name).pid

    def kill(self, *names: str) -> None:
        """SIGKILL, all at once, and wait until they and what they have started are gone.

        The change stream's process ends after the master, and writes to the same
        directory until then.
        """
        ended = [self.process(name) for name in names]
        for process in ended:
            os.kill(process.pid, signal.SIGKILL)
        _wait_until_gone(ended)

    def terminate(self, name: str, limit_s: float = 30.0) -> None:
        """SIGTERM, and wait for the end, also of what it has started."""
        process = self.process(name)
        os.kill(process.pid, signal.SIGTERM)
        assert not processes.wait_for_end([process], limit_s), f"{name} does not end"
        _wait_until_gone([process])

    @contextmanager
    def stopped(self, name: str) -> Iterator[None]:
        """SIGSTOP inside, SIGCONT after."""
        process = self.process(name)
        os.kill(process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)

    def start(self, *names: str) -> None:
        """Start these, in this order, without waiting for any of them."""
        by_name = {spec.name: spec for spec in plan.specs(self.layout, self.layout.load())}
        registry = Registry(self.layout)
        for name in names:
            spec = by_name[name]
            self.layout.ready(name).unlink(missing_ok=True)
            log = self.layout.log(name)
            arguments = self._arguments(spec)
            registry.put(processes.start(spec.program, arguments, name=name, log=log))

    def _arguments(self, spec: Spec) -> list[str]:
        given = self.replaced.get(spec.name, [])
        names = {flag.partition("=")[0] for flag in given}
        usual = [word for word in spec.arguments if word.partition("=")[0] not in names]
        return [*given, *usual]

    def wait_ready(self, *names: str) -> None:
        """Until these serve and the master hears every chunk server."""
        for name in names or self.names:
            self.wait(f"{name} is not ready", partial(self._is_ready, name))
        chunkservers = self.layout.load().chunkservers
        self.wait("chunk servers", lambda: self.registered() >= chunkservers)

    def restart(self, name: str) -> None:
        """Kill, start, wait."""
        self.kill(name)
        self.start(name)
        self.wait_ready(name)

    def _is_ready(self, name: str) -> bool:
        process = self.alive().get(name)
        assert process is not None, f"{name} has ended\n{self.tail(name)}"
        told = readiness.read(self.layout.ready(name))
        if told is None or told.pid != process.pid:
            return False
        if not name.startswith("mount"):
            return True
        return mounts.mount_at(os.fsencode(self.mnt(int(name[5:])))) is not None

    def registered(self) -> int:
        """Chunk servers that the master hears."""
        servers = self.status().get("servers", [])
        assert isinstance(servers, list)
        return sum(1 for one in servers if one["alive"] and one["reported"])

    def status(self) -> dict[str, object]:
        """The master's status; empty while it does not answer."""
        try:
            return cluster_status(client_config(self.layout))
        except GfsError:
            return {}

    def fsck(self, *, copies: int = 3) -> list[str]:
        """Problems that the deep check finds, but chunks that have at least `copies` of 3."""
        answer = ask(client_config(self.layout), CheckFilesystem(deep=True), Status, 60.0)
        enough = re.compile(rf"has [{copies}-3] of 3 replicas")
        found: list[str] = json.loads(answer.json)["problems"]
        return [problem for problem in found if not enough.search(problem)]

    # --- logs

    def log(self, name: str) -> str:
        return self.layout.log(name).read_text(errors="replace")

    def tail(self, name: str) -> str:
        return self.log(name)[-3000:]

    def faults(self, allowed: Sequence[str] = ()) -> list[str]:
        """Lines of any log that no healthy process writes, but those matching `allowed`."""
        found = []
        for path in sorted(self.layout.log("x").parent.glob("*.log*")):
            found += [
                f"{path.name}: {line}"
                for line in path.read_text(errors="replace").splitlines()
                if FAULT.search(line) and not any(re.search(each, line) for each in allowed)
            ]
        return found

    def wait(self, what: str, done: Callable[[], bool], limit_s: float = READY_S) -> None:
        """Poll until `done`; a question that takes long is asked less often."""
        deadline = time.monotonic() + limit_s
        while True:
            began = time.monotonic()
            if done():
                return
            assert time.monotonic() < deadline, f"{what} after {limit_s} s\n{self.all_tails()}"
            time.sleep(min(max(POLL_S, POLL_SHARE * (time.monotonic() - began)), POLL_MAX_S))

    def all_tails(self) -> str:
        """The end of every log, for the report of a failed test."""
        parts: Iterable[str] = (f"== {name}\n{self.tail(name)}" for name in self.names)
        return "\n".join(parts)

    def end(self) -> None:
        """Whatever state it is in: everything stopped, nothing mounted."""
        for process in self.alive().values():
            os.kill(process.pid, signal.SIGCONT)
        if self.layout.exists():
            self.down()
        for point in leftovers.mounts(self.layout.directory):
            leftovers.unmount(point)


def _wait_until_gone(ended: Iterable[Process]) -> None:
    """Until nothing lives that these are or have started: each leads a session of its own."""
    sessions = {process.pid for process in ended}
    deadline = time.monotonic() + READY_S
    while left := _members(sessions):
        assert time.monotonic() < deadline, f"ended, but alive: {left}"
        time.sleep(POLL_S)


def _members(sessions: set[int]) -> list[int]:
    """Pids of the living processes of these sessions."""
    found = []
    for pid in (int(entry) for entry in os.listdir("/proc") if entry.isdigit()):
        with suppress(ProcessLookupError):
            if os.getsid(pid) in sessions and processes.start_time(pid) is not None:
                found.append(pid)
    return found
