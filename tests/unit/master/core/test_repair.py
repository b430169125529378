"""Chunks are kept at their goal through whatever servers do (GFS §4.3)."""

from __future__ import annotations

from random import Random

import pytest

from gfs import messages as m
from gfs.items import ChunkState
from tests.unit.master.core.conftest import MakeCluster
from tests.unit.master.core.harness import Client, Cluster, Replica


def sealed_file(c: Cluster, a: Client, name: bytes = b"f", length: int = 100) -> int:
    """A file of one sealed chunk; returns its handle."""
    f = a.create(name)
    lease = a.allocate()
    c.append(lease, length)
    a.commit(f, (0, length, lease.handle, 0))
    a.do(m.SealChunk(lease.handle, lease.version))
    a.close_file(f)
    return lease.handle


def holders(c: Cluster, handle: int) -> list[int]:
    """Servers that are up and really have the whole chunk."""
    chunk = c.chunk(handle)
    return [
        number
        for number, server in c.servers.items()
        if server.up
        and (found := server.replicas.get(handle)) is not None
        and (found.version, found.end, found.sealed) == (chunk.version, chunk.length, True)
    ]


def copies_ordered(c: Cluster) -> list[m.CopyReplica]:
    return [
        order
        for server in c.servers.values()
        for order in server.orders
        if isinstance(order, m.CopyReplica)
    ]


@pytest.fixture
def c(make_cluster: MakeCluster) -> Cluster:
    """Four servers, goal 3."""
    return make_cluster(servers=4)


def test_a_lost_copy_is_made_elsewhere_after_ten_seconds_and_not_before(
    c: Cluster, a: Client
) -> None:
    handle = sealed_file(c, a)
    victim = holders(c, handle)[0]
    c.pass_time(1)
    c.core.fleet.heartbeat(victim, m.Heartbeat(1 << 40, 1 << 41, []), c.now_s)
    c.server(victim).stop()
    c.pass_time(9)
    assert copies_ordered(c) == []
    c.pass_time(2)
    assert len(holders(c, handle)) == 3
    assert victim not in holders(c, handle)


def test_a_server_that_is_back_in_time_costs_no_copy(c: Cluster, a: Client) -> None:
    handle = sealed_file(c, a)
    victim = holders(c, handle)[0]
    c.core.fleet.heartbeat(victim, m.Heartbeat(1 << 40, 1 << 41, []), c.now_s)
    c.server(victim).restart()
    c.pass_time(8)
    c.server(victim).register()
    c.pass_time(30)
    assert copies_ordered(c) == []
    assert len(holders(c, handle)) == 3


def test_copies_of_a_server_that_returns_late_count_again_and_one_too_many_goes(
    c: Cluster, a: Client
) -> None:
    handle = sealed_file(c, a)
    c.pass_time(61)
    victim = holders(c, handle)[0]
    c.server(victim).stop()
    c.pass_time(15)
    assert len(holders(c, handle)) == 3
    c.server(victim).register()
    c.pass_time(3)
    assert len(holders(c, handle)) == 3
    assert sum(len(server.deleted) for server in c.servers.values()) == 1


def test_nothing_is_given_up_in_the_first_minute_but_copies_are_made(c: Cluster, a: Client) -> None:
    handle = sealed_file(c, a)
    spare = next(n for n in c.servers if n not in holders(c, handle))
    chunk = c.chunk(handle)
    c.server(spare).replicas[handle] = Replica(chunk.version, chunk.length, sealed=True)
    c.restart()
    c.pass_time(50)
    assert len(holders(c, handle)) == 4
    c.pass_time(15)
    assert len(holders(c, handle)) == 3


