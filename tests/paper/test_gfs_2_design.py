"""Section 2 of "The Google File System" (SOSP 2003): design overview.

Each test checks a sentence of the paper, quoted in its docstring. Where we depart
from the sentence, docs/departures.md says so, and what is checked is ours.
"""

from __future__ import annotations

import inspect

import msgspec

from gfs import ids, items
from gfs import messages as m
from gfs.ids import EPOCH_SHIFT, MIB, ROOT_INO
from gfs.items import CHUNKS, INODES
from master.checking import Problem, check_tables
from tests.unit.master.core.conftest import MakeCluster
from tests.unit.master.core.harness import Client, Cluster


def written(c: Cluster, a: Client, name: bytes, length: int) -> tuple[int, m.Lease]:
    f = a.create(name)
    lease = a.allocate()
    c.append(lease, length)
    a.commit(f, (0, length, lease.handle, 0))
    return f, lease


# --- 2.3 Architecture


def test_2_3_chunks_have_immutable_and_globally_unique_64_bit_handles(
    make_cluster: MakeCluster,
) -> None:
    """Each chunk is identified by an immutable and globally unique 64 bit chunk handle
    assigned by the master at the time of chunk creation. (§2.3)"""
    c = make_cluster()
    a = c.client()
    seen: set[int] = set()
    for _ in range(3):
        handles = [a.allocate().handle for _ in range(50)]
        assert seen.isdisjoint(handles)
        assert all(0 < handle < 1 << 64 for handle in handles)
        seen.update(handles)
        c.restart()
    assert len(seen) == 150


def test_2_3_each_chunk_is_replicated_three_times_by_default(c: Cluster, a: Client) -> None:
    """By default, we store three replicas, though users can designate different
    replication levels. (§2.3)"""
    assert len(a.allocate().members) == 3
    lease = a.do(m.Allocate(goal=2)).lease
    assert lease is not None
    assert len(lease.members) == 2


# --- 2.4 Single master


def test_2_4_clients_never_read_or_write_file_data_through_the_master() -> None:
    """Clients never read and write file data through the master. (§2.4)"""
    for kind in (m.Open, m.Opened, m.GetLayout, m.Layout, m.Commit, m.FileCommit, m.OpenTail):
        for field in msgspec.structs.fields(kind):
            assert field.type is not bytes, f"{kind.__name__}.{field.name}"


def test_2_4_one_request_brings_information_on_many_chunks(c: Cluster, a: Client) -> None:
    """The client typically asks for multiple chunks in the same request and the master can
    also include the information for chunks immediately following those requested. (§2.4)"""
    f = a.create(b"f")
    for number in range(5):
        lease = a.allocate()
        c.append(lease, 100)
        a.commit(f, (number * 100, 100, lease.handle, 0))
    opened = a.open_file(f)
    assert (len(opened.extents), len(opened.chunks), opened.complete) == (5, 5, True)
    assert all(len(chunk.members) == 3 for chunk in opened.chunks)


# --- 2.5 Chunk size


def test_2_5_the_chunk_size_is_64_mb() -> None:
    """We have chosen 64 MB, which is much larger than typical file system block sizes. (§2.5)"""
    assert ids.CHUNK_BYTES == 64 * MIB


# --- 2.6 Metadata


def test_2_6_namespaces_and_mapping_are_kept_persistent_by_the_log(c: Cluster, a: Client) -> None:
    """The first two types (namespaces and file-to-chunk mapping) are also kept persistent by
    logging mutations to an operation log stored on the master's local disk. (§2.6)"""
    written(c, a, b"f", 100)
    operations = c.operations()
    for operation in ("create", "allocate", "commit"):
        assert operation in operations
    c.check()  # replaying the log alone gives every table


def test_2_6_2_chunk_locations_are_not_stored_but_asked_for(c: Cluster, a: Client) -> None:
    """The master does not store chunk location information persistently. Instead, it asks
    each chunkserver about its chunks at master startup and whenever a chunkserver joins the
    cluster. (§2.6)"""
    _, lease = written(c, a, b"f", 100)
    a.do(m.SealChunk(lease.handle, lease.version))
    assert c.chunk(lease.handle).members == []
    for server in c.servers.values():
        server.stop()
    c.restart()
    assert c.core.engine.queries.locations([lease.handle])[0].members == []
    for count, server in enumerate(c.servers.values(), 1):
        server.register()
        assert len(c.core.engine.queries.locations([lease.handle])[0].members) == count


def test_2_6_2_a_chunkserver_has_the_final_word_over_what_it_has(c: Cluster, a: Client) -> None:
    """A chunkserver has the final word over what chunks it does or does not have on its own
    disks. (§2.6.2)"""
    _, lease = written(c, a, b"f", 100)
    a.do(m.SealChunk(lease.handle, lease.version))
    c.server(1).stop()
    c.server(1).replicas.clear()  # a disk was lost
    c.server(1).register()
    located = c.core.engine.queries.locations([lease.handle])[0]
    assert sorted(member.server for member in located.members) == [2, 3]


