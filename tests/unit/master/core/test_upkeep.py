"""Garbage (GFS §4.4), the first minute, barriers, block reports."""

from __future__ import annotations

import pytest

from gfs import messages as m
from gfs.errors import StaleInode
from gfs.ids import ROOT_INO
from gfs.items import CHUNKS, ChunkState
from tests.unit.master.core.conftest import MakeCluster
from tests.unit.master.core.harness import Client, Cluster, Replica


def condemned_chunk(c: Cluster, a: Client) -> m.Lease:
    f, lease = a.write(b"f")
    a.close_file(f)
    a.do(m.Unlink(ROOT_INO, b"f"))
    assert c.chunk(lease.handle).state is ChunkState.CONDEMNED
    return lease


def test_replicas_of_a_condemned_chunk_are_deleted_after_the_delay(c: Cluster, a: Client) -> None:
    lease = condemned_chunk(c, a)
    c.pass_time(590)
    assert c.tables.get(CHUNKS, (lease.handle,)) is not None
    assert all(not server.deleted for server in c.servers.values())
    c.pass_time(15)
    assert c.tables.get(CHUNKS, (lease.handle,)) is None
    assert [server.deleted for server in c.servers.values()] == [[lease.handle]] * 3


def test_the_record_of_a_deletion_comes_before_the_order(c: Cluster, a: Client) -> None:
    condemned_chunk(c, a)
    c.pass_time(590)
    c.now_s += 20
    ready = c.step(c.core.tick)
    assert c.operations()[-1] == "delete-chunks"
    orders = [send.message for send in ready.sends]
    assert [type(order) for order in orders] == [m.DeleteReplicas] * 3
    c.deliver(ready)
    c.settle()


def test_nothing_is_destroyed_in_the_first_minute_after_a_start(c: Cluster, a: Client) -> None:
    lease = condemned_chunk(c, a)
    c.now_s += 10_000
    c.restart()
    c.pass_time(58)
    assert c.tables.get(CHUNKS, (lease.handle,)) is not None
    c.pass_time(4)
    assert c.tables.get(CHUNKS, (lease.handle,)) is None
    assert all(server.deleted == [lease.handle] for server in c.servers.values())


def test_a_sealed_chunk_that_never_got_a_reference_is_swept(c: Cluster, a: Client) -> None:
    lease = a.allocate()
    c.append(lease, 100)
    a.do(m.SealChunk(lease.handle, lease.version))
    c.pass_time(700)
    assert c.chunk(lease.handle).state is ChunkState.SEALED, "its session may still commit"
    a.close()
    c.pass_time(3)
    assert c.chunk(lease.handle).state is ChunkState.CONDEMNED
    c.pass_time(601)
    assert c.tables.count(CHUNKS) == 0


def test_what_a_session_still_commits_into_is_not_swept(c: Cluster, a: Client) -> None:
    f = a.create(b"f")
    lease = a.allocate()
    c.append(lease, 100)
    a.do(m.SealChunk(lease.handle, lease.version))
    c.pass_time(5000)
    assert a.commit(f, (0, 100, lease.handle, 0)).code == ""


def test_the_sweep_reaches_every_chunk(make_cluster: MakeCluster) -> None:
    c = make_cluster()
    a = c.client()
    leases = [a.allocate() for _ in range(600)]
    for lease in leases:
        c.append(lease, 1)
    a.close()
    for _ in range(2):
        c.now_s += 601
        c.pass_time(4)
    assert c.tables.count(CHUNKS) == 0


# --- block reports (GFS §2.6.2)


def test_locations_come_from_reports_alone(c: Cluster, a: Client) -> None:
    _, lease = a.write(b"f")
    c.restart()
    assert len(c.core.engine.queries.locations([lease.handle])[0].members) == 3
    c.server(1).stop()
    located = c.core.engine.queries.locations([lease.handle])[0]
    assert sorted(member.server for member in located.members) == [2, 3]
    c.core.fleet.heartbeat(2, m.Heartbeat(0, 0, [], bad=[lease.handle]))
    located = c.core.engine.queries.locations([lease.handle])[0]
    assert [member.server for member in located.members] == [3]


def test_a_bad_replica_is_asked_only_while_nobody_has_a_whole_one(c: Cluster, a: Client) -> None:
    """Its other blocks may be all that is left."""
    lease = referenced_chunk(c, a)
    for number in (2, 3):
        c.core.fleet.heartbeat(number, m.Heartbeat(0, 0, [], bad=[lease.handle]))
    assert readable_at(c, lease) == [1]
    c.server(1).stop()
    assert readable_at(c, lease) == [2, 3]
    assert c.core.engine.servers.holders(lease.handle) == []
    c.server(1).register()
    assert readable_at(c, lease) == [1]


def test_a_bad_replica_goes_with_its_chunk(c: Cluster, a: Client) -> None:
    lease = referenced_chunk(c, a)
    c.core.fleet.heartbeat(2, m.Heartbeat(0, 0, [], bad=[lease.handle]))
    a.do(m.Unlink(1, b"kept"))
    c.pass_time(700)
    assert all(server.deleted == [lease.handle] for server in c.servers.values())


def referenced_chunk(c: Cluster, a: Client) -> m.Lease:
    """A sealed chunk that a file refers to."""
    f, lease = a.write(b"kept")
    a.close_file(f)
    return lease


def readable_at(c: Cluster, lease: m.Lease) -> list[int]:
    located = c.core.engine.queries.locations([lease.handle])[0]
    return sorted(member.server for member in located.members)


def test_a_replica_that_disagrees_does_not_count(c: Cluster, a: Client) -> None:
    _, lease = a.write(b"f")
    for number, wrong in (
        (1, Replica(9, 100, sealed=True)),  # a version never given
        (2, Replica(2, 99, sealed=True)),  # another length
    ):
        c.server(number).stop()
        c.server(number).replicas[lease.handle] = wrong
        c.server(number).register()
    c.server(1).replicas[12345] = Replica(7, 1, sealed=True)  # nobody knows it
    c.server(1).stop()
    c.server(1).register()
    located = c.core.engine.queries.locations([lease.handle])[0]
    assert [member.server for member in located.members] == [3]


def test_servers_are_remembered_their_addresses_may_change(c: Cluster) -> None:
    before = c.operations().count("server")
    c.server(1).stop()
    c.server(1).register()
    assert c.operations().count("server") == before
    c.server(1).rack = "elsewhere"
    c.server(1).register()
    assert c.operations().count("server") == before + 1


def test_space_is_what_live_servers_say_divided_by_the_goal(c: Cluster, a: Client) -> None:
    found = a.get(m.StatFilesystem(), m.FilesystemStat)
    assert (found.total_bytes, found.free_bytes) == (1 << 41, 1 << 40)
    c.server(1).stop()
    assert a.get(m.StatFilesystem(), m.FilesystemStat).free_bytes == 1 << 40
    assert a.get(m.StatFilesystem(a.mkdir(b"d")), m.FilesystemStat).free_bytes == 1 << 40
    with pytest.raises(StaleInode):
        a.get(m.StatFilesystem(999), m.FilesystemStat)
