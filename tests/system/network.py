"""Hosts of their own on one machine: network namespaces on a bridge, with links that can be cut.

    10.77.0.NUMBER    one namespace each, eth0, joined by a bridge in a namespace of its own

Nothing here is seen by the host's network; file names are shared. A direction is cut by
giving the sender a wrong hardware address of the receiver: what it sends is lost without
a word, as on a broken link, and what comes the other way still arrives.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from contextlib import suppress

# A chunk server's socket lies in its data directory; below one of this name its path is too
# long for a socket, so that nobody finds a way to another host that is no link.
NO_SOCKET = "no-socket-" * 10
NOWHERE = "02:00:00:00:00:01"  # a hardware address that no host here has


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, timeout=10, capture_output=True)


def why_no_network() -> str | None:
    """Why no namespace can be made here, or None."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    name = f"gfs-probe-{os.getpid()}"
    try:
        ip("netns", "add", name)
        ip("netns", "del", name)
    except (OSError, subprocess.SubprocessError) as error:
        return f"no network namespace can be made: {error}"
    return None


class Network:
    """Namespaces joined by a bridge; `end` removes all of them."""

    def __init__(self) -> None:
        self.tag = f"gfs{os.getpid()}"
        self.numbers: set[int] = set()
        self._names: list[str] = []
        self._wrong: set[tuple[int, int]] = set()
        self._down: set[int] = set()
        hub = self._add(0)
        ip("-n", hub, "link", "add", "br0", "type", "bridge")
        ip("-n", hub, "link", "set", "br0", "up")

    def _add(self, number: int) -> str:
        name = self._name(number)
        ip("netns", "add", name)
        self._names.append(name)
        ip("-n", name, "link", "set", "lo", "up")
        return name

    def _name(self, number: int) -> str:
        return f"{self.tag}-{number}"

    def add(self, number: int) -> None:
        """A host, `address(number)`; numbers begin at 1."""
        name, hub, port = self._add(number), self._name(0), f"p{number}"
        ip("-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", port, "netns", hub)
        ip("-n", name, "addr", "add", f"{self.address(number)}/24", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", hub, "link", "set", port, "master", "br0")
        ip("-n", hub, "link", "set", port, "up")
        self.numbers.add(number)

    @staticmethod
    def address(number: int) -> str:
        return f"10.77.0.{number}"

    def prefix(self, number: int) -> list[str]:
        """Words before a command that runs on that host.

        nsenter keeps the host's mounts, `ip netns exec` would not.
        """
        return ["nsenter", f"--net=/run/netns/{self._name(number)}", "--"]

    # --- links

    def cut(self, number: int) -> None:
        """Take the host off the net, both ways."""
        ip("-n", self._name(0), "link", "set", f"p{number}", "down")
        self._down.add(number)

    def lose(self, sender: int, receivers: Iterable[int]) -> None:
        """What `sender` sends to `receivers` is lost; what they send arrives."""
        for receiver in set(receivers) - {sender}:
            address = self.address(receiver)
            way = ("lladdr", NOWHERE, "nud", "permanent", "dev", "eth0")
            ip("-n", self._name(sender), "neigh", "replace", address, *way)
            self._wrong.add((sender, receiver))

    def mend(self) -> None:
        """All links as they were."""
        for number in self._down:
            ip("-n", self._name(0), "link", "set", f"p{number}", "up")
        for sender, receiver in self._wrong:
            address = self.address(receiver)
            ip("-n", self._name(sender), "neigh", "del", address, "dev", "eth0")
        self._down.clear()
        self._wrong.clear()

    def end(self) -> None:
        """Remove everything; never raises."""
        for name in self._names:
            with suppress(OSError, subprocess.SubprocessError):
                subprocess.run(["ip", "netns", "del", name], check=False, timeout=10)
