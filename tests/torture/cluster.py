"""The cluster under torture: each daemon and mount on a host of its own where that is possible.

Without root everything runs on this host: no link can be cut and no disk filled.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path

from gfs.cluster import plan, processes
from gfs.cluster.layout import Facts, choose_address
from gfs.cluster.plan import Spec
from gfs.cluster.processes import Process, Registry
from tests.system.faults.processes import FaultyCluster
from tests.system.network import NO_SOCKET, Network
from tests.torture.schedule import Field

MIB = 1 << 20
SMALL_DISK_MIB = 768
PORT, HTTP_PORT, STREAM_PORT = 7100, 7200, 7300
# Times that are minutes by default are seconds, so that a short run sees their end.
CONFIG = """
[master]
cache_lease_s = 4.0
safe_start_s = 4.0
reclaim_delay_s = 20.0
repair_delay_s = 4.0
trash_keep_s = 60.0
trash_min_age_s = 20.0
chunk_bytes = 8388608
checkpoint_records = 4000
log_segment_bytes = 4194304
"""


class TortureCluster(FaultyCluster):
    """`gfs cluster` in network namespaces; `expected_alive` is what we have not killed."""

    def __init__(
        self,
        directory: Path,
        *,
        network: Network | None,
        chunkservers: int,
        mounts: int,
        projections: bool = True,
        shadow: bool = False,
    ) -> None:
        super().__init__(directory)
        self.network = network
        self.hosts: dict[str, int] = {}
        self.small_disk: Path | None = None
        self.children: list[subprocess.Popen[bytes]] = []
        facts = self.layout.create()
        facts.chunkservers, facts.mounts, facts.goal = chunkservers, mounts, 3
        facts.projections, facts.shadow = projections, shadow
        self._make(facts)

    def _make(self, facts: Facts) -> None:
        self.layout.config.write_text(CONFIG)
        self.layout.ensure_runtime_dir(facts)
        self._choose_addresses(facts)
        self.layout.save(facts)
        for number in range(1, facts.mounts + 1):
            self.mnt(number).mkdir()
        if os.geteuid() == 0:
            self._make_small_disk(f"chunkd{facts.chunkservers}")

    def _choose_addresses(self, facts: Facts) -> None:
        specs = list(plan.specs(self.layout, _named(facts)))
        for number, spec in enumerate(specs, 1):
            self.hosts[spec.name] = number
            if self.network is not None:
                self.network.add(number)
            for port in spec.ports:
                facts.addresses[port] = self._address(number, port, facts)

    def _address(self, number: int, port: str, facts: Facts) -> str:
        if self.network is None:
            return choose_address(facts.addresses.values())
        at = HTTP_PORT if port.endswith("_http") else PORT
        at = STREAM_PORT if port.endswith("stream") else at
        return f"{self.network.address(number)}:{at}"

    def _make_small_disk(self, name: str) -> None:
        path = self.layout.data(name)
        path.mkdir(parents=True, exist_ok=True)
        size = f"size={SMALL_DISK_MIB}m,mode=700"
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", size, "gfs-test", path], check=True, timeout=10
        )
        self.small_disk = path

    def field(self) -> Field:
        """What can be broken here."""
        facts = self.layout.load()
        return Field(
            facts.chunkservers,
            facts.mounts,
            beside=tuple(name for name in self.names if name.startswith(("projections", "shadow"))),
            small_disk=self.small_disk.name if self.small_disk else "",
            links=self.network is not None,
        )

    # --- processes

    def start(self, *names: str) -> None:
        """Start these on their hosts; without a wait."""
        by_name = {spec.name: spec for spec in plan.specs(self.layout, self.layout.load())}
        registry = Registry(self.layout)
        self.children = [child for child in self.children if child.poll() is None]
        for name in names:
            spec = by_name[name]
            self.layout.ready(name).unlink(missing_ok=True)
            registry.put(self._start(spec))

    def _start(self, spec: Spec) -> Process:
        words, environment = processes.program_command(spec.program)
        prefix = self.network.prefix(self.hosts[spec.name]) if self.network else []
        with open(self.layout.log(spec.name), "ab") as output:
            child = subprocess.Popen(
                [*prefix, *words, *self._arguments(spec)],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/",
                env=environment, start_new_session=True,
            )  # fmt: skip
        self.children.append(child)
        started = processes.start_time(child.pid)
        return Process(
            spec.name, child.pid, -1 if started is None else started, processes.boot_id()
        )

    def _arguments(self, spec: Spec) -> list[str]:
        """By TCP alone, so that a cut link cuts."""
        words = super()._arguments(spec)
        if self.network is None:
            return words
        dropped = ["--master-unix", "--stream-unix"] if spec.program != "master" else []
        if spec.program == "chunkd":
            dropped += ["--unix", "--data-dirs"]
        left = [word for word in words if word.partition("=")[0] not in dropped]
        return (
            [*left, f"--data-dirs={self.chunks(spec.name)}"] if spec.program == "chunkd" else left
        )

    def chunks(self, name: str) -> Path:
        """A chunk server's data directory.

        The first one can be reached by its Unix socket, as if it were on the host of each mount.
        """
        top = self.layout.data(name)
        return top if self.network is None or name == "chunkd1" else top / NO_SOCKET

    def bring_up(self) -> None:
        """Start all, stage by stage, and wait."""
        specs = list(plan.specs(self.layout, self.layout.load()))
        for stage in sorted({spec.stage for spec in specs}):
            members = [spec.name for spec in specs if spec.stage == stage]
            self.start(*members)
            for name in members:
                self.wait(f"{name} is not ready", partial(self._is_ready, name))
        self.wait_ready()

    def died(self, killed: set[str]) -> list[str]:
        """Processes that have ended although nobody killed them."""
        alive = self.alive()
        return [name for name in self.names if name not in alive and name not in killed]

    def heal(self) -> None:
        """Everything runs, is linked, and has space."""
        if self.network is not None:
            self.network.mend()
        self.empty_disk()
        alive = self.alive()
        for process in alive.values():
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGCONT)
        self.start(*(name for name in self.names if name not in alive))
        self.wait_ready()

    # --- the small disk

    @property
    def _filler(self) -> Path:
        assert self.small_disk is not None
        return self.small_disk / "lost+found"

    def fill_disk(self) -> None:
        """Nothing more fits."""
        with open(self._filler, "wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(MIB))

    def empty_disk(self) -> None:
        """Space again."""
        if self.small_disk is not None:
            self._filler.unlink(missing_ok=True)

    def gfs(self, *words: str) -> bytes:
        """Standard output of a command."""
        named = ["--cluster", str(self.layout.directory), *words]
        done = subprocess.run(
            [sys.executable, "-P", "-m", "gfs.cli.main", *named],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False, cwd="/",
            env=processes.program_command("master")[1],
        )  # fmt: skip
        assert done.returncode == 0, f"gfs {words}: {done.stderr.decode()}"
        return done.stdout

    def end(self) -> None:
        """Stopped and unmounted, whatever state it is in."""
        if self.network is not None:
            with suppress(OSError, subprocess.SubprocessError):
                self.network.mend()
        super().end()  # the small disk is a mount below the directory, too
        for child in self.children:
            with suppress(subprocess.TimeoutExpired):
                child.wait(5)
        if self.network is not None:
            self.network.end()


def _named(facts: Facts) -> Facts:
    """The same with some address for every name, to ask for the plan."""
    facts.addresses = dict.fromkeys(plan.port_names(facts), "0.0.0.0:0")
    return facts
