"""Chunk servers whose disks do not work, as the master deals with them."""

from __future__ import annotations

import pytest

from gfs import errors
from gfs import messages as m
from tests.unit.master.core.conftest import MakeCluster
from tests.unit.master.core.harness import Client, Cluster, Replica


def beat(c: Cluster, free: int, *disks: str) -> None:
    for server in c.servers:
        c.core.fleet.heartbeat(server, m.Heartbeat(free, 1 << 41, [], errors=list(disks)))


def test_disks_that_do_not_work_are_waited_for_full_ones_are_not(c: Cluster, a: Client) -> None:
    beat(c, 0)
    with pytest.raises(errors.NoSpace):
        a.allocate()
    beat(c, 0, "/data: does not answer")
    call = a.start(m.Allocate())
    c.pass_time(1)
    assert not call.is_answered
    beat(c, 1 << 40)
    c.pass_time(1)
    assert call.done.lease is not None


def test_a_replica_with_other_bytes_does_not_count_and_is_replaced(c: Cluster, a: Client) -> None:
    """Same version, same length: only the checksum that was logged tells."""
    _, lease = a.write(b"f")
    c.pass_time(62)
    right = c.chunk(lease.handle).checksum
    assert right
    server = c.server(1)
    server.stop()
    server.replicas[lease.handle] = Replica(2, 100, sealed=True, checksum=right + 1)
    server.hung = True
    server.register()
    assert sorted(c.core.engine.servers.sources(lease.handle)) == [2, 3]
    server.hung = False
    server.stop()
    server.register()
    c.pass_time(5)
    assert sorted(c.core.engine.servers.holders(lease.handle)) == [1, 2, 3]
    assert server.replicas[lease.handle].checksum != right + 1


def test_a_stale_replica_goes_when_the_chunk_needs_no_more(make_cluster: MakeCluster) -> None:
    """It missed the seal, and meanwhile others have taken its place."""
    c = make_cluster(servers=4)
    a = c.client()
    _, lease = a.write(b"f", sealed=False)
    absent = c.server(lease.members[2].server)
    absent.stop()
    a.do(m.SealChunk(lease.handle, lease.version))
    c.pass_time(62)
    assert len(c.core.engine.servers.holders(lease.handle)) == 3
    assert absent.replicas[lease.handle].version == 1
    absent.register()
    c.pass_time(3)
    assert lease.handle not in absent.replicas
    assert not any(isinstance(order, m.CopyReplica) for order in absent.orders)


def test_what_lies_on_a_failed_disk_counts_again_when_that_works(c: Cluster, a: Client) -> None:
    lease = a.allocate()
    c.append(lease, 100)
    a.do(m.SealChunk(lease.handle, lease.version))
    servers = c.core.engine.servers

    def report(*, sound: bool) -> None:
        told = m.ReplicaReport(lease.handle, 2, True, 100, 0, sound=sound)
        c.core.fleet.report(1, (-1, 1), m.ReportReplicas([told], False))

    report(sound=False)
    assert (sorted(servers.holders(lease.handle)), servers.spares(lease.handle)) == ([2, 3], [1])
    report(sound=True)
    assert (sorted(servers.holders(lease.handle)), servers.spares(lease.handle)) == ([1, 2, 3], [])
    c.core.fleet.report(1, (-1, 1), m.ReportReplicas([], False, [lease.handle]))
    assert sorted(servers.holders(lease.handle)) == [2, 3]
