"""Each daemon in a network namespace with an address of its own, as on hosts of their own.

    master 10.77.0.1    chunk servers 10.77.0.11, .12, .13    client and mount 10.77.0.20

Nothing here is seen by the host's network (tests.system.network). File
names are shared, so Unix sockets are left out on purpose: everything goes by TCP.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gfs import mounts
from gfs.handshake import create_key
from tests.system.clusters import ROOT
from tests.system.network import NO_SOCKET, Network

pytestmark = [pytest.mark.netns, pytest.mark.timeout(120)]

SERVERS = (11, 12, 13)
CLIENT = 20
READY_S = 40.0


class Hosts:
    """Hosts on a network of their own, and the daemons on them."""

    def __init__(self, directory: Path, network: Network) -> None:
        self.directory = directory
        self.network = network
        self.running: list[subprocess.Popen[bytes]] = []
        self.key = directory / "key"
        create_key(self.key)

    def words(self, number: int, *words: str) -> list[str]:
        """A command on that host."""
        return [*self.network.prefix(number), sys.executable, "-m", *words]

    def start(self, number: int, program: str, *flags: str) -> Path:
        """Start a daemon there; its ready file."""
        name = f"{program}{number}"
        ready = self.directory / f"{name}.ready"
        common = [
            "--cluster-id=hosts", f"--key-file={self.key}", f"--ready-file={ready}",
            f"--log-file={self.directory / name}.log", "--cluster-dir=gfs://10.77.0.1:7100",
        ]  # fmt: skip
        with open(self.directory / f"{name}.log", "ab") as log:
            self.running.append(
                subprocess.Popen(
                    self.words(number, program, *common, *flags),
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT,
                )
            )  # fmt: skip
        return ready

    def wait(self, *ready: Path) -> None:
        deadline = time.monotonic() + READY_S
        while not all(path.exists() for path in ready):
            ended = [process.args for process in self.running if process.poll() is not None]
            assert not ended, self.logs()
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.05)

    def logs(self) -> str:
        paths = sorted(self.directory.glob("*.log"))
        return "\n".join(f"== {path.name}\n{path.read_text()[-1500:]}" for path in paths)

    def gfs(self, *words: str, given: bytes | None = None) -> bytes:
        """A command on the client's host, by TCP with the key."""
        environment = {
            **os.environ, "GFS_CLUSTER": "gfs://10.77.0.1:7100",
            "GFS_CLUSTER_KEY_FILE": str(self.key), "GFS_CLUSTER_ID": "hosts",
        }  # fmt: skip
        done = subprocess.run(
            self.words(CLIENT, "gfs.cli.main", *words),
            input=given, capture_output=True, timeout=60, cwd=ROOT, env=environment, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode() + self.logs()
        return done.stdout

    def end(self) -> None:
        for process in reversed(self.running):  # a mount without its master waits for it
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    network = Network()
    found = Hosts(tmp_path, network)
    try:
        for number in (1, *SERVERS, CLIENT):
            network.add(number)
        yield found
    finally:
        found.end()
        network.end()


def bring_up(hosts: Hosts) -> None:
    """Bound to all interfaces, told to others by the advertised address."""
    master = hosts.start(
        1, "master", "--address=0.0.0.0:7100", "--advertise=10.77.0.1:7100",
        f"--data-dir={hosts.directory / 'master'}", "--safe-start-s=0",
    )  # fmt: skip
    servers = [
        hosts.start(
            number, "chunkd", "--address=0.0.0.0:7110", f"--advertise=10.77.0.{number}:7110",
            "--master=10.77.0.1:7100",
            f"--data-dirs={hosts.directory / f'chunks{number}' / NO_SOCKET}",
        )
        for number in SERVERS
    ]  # fmt: skip
    hosts.wait(master, *servers)


def test_daemons_on_hosts_of_their_own_serve_a_client_on_another(hosts: Hosts) -> None:
    bring_up(hosts)
    content = os.urandom(3 * 1024 * 1024)
    hosts.gfs("put", "-", "/file", given=content)
    assert hosts.gfs("cat", "/file") == content
    hosts.gfs("append", "/log", given=b"line\n")
    assert hosts.gfs("cat", "/log") == b"line\n"
    shown = hosts.gfs("stat", "--chunks", "/file").decode()
    for number in SERVERS:  # three replicas, known by what was advertised
        assert f"10.77.0.{number}:7110" in shown


@pytest.mark.mount
def test_a_mount_on_a_host_of_its_own_names_its_cluster(hosts: Hosts) -> None:
    bring_up(hosts)
    point = hosts.directory / "mnt"
    point.mkdir()
    hosts.wait(hosts.start(CLIENT, "mount", "--master=10.77.0.1:7100", str(point)))
    (point / "file").write_bytes(b"by tcp")
    assert (point / "file").read_bytes() == b"by tcp"
    found = mounts.mount_at(os.fsencode(point))
    assert found is not None
    assert found.cluster == "gfs://10.77.0.1:7100"
