"""Barriers: what anybody was told was done lies below the position, or there is none."""

from __future__ import annotations

import pytest

from gfs import errors
from gfs import messages as m
from gfs.items import ChunkState
from tests.unit.master.core.harness import Call, Client, Cluster, file_commit


def barrier(c: Cluster, a: Client) -> tuple[list[m.Message], tuple[int, int]]:
    call = Call(a, 0, m.Barrier())
    caller = c.caller(call)
    c.queue(lambda: c.core.fleet.barriers.begin(caller, m.Barrier()))
    c.settle()
    return call.answers, caller  # type: ignore[return-value]


def test_a_barrier_brings_in_what_mounts_and_primaries_hold_back(
    c: Cluster, a: Client, b: Client
) -> None:
    f, g = a.create(b"f"), b.create(b"g")
    lease = a.allocate()
    c.append(lease, 100)
    tail = b.open_tail(g)
    c.append(tail.lease, 70, writer=7, sequence=1)

    def flush(recall: m.Recall) -> None:
        assert recall.inos == []
        a.send(m.Commit([file_commit(f, (0, 100, lease.handle, 0))]))
        c.settle()

    a.on_recall = flush
    answers, _ = barrier(c, a)
    done = answers[0]
    assert isinstance(done, m.BarrierDone)
    assert done == m.BarrierDone(1, len(c.log))
    sizes = [inode.size for inode in (c.item(f), c.item(g)) if inode is not None]
    assert sizes == [100, 70]


def test_a_barrier_waits_for_the_slowest_and_not_for_the_dead(
    c: Cluster, a: Client, b: Client
) -> None:
    b.create(b"g")
    b.automatic = False
    c.server(2).hung = True
    answers, _ = barrier(c, a)
    assert answers == []
    c.server(2).stop()
    assert answers == []
    b.connected = False
    c.pass_time(21)
    assert isinstance(answers[0], m.BarrierDone)


def appended(c: Cluster, a: Client, length: int = 70) -> tuple[int, m.Lease]:
    """A file with acknowledged records that no record of the log tells of."""
    f = a.create(b"f")
    lease = a.open_tail(f).lease
    c.append(lease, length, writer=7, sequence=1)
    a.close_file(f)
    return f, lease


def size(c: Cluster, ino: int) -> int:
    inode = c.item(ino)
    assert inode is not None
    return inode.size


@pytest.mark.parametrize("away", ["primary", "secondary"])
def test_a_barrier_waits_for_the_seal_of_a_tail_whose_server_is_away(
    c: Cluster, a: Client, away: str
) -> None:
    f, lease = appended(c, a)
    c.server(lease.members[0 if away == "primary" else 1].server).stop()
    answers, _ = barrier(c, a)
    assert answers == [] if away == "primary" else size(c, f) == 70
    c.pass_time(3)
    assert isinstance(answers[0], m.BarrierDone)
    assert size(c, f) == 70
    assert c.chunk(lease.handle).state is ChunkState.SEALED


def test_a_barrier_waits_for_a_tail_whose_primary_has_restarted(c: Cluster, a: Client) -> None:
    f, lease = appended(c, a)
    primary = c.server(lease.members[0].server)
    primary.restart()
    primary.register()
    answers, _ = barrier(c, a)
    c.pass_time(3)
    assert isinstance(answers[0], m.BarrierDone)
    assert size(c, f) == 70


def test_a_barrier_seals_a_tail_that_its_primary_knows_nothing_of(c: Cluster, a: Client) -> None:
    f, lease = appended(c, a)
    c.server(lease.members[0].server).replicas.clear()  # a disk that was taken out
    answers, _ = barrier(c, a)
    c.pass_time(12)
    assert isinstance(answers[0], m.BarrierDone)
    assert size(c, f) == 70


def test_a_barrier_waits_for_a_seal_under_way(c: Cluster, a: Client) -> None:
    f, lease = appended(c, a)
    for server in c.servers.values():
        server.hung = True
    c.queue(lambda: c.core.machine.seals.begin(lease.handle))
    c.settle()
    for server in c.servers.values():
        server.hung = False
    answers, _ = barrier(c, a)
    assert answers == []
    for member in lease.members:
        c.server(member.server).stop()
    for member in lease.members:
        c.server(member.server).register()
    c.pass_time(5)
    assert isinstance(answers[0], m.BarrierDone)
    assert size(c, f) == 70


def test_what_a_barrier_cannot_know_in_time_is_an_error(c: Cluster, a: Client) -> None:
    f, lease = appended(c, a)
    for member in lease.members:
        c.server(member.server).stop()
    answers, _ = barrier(c, a)
    c.pass_time(45)
    assert answers == []
    c.pass_time(10)
    assert isinstance(answers[0], errors.TimedOut)
    assert size(c, f) == 0
    assert not c.core.fleet.barriers.is_due()


def test_after_a_start_a_barrier_waits_for_who_may_hold_something_back(
    c: Cluster, a: Client, b: Client
) -> None:
    g = b.create(b"g")
    lease = b.allocate()
    c.append(lease, 100)

    def flush(_: m.Recall) -> None:
        b.send(m.Commit([file_commit(g, (0, 100, lease.handle, 0))]))
        c.settle()

    b.on_recall = flush
    c.restart(resume=False)
    a.open()
    answers, _ = barrier(c, a)
    assert answers == []
    b.open(opens=[g], writers=[g])
    c.pass_time(0.2)
    assert isinstance(answers[0], m.BarrierDone)
    assert size(c, g) == 100


def test_a_barrier_seals_nothing_whose_primary_comes_back_as_it_was(c: Cluster, a: Client) -> None:
    f, lease = appended(c, a)
    primary = c.server(lease.members[0].server)
    primary.stop()
    answers, _ = barrier(c, a)
    assert answers == []
    c.pass_time(1)
    primary.register()
    c.pass_time(0.2)
    assert isinstance(answers[0], m.BarrierDone)
    assert size(c, f) == 70
    assert c.chunk(lease.handle).state is ChunkState.OPEN
