"""Record append at the master: exactly once over seals, growth, what seals a tail first."""

from __future__ import annotations

import os

import pytest

from gfs import errors
from gfs import messages as m
from gfs.ids import ROOT_INO
from gfs.items import WRITERS, ChunkState
from tests.unit.master.core.conftest import MakeCluster
from tests.unit.master.core.harness import Client, Cluster, file_commit


def resolve(a: Client, f: int, tail: m.Tail, writer: int = 7) -> m.Tail:
    done = a.do(m.ResolveTail(f, writer, tail.lease.handle, tail.lease.version))
    assert done.tail is not None
    return done.tail


def test_one_tail_serves_all_appenders(c: Cluster, a: Client, b: Client) -> None:
    f = a.create(b"f")
    b.open_file(f)
    first = a.open_tail(f)
    assert (first.last, first.file_offset, first.lease.version) == (0, 0, 1)
    before = len(c.log)
    assert b.open_tail(f, writer=8).lease == first.lease
    assert len(c.log) == before


def test_opening_a_tail_needs_the_file_open_to_write(a: Client) -> None:
    f = a.create(b"f", flags=os.O_RDONLY)
    with pytest.raises(errors.NotPermitted):
        a.open_tail(f)
    with pytest.raises(errors.InvalidArgument):
        a.open_tail(ROOT_INO)


def test_each_writer_learns_what_of_its_own_landed(c: Cluster, a: Client, b: Client) -> None:
    f = a.create(b"f")
    b.open_file(f)
    tail = a.open_tail(f)
    for sequence in range(1, 4):
        c.append(tail.lease, 10, writer=7, sequence=sequence)
    c.append(tail.lease, 10, writer=8, sequence=1)
    mine, theirs, never = (resolve(a, f, tail, writer) for writer in (7, 8, 9))
    assert (mine.last, theirs.last, never.last) == (3, 1, 0)
    assert mine.file_offset == 40
    assert mine.lease.handle == theirs.lease.handle != tail.lease.handle


def test_a_record_that_only_one_member_has_stands_after_the_seal(c: Cluster, a: Client) -> None:
    """Nobody acknowledged it, but it does no harm, and its writer must not send it again."""
    f = a.create(b"f")
    tail = a.open_tail(f)
    c.append(tail.lease, 10, writer=7, sequence=1)
    c.append(tail.lease, 10, writer=7, sequence=2, upto=1)
    assert resolve(a, f, tail).last == 2
    assert a.inode(f).size == 20


def test_facts_of_an_earlier_chunk_answer_a_late_question(c: Cluster, a: Client) -> None:
    f = a.create(b"f")
    first = a.open_tail(f)
    c.append(first.lease, 10, writer=7, sequence=1)
    second = resolve(a, f, first)
    c.append(second.lease, 10, writer=7, sequence=1)
    third = resolve(a, f, second)
    assert resolve(a, f, first).last == 1
    assert resolve(a, f, first).lease == third.lease
    assert third.file_offset == 20


def test_facts_are_forgotten_after_the_delay_and_said_to_be(c: Cluster, a: Client) -> None:
    f = a.create(b"f")
    tail = a.open_tail(f)
    c.append(tail.lease, 10, writer=7, sequence=1)
    resolve(a, f, tail)
    c.pass_time(590)
    assert resolve(a, f, tail).last == 1
    c.pass_time(20)
    assert c.tables.count(WRITERS) == 0
    with pytest.raises(errors.Refused):
        resolve(a, f, tail)


def test_in_doubt_about_somebody_elses_chunk_nothing_is_sealed(c: Cluster, a: Client) -> None:
    f, g = a.create(b"f"), a.create(b"g")
    tail, lease = a.open_tail(f), a.allocate()
    for handle in (tail.lease.handle, lease.handle):
        with pytest.raises(errors.InvalidArgument):
            a.do(m.ResolveTail(g, 7, handle, 1))
        assert c.chunk(handle).state is ChunkState.OPEN


def test_a_tail_with_a_dead_member_is_replaced_when_opened(c: Cluster, a: Client) -> None:
    f = a.create(b"f")
    tail = a.open_tail(f)
    c.append(tail.lease, 10, writer=7, sequence=1)
    c.server(tail.lease.members[2].server).stop()
    again = a.open_tail(f, writer=8)
    assert again.lease.handle != tail.lease.handle
    assert (again.file_offset, len(again.lease.members)) == (10, 2)
    assert resolve(a, f, tail).last == 1


