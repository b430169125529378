"""Seals (protocols.md "Seal"): whose end counts, who is waited for, what survives a master."""

from __future__ import annotations

import pytest

from gfs import errors
from gfs import messages as m
from gfs.ids import ROOT_INO
from gfs.items import CHUNKS, ChunkState
from master.core.sealing import Seal
from tests.unit.master.core.conftest import MakeCluster
from tests.unit.master.core.harness import Call, Client, Cluster, Replica


def seal(a: Client, lease: m.Lease) -> Call:
    return a.start(m.SealChunk(lease.handle, lease.version))


def sealed_length(call: Call) -> int:
    assert call.done.sealed is not None
    return call.done.sealed.length


def members(c: Cluster, lease: m.Lease) -> list[int]:
    return [member.server for member in lease.members]


def test_the_greatest_end_counts_and_short_members_copy_first(c: Cluster, a: Client) -> None:
    lease = a.allocate()
    first, second, third = members(c, lease)
    c.append(lease, 100)
    c.append(lease, 50, upto=2)
    c.append(lease, 25, upto=1)
    call = seal(a, lease)
    assert sealed_length(call) == 175
    chunk = c.chunk(lease.handle)
    assert (chunk.state, chunk.length, chunk.version) == (ChunkState.SEALED, 175, 2)
    copies = [o for s in (second, third) for o in c.server(s).orders if type(o) is m.CopyReplica]
    assert [copy.source.server for copy in copies] == [first, first]
    assert {c.server(s).replicas[lease.handle].end for s in members(c, lease)} == {175}
    located = c.core.engine.queries.locations([lease.handle])[0]
    assert sorted(member.server for member in located.members) == sorted(members(c, lease))


def test_a_short_member_does_not_count_before_it_has_copied(c: Cluster, a: Client) -> None:
    lease = a.allocate()
    first, second, third = members(c, lease)
    c.append(lease, 100)
    c.append(lease, 50, upto=1)
    call = a.send(m.SealChunk(lease.handle, lease.version))
    c.deliver(c.step_queued())  # seal-begin; fences answered
    c.server(second).hung = c.server(third).hung = True
    c.settle()
    assert sealed_length(call) == 150
    located = c.core.engine.queries.locations([lease.handle])[0]
    assert [member.server for member in located.members] == [first]


def test_short_members_are_read_while_the_only_whole_one_is_down(c: Cluster, a: Client) -> None:
    """A chain acknowledges what all have: below their ends they have whatever was promised."""
    lease = a.allocate()
    f = a.create(b"f")
    first, second, third = members(c, lease)
    c.append(lease, 100)
    c.append(lease, 50, upto=1)
    a.commit(f, (0, 100, lease.handle, 0))
    a.send(m.SealChunk(lease.handle, lease.version))
    c.deliver(c.step_queued())  # fences answered
    c.server(second).hung = c.server(third).hung = True  # their copies never come
    c.settle()
    c.server(first).stop()
    servers = c.core.engine.servers
    assert (servers.holders(lease.handle), servers.spares(lease.handle)) == ([], [second, third])
    located = c.core.engine.queries.locations([lease.handle])[0]
    assert sorted(member.server for member in located.members) == sorted([second, third])
    c.server(first).register()
    assert servers.sources(lease.handle) == [first]


def test_the_version_is_logged_before_anybody_is_fenced(c: Cluster, a: Client) -> None:
    lease = a.allocate()
    a.send(m.SealChunk(lease.handle, lease.version))
    ready = c.step_queued()
    assert c.operations()[-1] == "seal-begin"
    assert c.chunk(lease.handle).version == 2
    assert {send.message.version for send in ready.sends} == {2}  # type: ignore[attr-defined]
    c.deliver(ready)
    c.settle()


