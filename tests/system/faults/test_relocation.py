"""Relocation beneath mounts that read and write: bytes come from elsewhere, and stay the same."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from bench.drivers import scattering
from tests.system.clusters import LocalCluster
from tests.system.faults.processes import SHORT_LEASES, FaultyCluster
from tests.system.faults.works import Background

pytestmark = [pytest.mark.mount, pytest.mark.slow, pytest.mark.timeout(120)]
CONFIG = SHORT_LEASES + "reclaim_delay_s = 1.0\nscattered_extents = 32\n"
FILES = 6
LINE = 1000


class Reader:
    """Reads open files again and again, past the kernel's cache, until told to stop."""

    def __init__(self, contents: dict[Path, bytes]) -> None:
        self._contents = contents
        self.stop = threading.Event()
        self.rounds = 0

    def run(self) -> None:
        descriptors = {os.open(path, os.O_RDONLY): path for path in self._contents}
        try:
            while not self.stop.is_set():
                for descriptor, path in descriptors.items():
                    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                    expected = self._contents[path]
                    assert os.pread(descriptor, len(expected) + 1, 0) == expected, path
                self.rounds += 1
        finally:
            for descriptor in descriptors:
                os.close(descriptor)


def swapped(cluster: FaultyCluster) -> int:
    """Extents that have been led to another chunk since the master started."""
    found: Any = cluster.status().get("relocation", {})
    return int(found.get("swapped_extents_total", 0))


def test_who_reads_while_tails_and_their_snapshot_move_reads_the_same_bytes(
    cluster: FaultyCluster, here: Path, there: Path
) -> None:
    (here / "tree").mkdir()
    contents = {}
    for number in range(FILES):
        content = b"".join(os.urandom(LINE) for _ in range(20))
        with open(here / "tree" / f"log{number}", "ab", buffering=LINE) as file:
            file.write(content)
        contents[there / "tree" / f"log{number}"] = content
        contents[there / "copy" / f"log{number}"] = content
    before = swapped(cluster)
    LocalCluster(cluster.layout.directory).gfs("snapshot", here / "tree", here / "copy")
    reader = Reader(contents)
    reading = Background(reader.run)
    try:
        cluster.wait("not moved", lambda: swapped(cluster) >= before + 2 * FILES)
        moved_at = reader.rounds
        cluster.wait("no reader", lambda: reader.rounds > moved_at + 2 or not reading.running)
    finally:
        reader.stop.set()
        reading.join()
    for path, content in contents.items():
        assert (here / path.relative_to(there)).read_bytes() == content
    assert cluster.fsck() == []


def extents(cluster: FaultyCluster, path: Path) -> int:
    """Pieces that a file lies in."""
    done = LocalCluster(cluster.layout.directory).gfs("stat", "--json", "--chunks", path)
    return len(json.loads(done.stdout)["chunks"])


SIZE, BLOCK = 4 << 20, 4096
MEAN = 64 << 10  # no file of longer pieces is brought together
WORK_S = {"plain": 4.0, "truncate": 2.0, "mapped": 1.0, "direct": 0.5, "sync": 0.5}


@pytest.mark.parametrize("pattern", WORK_S)
def test_what_is_written_at_random_is_read_at_once_and_brought_together(
    cluster: FaultyCluster, here: Path, there: Path, pattern: str
) -> None:
    """The writer compares every block that it reads; the other mount compares all at the end."""
    scattering.fill(str(here / "f"), SIZE, BLOCK)
    writer = scattering.Scatterer(str(here / "f"), SIZE, BLOCK, pattern, 5)
    told = writer.run(WORK_S[pattern])
    print(f"{pattern}: {told['writes'] / told['seconds']:.0f} writes/s")
    cluster.wait("in pieces", lambda: extents(cluster, here / "f") <= SIZE // MEAN)
    with open(there / "f", "rb") as file:
        for number in range(SIZE // BLOCK):
            writer.blocks.check(number, file.read(BLOCK))
