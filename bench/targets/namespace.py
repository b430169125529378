"""A network namespace with addresses of its own, in which a peer's daemons live.

Peers refuse loopback addresses, and fixed ports must not meet a real cluster
on this machine. `nsenter --net` is used and not `ip netns exec`, which would
also unshare mounts and hide the peer's mounts from everybody else. What runs
in the namespace is the peer's by construction, so it can be ended safely.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from bench.targets.commands import alive, run, signal_process, wait_until
from bench.targets.target import TargetFailed

PREFIX = "gfs-bench-"
NAMESPACES = Path("/run/netns")
END_LIMIT_S = 10.0


class Namespace:
    """One network namespace, named after the peer and this process."""

    def __init__(self, peer: str, addresses: list[str]) -> None:
        self.name = f"{PREFIX}{peer}-{os.getpid()}"
        self._addresses = addresses

    def create(self) -> None:
        """Make the namespace and give its loopback device the addresses."""
        run("ip", "netns", "add", self.name)
        run("ip", "-n", self.name, "link", "set", "lo", "up")
        for address in self._addresses:
            run("ip", "-n", self.name, "address", "add", f"{address}/24", "dev", "lo")

    def run(self, *argv: str | Path, limit_s: float = 60.0) -> str:
        """Run a program inside, see `commands.run`."""
        net = f"--net={NAMESPACES / self.name}"
        return run("nsenter", net, "--", *argv, limit_s=limit_s)

    def pids(self) -> dict[int, str]:
        """Every process inside with its command line."""
        try:
            text = run("ip", "netns", "pids", self.name)
        except TargetFailed:
            return {}
        found = {}
        for pid in map(int, text.split()):
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                found[pid] = b" ".join(words).decode(errors="replace").strip()
        return {pid: line for pid, line in found.items() if line}

    def delete(self) -> None:
        """End every process inside and remove the namespace; never raises."""
        end_namespace(self.name)


def end_namespace(name: str) -> None:
    """End every process of a namespace of ours and remove it; never raises."""
    if not name.startswith(PREFIX) or not (NAMESPACES / name).exists():
        return
    with contextlib.suppress(TargetFailed):
        pids = [int(pid) for pid in run("ip", "netns", "pids", name).split()]
        for pid in pids:
            signal_process(pid, signal.SIGKILL)
        wait_until(lambda: not any(map(alive, pids)), f"end of {name}", END_LIMIT_S)
    with contextlib.suppress(TargetFailed):
        run("ip", "netns", "delete", name)


def leftovers() -> list[str]:
    """Namespaces of runs whose process is gone."""
    if not NAMESPACES.is_dir():
        return []
    names = [path.name for path in NAMESPACES.iterdir() if path.name.startswith(PREFIX)]
    return [name for name in names if not alive(int(name.rpartition("-")[2]))]
