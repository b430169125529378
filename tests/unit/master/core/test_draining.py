"""Servers are emptied and levelled without a chunk ever having fewer copies than before."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gfs import messages as m
from gfs.errors import NotFound
from gfs.items import SERVERS
from master.checking import pages
from master.core.draining import Drains
from tests.unit.master.core.conftest import MakeCluster
from tests.unit.master.core.harness import POLICY, Call, Client, Cluster
from tests.unit.master.core.test_repair import holders, sealed_file

GIB = 1 << 30


def drain(c: Cluster, a: Client, server: int, *, stop: bool = False) -> m.Message:
    call = Call(a, 0, m.Ok())
    caller = c.caller(call)
    c.queue(lambda: c.core.fleet.draining.order(caller, m.Drain(server, stop)))
    c.settle()
    return call.answer


def progress(c: Cluster) -> list[dict[str, object]]:
    drains = Drains(c.core.engine.servers, c.tables)
    for key, chunk in pages(c.tables, "chunks"):
        drains.count(key[0], chunk)
    return drains.report()


@pytest.fixture
def c(make_cluster: MakeCluster) -> Cluster:
    return make_cluster(servers=4, safe_start_s=0.0)


def test_a_drained_server_ends_empty_and_every_chunk_whole(c: Cluster, a: Client) -> None:
    handles = [sealed_file(c, a, b"f%d" % n) for n in range(10)]
    drain(c, a, 2)
    c.pass_time(20)
    assert c.server(2).replicas == {}
    assert all(holders(c, handle) == [1, 3, 4] for handle in handles)
    assert progress(c) == [
        {"server": f"{2:016x}", "chunks_left": 0, "bytes_left": 0, "replicas": 0, "done": True}
    ]


def test_its_copies_stay_until_there_are_enough_others(c: Cluster, a: Client) -> None:
    handle = sealed_file(c, a)
    victim = holders(c, handle)[0]
    spare = next(n for n in c.servers if n not in holders(c, handle))
    c.server(spare).hung = True
    drain(c, a, victim)
    c.pass_time(5)
    assert victim in holders(c, handle)
    left = progress(c)[0]
    assert (left["chunks_left"], left["bytes_left"], left["done"]) == (1, 100, False)
    c.server(spare).answer_all()
    c.pass_time(3)
    assert victim not in holders(c, handle)


def test_it_gets_no_new_chunks_and_its_open_ones_are_sealed(c: Cluster, a: Client) -> None:
    _, lease = a.write(b"f", sealed=False)
    log = a.create(b"log")
    tail = a.open_tail(log).lease
    both = {x.server for x in lease.members} & {x.server for x in tail.members}
    victim = both.pop()
    drain(c, a, victim)
    c.pass_time(5)
    assert lease.handle not in c.server(victim).replicas
    assert progress(c)[0]["done"]
    for _ in range(20):
        assert victim not in [member.server for member in a.allocate().members]


def test_a_drain_outlives_the_master_and_the_server(c: Cluster, a: Client) -> None:
    drain(c, a, 3)
    c.restart()
    c.server(3).restart()
    c.server(3).register()
    assert c.core.engine.servers.live[3].draining == bool(progress(c))
    assert progress(c)
    drain(c, a, 3, stop=True)
    c.restart()
    assert not progress(c)
    assert not c.core.engine.servers.live[3].draining
    assert [item.draining for _, item in pages(c.tables, SERVERS)] == [False] * 4


def test_a_drain_that_is_stopped_leaves_the_copies_where_they_are(c: Cluster, a: Client) -> None:
    handle = sealed_file(c, a)
    victim = holders(c, handle)[0]
    spare = next(n for n in c.servers if n not in holders(c, handle))
    c.server(spare).hung = True
    drain(c, a, victim)
    c.pass_time(2)
    drain(c, a, victim, stop=True)
    c.server(spare).answer_all()
    c.pass_time(5)
    assert len(holders(c, handle)) == 3
    assert progress(c) == []


def test_a_server_that_does_not_exist_is_refused(c: Cluster, a: Client) -> None:
    with pytest.raises(NotFound):
        drain(c, a, 99)


def level(c: Cluster, shares: dict[int, float]) -> None:
    for server, share in shares.items():
        live = c.core.engine.servers.live[server]
        live.free_bytes, live.total_bytes = int(share * 100 * GIB), 100 * GIB


def test_a_new_server_is_filled_gently(make_cluster: MakeCluster) -> None:
    """One chunk at a time, so many bytes a second, never fewer copies than before."""
    policy = replace(POLICY, rebalance_bytes_per_s=100)
    c = make_cluster(servers=4, safe_start_s=0.0, policy=policy)
    c.server(4).stop()
    a = c.client("/a")
    c.pass_time(12)
    handles = [sealed_file(c, a, b"f%d" % n, length=1000) for n in range(10)]
    c.server(4).register()
    level(c, {1: 0.1, 2: 0.5, 3: 0.5, 4: 0.9})
    c.pass_time(35)
    moved = [handle for handle in handles if 4 in holders(c, handle)]
    assert 2 <= len(moved) <= 4
    assert all(holders(c, handle) == [2, 3, 4] for handle in moved)
    assert all(len(holders(c, handle)) == 3 for handle in handles)


def test_nothing_is_moved_within_the_band_or_while_a_chunk_is_endangered(
    make_cluster: MakeCluster,
) -> None:
    c = make_cluster(servers=5, safe_start_s=0.0)
    a = c.client("/a")
    handles = [sealed_file(c, a, b"f%d" % n) for n in range(10)]
    level(c, {1: 0.41, 2: 0.5, 3: 0.5, 4: 0.5, 5: 0.5})
    c.pass_time(20)
    assert c.core.fleet.rebalancing.moved_bytes_total == 0
    for server in c.servers.values():
        server.hung = True
    c.server(5).stop()
    level(c, {1: 0.1, 2: 0.9, 3: 0.9, 4: 0.9})
    c.pass_time(20)
    assert any(copy for copy in c.core.fleet.repair.copies.values())
    assert c.core.fleet.rebalancing.moved_bytes_total == 0
    assert len(handles) == 10
