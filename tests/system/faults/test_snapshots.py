"""A snapshot taken while two mounts append and write: one cut, and it stays as it was."""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system.clusters import LocalCluster
from tests.system.faults.processes import FaultyCluster
from tests.system.faults.works import Background
from tests.system.faults.writer import line_of

pytestmark = [pytest.mark.mount, pytest.mark.slow, pytest.mark.timeout(120)]
BLOCK = 4096


class Work:
    """Something done again and again until told to stop."""

    def __init__(self, stop: threading.Event) -> None:
        self.stop = stop
        self.count = 0
        self._moved = threading.Condition()

    def repeat(self, once: Callable[[int], None]) -> None:
        while not self.stop.is_set():
            once(self.count)
            with self._moved:
                self.count += 1
                self._moved.notify_all()

    def wait_for(self, count: int) -> None:
        with self._moved:
            assert self._moved.wait_for(lambda: self.count >= count, 30)

    def append(self, directory: Path, writer: int) -> None:
        """A line to `a`, and when that is acknowledged the same line to `b`."""
        with ExitStack() as files:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_DSYNC
            fds = [os.open(directory / name, flags, 0o644) for name in "ab"]
            for fd in fds:
                files.callback(os.close, fd)

            def both(number: int) -> None:
                for fd in fds:
                    os.write(fd, line_of(writer, number))

            self.repeat(both)

    def write(self, path: Path) -> None:
        """Blocks one behind the other."""
        fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            self.repeat(lambda number: _write_block(fd, number))
        finally:
            os.close(fd)


def _write_block(fd: int, number: int) -> None:
    os.pwrite(fd, b"%08d" % number * (BLOCK // 8), number * BLOCK)
    os.fsync(fd)


def counts(content: bytes) -> dict[int, int]:
    """Lines of each writer; all whole and in order."""
    found: defaultdict[int, int] = defaultdict(int)
    for line in content.splitlines(keepends=True):
        writer = int(line[:1])
        assert line == line_of(writer, found[writer]), "torn or out of order"
        found[writer] += 1
    return found


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_a_snapshot_is_one_cut_and_never_changes_while_the_originals_go_on(
    cluster: FaultyCluster, here: Path, there: Path
) -> None:
    (here / "tree").mkdir()
    command = LocalCluster(cluster.layout.directory)
    stop = threading.Event()
    works = [Work(stop) for _ in range(3)]
    running = [
        Background(lambda: works[0].append(here / "tree", 0)),
        Background(lambda: works[1].append(there / "tree", 1)),
        Background(lambda: works[2].write(there / "tree" / "w")),
    ]
    taken: list[dict[str, bytes]] = []
    try:
        for number in range(3):
            for work in works:
                work.wait_for(work.count + 10)
            before = [work.count for work in works]
            command.gfs("snapshot", here / "tree", here / f"s{number}")
            taken.append(contents(there / f"s{number}"))
            a, b = counts(taken[-1]["a"]), counts(taken[-1]["b"])
            for writer in (0, 1):
                assert a[writer] >= before[writer], "what was acknowledged before is in it"
                assert b[writer] <= a[writer] <= b[writer] + 1, "b is written after a"
            assert len(taken[-1]["w"]) >= before[2] * BLOCK
        for work in works:
            work.wait_for(work.count + 10)
    finally:
        stop.set()
        for one in running:
            one.join()
    final = contents(here / "tree")
    for number, snapshot in enumerate(taken):
        assert contents(here / f"s{number}") == snapshot
        for name, content in snapshot.items():
            assert final[name].startswith(content)
            assert len(final[name]) > len(content)
    assert counts(final["a"]) == counts(final["b"])
