"""Chunk servers whose disks do not work, as the master deals with them."""

from __future__ import annotations

import pytest

from gfs import errors
from gfs import messages as m
from tests.unit.master.core.harness import Client, Cluster


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
