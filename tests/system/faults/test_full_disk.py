"""Full disks: a clear ENOSPC or other servers, nothing lost, and it works again with space.

The data directory of one daemon lies on a small tmpfs, so root is needed; what SQLite
and the log do without any space at all is tested below the file port (tests/sim).
"""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import fuse_missing
from tests.system.faults.processes import SHORT_LEASES, FaultyCluster

pytestmark = [pytest.mark.mount, pytest.mark.slow, pytest.mark.timeout(150)]

MIB = 1 << 20
CONFIG = SHORT_LEASES + "log_segment_bytes = 1048576\n\n[chunkd]\nreserve_bytes = 1048576\n"
# What a daemon says of its full disk.
ALLOWED = (r"space\.", r"No space left", r"disk is full", r"no-space", r"write\.lost", r"NoSpace",
           r"append\.failed", r"disk\.failed")  # fmt: skip
SMALL = {"master": 96, "chunkd1": 48}  # MiB


class SmallDisks:
    """tmpfs under data directories, made before the daemons first start."""

    def __init__(self, cluster: FaultyCluster) -> None:
        self.cluster = cluster
        self.mounted: list[Path] = []

    def make(self, name: str, mib: int) -> None:
        path = self.cluster.layout.data(name)
        path.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=700", "gfs-test", path],
            check=True, timeout=10,
        )  # fmt: skip
        self.mounted.append(path)

    def fill(self, name: str, leave_bytes: int = 0) -> Path:
        """A file that takes the space of the daemon's disk."""
        path = self.cluster.layout.data(name) / "lost+found"
        status = os.statvfs(path.parent)
        left = status.f_bavail * status.f_bsize - leave_bytes
        with open(path, "wb", buffering=0) as file, suppress(OSError):
            while left > 0:  # a daemon may be quicker with the last pages
                left -= file.write(bytes(min(left, MIB)))
        return path

    def end(self) -> None:
        for path in self.mounted:
            subprocess.run(["umount", "-l", path], check=False, timeout=10)


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallDisks]:
    if os.geteuid() != 0:
        pytest.skip("a small tmpfs needs root")
    if reason := fuse_missing():
        pytest.skip(reason)
    found = FaultyCluster(tmp_path_factory.mktemp("c"))
    small = SmallDisks(found)
    try:
        found.layout.create()
        for name, mib in SMALL.items():
            small.make(name, mib)
        found.up(config=CONFIG, chunkservers=3, mounts=2, goal=3, projections=False)
        yield small
    finally:
        found.end()
        small.end()
    lines = found.faults(ALLOWED)
    if lines:
        pytest.fail("unexpected in the logs:\n" + "\n".join(lines[:20]), pytrace=False)


@pytest.fixture
def cluster(disks: SmallDisks) -> FaultyCluster:
    return disks.cluster


def write(path: Path, content: bytes) -> int:
    """Write and fsync; the errno, or 0."""
    try:
        with open(path, "wb", buffering=0) as file:
            file.writelines(content[start : start + MIB] for start in range(0, len(content), MIB))
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno or -1
    return 0


def smallest_free(cluster: FaultyCluster) -> int:
    """Free space of the fullest server, as the master has heard."""
    servers = cluster.status()["servers"]
    assert isinstance(servers, list)
    return min(int(server["free_bytes"]) for server in servers)


def takes_part(here: Path, cluster: FaultyCluster) -> bool:
    """A server that has failed is avoided for some seconds, then used again."""
    assert write(here / "more", os.urandom(6 * MIB)) == 0
    time.sleep(0.3)  # a heartbeat tells its space
    return smallest_free(cluster) < 20 * MIB


def sums(directory: Path, names: list[str]) -> dict[str, str]:
    return {name: hashlib.sha256((directory / name).read_bytes()).hexdigest() for name in names}


