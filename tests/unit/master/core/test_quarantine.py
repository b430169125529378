"""Copies put aside go when nobody can need them any more, and only then."""

from __future__ import annotations

from gfs import messages as m
from gfs.ids import ROOT_INO
from master.core.quarantine import ASK_S, KEEP_S
from tests.unit.master.core.harness import Client, Cluster


def sealed_chunk(c: Cluster, a: Client) -> int:
    f, lease = a.write(b"f")
    a.close_file(f)
    return lease.handle


def rounds(c: Cluster, count: int) -> None:
    """So many times the servers are asked."""
    for _ in range(count):
        c.pass_time(2)
        c.now_s += ASK_S


def test_a_copy_goes_when_its_chunk_has_been_whole_for_a_day(c: Cluster, a: Client) -> None:
    handle = sealed_chunk(c, a)
    c.pass_time(62)
    c.server(1).quarantine = {handle}
    rounds(c, int(KEEP_S / ASK_S) - 1)
    assert c.server(1).quarantine == {handle}
    rounds(c, 3)
    assert c.server(1).quarantine == set()


def test_the_day_begins_anew_when_a_replica_is_lost(c: Cluster, a: Client) -> None:
    handle = sealed_chunk(c, a)
    c.pass_time(62)
    c.server(1).quarantine = {handle}
    rounds(c, 20)
    c.server(2).stop()
    rounds(c, 2)
    c.server(2).register()
    rounds(c, 20)
    assert c.server(1).quarantine == {handle}


def test_at_once_only_what_is_certain_goes(c: Cluster, a: Client) -> None:
    """As fsck --repair asks for it."""
    handle = sealed_chunk(c, a)
    kept = sealed_chunk_short_of_a_replica(c, a)
    unknown = handle + 500  # of a lost tail of the log, perhaps
    c.server(1).quarantine = {handle, kept, unknown}
    told: list[list[int]] = []
    ask = c.core.fleet.quarantine.ask
    c.queue(lambda: ask(1, keep_s=0.0, told=told.append))
    c.settle()
    assert told == [[handle]]
    assert c.server(1).quarantine == {kept, unknown}


def sealed_chunk_short_of_a_replica(c: Cluster, a: Client) -> int:
    lease = a.allocate()
    c.append(lease, 10)
    a.do(m.SealChunk(lease.handle, lease.version))
    c.core.engine.servers.drop_replica(3, lease.handle)
    return lease.handle


def test_a_copy_of_a_chunk_that_this_history_deleted_goes(c: Cluster, a: Client) -> None:
    handle = sealed_chunk(c, a)
    a.do(m.Unlink(ROOT_INO, b"f"))
    c.server(1).quarantine = {handle}
    c.pass_time(660)
    assert not c.core.fleet.quarantine.is_needless(handle + 500)
    assert c.core.fleet.quarantine.is_needless(handle)


def test_nothing_is_asked_in_the_first_minute(c: Cluster, a: Client) -> None:
    handle = sealed_chunk(c, a)
    c.restart()
    c.server(1).orders.clear()
    c.pass_time(58)
    assert not any(isinstance(order, m.ListQuarantine) for order in c.server(1).orders)
    c.pass_time(5)
    assert any(isinstance(order, m.ListQuarantine) for order in c.server(1).orders)
    assert handle in c.server(1).replicas
