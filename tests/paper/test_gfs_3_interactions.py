"""Section 3 of the paper: leases, data flow, record appends. See test_gfs_2_design.py."""

from __future__ import annotations

import pytest

from gfs import messages as m
from gfs.errors import ChunkFull, Fenced, GfsError
from gfs.ids import RECORD_BYTES_MAX
from gfs.items import ChunkState
from gfs.messages import Fence, RecordsAppended
from tests.unit.chunkd.test_machine import CHUNK, ChainOf, H
from tests.unit.master.core.harness import Client, Cluster


def test_3_1_the_primary_picks_one_order_and_all_replicas_follow_it() -> None:
    """The primary picks a serial order for all mutations to the chunk. All replicas follow
    this order when applying mutations. (§3.1)"""
    chain = ChainOf(3)
    for round_number in range(1, 4):
        for writer in (5, 6, 7):
            chain.first.records(f"{writer}/{round_number}", round_number, writer=writer)
    chain.settle()
    replicas = [node.machine.replicas[H] for node in chain.nodes]
    assert {replica.end for replica in replicas} == {90}
    offsets = [
        answer.offset for answer in chain.first.answers.values() if hasattr(answer, "offset")
    ]
    assert sorted(offsets) == list(range(0, 90, 10))


def test_3_1_the_master_answers_with_the_primary_and_the_secondaries(
    c: Cluster, a: Client, b: Client
) -> None:
    """The master replies with the identity of the primary and the locations of the other
    (secondary) replicas. (§3.1)"""
    f = a.create(b"f")
    b.open_file(f)
    mine, theirs = a.open_tail(f), b.open_tail(f, writer=8)
    assert [member.server for member in mine.lease.members] == [
        member.server for member in theirs.lease.members
    ]
    assert all(member.address for member in mine.lease.members)


def test_3_1_a_lost_primary_is_replaced_safely(c: Cluster, a: Client) -> None:
    """Even if the master loses communication with a primary, it can safely grant a new lease
    to another replica after the old lease expires. (§3.1)
    Departs: the survivors are fenced instead of a clock being waited for."""
    f = a.create(b"f")
    tail = a.open_tail(f)
    c.append(tail.lease, 10, writer=7, sequence=1)
    primary = c.server(tail.lease.members[0].server)
    primary.stop()  # cut off, but alive: it could still order records
    moved = a.do(m.ResolveTail(f, 7, tail.lease.handle, tail.lease.version)).tail
    assert moved is not None
    assert moved.last == 1
    for member in tail.lease.members[1:]:
        replica = c.server(member.server).replicas[tail.lease.handle]
        assert replica.version > primary.replicas[tail.lease.handle].version
    assert primary.server not in [member.server for member in moved.lease.members]


def test_3_1_a_fenced_member_stops_a_cut_off_primary() -> None:
    """One fenced member is enough: an acknowledgement needs every member."""
    chain = ChainOf(3)
    chain.first.records("before", 1)
    chain.settle()
    chain.nodes[2].machine.fence(Fence(H, 2, 0))
    chain.first.records("after", 2)
    chain.settle()
    assert chain.first.answers["before"] == RecordsAppended(0, 10)
    assert isinstance(chain.first.answers["after"], GfsError)


def test_3_1_the_answer_to_the_client_comes_when_all_secondaries_have_it() -> None:
    """The secondaries all reply to the primary indicating that they have completed the
    operation. The primary replies to the client. (§3.1)"""
    chain = ChainOf(3)
    chain.first.records("a", 1)
    seen = []
    while chain.step():
        seen.append("a" in chain.first.answers)
        if seen[-1]:
            assert all(node.machine.replicas[H].end == 10 for node in chain.nodes)
    assert seen[-1]


