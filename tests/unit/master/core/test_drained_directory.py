"""What a server has no place for while it empties a directory is copied to others first."""

from __future__ import annotations

import pytest

from gfs import messages as m
from gfs.items import ChunkState
from master import directory_drains
from tests.unit.master.core.conftest import MakeCluster
from tests.unit.master.core.harness import Client, Cluster
from tests.unit.master.core.test_repair import holders, sealed_file


@pytest.fixture
def c(make_cluster: MakeCluster) -> Cluster:
    return make_cluster(servers=4, safe_start_s=0.0)


def say(c: Cluster, server: int, handle: int, *, outgoing: bool = True) -> None:
    """The server reports a replica of a directory that it empties."""
    had = c.server(server).replicas[handle]
    report = m.ReplicaReport(
        handle, had.version, had.sealed, had.end, had.checksum, had.recovered, outgoing=outgoing
    )
    caller = (-server, 1)
    c.queue(lambda: c.core.fleet.report(server, caller, m.ReportReplicas([report], False)))
    c.settle()


def drains(c: Cluster) -> list[dict[str, object]]:
    return directory_drains.report(c.core.engine, c.core.fleet.repair)


def test_it_goes_when_another_server_has_it_and_not_before(c: Cluster, a: Client) -> None:
    handle = sealed_file(c, a)
    victim = holders(c, handle)[0]
    spare = next(n for n in c.servers if n not in holders(c, handle))
    c.server(spare).hung = True
    say(c, victim, handle)
    c.pass_time(5)
    assert victim in holders(c, handle)
    c.server(spare).answer_all()
    c.pass_time(3)
    assert len(holders(c, handle)) == 3
    assert victim not in holders(c, handle)


def test_with_no_server_to_take_it_it_stays_counts_and_is_said_to_have_nowhere_to_go(
    make_cluster: MakeCluster,
) -> None:
    c = make_cluster(servers=3, safe_start_s=0.0)
    handle = sealed_file(c, c.client("/a"))
    say(c, 2, handle)
    c.core.engine.servers.live[2].drains = [m.DirectoryDrain("/d", 1, 100, homeless=1)]
    c.pass_time(5)
    assert holders(c, handle) == [1, 2, 3]
    assert c.core.engine.servers.holders(handle) == [1, 2, 3]
    assert drains(c) == [
        {"server": f"{2:016x}", "directory": "/d", "replicas_left": 1, "bytes_left": 100,
         "nowhere": 1, "done": False}
    ]  # fmt: skip
    say(c, 2, handle, outgoing=False)  # it has found a place of its own
    c.pass_time(2)
    assert [one["nowhere"] for one in drains(c)] == [0]
    assert c.core.fleet.repair.is_idle


def test_the_mark_goes_with_the_replica_and_with_the_connection(c: Cluster, a: Client) -> None:
    handle = sealed_file(c, a)
    victim = holders(c, handle)[0]
    for server in c.servers.values():
        server.hung = server.server != victim
    say(c, victim, handle)
    servers = c.core.engine.servers
    assert servers.outgoing(handle) == [victim]
    c.server(victim).stop()
    c.server(victim).register()
    assert servers.outgoing(handle) == []
    say(c, victim, handle)
    servers.drop_replica(victim, handle)
    assert servers.live[victim].outgoing == set()


def test_what_is_open_in_it_is_sealed(c: Cluster, a: Client) -> None:
    log = a.create(b"log")
    tail = a.open_tail(log).lease
    c.append(tail, 10)
    say(c, tail.members[0].server, tail.handle)
    c.pass_time(1)
    assert c.chunk(tail.handle).state is ChunkState.SEALED


def test_what_an_idle_writer_has_open_in_it_is_sealed_though_its_server_restarted(
    c: Cluster, a: Client
) -> None:
    """Nothing of it is committed, so for its own sake nobody would: the drain never ended."""
    lease = a.allocate()
    c.append(lease, 10)
    victim = lease.members[0].server
    c.server(victim).restart()
    c.server(victim).register()
    say(c, victim, lease.handle)
    c.pass_time(5)
    assert c.chunk(lease.handle).state is not ChunkState.OPEN


def test_a_chunk_all_of_whose_copies_are_to_go_keeps_its_goal(c: Cluster, a: Client) -> None:
    handle = sealed_file(c, a)
    for victim in list(holders(c, handle)):
        say(c, victim, handle)
    c.pass_time(1)
    assert len(holders(c, handle)) == len(c.core.engine.servers.holders(handle)) == 4


def test_what_was_sealed_empty_is_made_movable_though_the_order_for_that_was_lost(
    make_cluster: MakeCluster,
) -> None:
    """Nobody needs it, but the drain would wait until it is deleted: minutes."""
    c = make_cluster()
    lease = c.client().allocate()
    c.append(lease, 0)
    victim = lease.members[0].server
    say(c, victim, lease.handle)
    c.pass_time(1)
    assert c.chunk(lease.handle).state is ChunkState.CONDEMNED
    had = c.server(victim).replicas[lease.handle]
    had.sealed = False  # its master died before it could order that
    c.restart()
    assert not had.sealed
    say(c, victim, lease.handle)
    c.pass_time(1)
    assert had.sealed