def test_a_hung_member_is_waited_for_half_a_second(c: Cluster, a: Client) -> None:
    lease = a.allocate()
    c.append(lease, 100)
    hung = c.server(members(c, lease)[0])
    hung.hung = True
    c.pass_time(1)  # its last heartbeat is long past
    call = seal(a, lease)
    c.pass_time(0.4)
    assert not call.is_answered
    c.pass_time(0.2)
    assert sealed_length(call) == 100


def test_a_member_that_is_slow_but_alive_is_waited_for(c: Cluster, a: Client) -> None:
    """Its disk is slow and its heartbeats go on: a seal without it would cost a whole copy."""
    lease = a.allocate()
    c.append(lease, 100)
    slow = members(c, lease)[0]
    c.server(slow).hung = True
    call = seal(a, lease)
    for _ in range(9 * 4):
        c.core.fleet.heartbeat(slow, m.Heartbeat(1 << 40, 1 << 41, []), c.now_s)
        c.pass_time(0.25)
    assert not call.is_answered
    c.pass_time(1.1)
    assert sealed_length(call) == 100


def test_a_replica_made_by_the_fence_is_intact_only_if_it_was_never_away() -> None:
    """A disk that is gone must not make a chunk of length 0 out of one that was written."""
    seal = Seal(1, 2, {1: "b", 2: "b", 3: "b"}, 0.0, never_away=frozenset({3}))
    seal.awaited = {2}
    seal.answered(1, m.FencedAt(0, "b", {}, created=True))
    assert not seal.is_decidable(1.0)
    seal.answered(3, m.FencedAt(0, "b", {}, created=True))
    assert seal.is_decidable(1.0)


def test_a_length_below_what_files_refer_to_is_not_believed_before_all_have_answered() -> None:
    seal = Seal(1, 2, {1: "b", 2: "b"}, 0.0, referenced=50)
    seal.awaited = {2}
    seal.answered(1, m.FencedAt(10, "b", {}))
    assert not seal.is_decidable(1.0)
    seal.answered(2, m.FencedAt(50, "b", {}))
    assert seal.is_decidable(1.0)
    assert seal.length() == 50


def test_a_member_whose_connection_is_down_is_not_waited_for(c: Cluster, a: Client) -> None:
    lease = a.allocate()
    c.append(lease, 100)
    c.server(members(c, lease)[1]).stop()
    assert sealed_length(seal(a, lease)) == 100


def test_a_member_that_was_absent_counts_only_with_a_fresh_copy(c: Cluster, a: Client) -> None:
    lease = a.allocate()
    f = a.create(b"f")
    c.append(lease, 100)
    absent = c.server(members(c, lease)[2])
    absent.stop()
    assert sealed_length(seal(a, lease)) == 100
    a.commit(f, (0, 100, lease.handle, 0))
    absent.hung = True
    absent.register()
    assert absent.replicas[lease.handle].version == 1
    located = c.core.engine.queries.locations([lease.handle])[0]
    assert absent.server not in [member.server for member in located.members]
    absent.stop()
    absent.hung = False
    absent.register()
    assert absent.replicas[lease.handle] == Replica(2, 100, sealed=True)
    located = c.core.engine.queries.locations([lease.handle])[0]
    assert absent.server in [member.server for member in located.members]


def test_one_intact_member_is_enough_though_others_lost_power(c: Cluster, a: Client) -> None:
    lease = a.allocate()
    first, second, third = members(c, lease)
    c.append(lease, 100)
    for server in (first, second):
        c.server(server).lose_power(keep=10)
        c.server(server).register()
    assert sealed_length(seal(a, lease)) == 100
    assert c.server(first).replicas[lease.handle].end == 100  # copied from the third
    assert third in members(c, lease)


