"""All daemons killed at once and started in any order: nothing acknowledged is lost."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import time
from pathlib import Path

import pytest

from tests.system.faults.processes import SHORT_LEASES, FaultyCluster
from tests.system.faults.works import amount

LIMIT_S = amount(ci=240, full=3000)
pytestmark = [pytest.mark.mount, pytest.mark.kill, pytest.mark.slow, pytest.mark.timeout(LIMIT_S)]

CONFIG = SHORT_LEASES
MIB = 1 << 20


class Expected:
    """What was fsynced, or closed after append, so far."""

    def __init__(self) -> None:
        self.digests: dict[str, str] = {}
        self.lines: dict[str, list[bytes]] = {}
        self.gone: set[str] = set()
        self._numbers = itertools.count()

    def work(self, here: Path, random_: random.Random) -> None:
        """A little of everything; each step is acknowledged when this returns."""
        tag = next(self._numbers)
        for size in (0, 1, 5000, 70_000, 3 * MIB + 17, 9 * MIB):
            self._fsynced(here / f"file{tag}-{size}", random_.randbytes(size))
        self._fsynced(here / f"old{tag}", b"old name")
        os.rename(here / f"old{tag}", here / f"new{tag}")
        self.digests[f"new{tag}"] = self.digests.pop(f"old{tag}")
        (here / f"removed{tag}").write_bytes(b"x")
        os.unlink(here / f"removed{tag}")
        self.gone |= {f"old{tag}", f"removed{tag}"}
        for name in ("log-a", "log-b"):
            lines = self.lines.setdefault(name, [])
            with open(here / name, "ab", buffering=0) as log:
                for number in range(40):
                    lines.append(b"%d %06d %s" % (tag, number, b"y" * (number % 50)))
                    log.write(lines[-1] + b"\n")

    def _fsynced(self, path: Path, content: bytes) -> None:
        with open(path, "wb", buffering=0) as file:
            file.write(content)
            os.fsync(file.fileno())
        self.digests[path.name] = hashlib.sha256(content).hexdigest()

    def check(self, here: Path) -> None:
        assert sorted(os.listdir(here)) == sorted([*self.digests, *self.lines])
        for name, digest in self.digests.items():
            assert hashlib.sha256((here / name).read_bytes()).hexdigest() == digest, name
        for name, lines in self.lines.items():
            assert (here / name).read_bytes().split(b"\n")[:-1] == lines, name


def orders(names: list[str], count: int) -> list[list[str]]:
    """Master last, chunk servers first, and others by seed."""
    found = [names[:], names[::-1]]
    shuffle = random.Random(7)
    while len(found) < count:
        found.append(shuffle.sample(names, len(names)))
    return found[:count]


def test_nothing_acknowledged_is_lost_in_any_order_of_restart(
    cluster: FaultyCluster, here: Path, there: Path
) -> None:
    expected, random_ = Expected(), random.Random(1)
    for order in orders(cluster.names, amount(ci=4, full=20)):
        expected.work(here, random_)
        cluster.kill(*cluster.names)
        start = time.monotonic()
        cluster.start(*order)
        cluster.wait_ready()
        ready = time.monotonic() - start
        expected.check(here)
        print(f"{ready:.1f} s to ready, {time.monotonic() - start:.1f} s to checked: {order}")
        expected.check(there)


def test_each_daemon_killed_alone_is_only_a_pause(cluster: FaultyCluster, here: Path) -> None:
    expected, random_ = Expected(), random.Random(2)
    for name in ("chunkd1", "master", "chunkd2", "chunkd3", "master"):
        expected.work(here, random_)
        cluster.kill(name)
        cluster.start(name)
        start = time.monotonic()
        expected.work(here, random_)
        print(f"{name}: work took {time.monotonic() - start:.1f} s while it came back")
        expected.check(here)
        cluster.wait_ready(name)


def test_filesystem_check_is_clean_after_all_that(cluster: FaultyCluster, here: Path) -> None:
    Expected().work(here, random.Random(3))
    cluster.kill(*cluster.names)
    cluster.start(*cluster.names)
    cluster.wait_ready()
    assert cluster.fsck(copies=2) == []  # sealed while one server was away: two of three