def test_the_most_endangered_is_copied_first_then_what_is_waited_for(
    make_cluster: MakeCluster,
) -> None:
    c = make_cluster(servers=6)
    a = c.client("/a")
    handles = [sealed_file(c, a, b"f%d" % n) for n in range(40)]
    gone = (1, 2)
    for number in c.servers:
        c.server(number).orders.clear()
    twice = [h for h in handles if len(set(holders(c, h)) & set(gone)) == 2]
    once = [h for h in handles if len(set(holders(c, h)) & set(gone)) == 1]
    assert twice
    assert len(once) > 5
    a.ask(m.Locate([once[-1]]))
    for number in c.servers:
        c.server(number).hung = True  # copies begin, none ends: what begins first shows the order
    for number in gone:
        c.server(number).stop()
    c.pass_time(12)
    begun = [handle for handle, _ in c.core.fleet.repair.copies]
    assert set(begun[: len(twice)]) <= set(twice)
    if len(begun) > 2 * len(twice):
        assert begun[2 * len(twice)] == once[-1]


def test_only_chunks_are_waited_for(c: Cluster, a: Client) -> None:
    """A number that is no chunk's once ended the master: it was looked at again for repair."""
    handle = sealed_file(c, a)
    found = a.get(m.Locate([handle, handle + 1]), m.Locations)
    assert [located.handle for located in found.chunks] == [handle]
    assert c.core.engine.servers.wanted == {handle}


def test_streams_are_bounded_at_both_ends(make_cluster: MakeCluster) -> None:
    c = make_cluster(servers=4)
    a = c.client("/a")
    for n in range(30):
        sealed_file(c, a, b"f%d" % n)
    for server in c.servers.values():
        server.hung = True
    c.server(1).stop()
    c.pass_time(15)
    copies = c.core.fleet.repair.copies.values()
    streams = c.policy.repair_streams
    assert len(copies) == 3 * streams  # three servers are left to take some
    for number in (2, 3, 4):
        assert sum(copy.source == number for copy in copies) <= streams
        assert sum(copy.target == number for copy in copies) <= streams


def test_a_new_master_begins_again_from_the_reports(c: Cluster, a: Client) -> None:
    handles = [sealed_file(c, a, b"f%d" % n) for n in range(20)]
    for server in c.servers.values():
        server.hung = True
    c.server(1).stop()
    c.pass_time(12)
    assert c.core.fleet.repair.copies
    for server in c.servers.values():
        server.hung = False
    c.restart()
    c.pass_time(15)
    assert all(len(holders(c, handle)) == 3 for handle in handles)


def test_a_corrupt_copy_is_replaced_and_goes_only_when_the_goal_is_whole(
    c: Cluster, a: Client
) -> None:
    handle = sealed_file(c, a)
    c.pass_time(61)
    bad = holders(c, handle)[0]
    spare = next(n for n in c.servers if n not in holders(c, handle))
    c.server(spare).hung = True
    c.core.fleet.heartbeat(bad, m.Heartbeat(1 << 40, 1 << 41, [], bad=[handle]), c.now_s)
    c.pass_time(5)
    assert [copy.target for copy in c.core.fleet.repair.copies.values()] == [spare]
    assert c.server(bad).deleted == []
    c.server(spare).answer_all()
    c.pass_time(3)
    assert c.server(bad).deleted == [handle]
    assert spare in holders(c, handle)


def test_without_another_server_a_corrupt_copy_is_replaced_in_place(
    make_cluster: MakeCluster,
) -> None:
    c = make_cluster(servers=3)
    a = c.client("/a")
    handle = sealed_file(c, a)
    c.core.fleet.heartbeat(2, m.Heartbeat(1 << 40, 1 << 41, [], bad=[handle]), c.now_s)
    c.pass_time(12)
    assert [order.handle for order in copies_ordered(c)] == [handle]
    assert c.server(2).deleted == []


def test_a_copy_that_fails_is_tried_from_and_to_others(make_cluster: MakeCluster) -> None:
    c = make_cluster(servers=5)
    a = c.client("/a")
    handle = sealed_file(c, a)
    first = holders(c, handle)
    rotten = first[1]
    c.server(rotten).replicas[handle].end -= 1  # nobody knows yet; copies from it fail
    c.server(first[0]).stop()
    c.pass_time(20)
    good = holders(c, handle)
    assert len(good) == 3 - 1  # the rotten one still counts for the master
    assert c.core.fleet.repair.statistics()["waiting"] == 0