def test_without_an_intact_member_all_are_waited_for(c: Cluster, a: Client) -> None:
    lease = a.allocate()
    first, second, third = members(c, lease)
    c.append(lease, 100)
    for server, keep in ((first, 10), (second, 20), (third, 60)):
        c.server(server).lose_power(keep=keep)
    c.server(first).register()
    c.server(second).register()
    call = seal(a, lease)
    c.pass_time(20)
    assert not call.is_answered
    c.server(third).register()
    c.pass_time(1)
    assert sealed_length(call) == 60


def test_without_an_intact_member_half_a_minute_is_the_limit(c: Cluster, a: Client) -> None:
    lease = a.allocate()
    first, second, third = members(c, lease)
    c.append(lease, 100)
    for server, keep in ((first, 10), (second, 20), (third, 60)):
        c.server(server).lose_power(keep=keep)
    c.server(first).register()
    c.server(second).register()
    call = seal(a, lease)
    c.pass_time(29)
    assert not call.is_answered
    c.pass_time(2)
    assert sealed_length(call) == 20


def test_with_nobody_up_a_seal_waits_and_ends_when_a_member_returns(c: Cluster, a: Client) -> None:
    lease = a.allocate()
    c.append(lease, 100)
    for server in c.servers.values():
        server.stop()
    call = seal(a, lease)
    c.pass_time(40)
    assert not call.is_answered
    c.server(members(c, lease)[1]).register()
    c.pass_time(1)
    assert sealed_length(call) == 100


def test_a_member_that_returns_is_fenced_though_another_hangs(c: Cluster, a: Client) -> None:
    lease = a.allocate()
    first, second, third = members(c, lease)
    c.append(lease, 100)
    c.server(first).hung = True
    c.server(second).stop()
    c.server(third).stop()
    call = seal(a, lease)
    c.pass_time(3)
    assert not call.is_answered
    c.server(third).register()
    c.pass_time(3)
    assert sealed_length(call) == 100


def test_requests_for_one_seal_are_decided_in_order_behind_it(
    c: Cluster, a: Client, b: Client
) -> None:
    f = a.create(b"f")
    b.open_file(f)
    tail = a.open_tail(f)
    c.append(tail.lease, 100, writer=7, sequence=1)
    hung = [c.server(s) for s in members(c, tail.lease)]
    for server in hung:
        server.hung = True
    resolve = a.start(m.ResolveTail(f, 7, tail.lease.handle, tail.lease.version))
    cut = b.start(m.SetAttributes(f, size=40))
    a.on_recall = b.on_recall = None
    begun = c.operations().count("seal-begin")
    assert begun == 1
    assert not resolve.is_answered
    assert not cut.is_answered
    engine = c.core.engine
    for server in hung:
        server.hung = False
        for token, order in list(engine._orders.items()):
            if order.server == server.server:
                c.queue(
                    lambda token=token, order=order, server=server: engine.answered(  # type: ignore[misc]
                        token, server.act(order.message)
                    )
                )
    c.settle()
    assert resolve.done.tail is not None
    assert resolve.done.tail.last == 1
    assert cut.done.entry is not None
    assert cut.done.entry.inode is not None
    assert cut.done.entry.inode.size == 40
    operations = c.operations()
    at = operations.index("seal")
    assert operations[at + 1] in ("resolve-tail", "setattr")  # nothing comes between


def test_an_empty_chunk_is_condemned_when_sealed(c: Cluster, a: Client) -> None:
    lease = a.allocate()
    assert sealed_length(seal(a, lease)) == 0
    assert c.chunk(lease.handle).state is ChunkState.CONDEMNED


def test_an_empty_chunk_that_files_refer_to_stays_until_they_do_not(c: Cluster, a: Client) -> None:
    """A power loss of all has taken what was not synced: its writer may yet send it again."""
    lease = a.allocate()
    f = a.create(b"f")
    c.append(lease, 100)
    a.commit(f, (0, 100, lease.handle, 0))
    for server in members(c, lease):
        c.server(server).lose_power(keep=0)
        c.server(server).register()
    call = seal(a, lease)
    c.pass_time(60)
    assert sealed_length(call) == 0
    chunk = c.chunk(lease.handle)
    assert (chunk.state, chunk.references) == (ChunkState.SEALED, 100)
    anew = a.allocate()
    c.append(anew, 100)
    a.commit(f, (0, 100, anew.handle, 0))
    assert c.chunk(lease.handle).state is ChunkState.CONDEMNED


