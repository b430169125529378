"""Each daemon on a host of its own, links cut one way: a pause, and nothing is lost or doubled.

What a sender loses without a word is the hard case: nobody gets an error, and the two ends
disagree about who is alive.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import fuse_missing
from tests.system.faults.test_appenders import lines_by_writer
from tests.system.faults.writer import Told, Writer
from tests.system.network import Network, why_no_network
from tests.torture.cluster import TortureCluster

pytestmark = [
    pytest.mark.mount, pytest.mark.netns, pytest.mark.kill, pytest.mark.slow,
    pytest.mark.timeout(150),
]  # fmt: skip

SERVERS = ("chunkd1", "chunkd2", "chunkd3")
LINES, SYNC_EVERY = 1500, 5
CUT_S, HEALTHY_S = 3.0, 40.0
# A hung server costs two seconds; beyond this the machine is not busy but the writer stuck.
STUCK_S = 15.0
MIB = 1 << 20


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TortureCluster]:
    if reason := why_no_network() or fuse_missing():
        pytest.skip(reason)
    network = Network()
    try:
        found = TortureCluster(
            tmp_path_factory.mktemp("c"),
            network=network,
            chunkservers=len(SERVERS),
            mounts=2,
            projections=False,
        )
    except BaseException:
        network.end()
        raise
    try:
        found.bring_up()
        yield found
    finally:
        found.end()
    lines = [line for line in found.faults() if "Traceback" in line or "CRITICAL" in line]
    if lines:
        pytest.fail("unexpected in the logs:\n" + "\n".join(lines[:20]), pytrace=False)


@pytest.fixture
def cluster(running: TortureCluster) -> Iterator[TortureCluster]:
    running.heal()
    yield running
    running.heal()


@pytest.fixture
def here(cluster: TortureCluster, request: pytest.FixtureRequest) -> Path:
    path = cluster.mnt(1) / re.sub(r"\W", "_", request.node.name)[-90:]
    path.mkdir()
    return path


@pytest.fixture
def there(cluster: TortureCluster, here: Path) -> Path:
    return cluster.mnt(2) / here.name


def append_during(cluster: TortureCluster, here: Path, there: Path) -> None:
    """Two appenders while the links are as they are for a while; then all lines are checked."""
    network = cluster.network
    assert network is not None
    writers = [
        Writer("append", path / "log", number, LINES, SYNC_EVERY)
        for number, path in enumerate((here, there))
    ]
    time.sleep(CUT_S)
    network.mend()
    told = [writer.end() for writer in writers]
    check(told, here, there)


def check(told: list[Told], here: Path, there: Path) -> None:
    assert [one.errno for one in told] == [0, 0]
    for path in (here, there):
        found = lines_by_writer((path / "log").read_bytes())
        assert found == {writer: list(range(LINES)) for writer in range(2)}
    longest = max(max(one.longest_s, one.sync_s) for one in told)
    print(f"longest call {1000 * longest:.0f} ms")
    assert longest < STUCK_S


@pytest.mark.parametrize(("sender", "receiver"), [(1, 2), (3, 2)])
def test_member_that_another_no_longer_hears_is_a_pause(
    cluster: TortureCluster, here: Path, there: Path, sender: int, receiver: int
) -> None:
    assert cluster.network is not None
    (here / "log").write_bytes(b"")
    hosts = cluster.hosts
    cluster.network.lose(hosts[f"chunkd{sender}"], {hosts[f"chunkd{receiver}"]})
    append_during(cluster, here, there)


@pytest.mark.parametrize("way", ["mute", "deaf"])
def test_server_that_is_heard_by_nobody_or_hears_nobody_is_a_pause(
    cluster: TortureCluster, here: Path, there: Path, way: str
) -> None:
    network, host = cluster.network, cluster.hosts["chunkd2"]
    assert network is not None
    (here / "log").write_bytes(b"")
    if way == "mute":
        network.lose(host, network.numbers)
    else:
        for other in network.numbers - {host}:
            network.lose(other, {host})
    append_during(cluster, here, there)


def test_master_that_one_mount_no_longer_hears_refuses_no_other(
    cluster: TortureCluster, here: Path, there: Path
) -> None:
    """Goal: a mount cut off for longer than its lease delays the other once, and comes back."""
    assert cluster.network is not None
    (here / "before").write_bytes(b"x")
    cluster.network.lose(cluster.hosts["master"], {cluster.hosts["mount2"]})
    start = time.monotonic()
    for number in range(50):
        (here / f"f{number}").write_bytes(b"%d" % number)
    print(f"50 files in {time.monotonic() - start:.1f} s")
    assert time.monotonic() - start < STUCK_S
    time.sleep(max(0.0, start + 6.0 - time.monotonic()))
    cluster.network.mend()
    for number in range(50):
        assert (there / f"f{number}").read_bytes() == b"%d" % number
    (there / "after").write_bytes(b"y")
    assert (here / "after").read_bytes() == b"y"


def test_member_returning_with_an_older_tail_is_not_believed(
    cluster: TortureCluster, here: Path, there: Path
) -> None:
    """Goal: its replica of the tail, cut short as by a power loss, never counts again.

    Method: kill it in the middle, cut what it had of open chunks, go on without it; when all
    copies are there again, it alone must have everything.
    """
    with open(here / "log", "ab", buffering=0) as log:
        for number in range(400):
            if number == 200:
                os.fsync(log.fileno())
                cluster.kill("chunkd3")
                cut_open_replicas(cluster.chunks("chunkd3"))
            if number == 300:
                cluster.start("chunkd3")
            log.write(b"%06d %s\n" % (number, b"z" * 300))
        os.fsync(log.fileno())
    expected = (here / "log").read_bytes()
    assert [int(line[:6]) for line in expected.splitlines()] == list(range(400))
    cluster.wait_ready()
    wait_healthy(cluster)
    cluster.kill("chunkd1", "chunkd2")
    assert (there / "log").read_bytes() == expected
    cluster.start("chunkd1", "chunkd2")
    cluster.wait_ready()


def wait_healthy(cluster: TortureCluster) -> None:
    """All copies of all chunks, and they are right."""
    deadline = time.monotonic() + HEALTHY_S
    while problems := cluster.fsck():
        assert time.monotonic() < deadline, problems
        time.sleep(0.1)


def cut_open_replicas(directory: Path) -> None:
    """Half of what open replicas hold is gone, as if it had never been synced."""
    for side in directory.glob("chunks/*/*.side"):
        data = side.with_suffix(".data")
        os.truncate(data, data.stat().st_size // 2)


def test_killed_mount_ends_its_session_and_leaves_nothing_open(
    cluster: TortureCluster, here: Path, there: Path
) -> None:
    content = os.urandom(5 * MIB)
    fd = os.open(there / "f", os.O_WRONLY | os.O_CREAT)
    assert os.write(fd, content) == len(content)
    os.fsync(fd)
    sessions = cluster.status()["sessions"]
    assert isinstance(sessions, int)
    cluster.kill("mount2")
    with suppress(OSError):
        os.close(fd)
    cluster.wait("its session lives", lambda: cluster.status().get("sessions") == sessions - 1)
    cluster.start("mount2")
    cluster.wait_ready("mount2")
    for path in (here, there):
        assert digest(path / "f") == hashlib.sha256(content).hexdigest()
    wait_healthy(cluster)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