# --- growth


def test_growth_is_logged_for_views_and_for_stat_after_a_restart(c: Cluster, a: Client) -> None:
    f = a.create(b"f")
    tail = a.open_tail(f)
    handle = tail.lease.handle

    def beat(end: int, version: int = 1) -> None:
        growth = [m.TailGrowth(handle, version, end, 5)]
        c.core.fleet.heartbeat(1, m.Heartbeat(1 << 40, 1 << 41, growth))
        c.pass_time(1.5)

    before = a.inode(f)
    beat(100)
    grown = a.inode(f)
    assert (grown.size, grown.stored, grown.data_version) == (100, 100, before.data_version + 1)
    assert c.chunk(handle).references == 100
    records = len(c.log)
    beat(100)
    beat(50)
    beat(500, version=9)
    assert len(c.log) == records
    beat(300)
    c.restart()
    size = c.item(f)
    assert size is not None
    assert size.size == 300
    c.append(tail.lease, 400, writer=7, sequence=1)
    a.open(writers=[f])
    assert resolve(a, f, tail).file_offset == 400
    assert c.chunk(handle).references == 400


def test_a_tail_behind_a_hole_begins_at_the_size(c: Cluster, a: Client) -> None:
    f = a.create(b"f")
    a.do(m.SetAttributes(f, size=1000))
    tail = a.open_tail(f)
    c.append(tail.lease, 10, writer=7, sequence=1)
    assert tail.file_offset == 1000
    assert resolve(a, f, tail).file_offset == 1010
    layout = a.get(m.GetLayout(f, 0, 2000, a.actor), m.Layout)
    assert [(item.file_offset, item.extent.length) for item in layout.extents] == [(1000, 10)]


def test_bytes_that_a_power_loss_took_are_cut_off_again(c: Cluster, a: Client) -> None:
    """The log had counted them; no member has them any more; none was synced."""
    f = a.create(b"f")
    tail = a.open_tail(f)
    c.append(tail.lease, 100, writer=7, sequence=1)
    growth = [m.TailGrowth(tail.lease.handle, 1, 100, 5)]
    c.core.fleet.heartbeat(1, m.Heartbeat(1 << 40, 1 << 41, growth))
    c.pass_time(1.5)
    for server in list(c.servers.values()):
        server.lose_power(keep=60)
    for server in list(c.servers.values()):
        server.register()
    c.pass_time(5)
    assert resolve(a, f, tail).file_offset == 60
    found = a.inode(f)
    assert (found.size, found.stored) == (60, 60)


def test_a_tail_that_lost_all_leaves_an_empty_file(c: Cluster, a: Client) -> None:
    f = a.create(b"f")
    tail = a.open_tail(f)
    c.append(tail.lease, 100, writer=7, sequence=1)
    growth = [m.TailGrowth(tail.lease.handle, 1, 100, 5)]
    c.core.fleet.heartbeat(1, m.Heartbeat(1 << 40, 1 << 41, growth))
    c.pass_time(1.5)
    for server in list(c.servers.values()):
        server.lose_power(keep=0)
    for server in list(c.servers.values()):
        server.register()
    c.pass_time(5)
    assert resolve(a, f, tail).file_offset == 0
    assert a.inode(f).size == 0
    assert c.chunk(tail.lease.handle).state is ChunkState.CONDEMNED


# --- what comes first


def test_private_writers_elsewhere_are_recalled_before_the_first_tail(
    c: Cluster, a: Client, b: Client
) -> None:
    f = a.create(b"f")
    b.open_file(f)
    lease = b.allocate()
    c.append(lease, 100)

    def flush(recall: m.Recall) -> None:
        assert recall.inos == [f]
        b.send(m.Commit([file_commit(f, (0, 100, lease.handle, 0))]))
        c.settle()

    b.on_recall = flush
    assert a.open_tail(f).file_offset == 100


@pytest.mark.parametrize("what", ["commit", "truncate"])
def test_content_changes_seal_the_tail_first(c: Cluster, a: Client, b: Client, what: str) -> None:
    f = a.create(b"f")
    b.open_file(f)
    tail = a.open_tail(f)
    c.append(tail.lease, 100, writer=7, sequence=1)
    if what == "truncate":
        b.do(m.SetAttributes(f, size=30))
    else:
        lease = b.allocate()
        c.append(lease, 10)
        assert b.commit(f, (0, 10, lease.handle, 0)).code == ""
    operations = c.operations()
    at = operations.index("seal")
    assert operations[at + 1] == ("setattr" if what == "truncate" else "commit")
    inode = c.item(f)
    assert inode is not None
    assert (inode.tail, inode.size) == (0, 30 if what == "truncate" else 100)
    moved = resolve(a, f, tail)
    assert (moved.last, moved.file_offset) == (1, inode.size)


