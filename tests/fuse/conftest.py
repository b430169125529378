"""Real mounts of a real cluster, driven by system calls from this process.

One cluster a module: master, three chunk servers, two mounts; each test has a
directory of its own, seen through both. An ERROR in a mount's log fails the module.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from gfs.cluster.down import down
from gfs.cluster.layout import Layout
from gfs.cluster.processes import Process, Registry
from gfs.cluster.up import Wishes, up
from tests.conftest import fuse_missing

LEASE_S = 4.0  # what a dead mount delays the others by; the default of 20 only takes longer
FAULT = re.compile(rb" (ERROR|CRITICAL) |Traceback \(most recent call last\)")


@dataclass
class Cluster:
    """A running local cluster with mounts `mnt1` and `mnt2`."""

    layout: Layout
    expected: list[bytes] = field(default_factory=list)  # parts of lines that a test calls for

    def process(self, name: str) -> Process:
        return Registry(self.layout).alive()[name]

    def up(self) -> None:
        """Start what is missing."""
        up(self.layout, Wishes(), print)

    def faults(self, name: str) -> list[bytes]:
        """Lines of a log that no healthy run has."""
        lines = self.layout.log(name).read_bytes().splitlines()
        faults = [line for line in lines if FAULT.search(line)]
        return [line for line in faults if not any(part in line for part in self.expected)]


@pytest.fixture(scope="module")
def young_files_go_to_the_trash_too() -> Iterator[None]:
    """For a whole module, as a mark `usefixtures`: then it is there before the cluster."""
    os.environ["GFS_MASTER_TRASH_MIN_AGE_S"] = "0"
    yield
    del os.environ["GFS_MASTER_TRASH_MIN_AGE_S"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if reason := fuse_missing():
        pytest.skip(reason)
    layout = Layout(tmp_path_factory.mktemp("c"))
    os.environ["GFS_MASTER_CACHE_LEASE_S"] = str(LEASE_S)
    wishes = Wishes(chunkservers=3, mounts=2, goal=3, projections=False)
    try:
        up(layout, wishes, print)
        running = Cluster(layout)
        yield running
    finally:
        del os.environ["GFS_MASTER_CACHE_LEASE_S"]
        down(layout, print)
    for name in ("mount1", "mount2"):
        for line in running.faults(name):
            pytest.fail(f"{name}: {line.decode(errors='replace')}", pytrace=False)


@pytest.fixture
def here(cluster: Cluster, request: pytest.FixtureRequest) -> Path:
    """This test's directory, through the first mount."""
    name = re.sub(r"\W", "_", request.node.name)[:60]
    path = cluster.layout.mountpoint(1) / name
    path.mkdir()
    return path


@pytest.fixture
def there(cluster: Cluster, here: Path) -> Path:
    """The same directory, through the second mount."""
    return cluster.layout.mountpoint(2) / here.name
