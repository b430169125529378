"""What a directory that is being emptied has moved, told and left; where its chunks may go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from chunkd.core.draining import RETRY_S, TELL_S, Drain
from chunkd.core.replica import Replica, ReplicaState
from chunkd.files import SealedFiles
from gfs.errors import NoSpace
from tests.sim.disk import SimDisk
from tests.unit.chunkd.test_store import FIRST, HANDLE, SECOND, open_store, sealed_replica


def replica(
    handle: int, state: ReplicaState = ReplicaState.SEALED, *, bad: bool = False
) -> Replica:
    found = Replica(handle, 1, tail=False, chunk_bytes=100, end=10, state=state)
    found.bad = bad
    return found


def test_what_is_sealed_and_sound_is_moved_and_the_rest_waits_for_the_master() -> None:
    drain = Drain()
    here = [replica(3), replica(2, ReplicaState.OPEN), replica(1), replica(4, bad=True)]
    drain.look(here, arriving=1)
    assert (drain.replicas_left, drain.bytes_left) == (5, 40)
    assert [one.handle for one in drain.to_move(here, 0.0)] == [1, 3]
    assert [one.handle for one in here if drain.is_outgoing(one)] == [2]


def test_what_has_no_other_place_is_tried_again_and_told_until_it_has_one() -> None:
    drain = Drain()
    here = [replica(1)]
    assert not drain.has_news(here, 0.0)
    drain.not_moved(here[0], 0.0, no_room=True)
    assert drain.is_outgoing(here[0])
    assert drain.has_news(here, 0.0)
    assert not drain.has_news(here, TELL_S)  # told once is enough
    assert drain.to_move(here, RETRY_S - 1) == []
    assert drain.to_move(here, RETRY_S) == here
    assert drain.moved(here[0]), "the master has been told that it had to go"


def test_what_is_open_is_told_again_until_it_is_sealed() -> None:
    drain = Drain()
    here = [replica(1, ReplicaState.OPEN)]
    assert drain.has_news(here, 100.0)
    assert not drain.has_news(here, 100.0 + TELL_S - 1)
    assert drain.has_news(here, 100.0 + TELL_S)
    here[0].state = ReplicaState.SEALED
    assert drain.has_news(here, 100.0 + TELL_S)
    assert drain.to_move(here, 200.0) == here
    assert not drain.moved(here[0])


def test_a_replica_that_cannot_be_read_just_now_is_not_said_to_have_no_place() -> None:
    drain = Drain()
    here = [replica(1)]
    drain.not_moved(here[0], 0.0, no_room=False)
    assert not drain.is_outgoing(here[0])
    assert drain.to_move(here, 1.0) == []


def test_nothing_new_goes_to_a_drained_directory_and_a_copy_to_another_one() -> None:
    disk = SimDisk(0)
    sealed_replica(disk, FIRST, b"here", version=2)
    store = open_store(disk, FIRST, SECOND)
    first, second = store.directories
    first.drain = Drain()
    store.create(1, 1, tail=False, chunk_bytes=1 << 20)
    assert store.places[1] is second
    assert store.room()[0] == second.room()[0]  # also if both lie on one disk
    copy = store.begin_copy(HANDLE, 4)
    assert copy.directory is second
    assert (store.arriving_at(first), store.arriving_at(second)) == (0, 1)
    store.abandon_copy(copy)
    second.drain = Drain()
    with pytest.raises(NoSpace):
        store.begin_copy(HANDLE, 4)
    assert store.room()[0] == 0
    store.close()


def test_the_mark_outlives_the_process_until_it_is_taken_back() -> None:
    disk = SimDisk(0)
    store = open_store(disk, FIRST, SECOND)
    store.directories[0].mark_draining(draining=True)
    store.close()
    store = open_store(disk, FIRST, SECOND)
    assert [directory.drain is not None for directory in store.directories] == [True, False]
    store.directories[0].mark_draining(draining=False)
    store.close()
    assert open_store(disk, FIRST, SECOND).directories[0].drain is None


@pytest.mark.parametrize("drained", [FIRST, SECOND])
def test_a_crash_between_the_copy_and_the_deletion_leaves_the_copy(
    drained: Path, expect_log: Callable[..., None]
) -> None:
    expect_log("replica.twice", times=1)
    disk = SimDisk(0)
    for path in (FIRST, SECOND):
        sealed_replica(disk, path, b"moved", version=2)
    store = open_store(disk, drained)
    store.directories[0].mark_draining(draining=True)
    store.close()
    store = open_store(disk, FIRST, SECOND)
    place = store.places[HANDLE]
    assert place.path == (SECOND if drained == FIRST else FIRST)
    assert SealedFiles.open(place, HANDLE).sums.end == 5
    store.close()
