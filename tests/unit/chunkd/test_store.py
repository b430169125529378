"""What a chunk server makes of the files that it finds, on a simulated disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from chunkd.core.machine import Machine
from chunkd.core.replica import ReplicaState
from chunkd.directory import DataDirectory
from chunkd.store import Store
from gfs.checksum import crc32c
from gfs.errors import NoSpace, StorageFailed
from tests.sim.disk import SimDisk

HANDLE = 7
FIRST, SECOND = Path("/first"), Path("/second")


def open_store(disk: SimDisk, *paths: Path) -> Store:
    directories = [
        DataDirectory.open(path, disk, cluster="c", server=9, index=number)
        for number, path in enumerate(paths)
    ]
    for directory in directories:
        directory.reserve(0)
    store = Store(directories, Machine(boot="boot"))
    store.load()
    return store


def sealed_replica(disk: SimDisk, path: Path, content: bytes, *, version: int) -> None:
    """One in a directory of its own."""
    store = open_store(disk, path)
    replica = store.create(HANDLE, 1, tail=False, chunk_bytes=1 << 20)
    files = store.open[HANDLE]
    files.append(content, end=len(content), checksum=crc32c(content), writer=0, sequence=0)
    files.persist_fence(version)
    store.sealed_now(replica, version, files.condense(version, len(content), {}))
    store.close()


@pytest.mark.parametrize("newer", [FIRST, SECOND])
def test_of_two_replicas_of_a_chunk_the_better_one_stays(
    newer: Path, expect_log: Callable[..., None]
) -> None:
    """A directory failed, its chunks were copied into another, and it came back."""
    expect_log("replica.twice", times=1)
    disk = SimDisk(0)
    older = SECOND if newer is FIRST else FIRST
    sealed_replica(disk, older, b"missed the seal", version=1)
    sealed_replica(disk, newer, b"whole", version=2)
    store = open_store(disk, FIRST, SECOND)
    replica = store.machine.replicas[HANDLE]
    assert (replica.version, replica.state, replica.end) == (2, ReplicaState.SEALED, 5)
    assert store.places[HANDLE].path == newer
    assert "0000000000000007.data" in disk.listdir(older / "quarantine")
    store.close()
    again = open_store(disk, FIRST, SECOND)
    assert again.places[HANDLE].path == newer


def test_a_failed_directory_takes_no_new_chunk_and_the_last_one_says_why(
    expect_log: Callable[..., None],
) -> None:
    expect_log("disk.failed", times=1)
    disk = SimDisk(0)
    store = open_store(disk, FIRST, SECOND)
    first, second = store.directories
    told: list[DataDirectory] = []
    store.on_failure = told.append
    first.health.failed("input/output error")
    store.create(1, 1, tail=False, chunk_bytes=1 << 20)
    assert store.places[1] is second
    store.note_failure(second, NoSpace("full is not failed"))
    assert second.health.is_working
    store.note_failure(second, StorageFailed("read-only file system"))
    assert told == [second]
    with pytest.raises(StorageFailed, match=r"input/output error.*read-only"):
        store.create(2, 1, tail=False, chunk_bytes=1 << 20)
    assert store.room()[0] == 0


class WithoutRoom(SimDisk):
    """One whose first directory cannot even say how full it is."""

    def free_bytes(self, path: Path) -> tuple[int, int]:
        if path == FIRST:
            raise StorageFailed("input/output error")
        return super().free_bytes(path)


def test_a_disk_that_cannot_say_how_full_it_is_has_failed(expect_log: Callable[..., None]) -> None:
    expect_log("disk.failed", times=1)
    store = open_store(WithoutRoom(0), FIRST, SECOND)
    store.create(1, 1, tail=False, chunk_bytes=1 << 20)
    assert store.places[1].path == SECOND
    assert [str(FIRST) in text for text in store.failing()] == [True]


def test_what_lies_in_a_failed_directory_does_not_count_and_in_a_hung_one_is_not_told() -> None:
    disk = SimDisk(0)
    sealed_replica(disk, FIRST, b"whole", version=2)
    store = open_store(disk, FIRST, SECOND)
    health = store.directories[0].health
    assert [one.sound for one in store.reports()] == [True]
    health.failed("input/output error")
    assert [one.sound for one in store.reports()] == [False]
    health.look(1000.0, 0.0)
    assert list(store.reports()) == []