def test_sealing_twice_gives_the_same_answer(c: Cluster, a: Client) -> None:
    lease = a.allocate()
    f = a.create(b"f")
    c.append(lease, 100)
    a.commit(f, (0, 100, lease.handle, 0))
    assert sealed_length(seal(a, lease)) == 100
    before = len(c.log)
    assert sealed_length(seal(a, lease)) == 100
    assert len(c.log) == before


def test_only_the_holder_seals_a_private_chunk(a: Client, b: Client) -> None:
    lease = a.allocate()
    with pytest.raises(errors.Refused):
        b.do(m.SealChunk(lease.handle, 1))
    with pytest.raises(errors.NotFound):
        a.do(m.SealChunk(12345, 1))


@pytest.mark.parametrize("away", [False, True])
def test_a_chunk_of_an_idle_writer_is_sealed_when_a_member_fails(
    c: Cluster, a: Client, away: bool
) -> None:
    """Goal: bytes that are committed do not wait for the next write to have all their copies."""
    lease, spare = a.allocate(), a.allocate()
    f = a.create(b"f")
    c.append(lease, 100)
    a.commit(f, (0, 100, lease.handle, 0))
    c.append(lease, 50)
    member = c.server(members(c, lease)[1])
    member.restart()
    if not away:
        member.register()
        c.settle()
    c.pass_time(3)
    assert (c.chunk(lease.handle).state, c.chunk(lease.handle).length) == (ChunkState.SEALED, 150)
    assert c.chunk(spare.handle).state is ChunkState.OPEN  # nothing in it: its writer will see
    if away:
        member.register()
        c.settle()
    assert sorted(c.core.engine.servers.holders(lease.handle)) == [1, 2, 3]
    a.commit(f, (100, 50, lease.handle, 100))  # what was under way
    assert a.inode(f).size == 150


def test_a_late_member_condenses_when_it_reports(c: Cluster, a: Client) -> None:
    """It was fenced in time, but the order that should have followed was lost."""
    lease = a.allocate()
    f = a.create(b"f")
    c.append(lease, 100)
    a.commit(f, (0, 100, lease.handle, 0))
    c.append(lease, 7, upto=1)
    a.send(m.SealChunk(lease.handle, lease.version))
    c.deliver(c.step_queued())  # all are fenced; the answers are on their way
    late = c.server(members(c, lease)[2])
    late.hung = True
    c.settle()
    assert not late.replicas[lease.handle].sealed
    late.stop()
    late.hung = False
    late.register()
    c.settle()
    assert late.replicas[lease.handle].sealed
    assert late.replicas[lease.handle].end == 107


def test_the_checksum_of_the_members_is_logged(c: Cluster, a: Client) -> None:
    lease = a.allocate()
    f = a.create(b"f")
    c.append(lease, 100)
    a.commit(f, (0, 100, lease.handle, 0))
    seal(a, lease)
    c.pass_time(2)
    assert c.chunk(lease.handle).checksum == lease.handle & 0xFFFFFFFF


def test_a_file_reclaimed_during_a_seal_takes_no_master_along(c: Cluster, a: Client) -> None:
    f = a.create(b"f")
    tail = a.open_tail(f)
    c.append(tail.lease, 10, writer=7, sequence=1)
    for server in c.servers.values():
        server.hung = True
    a.start(m.ResolveTail(f, 7, tail.lease.handle, 1))
    a.close_file(f)
    a.do(m.Unlink(ROOT_INO, b"f"))
    assert c.chunk(tail.lease.handle).state is ChunkState.CONDEMNED
    c.pass_time(1)
    for server in c.servers.values():
        server.stop()
        server.hung = False
        server.register()
    c.pass_time(5)
    assert c.chunk(tail.lease.handle).state is ChunkState.CONDEMNED
    assert not len(c.core.machine.seals)


