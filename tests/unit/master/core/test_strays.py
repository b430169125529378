"""Replicas of unknown chunks: what this history has deleted goes, nothing else ever."""

from __future__ import annotations

from gfs import messages as m
from gfs.ids import ROOT_INO, draw
from tests.unit.master.core.harness import Client, Cluster, Replica


def deleted_chunk(c: Cluster, a: Client) -> int:
    """A chunk that was referenced, lost its file and was deleted."""
    f, lease = a.write(b"f")
    a.close_file(f)
    a.do(m.Unlink(ROOT_INO, b"f"))
    c.pass_time(660)
    return lease.handle


def test_a_server_that_was_away_gives_up_what_was_deleted_meanwhile(c: Cluster, a: Client) -> None:
    away = c.server(2)
    f, lease = a.write(b"f")
    away.stop()
    a.close_file(f)
    a.do(m.Unlink(ROOT_INO, b"f"))
    c.pass_time(660)
    assert away.deleted == []
    away.register()
    c.pass_time(2)
    assert away.deleted == [lease.handle]


def test_nothing_unknown_is_deleted_in_the_first_minute(c: Cluster, a: Client) -> None:
    handle = deleted_chunk(c, a)
    c.server(1).replicas[handle] = Replica(1, 100, sealed=True)
    c.server(1).deleted.clear()
    c.restart()
    c.pass_time(58)
    assert c.server(1).deleted == []
    c.pass_time(4)
    assert c.server(1).deleted == [handle]


def test_what_this_history_did_not_give_out_is_never_touched(c: Cluster, a: Client) -> None:
    """A lost tail of the log, a later epoch, another cluster: it may be somebody's last copy."""
    handle = deleted_chunk(c, a)
    c.restart()
    a.allocate()
    strange = [handle + 1, draw(1, 1 << 30), draw(2, 1 << 30), draw(3, 1), draw(7, 1)]
    server = c.server(1)
    for one in strange:
        server.replicas[one] = Replica(1, 100, sealed=True)
    server.stop()
    server.deleted.clear()
    server.register()
    c.pass_time(120)
    assert server.deleted == []
    assert set(strange) <= server.replicas.keys()


def test_a_handle_below_one_in_use_was_ours(c: Cluster, a: Client) -> None:
    first, second = a.allocate(), a.allocate()
    assert first.handle < second.handle
    c.append(second, 10)
    a.close()
    c.pass_time(1300)  # both were empty or never referenced
    again = c.client("/a")
    last = again.allocate()
    server = c.server(1)
    for handle in (first.handle, second.handle, last.handle - 1, last.handle + 1):
        server.replicas[handle] = Replica(1, 10, sealed=True)
    server.stop()
    server.deleted.clear()
    server.register()
    c.pass_time(3)
    assert set(server.deleted) == {first.handle, second.handle, last.handle - 1}


def test_an_unknown_replica_is_judged_again_before_it_goes(c: Cluster, a: Client) -> None:
    """Between the report and the order nothing may have made it known."""
    handle = deleted_chunk(c, a)
    kept = a.allocate().handle
    strays = c.core.fleet.strays
    for one in (handle, kept):
        strays.found(1, one)
    c.server(1).deleted.clear()
    c.pass_time(2)
    assert c.server(1).deleted == [handle]