def test_3_2_data_is_pushed_linearly_along_a_chain() -> None:
    """Data is pushed linearly along a chain of chunkservers rather than distributed in some
    other topology. Each machine forwards the data to one other. (§3.2)"""
    chain = ChainOf(4)
    chain.first.records("a", 1)
    assert [len(node.outbox) for node in chain.nodes] == [1, 0, 0, 0]
    chain.step()
    assert [len(node.outbox) for node in chain.nodes] == [1, 1, 0, 0]
    chain.step()
    assert [len(node.outbox) for node in chain.nodes] == [1, 1, 1, 0]
    chain.settle()


def test_3_3_a_record_that_does_not_fit_makes_the_client_retry_on_the_next_chunk() -> None:
    """The primary checks to see if appending the record to the current chunk would cause the
    chunk to exceed the maximum size. If so, [...] replies to the client indicating that the
    operation should be retried on the next chunk. (§3.3) Departs: nothing is padded."""
    chain = ChainOf(1)
    chain.first.records("a", 1, length=CHUNK - 5)
    chain.settle()
    with pytest.raises(ChunkFull):
        chain.first.records("b", 2, length=6)
    assert chain.first.machine.replicas[H].end == CHUNK - 5


def test_3_3_records_are_bounded_well_below_a_chunk() -> None:
    """Record append is restricted to be at most one-fourth of the maximum chunk size to keep
    worst-case fragmentation at an acceptable level. (§3.3)"""
    assert RECORD_BYTES_MAX <= (64 << 20) // 4


def test_3_3_a_retried_record_stands_once(c: Cluster, a: Client) -> None:
    """If a record append fails at any replica, the client retries the operation. As a result,
    replicas of the same chunk may contain different data possibly including duplicates. (§3.3)
    Departs: what landed is found by writer and sequence, so it is not written again."""
    f = a.create(b"f")
    tail = a.open_tail(f)
    c.append(tail.lease, 10, writer=7, sequence=1)
    c.append(tail.lease, 10, writer=7, sequence=2, upto=2)  # fails at the last replica
    moved = a.do(m.ResolveTail(f, 7, tail.lease.handle, tail.lease.version)).tail
    assert moved is not None
    assert moved.last == 2
    ends = {server.replicas[tail.lease.handle].end for server in c.servers.values()}
    assert ends == {20}, "and the replicas are alike to the bit"


def test_3_3_a_retry_while_the_first_is_under_way_is_answered_with_it() -> None:
    """The same, at the primary."""
    chain = ChainOf(3)
    chain.first.records("first", 1)
    chain.first.records("again", 1)
    chain.settle()
    assert chain.first.answers["first"] == RecordsAppended(0, 10)
    assert isinstance(chain.first.answers["again"], RecordsAppended)
    assert chain.first.machine.replicas[H].end == 10


def test_4_5_a_replica_refuses_what_comes_for_an_older_version() -> None:
    """The client or the chunkserver verifies the version number when it performs the operation
    so that it is always accessing up-to-date data. (§4.5)"""
    chain = ChainOf(1)
    chain.first.machine.fence(Fence(H, 2, 0))
    with pytest.raises((Fenced, GfsError)):
        chain.first.records("a", 1, version=1)


def test_3_4_a_chunk_shared_by_several_files_goes_with_the_last(c: Cluster, a: Client) -> None:
    """[Reference counts] (§3.4) Departs: files share chunks from the beginning, small ones are
    packed; snapshots will only add references."""
    lease = a.allocate()
    c.append(lease, 20)
    files = [a.create(b"f"), a.create(b"g")]
    for at, f in enumerate(files):
        a.commit(f, (0, 10, lease.handle, at * 10))
        a.close_file(f)
    a.do(m.SealChunk(lease.handle, lease.version))
    a.do(m.Unlink(1, b"f"))
    assert c.chunk(lease.handle).state is ChunkState.SEALED
    a.do(m.Unlink(1, b"g"))
    assert c.chunk(lease.handle).state is ChunkState.CONDEMNED
