"""MooseFS from Debian: one master, three chunk servers, goal 3, two mounts.

Debian's defaults but for addresses, directories and the goal. So its chunk
servers do not fsync (HDD_FSYNC_BEFORE_CLOSE = 0): an fsync on a mount waits
for three servers, not for a disk.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
from pathlib import Path

from bench.targets.commands import drop_caches, mount_device, signal_process, unmount, wait_until
from bench.targets.namespace import Namespace
from bench.targets.packages import require, require_root, version_of
from bench.targets.target import Target, TargetFailed

SERVERS = 3
MASTER_ADDRESS = "10.213.71.1"
CHUNK_ADDRESSES = [f"10.213.71.{10 + number}" for number in range(1, SERVERS + 1)]
EMPTY_METADATA = Path("/var/lib/mfs/metadata.mfs.empty")
VICTIM = 2  # the chunk server that is killed or stopped
READY_LIMIT_S = 60.0
PROGRAMS = {
    "mfsmaster": "moosefs-master",
    "mfschunkserver": "moosefs-chunkserver",
    "mfsmount": "moosefs-client",
    "mfssetgoal": "moosefs-client",
}


class MooseFS(Target):
    """Daemons in a network namespace, mounts visible to all."""

    name = "moosefs"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._net = Namespace("mfs", [MASTER_ADDRESS, *CHUNK_ADDRESSES])

    def check(self) -> None:
        require_root()
        require(PROGRAMS)

    def version(self) -> str:
        return f"MooseFS {version_of('moosefs-master')}, goal 3"

    def mounts(self) -> list[Path]:
        return [self.directory / "mnt1", self.directory / "mnt2"]

    def start(self) -> None:
        self._configure()
        self._net.create()
        self._net.run("mfsmaster", "-c", self.directory / "master.cfg", "start")
        for number in range(1, SERVERS + 1):
            self._start_chunkserver(number)
        self._mount_all()
        self._net.run("mfssetgoal", "-r", "3", self.mounts()[0])
        self._wait_servers()

    def remount(self) -> None:
        for point in self.mounts():
            unmount(point)
        wait_until(lambda: not self._pids_of("mfsmount"), "mfsmount ends", READY_LIMIT_S)
        self._mount_all()

    def drop_server_caches(self) -> None:
        drop_caches([self.directory])

    def pids(self) -> dict[str, int]:
        return {f"{line.split()[0]}-{pid}": pid for pid, line in self._net.pids().items()}

    def kill_server(self) -> None:
        signal_process(self._victim(), signal.SIGKILL)

    def stop_server(self) -> None:
        signal_process(self._victim(), signal.SIGSTOP)

    def restart_master(self) -> None:
        for pid in self._pids_of("mfsmaster"):
            signal_process(pid, signal.SIGKILL)
        wait_until(lambda: not self._pids_of("mfsmaster"), "mfsmaster ends", READY_LIMIT_S)
        # -a: take what its changelogs have, as after any kill.
        self._net.run("mfsmaster", "-a", "-c", self.directory / "master.cfg", "start")

    def heal(self) -> None:
        for pid in self._net.pids():
            signal_process(pid, signal.SIGCONT)
        for number in range(1, SERVERS + 1):
            if not self._pids_of(f"chunk{number}.cfg"):
                self._start_chunkserver(number)
        self._wait_servers()

    def stop(self) -> None:
        for pid in self._net.pids():
            signal_process(pid, signal.SIGCONT)
        for point in self.mounts():
            with contextlib.suppress(TargetFailed):
                unmount(point)
        self._net.delete()

    def _configure(self) -> None:
        for point in self.mounts():
            point.mkdir(parents=True)
        data = self.directory / "master"
        data.mkdir()
        shutil.copy(EMPTY_METADATA, data / "metadata.mfs")
        self._write("exports.cfg", ["* / rw,alldirs,admin,maproot=0:0"])
        self._write("topology.cfg", [])
        listen = ("MATOML", "MATOCS", "MATOCL")
        self._write(
            "master.cfg",
            [
                "WORKING_USER = root",
                "WORKING_GROUP = root",
                f"DATA_PATH = {data}",
                f"EXPORTS_FILENAME = {self.directory / 'exports.cfg'}",
                f"TOPOLOGY_FILENAME = {self.directory / 'topology.cfg'}",
                *(f"{who}_LISTEN_HOST = {MASTER_ADDRESS}" for who in listen),
            ],
        )
        for number in range(1, SERVERS + 1):
            self._configure_chunkserver(number)

    def _configure_chunkserver(self, number: int) -> None:
        for kind in ("disk", "state"):
            (self.directory / f"{kind}{number}").mkdir()
        self._write(f"disk{number}.cfg", [str(self.directory / f"disk{number}")])
        address = CHUNK_ADDRESSES[number - 1]
        self._write(
            f"chunk{number}.cfg",
            [
                "WORKING_USER = root",
                "WORKING_GROUP = root",
                f"DATA_PATH = {self.directory / f'state{number}'}",
                f"HDD_CONF_FILENAME = {self.directory / f'disk{number}.cfg'}",
                f"MASTER_HOST = {MASTER_ADDRESS}",
                f"BIND_HOST = {address}",
                f"CSSERV_LISTEN_HOST = {address}",
            ],
        )

    def _write(self, name: str, lines: list[str]) -> None:
        (self.directory / name).write_text("\n".join(lines) + "\n")

    def _start_chunkserver(self, number: int) -> None:
        self._net.run("mfschunkserver", "-c", self.directory / f"chunk{number}.cfg", "start")

    def _mount_all(self) -> None:
        for point in self.mounts():
            self._net.run("mfsmount", point, "-H", MASTER_ADDRESS)
            wait_until(lambda point=point: mount_device(point) is not None, "mount", READY_LIMIT_S)  # type: ignore[misc]

    def _wait_servers(self) -> None:
        """Wait until a new file gets three copies: only then have all servers registered."""
        number = 0

        def copied() -> bool:
            nonlocal number
            number += 1
            probe = self.mounts()[0] / f".probe-{number}"
            self._net.run("dd", "if=/dev/zero", f"of={probe}", "bs=4k", "count=1", "conv=fsync")
            text = self._net.run("mfsfileinfo", probe)
            self._net.run("rm", probe)
            return f"copy {SERVERS}" in text

        wait_until(copied, "three chunk servers", READY_LIMIT_S)

    def _pids_of(self, part: str) -> list[int]:
        return [pid for pid, line in self._net.pids().items() if part in line]

    def _victim(self) -> int:
        return self._pids_of(f"chunk{VICTIM}.cfg")[0]