def test_a_copy_that_fails_at_once_is_not_ordered_again_at_once(make_cluster: MakeCluster) -> None:
    """Two copies are missing: one target refuses, the other has no stream free meanwhile."""
    c = make_cluster(servers=5)
    a = c.client("/a")
    for number in (4, 5):
        c.server(number).stop()
    handle = sealed_file(c, a)
    others = [sealed_file(c, a, b"f%d" % n) for n in range(c.policy.repair_streams)]
    for number in (4, 5):
        c.server(number).register()
    c.server(5).hung = True
    for other in others:
        c.core.fleet.repair.copy(other, c.chunk(other), 2, 5, moving=True)
    c.server(1).replicas[handle].end -= 1  # nobody knows yet; copies from it fail
    for number in (2, 3):
        c.server(number).stop()
    c.pass_time(15)
    tries = [order for order in copies_ordered(c) if order.handle == handle]
    assert 1 <= len(tries) <= 8  # 10 s after the last heartbeat, then once a second at most
    c.server(1).replicas[handle].end += 1
    c.server(5).answer_all()
    c.pass_time(15)
    assert holders(c, handle) == [1, 4, 5]


def test_a_chunk_that_nobody_can_take_waits_for_a_server(make_cluster: MakeCluster) -> None:
    c = make_cluster(servers=4)
    a = c.client("/a")
    c.server(4).stop()
    handle = sealed_file(c, a)
    c.server(1).stop()
    c.pass_time(15)
    assert c.core.fleet.repair.statistics()["stuck"] == 1
    c.server(4).register()
    c.pass_time(1)
    assert holders(c, handle) == [2, 3, 4]


def test_an_open_chunk_of_a_lost_server_is_sealed_and_made_whole(c: Cluster, a: Client) -> None:
    """Its writer may be idle for days: what it has committed must not stay endangered."""
    _, lease = a.write(b"f", sealed=False)
    c.server(lease.members[0].server).stop()
    c.pass_time(25)
    assert c.chunk(lease.handle).state is ChunkState.SEALED
    assert len(holders(c, lease.handle)) == 3


def test_copies_lie_in_distinct_racks_if_they_can(make_cluster: MakeCluster) -> None:
    c = make_cluster(servers=5, racks=("a", "a", "b", "c", "c"))
    a = c.client("/a")
    handles = [sealed_file(c, a, b"f%d" % n) for n in range(10)]
    c.server(3).stop()
    c.pass_time(15)
    for handle in handles:
        assert len(holders(c, handle)) == 3
        assert {c.server(n).rack for n in holders(c, handle)} == {"a", "c"}


@pytest.mark.parametrize("seed", range(6))
def test_whatever_servers_do_every_chunk_is_whole_in_the_end(
    make_cluster: MakeCluster, seed: int
) -> None:
    """And at no time has one fewer copies than were left to it."""
    random = Random(seed)
    c = make_cluster(servers=6, seed=seed, safe_start_s=5.0)
    a = c.client("/a")
    handles = [sealed_file(c, a, b"f%d" % n) for n in range(25)]
    for _ in range(12):
        number = random.choice(list(c.servers))
        server = c.server(number)
        up = sum(one.up for one in c.servers.values())
        match random.randrange(5):
            case 0 if server.up and up > 4:
                server.stop()
            case 1 if not server.up:
                server.register()
            case 2:
                handles.append(sealed_file(c, a, b"g%d" % len(handles)))
            case 3:
                c.restart()
        c.pass_time(random.choice([1, 5, 20]))
        for handle in handles:
            anywhere = [s for s in c.servers.values() if handle in s.replicas]
            assert len(anywhere) >= 3, "a copy was given up that was needed"
    for server in c.servers.values():
        if not server.up:
            server.register()
    c.pass_time(60)
    for handle in handles:
        assert len(holders(c, handle)) == 3
    assert c.core.fleet.repair.is_idle
