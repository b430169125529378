"""This project: a local cluster of one master, three chunk servers, two mounts.

Driven only through the command `gfs`, as a user would.
"""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import signal
import sys
from pathlib import Path

from bench.targets.commands import (
    alive,
    drop_caches,
    mount_device,
    run,
    signal_process,
    unmount,
    wait_until,
)
from bench.targets.target import Target, TargetFailed, Unavailable

SERVERS = 3
MOUNTS = 2
VICTIM = "chunkd2"  # the chunk server that is killed or stopped
COMMAND_LIMIT_S = 120.0
MODULE = "gfs.cli.main"  # by name: looked for, never imported


class Ours(Target):
    """`gfs cluster up` and `down` in a directory of its own."""

    name = "ours"

    def check(self) -> None:
        if not self._command():
            raise Unavailable("the command `gfs` is not installed: make setup")

    def version(self) -> str:
        return "this project, goal 3"

    def mounts(self) -> list[Path]:
        return [self.directory / f"mnt{number}" for number in range(1, MOUNTS + 1)]

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self._up()
        for point in self.mounts():
            if mount_device(point) is None:
                raise TargetFailed(f"nothing is mounted at {point} after `gfs cluster up`")

    def remount(self) -> None:
        pids = [pid for name, pid in self.pids().items() if name.startswith("mount")]
        for pid in pids:
            signal_process(pid, signal.SIGTERM)
        wait_until(lambda: not any(map(alive, pids)), "mounts end on SIGTERM", COMMAND_LIMIT_S)
        for point in self.mounts():
            if mount_device(point) is not None:
                raise TargetFailed(f"{point} is still mounted after SIGTERM")
        self._up()

    def drop_server_caches(self) -> None:
        drop_caches([self.directory])

    def pids(self) -> dict[str, int]:
        try:
            rows = (self.directory / "pids").read_text().splitlines()
        except FileNotFoundError:
            return {}
        pairs = (row.split()[:2] for row in rows if row.strip())
        return {name: int(pid) for pid, name in pairs if alive(int(pid))}

    def kill_server(self) -> None:
        signal_process(self._victim(), signal.SIGKILL)

    def stop_server(self) -> None:
        signal_process(self._victim(), signal.SIGSTOP)

    def restart_master(self) -> None:
        pid = self.pids()["master"]
        signal_process(pid, signal.SIGKILL)
        wait_until(lambda: not alive(pid), "the master ends", COMMAND_LIMIT_S)
        self._up()

    def heal(self) -> None:
        for pid in self.pids().values():
            signal_process(pid, signal.SIGCONT)
        self._up()

    def stop(self) -> None:
        pids = list(self.pids().values())
        for pid in pids:
            signal_process(pid, signal.SIGCONT)
        with contextlib.suppress(TargetFailed):
            self._gfs("cluster", "down", "--dir", self.directory, "--purge")
        for point in self.mounts():
            with contextlib.suppress(TargetFailed):
                unmount(point)
        for pid in filter(alive, pids):
            signal_process(pid, signal.SIGKILL)

    def command(self, *words: str | Path) -> str:
        """What a command of `gfs` on this cluster prints."""
        return self._gfs("--cluster", self.directory, *words)

    def _up(self) -> None:
        counts = ("--chunkservers", str(SERVERS), "--mounts", str(MOUNTS))
        self._gfs("cluster", "up", "--dir", self.directory, *counts)

    def _gfs(self, *words: str | Path) -> str:
        return run(*self._command(), *words, limit_s=COMMAND_LIMIT_S)

    def _command(self) -> list[str]:
        """The installed command beside this Python, else its module, empty if there is neither."""
        if script := shutil.which("gfs", path=str(Path(sys.executable).parent)):
            return [script]
        found = importlib.util.find_spec(MODULE)
        return [sys.executable, "-m", MODULE] if found else []

    def _victim(self) -> int:
        try:
            return self.pids()[VICTIM]
        except KeyError:
            raise TargetFailed(f"{VICTIM} does not run") from None
