"""Two mounts at work in one directory, each with the other's names cached as absent."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.faults.processes import FaultyCluster
from tests.system.faults.works import amount, exists, together

LIMIT_S = amount(ci=300, full=3000)
pytestmark = [pytest.mark.mount, pytest.mark.slow, pytest.mark.timeout(LIMIT_S)]

LEASE_S = 3.0
CONFIG = f"[master]\ncache_lease_s = {LEASE_S}\n"
OPERATIONS = amount(ci=1600, full=20_000)
# Of the mount that was stopped for longer than its lease, and what it could not write any more.
ALLOWED = (r"session\.(dead|lost)", r"write\.lost")
OWN = 20  # names of each mount


class Worker:
    """Creates, renames and removes names of its own; looks at the other's all the time.

    What it did is known to `state`: a name is there or not, with this inode. A name
    of the other mount may be either; a name of its own may not.
    """

    def __init__(self, prefix: str, other: str, here: Path, there: Path) -> None:
        self.names = [f"{prefix}{number}" for number in range(OWN)]
        self.others = [f"{other}{number}" for number in range(OWN)]
        self.here, self.there = here, there
        self.state: dict[str, int] = {}
        self.done = 0
        self.random = random.Random(prefix)

    def work(self) -> None:
        for _ in range(OPERATIONS // 2):
            name = self.random.choice(self.names)
            if name not in self.state:
                fd = os.open(self.here / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
                self.state[name] = os.fstat(fd).st_ino
                os.close(fd)
            elif self.random.random() < 0.5:
                os.unlink(self.here / name)
                del self.state[name]
            else:
                target = self.random.choice(self.names)
                os.rename(self.here / name, self.here / target)
                ino = self.state.pop(name) if target != name else self.state[name]
                self.state[target] = ino
            self.look(self.here, name)
            exists(self.here / self.random.choice(self.others))  # cached, absent or not
            self.done += 1

    def look(self, directory: Path, name: str) -> None:
        ino = os.lstat(directory / name).st_ino if exists(directory / name) else None
        assert ino == self.state.get(name), (directory, name)

    def check(self) -> None:
        for directory in (self.here, self.there):
            for name in self.names:
                self.look(directory, name)


def test_no_deadlock_and_no_stale_answer_between_two_mounts(here: Path, there: Path) -> None:
    one, two = Worker("a", "b", here, there), Worker("b", "a", there, here)
    for name in (*one.names, *two.names):
        assert not exists(here / name)
        assert not exists(there / name)
    start = time.monotonic()
    together(one.work, two.work)
    seconds = time.monotonic() - start
    print(f"{OPERATIONS} changes by two mounts: {OPERATIONS / seconds:.0f}/s")
    one.check()
    two.check()
    assert sorted(os.listdir(here)) == sorted({**one.state, **two.state})
    assert sorted(os.listdir(there)) == sorted({**one.state, **two.state})


def test_next_call_on_the_other_mount_sees_each_change(here: Path, there: Path) -> None:
    """Goal: call returned on A, asked on B, both ways in turn, names cached as they were."""
    for number in range(amount(ci=150, full=3000)):
        first, second = (here, there) if number % 2 else (there, here)
        assert not exists(first / "n")
        assert not exists(second / "n")
        fd = os.open(first / "n", os.O_CREAT | os.O_EXCL)
        os.close(fd)
        assert exists(second / "n")
        assert not exists(second / "m")
        os.rename(first / "n", first / "m")
        assert not exists(second / "n")
        assert exists(second / "m")
        os.unlink(second / "m")
        assert not exists(first / "m")


def test_same_name_created_by_both_has_one_winner(here: Path, there: Path) -> None:
    rounds = amount(ci=100, full=2000)
    won: list[int] = []

    def race(directory: Path) -> Callable[[], None]:
        def work() -> None:
            for number in range(rounds):
                try:
                    os.close(os.open(directory / f"{number}", os.O_CREAT | os.O_EXCL))
                    won.append(number)
                except FileExistsError:
                    assert exists(directory / f"{number}")

        return work

    together(race(here), race(there))
    assert sorted(won) == list(range(rounds))


def test_renames_back_and_forth_by_both_never_lose_the_file(here: Path, there: Path) -> None:
    (here / "x").write_bytes(b"content")
    rounds = amount(ci=150, full=2000)

    def swap(directory: Path) -> Callable[[], None]:
        def work() -> None:
            for number in range(rounds):
                source, target = ("x", "y") if number % 2 else ("y", "x")
                try:
                    os.rename(directory / source, directory / target)
                except FileNotFoundError:
                    pass

        return work

    together(swap(here), swap(there))
    assert os.listdir(here) == os.listdir(there)
    (name,) = os.listdir(here)
    assert (here / name).read_bytes() == (there / name).read_bytes() == b"content"


@pytest.mark.kill
def test_stopped_mount_delays_the_other_once(
    cluster: FaultyCluster, here: Path, there: Path
) -> None:
    for number in range(10):
        (here / f"{number}").write_bytes(b"old")
        assert (there / f"{number}").read_bytes() == b"old"
    assert not exists(there / "absent")
    with cluster.stopped("mount2"):
        calls: list[float] = []
        for number in range(10):
            start = time.monotonic()
            os.unlink(here / f"{number}")
            calls.append(time.monotonic() - start)
        (here / "absent").write_bytes(b"new")
        (here / "3").write_bytes(b"new")
    print(f"stall {calls[0]:.2f} s (lease {LEASE_S} s), then {max(calls[1:]):.3f} s")
    assert calls[0] < LEASE_S + 5
    assert max(calls[1:]) < 1.0
    for number in range(10):
        assert exists(there / f"{number}") == (number == 3)
    assert (there / "3").read_bytes() == (there / "absent").read_bytes() == b"new"
    (there / "after").write_bytes(b"x")  # it works again
    assert (here / "after").read_bytes() == b"x"


@pytest.mark.kill
def test_shortly_stopped_mount_keeps_its_session(
    cluster: FaultyCluster, here: Path, there: Path
) -> None:
    (here / "f").write_bytes(b"old")
    assert (there / "f").read_bytes() == b"old"
    fd = os.open(there / "kept", os.O_CREAT | os.O_WRONLY)
    os.write(fd, b"before")
    pid = cluster.pid("mount2")
    os.kill(pid, signal.SIGSTOP)
    time.sleep(0.5)  # the stop itself is what is tested; shorter than the lease
    os.kill(pid, signal.SIGCONT)
    os.write(fd, b" after")
    os.fsync(fd)
    os.close(fd)
    assert (here / "kept").read_bytes() == b"before after"


@pytest.mark.kill
@pytest.mark.parametrize("overwritten", [False, True])
def test_hung_writer_delays_others_once_and_keeps_what_was_synced(
    cluster: FaultyCluster, here: Path, there: Path, overwritten: bool
) -> None:
    """What it had not synced goes on when it wakes, or is an error if others wrote meanwhile."""
    fd = os.open(there / "f", os.O_CREAT | os.O_RDWR)
    os.write(fd, b"synced")
    os.fsync(fd)
    os.write(fd, b", waiting")  # for a second in the mount, if nobody asks for it
    with cluster.stopped("mount2"):
        stalls, read = [], set()
        for _ in range(6):
            start = time.monotonic()
            read.add((here / "f").read_bytes())
            stalls.append(time.monotonic() - start)
        if overwritten:
            (here / "f").write_bytes(b"others")
    print(f"stall {stalls[0]:.2f} s (lease {LEASE_S} s), then {max(stalls[1:]):.3f} s")
    assert stalls[0] < LEASE_S + 5
    assert max(stalls[1:]) < 1.0
    assert read in ({b"synced"}, {b"synced, waiting"})  # the latter if the stop came too late
    if overwritten and read == {b"synced"}:
        with pytest.raises(OSError, match="Input/output"):
            os.fsync(fd)
    else:
        os.fsync(fd)
    os.close(fd)
    assert (here / "f").read_bytes() == (b"others" if overwritten else b"synced, waiting")


def test_two_mounts_that_write_one_file_write_through_at_close(here: Path, there: Path) -> None:
    (here / "f").write_bytes(bytes(200))
    kept = os.open(here / "f", os.O_RDWR)
    for number in range(1, 20):
        with open(there / "f", "r+b", buffering=0) as file:
            file.write(bytes([number]) * 100)
        assert os.pread(kept, 100, 0) == bytes([number]) * 100  # no open that would recall it
        with open(here / "f", "r+b", buffering=0) as file:
            os.pwrite(file.fileno(), bytes([number]) * 100, 100)
        assert (there / "f").read_bytes() == bytes([number]) * 200
    os.close(kept)
