"""Four appenders on two mounts: every line once, whole and in order, whatever is killed."""

from __future__ import annotations

import os
import signal
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from tests.system.faults.processes import SHORT_LEASES, FaultyCluster
from tests.system.faults.works import amount
from tests.system.faults.writer import Told, Writer, line_of

pytestmark = [pytest.mark.mount, pytest.mark.kill, pytest.mark.slow, pytest.mark.timeout(200)]

CONFIG = SHORT_LEASES
LINES = amount(ci=3000, full=20_000)  # of each writer
SYNC_EVERY = 5  # lines, by every second writer; so it is at work when something fails
ALLOWED = (r"session\.(dead|lost)", r"append\.failed .*DeadSession", r"append\.failed .*ended")


class Writers:
    """Programs that append numbered lines, two through each mount."""

    def __init__(self, first: Path, second: Path) -> None:
        self.programs = [
            Writer("append", path, number, LINES, SYNC_EVERY if number >= 2 else 0)
            for number, path in enumerate((first, second, first, second))
        ]
        self.told: list[Told] = []

    def wait_third(self) -> None:
        for program in self.programs:
            program.wait_third()

    def end(self) -> None:
        self.told = [program.end() for program in self.programs]
        calls = ", ".join(f"{1000 * told.longest_s:.0f}" for told in self.told)
        syncs = ", ".join(f"{1000 * told.sync_s:.0f}" for told in self.told[2:])
        print(f"longest write calls {calls} ms, fsync {syncs} ms")


def lines_by_writer(content: bytes) -> dict[int, list[int]]:
    """Numbers of the lines of each writer; every line is exactly one that was written."""
    found: defaultdict[int, list[int]] = defaultdict(list)
    assert content.endswith(b"\n")
    for line in content.splitlines(keepends=True):
        writer, number = int(line[:1]), int(line[2:9])
        assert line == line_of(writer, number), "torn"
        found[writer].append(number)
    return found


def run(cluster: FaultyCluster, here: Path, there: Path, fault: Callable[[], None]) -> Writers:
    (here / "log").touch()
    assert (there / "log").stat().st_size == 0
    writers = Writers(here / "log", there / "log")
    writers.wait_third()
    fault()
    writers.end()
    return writers


def check_all(writers: Writers, *paths: Path) -> None:
    assert [told.errno for told in writers.told] == [0] * 4
    for path in paths:
        found = lines_by_writer(path.read_bytes())
        assert found == {writer: list(range(LINES)) for writer in range(4)}, path


def test_nothing_fails(cluster: FaultyCluster, here: Path, there: Path) -> None:
    check_all(run(cluster, here, there, lambda: None), here / "log", there / "log")


@pytest.mark.parametrize("name", ["chunkd1", "chunkd2", "chunkd3"])
def test_killed_chunk_server(cluster: FaultyCluster, here: Path, there: Path, name: str) -> None:
    writers = run(cluster, here, there, lambda: cluster.kill(name))
    check_all(writers, here / "log", there / "log")


def test_stopped_chunk_server(cluster: FaultyCluster, here: Path, there: Path) -> None:
    pid = cluster.pid("chunkd1")
    try:
        writers = run(cluster, here, there, lambda: os.kill(pid, signal.SIGSTOP))
    finally:
        os.kill(pid, signal.SIGCONT)
    check_all(writers, here / "log", there / "log")


def test_killed_and_restarted_chunk_servers(
    cluster: FaultyCluster, here: Path, there: Path
) -> None:
    def fault() -> None:
        for name in ("chunkd1", "chunkd2", "chunkd3"):
            cluster.restart(name)

    check_all(run(cluster, here, there, fault), here / "log", there / "log")


def test_killed_and_restarted_master(cluster: FaultyCluster, here: Path, there: Path) -> None:
    def fault() -> None:
        for _ in range(2):
            cluster.restart("master")

    check_all(run(cluster, here, there, fault), here / "log", there / "log")


def test_all_servers_killed_and_restarted(cluster: FaultyCluster, here: Path, there: Path) -> None:
    servers = ("master", "chunkd1", "chunkd2", "chunkd3")

    def fault() -> None:
        cluster.kill(*servers)
        cluster.start(*servers)

    check_all(run(cluster, here, there, fault), here / "log", there / "log")


def test_killed_mount_loses_at_most_its_window(
    cluster: FaultyCluster, here: Path, there: Path
) -> None:
    writers = run(cluster, here, there, lambda: cluster.kill("mount2"))
    cluster.up()
    assert [told.errno for told in writers.told][0::2] == [0, 0]
    assert writers.told[3].errno != 0
    found = lines_by_writer((here / "log").read_bytes())
    for writer in (0, 2):
        assert found[writer] == list(range(LINES))
    for writer in (1, 3):  # a prefix: never reordered, torn or doubled
        landed = found.get(writer, [])
        assert landed == list(range(len(landed)))
        told = writers.told[writer]
        lost = sum(len(line_of(writer, n)) for n in range(len(landed), told.written))
        print(f"writer {writer}: {told.written} written, {len(landed)} landed")
        assert lost <= 1 << 20
        assert told.synced <= len(landed) <= told.written + 1
    assert lines_by_writer((there / "log").read_bytes()) == found


def test_synced_records_survive_the_mount(cluster: FaultyCluster, here: Path, there: Path) -> None:
    """Goal: what O_SYNC or fsync has acknowledged does not depend on the mount."""
    fd = os.open(there / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_DSYNC)
    for number in range(50):
        os.write(fd, line_of(0, number))
    cluster.kill("mount2")
    with suppress(OSError):  # close of a handle on a dead mount
        os.close(fd)
    cluster.kill("chunkd1", "chunkd2", "chunkd3", "master")
    cluster.up()
    assert lines_by_writer((here / "log").read_bytes()) == {0: list(range(50))}
