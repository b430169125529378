"""The cluster that views are measured on: a real master on the tree, views started by hand."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from msgspec.structs import replace

from gfs.bearer import authorization
from gfs.cluster import plan, processes
from gfs.cluster.layout import Facts, Layout, choose_address
from gfs.cluster.processes import Process, Registry
from gfs.cluster.up import Wishes, up
from gfs.handshake import load_key
from projections.standing import load_standing, save_standing

VIEWS = plan.VIEWS
LIMIT_S = 1800.0
SAMPLE_S = 0.1


@dataclass(frozen=True)
class Sample:
    """How far a view had come at a moment, and processor seconds used by then."""

    at_s: float
    position: int
    events: int
    rebuilding: bool
    cpu_s: float
    stream_cpu_s: float


class Stage:
    """One cluster: master and stream run, views come and go."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.facts: Facts = layout.create()
        self.layout.save(self.facts)

    @property
    def master_directory(self) -> Path:
        return self.layout.data("master")

    def start(self, *, mounts: int, say: Callable[[str], None]) -> None:
        """Master, stream and one chunk server, which the views do not need."""
        wishes = Wishes(chunkservers=1, mounts=mounts, goal=1, projections=False)
        self.facts = up(self.layout, wishes, say)
        self.facts.projections = True
        for view in VIEWS:
            self.facts.addresses[view] = choose_address(self.facts.addresses.values())
        self.layout.save(self.facts)
        self._stream = _child_of(Registry(self.layout).alive()["master"].pid, "master.stream")

    def start_view(self, view: str, *, paused: bool = False) -> View:
        """Start its process; it may still be building when this returns.

        One that is `paused` opens its files and then waits for `View.resume`.
        """
        name = f"projections-{view}"
        if paused:
            standing = self.layout.data(name) / f"{view}.standing"
            save_standing(standing, replace(load_standing(standing), paused_ns=time.time_ns()))
        spec = next(one for one in plan.specs(self.layout, self.facts) if one.name == name)
        began = time.monotonic()
        log = self.layout.log(name)
        process = processes.start(spec.program, spec.arguments, name=name, log=log)
        Registry(self.layout).put(process)
        headers = authorization(load_key(self.layout.key))
        address = f"http://{self.facts.addresses[view]}"
        client = httpx.Client(
            base_url=address, headers=headers, timeout=120, trust_env=False, verify=False
        )
        return View(view, process, client, began, self._stream)

    def drop_view(self, view: str) -> None:
        """Remove the files of a view that does not run; its history stays."""
        for path in self.view_files(view):
            path.unlink()

    def view_files(self, view: str) -> list[Path]:
        """What the view lies in, without its history."""
        directory = self.layout.data(f"projections-{view}")
        found = [one for one in directory.iterdir() if one.name.startswith(f"{view}.")]
        return [one for one in found if not one.name.endswith(".lock")]


class View:
    """A running projections process."""

    def __init__(
        self, name: str, process: Process, client: httpx.Client, began_s: float, stream: int
    ) -> None:
        self.name = name
        self.client = client
        self.began_s = began_s
        self._process = process
        self._stream = stream

    def status(self) -> dict[str, Any] | None:
        """What it says of itself; None while it does not answer."""
        try:
            answer = self.client.get("/status")
        except httpx.HTTPError:
            if not processes.is_alive(self._process):
                raise RuntimeError(f"the process of view {self.name} has ended") from None
            return None
        found: dict[str, Any] = answer.json()
        return found if answer.status_code == 200 else None

    def sample(self) -> Sample | None:
        """How far it is; None while it does not answer."""
        told = self.status()
        if told is None:
            return None
        return Sample(
            time.monotonic(),
            told["position"],
            told["events_total"],
            told["rebuilding"],
            cpu_s(self._process.pid),
            cpu_s(self._stream),
        )

    def samples(self, until: Callable[[Sample], bool]) -> Iterator[Sample]:
        """One each SAMPLE_S, the last one satisfies `until`."""
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline:
            found = self.sample()
            if found is not None:
                yield found
                if until(found):
                    return
            time.sleep(SAMPLE_S)
        raise TimeoutError(f"view {self.name} did not get there in {LIMIT_S:g} s")

    def wait_at(self, position: int) -> Sample:
        """Until it holds everything up to `position`."""
        *_, last = self.samples(lambda one: one.position >= position and not one.rebuilding)
        return last

    def resume(self) -> None:
        """Let one that was started paused follow."""
        self.client.post("/resume").raise_for_status()

    def stop(self) -> None:
        """End its process; its files are then whole, without a log beside them."""
        self.client.close()
        processes.stop([self._process], term_s=30.0)


def cpu_s(pid: int) -> float:
    """Processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _child_of(parent: int, module: str) -> int:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            above = (entry / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if int(above) == parent and module.encode() in words:
            return int(entry.name)
    raise RuntimeError(f"process {parent} has no child {module}")