@pytest.mark.parametrize("steps", range(8))
def test_a_master_that_dies_at_any_step_of_a_seal_starts_again(
    make_cluster: MakeCluster, steps: int
) -> None:
    """Restart after `steps` steps; the client asks again, the outcome is one seal."""
    c = make_cluster()
    a = c.client()
    f = a.create(b"f")
    tail = a.open_tail(f)
    c.append(tail.lease, 100, writer=7, sequence=1)
    c.append(tail.lease, 50, writer=7, sequence=2, upto=2)
    call = a.send(m.ResolveTail(f, 7, tail.lease.handle, 1))
    for _ in range(steps):
        if not c._works:
            break
        c.deliver(c.step_queued())
    c.restart(resume=False)
    a.open(opens=[f], writers=[f])
    again = a.start(call.message, number=call.number)
    c.pass_time(3)
    found = again.done.tail
    assert found is not None
    assert found.last == 2
    assert (found.file_offset, found.lease.handle != tail.lease.handle) == (150, True)
    chunk = c.chunk(tail.lease.handle)
    assert (chunk.state, chunk.length, chunk.references) == (ChunkState.SEALED, 150, 150)
    open_chunks = [one for _, one in c.tables.scan(CHUNKS) if one.state is ChunkState.OPEN]
    assert len(open_chunks) == 1


@pytest.mark.parametrize("steps", range(8))
def test_a_seal_that_a_master_died_in_is_done_though_nobody_asks_for_it_again(
    make_cluster: MakeCluster, steps: int
) -> None:
    """Once it is begun readers ask for a version that no member has, or that members cannot end."""
    c = make_cluster()
    a, b = c.client(), c.client("/n")
    f = a.create(b"f")
    tail = a.open_tail(f)
    c.append(tail.lease, 100, writer=7, sequence=1)
    a.send(m.ResolveTail(f, 7, tail.lease.handle, 1))
    for _ in range(steps):
        if not c._works:
            break
        c.deliver(c.step_queued())
    begun = c.chunk(tail.lease.handle).version > tail.lease.version
    c.restart(resume=False)
    b.open()
    c.pass_time(3)
    chunk = c.chunk(tail.lease.handle)
    assert (chunk.state is ChunkState.SEALED) == begun
    assert chunk.length == (100 if begun else 0)


def test_the_only_member_with_all_of_a_sealed_chunk_condenses_and_need_not_copy(
    c: Cluster, a: Client
) -> None:
    """Its first order was refused, and there is nobody it could copy from: it counts again."""
    lease = a.allocate()
    c.append(lease, 100)
    first, *others = members(c, lease)
    assert sealed_length(seal(a, lease)) == 100
    for server in others:
        c.server(server).stop()
    c.core.engine.servers.drop_replica(first, lease.handle)
    c.core.machine.seals.finishing.copy(first, lease.handle, lease.version + 1, 100)
    c.pass_time(3)
    assert c.core.engine.servers.holders(lease.handle) == [first]


def test_the_checksum_is_logged_though_the_master_died_before_it_was(c: Cluster, a: Client) -> None:
    lease = a.allocate()
    f = a.create(b"f")
    c.append(lease, 100)
    a.commit(f, (0, 100, lease.handle, 0))
    seal(a, lease)
    assert c.chunk(lease.handle).checksum == 0  # known, not yet logged
    for server in c.servers.values():
        server.replicas[lease.handle].checksum = lease.handle & 0xFFFFFFFF
    c.restart()
    c.pass_time(2)
    assert c.chunk(lease.handle).checksum == lease.handle & 0xFFFFFFFF