def test_2_6_3_the_log_defines_the_order_of_concurrent_operations(
    c: Cluster, a: Client, b: Client
) -> None:
    """[The operation log] also serves as a logical time line that defines the order of
    concurrent operations. (§2.6.3)"""
    first = a.send(m.Create(ROOT_INO, b"f", 0o600, 0o200))
    second = b.send(m.Create(ROOT_INO, b"f", 0o600, 0o200))
    c.settle()
    assert first.done.created
    assert type(second.answers[0]).__name__ == "AlreadyExists"
    times = [record.time_ns for record in c.records()]
    assert times == sorted(set(times))


def test_2_6_3_files_and_chunks_are_identified_by_when_they_were_created(
    c: Cluster, a: Client
) -> None:
    """Files and chunks, as well as their versions, are all uniquely and eternally identified
    by the logical times at which they were created. (§2.6.3)"""
    f, lease = written(c, a, b"f", 100)
    assert f >> EPOCH_SHIFT == lease.handle >> EPOCH_SHIFT == 1
    chunk = c.chunk(lease.handle)
    created = c.records()[chunk.created_position - 1]
    assert (created.operation, created.epoch) == ("allocate", chunk.created_epoch)
    a.close_file(f)
    a.do(m.Unlink(ROOT_INO, b"f"))
    c.restart()
    assert a.create(b"f") >> EPOCH_SHIFT == 2


def test_2_6_3_nothing_is_visible_or_answered_before_it_is_persistent(
    c: Cluster, a: Client
) -> None:
    """We must store it reliably and not make changes visible to clients until metadata
    changes are made persistent. (§2.6.3)"""
    call = a.send(m.Create(ROOT_INO, b"f", 0o600, 0o200))
    works, c._works = c._works, []
    c.tables.begin()
    c.core.begin(c.now_s, c.now_ns())
    works[0]()
    records = c.core.take_records()
    assert [record.operation for record in records] == ["create"]
    assert not call.is_answered
    c.tables.rollback()  # the master dies before the sync
    c.restart()
    assert a.lookup(b"f").ino == 0
    assert a.start(call.message, number=call.number).done.created


def test_2_6_3_the_master_batches_several_log_records(c: Cluster, a: Client) -> None:
    """The master batches several log records together before flushing. (§2.6.3)"""
    for number in range(100):
        a.send(m.Create(ROOT_INO, b"%d" % number, 0o600, 0o200))
    before = c.steps
    c.settle()
    assert c.steps == before + 1
    assert c.operations().count("create") == 100


def test_2_6_3_the_master_recovers_by_replaying_the_log(c: Cluster, a: Client) -> None:
    """The master recovers its file system state by replaying the operation log. (§2.6.3)"""
    f, _ = written(c, a, b"f", 100)
    a.do(m.SetXattr(f, b"user.k", b"v"))
    a.do(m.Rename(ROOT_INO, b"f", ROOT_INO, b"g"))
    c.check()
    c.restart()
    assert a.lookup(b"g").ino == f
    problems: list[Problem] = []
    check_tables(c.tables, problems.append)
    assert problems == []


# --- 2.7 Consistency model


def test_2_7_1_namespace_mutations_are_atomic(c: Cluster, a: Client) -> None:
    """File namespace mutations (e.g., file creation) are atomic. They are handled exclusively
    by the master. (§2.7.1)"""
    d = a.mkdir(b"d")
    f = a.create(b"f")
    before = len(c.log)
    a.do(m.Rename(ROOT_INO, b"f", d, b"g"))
    assert len(c.log) == before + 1
    changed = {type(change).__name__ for change in c.records()[-1].changes}
    assert changed == {"DirentChange", "InodeChange"}
    assert a.lookup(b"g", d).ino == f


def test_2_7_1_a_record_append_lands_at_an_offset_of_our_choosing(c: Cluster, a: Client) -> None:
    """A record append causes data to be appended atomically at least once even in the
    presence of concurrent mutations, but at an offset of GFS's choosing. (§2.7.1)
    Departs: exactly once, and nothing between records."""
    f = a.create(b"f")
    tail = a.open_tail(f)
    for writer in (7, 8, 9):
        c.append(tail.lease, 10, writer=writer, sequence=1)
    done = a.do(m.ResolveTail(f, 8, tail.lease.handle, tail.lease.version))
    assert done.tail is not None
    assert (done.tail.last, done.tail.file_offset) == (1, 30)
    assert "offset" not in inspect.signature(m.RecordAppend).parameters


def test_2_7_1_stale_replicas_are_never_given_to_clients(c: Cluster, a: Client) -> None:
    """Stale replicas will never be involved in a mutation or given to clients asking the
    master for chunk locations. (§2.7.1)"""
    f = a.create(b"f")
    tail = a.open_tail(f)
    c.append(tail.lease, 10, writer=7, sequence=1)
    stale = c.server(tail.lease.members[1].server)
    stale.stop()
    a.do(m.ResolveTail(f, 7, tail.lease.handle, tail.lease.version))
    stale.hung = True
    stale.register()
    located = c.core.engine.queries.locations([tail.lease.handle])[0]
    assert located.version > stale.replicas[tail.lease.handle].version
    assert stale.server not in [member.server for member in located.members]


def test_2_7_every_stored_item_has_a_shape_of_its_own() -> None:
    """The master stores three major types of metadata: the file and chunk namespaces, the
    mapping from files to chunks, and the locations of each chunk's replicas. (§2.6)"""
    assert {INODES, items.DIRENTS, CHUNKS, items.EXTENTS} <= items.TABLES.keys()
    assert not any("location" in name for name in items.TABLES)