@pytest.mark.parametrize("what", ["chmod", "rename", "link", "xattr"])
def test_names_and_modes_do_not_touch_the_tail(c: Cluster, a: Client, what: str) -> None:
    f = a.create(b"f")
    tail = a.open_tail(f)
    a.do(
        {
            "chmod": m.SetAttributes(f, mode=0o600),
            "rename": m.Rename(ROOT_INO, b"f", ROOT_INO, b"g"),
            "link": m.MakeLink(f, ROOT_INO, b"g"),
            "xattr": m.SetXattr(f, b"user.k", b"v"),
        }[what]
    )
    assert "seal" not in c.operations()
    assert a.open_tail(f).lease == tail.lease


def test_a_file_with_a_tail_is_cached_by_nobody(a: Client, b: Client) -> None:
    f = a.create(b"f")
    a.open_tail(f)
    a.close_file(f)
    assert not a.lookup(b"f").cacheable
    assert not b.lookup(b"f").cacheable


def test_unlinking_an_open_file_keeps_its_tail_until_the_close(c: Cluster, a: Client) -> None:
    f = a.create(b"f")
    tail = a.open_tail(f)
    a.do(m.Unlink(ROOT_INO, b"f"))
    c.append(tail.lease, 10, writer=7, sequence=1)
    moved = resolve(a, f, tail)
    assert moved.file_offset == 10
    a.close_file(f)
    c.pass_time(1)
    assert c.item(f) is None
    for handle in (tail.lease.handle, moved.lease.handle):
        assert c.chunk(handle).state is ChunkState.CONDEMNED


@pytest.mark.parametrize("grown", [0, 60])
def test_the_last_unlink_gives_the_tail_back(make_cluster: MakeCluster, grown: int) -> None:
    c = make_cluster()
    a = c.client()
    f = a.create(b"f")
    tail = a.open_tail(f)
    if grown:
        growth = [m.TailGrowth(tail.lease.handle, 1, grown, 5)]
        c.core.fleet.heartbeat(1, m.Heartbeat(1 << 40, 1 << 41, growth))
        c.pass_time(1.5)
    c.append(tail.lease, 100, writer=7, sequence=1)
    a.close_file(f)
    a.do(m.Unlink(ROOT_INO, b"f"))
    chunk = c.chunk(tail.lease.handle)
    assert (chunk.state, chunk.references) == (ChunkState.CONDEMNED, 0)
    c.pass_time(700)
    assert all(tail.lease.handle in server.deleted for server in c.servers.values())


def test_a_tail_that_began_with_two_members_is_sealed_once_a_third_is_up(
    c: Cluster, a: Client
) -> None:
    """Goal: nobody appends any more, and yet it gets its third copy."""
    c.server(3).stop()
    f = a.create(b"f")
    tail = a.open_tail(f)
    c.append(tail.lease, 10, writer=7, sequence=1)
    a.close_file(f)
    c.pass_time(30)
    assert c.chunk(tail.lease.handle).state is ChunkState.OPEN  # there is nobody to copy to
    c.server(3).register()
    c.settle()
    c.pass_time(5)
    assert c.chunk(tail.lease.handle).state is ChunkState.OPEN  # others may be about to leave it
    c.pass_time(20)
    assert c.chunk(tail.lease.handle).state is ChunkState.SEALED
    assert sorted(c.core.engine.servers.holders(tail.lease.handle)) == [1, 2, 3]
    assert a.inode(f).size == 10


def test_a_tail_that_nobody_began_is_sealed_when_its_servers_have_restarted(
    c: Cluster, a: Client
) -> None:
    """Whoever opened it died; the servers do not know that they never had it, and a reader
    would wait for ever."""
    f = a.create(b"f")
    tail = a.open_tail(f)
    a.close_file(f)
    for number in (1, 2, 3):
        c.server(number).restart()
    for number in (1, 2, 3):
        c.server(number).register()
    c.pass_time(5)
    assert a.inode(f).tail == 0
    assert c.chunk(tail.lease.handle).state is ChunkState.CONDEMNED