def test_disk_that_fills_under_an_open_chunk_loses_nothing(
    cluster: FaultyCluster, disks: SmallDisks, here: Path, there: Path
) -> None:
    with open(here / "log", "ab", buffering=0) as log, open(here / "f", "wb", buffering=0) as file:
        for number in range(60):
            if number == 20:
                filler = disks.fill("chunkd1")
            log.write(b"%06d" % number + b"x" * 100_000)
            file.write(b"%06d" % number + b"y" * 300_000)
            if number % 10 == 0:
                os.fsync(log.fileno())
                os.fsync(file.fileno())
    filler.unlink()
    for directory in (there, here):
        assert (directory / "log").read_bytes() == b"".join(
            b"%06d" % number + b"x" * 100_000 for number in range(60)
        )
        assert (directory / "f").read_bytes() == b"".join(
            b"%06d" % number + b"y" * 300_000 for number in range(60)
        )
    assert set(cluster.alive()) == set(cluster.names)


def test_full_chunk_server_is_left_out(
    cluster: FaultyCluster, disks: SmallDisks, here: Path, there: Path
) -> None:
    """Three times its size is written; it takes what it can, two servers take all."""
    cluster.wait("no room in the small one", lambda: smallest_free(cluster) > 20 * MIB)
    content = {f"{number}": os.urandom(6 * MIB) for number in range(24)}
    for name, data in content.items():
        assert write(here / name, data) == 0, name
    for name, data in content.items():
        assert (there / name).read_bytes() == data
    with open(here / "log", "ab", buffering=0) as log:
        log.writelines(b"%06d" % number + b"x" * 1000 for number in range(2000))
    assert (there / "log").stat().st_size == 2000 * 1006
    pids = cluster.alive()
    assert set(pids) == set(cluster.names)
    cluster.wait("the small one is not used again", lambda: takes_part(here, cluster))


def test_full_disk_of_the_master_refuses_changes_and_serves_reads(
    cluster: FaultyCluster, disks: SmallDisks, here: Path, there: Path
) -> None:
    kept = [f"kept{number}" for number in range(20)]
    for name in kept:
        assert write(here / name, os.urandom(10_000)) == 0
    before = sums(there, kept)
    filler = disks.fill("master", leave_bytes=4 * MIB)
    cluster.wait("it goes on", lambda: refused(here / "no", errno.ENOSPC))
    assert write(here / kept[0] / "x", b"") != 0
    with pytest.raises(OSError, check=lambda error: error.errno == errno.ENOSPC):
        os.mkdir(there / "no")
    assert sums(there, kept) == before
    assert sums(here, kept) == before
    filler.unlink()
    cluster.wait("it stays full", lambda: write(here / "yes", b"again") == 0)
    assert (there / "yes").read_bytes() == b"again"
    os.mkdir(there / "no")
    assert sums(there, kept) == before
    assert set(cluster.alive()) == set(cluster.names)
    assert cluster.fsck(copies=1) == []


def refused(path: Path, number: int) -> bool:
    """Is a new file refused? One that is not stays, as its removal may be refused already."""
    try:
        os.close(os.open(f"{path}{time.monotonic_ns()}", os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except OSError as error:
        return error.errno == number
    return False


@pytest.mark.kill
def test_restart_with_a_full_disk_keeps_everything(
    cluster: FaultyCluster, disks: SmallDisks, here: Path, there: Path
) -> None:
    assert write(here / "f", b"x" * 100_000) == 0
    fillers = [disks.fill("master", leave_bytes=20 * MIB), disks.fill("chunkd1")]
    servers = ("master", "chunkd1", "chunkd2", "chunkd3")
    cluster.kill(*servers)
    cluster.start(*servers)
    cluster.wait_ready()
    assert (there / "f").read_bytes() == b"x" * 100_000
    for filler in fillers:
        filler.unlink()
    cluster.wait("it stays full", lambda: write(here / "g", b"again") == 0)
    assert (there / "g").read_bytes() == b"again"
