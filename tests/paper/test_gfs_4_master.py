"""Sections 4 and 5 of the paper: the master, fault tolerance. See test_gfs_2_design.py."""

from __future__ import annotations

from collections import Counter
from random import Random

from gfs import checksum, ids
from gfs import messages as m
from gfs.ids import GIB, MIB, ROOT_INO
from gfs.items import CHUNKS, TRASH, ChunkState, Trash
from gfs.sections import MasterConfig
from master.core.placement import Candidate, choose
from tests.unit.master.core.conftest import MakeCluster
from tests.unit.master.core.harness import Client, Cluster


def old_file(c: Cluster, a: Client, name: bytes) -> tuple[int, m.Lease]:
    f = a.create(name)
    lease = a.allocate()
    c.append(lease, 100)
    a.commit(f, (0, 100, lease.handle, 0))
    a.do(m.SealChunk(lease.handle, lease.version))
    a.close_file(f)
    c.pass_time(601)
    return f, lease


# --- 4.1 Namespace management and locking


def test_4_1_concurrent_mutations_in_one_directory_are_allowed(
    c: Cluster, a: Client, b: Client
) -> None:
    """One nice property of this locking scheme is that it allows concurrent mutations in the
    same directory. (§4.1) Departs: no locks, one order."""
    calls = [
        client.send(m.Create(ROOT_INO, b"%d-%d" % (number, at), 0o600, 0o200))
        for number in range(20)
        for at, client in enumerate((a, b))
    ]
    c.settle()
    assert all(call.done.created for call in calls)
    assert len(a.names()) == 40


# --- 4.2, 4.3 Replica placement, creation


def pick(candidates: list[Candidate], seed: int, goal: int = 3) -> list[int]:
    return choose(candidates, goal=goal, needed=2, chunk_bytes=64 * MIB, random=Random(seed))


def test_4_2_replicas_are_spread_across_racks() -> None:
    """We must also spread chunk replicas across racks. (§4.2)"""
    racks = {1: "x", 2: "x", 3: "x", 4: "y", 5: "z"}
    candidates = [Candidate(server, rack, GIB, 0) for server, rack in racks.items()]
    for seed in range(40):
        assert {racks[server] for server in pick(candidates, seed)} == {"x", "y", "z"}


def test_4_3_new_replicas_go_where_disks_are_emptier() -> None:
    """We want to place new replicas on chunkservers with below-average disk space utilization.
    (§4.3)"""
    candidates = [
        Candidate(server, "", GIB * (50 if server < 4 else 5), 0) for server in range(1, 9)
    ]
    used = Counter(server for seed in range(200) for server in pick(candidates, seed))
    assert min(used[server] for server in (1, 2, 3)) > max(
        used[server] for server in (4, 5, 6, 7, 8)
    )


def test_4_3_recent_creations_on_a_server_are_limited() -> None:
    """We want to limit the number of "recent" creations on each chunkserver. (§4.3)"""
    busy = [Candidate(1, "", 20 * GIB, 40)] + [Candidate(n, "", 20 * GIB, 0) for n in (2, 3, 4)]
    used = Counter(server for seed in range(200) for server in pick(busy, seed, goal=2))
    assert used[1] < min(used[server] for server in (2, 3, 4)) / 2


# --- 4.4 Garbage collection


def test_4_4_1_a_deletion_is_logged_at_once_and_the_file_only_hidden(c: Cluster, a: Client) -> None:
    """When a file is deleted by the application, the master logs the deletion immediately just
    like other changes. However instead of reclaiming resources immediately, the file is just
    renamed to a hidden name that includes the deletion timestamp. (§4.4.1)"""
    f, lease = old_file(c, a, b"f")
    a.do(m.Unlink(ROOT_INO, b"f"))
    assert c.operations()[-1] == "unlink"
    hidden: Trash | None = c.tables.get(TRASH, (f,))
    assert hidden is not None
    assert (hidden.name, hidden.deleted_ns) == (b"f", c.records()[-1].time_ns)
    assert c.chunk(lease.handle).references == 100


def test_4_4_1_hidden_files_are_removed_after_three_days(c: Cluster, a: Client) -> None:
    """During the master's regular scan of the file system namespace, it removes any such hidden
    files if they have existed for more than three days (the interval is configurable).
    (§4.4.1)"""
    f, _ = old_file(c, a, b"f")
    a.do(m.Unlink(ROOT_INO, b"f"))
    c.now_s += 3 * 86_400 - 60
    c.pass_time(5)
    assert c.item(f) is not None
    c.pass_time(70)
    assert c.item(f) is None
    assert MasterConfig().trash_keep_s == 3 * 86_400


def test_4_4_1_until_then_the_file_can_be_undeleted(c: Cluster, a: Client) -> None:
    """Until then, the file can still be read under the new, special name and can be undeleted
    by renaming it back to normal. (§4.4.1)"""
    f, _ = old_file(c, a, b"f")
    a.do(m.Unlink(ROOT_INO, b"f"))
    assert a.get(m.GetLayout(f, 0, 100, a.actor), m.Layout).size == 100
    a.do(m.Undelete(f))
    assert a.lookup(b"f").ino == f


def test_4_4_1_orphaned_chunks_are_found_by_a_scan(c: Cluster, a: Client) -> None:
    """In a similar regular scan of the chunk namespace, the master identifies orphaned chunks
    (i.e., those not reachable from any file) and erases the metadata for those chunks.
    (§4.4.1)"""
    lease = a.allocate()
    c.append(lease, 100)
    a.close()  # it never committed the chunk
    c.pass_time(620)
    assert c.chunk(lease.handle).state is ChunkState.CONDEMNED
    c.pass_time(620)
    assert c.tables.get(CHUNKS, (lease.handle,)) is None
    assert all(lease.handle in server.deleted for server in c.servers.values())


def test_4_4_2_accidental_deletion_has_a_safety_net_that_can_be_expedited(
    c: Cluster, a: Client
) -> None:
    """The delay in reclaiming storage provides a safety net against accidental, irreversible
    deletion. [...] We address these issues by expediting storage reclamation if a deleted file
    is explicitly deleted again. We also allow users to apply different replication and
    reclamation policies to different parts of the namespace. (§4.4.2)"""
    f, _ = old_file(c, a, b"f")
    a.do(m.Unlink(ROOT_INO, b"f"))
    a.do(m.EmptyTrash([f]))
    assert c.item(f) is None
    a.do(m.SetXattr(ROOT_INO, b"user.gfs.trash", b"0"))
    g, _ = old_file(c, a, b"g")
    a.do(m.Unlink(ROOT_INO, b"g"))
    assert c.item(g) is None


# --- 4.5 Stale replica detection


def test_4_5_the_version_is_recorded_before_any_client_is_told(c: Cluster, a: Client) -> None:
    """The master and these replicas all record the new version number in their persistent
    state. This occurs before any client is notified and therefore before it can start writing
    to the chunk. (§4.5)"""
    f = a.create(b"f")
    tail = a.open_tail(f)
    c.append(tail.lease, 10, writer=7, sequence=1)
    call = a.send(m.ResolveTail(f, 7, tail.lease.handle, tail.lease.version))
    c.deliver(c.step_queued())
    assert c.chunk(tail.lease.handle).version == 2
    assert {s.replicas[tail.lease.handle].version for s in c.servers.values()} == {2}
    assert not call.is_answered
    c.settle()
    assert call.done.tail is not None


def test_4_5_an_unavailable_replica_is_found_stale_when_it_returns(c: Cluster, a: Client) -> None:
    """If another replica is currently unavailable, its chunk version number will not be
    advanced. The master will detect that this chunkserver has a stale replica when the
    chunkserver restarts and reports its set of chunks. (§4.5)"""
    _, lease = a.write(b"f", sealed=False)
    away = c.server(lease.members[0].server)
    away.stop()
    a.do(m.SealChunk(lease.handle, lease.version))
    assert away.replicas[lease.handle].version == 1
    away.register()
    assert [type(order) for order in away.orders] == [m.CopyReplica]


def test_4_5_the_version_goes_with_every_lease_and_location(c: Cluster, a: Client) -> None:
    """The master includes the chunk version number when it informs clients which chunkserver
    holds a lease on a chunk. (§4.5)"""
    lease = a.allocate()
    assert lease.version == c.chunk(lease.handle).version
    located = c.core.engine.queries.locations([lease.handle])[0]
    assert located.version == lease.version


# --- 5 Fault tolerance


def test_5_1_1_the_master_does_not_care_how_it_ended(make_cluster: MakeCluster) -> None:
    """We do not distinguish between normal and abnormal termination; servers are routinely shut
    down just by killing the process. (§5.1.1)"""
    c = make_cluster()
    a = c.client()
    for number in range(5):
        a.create(b"%d" % number)
        a.send(m.Create(ROOT_INO, b"lost %d" % number, 0o600, 0o200))
        c.restart()
    assert a.names() == [b"%d" % number for number in range(5)]


def test_5_2_checksums_are_kept_for_64_kb_blocks() -> None:
    """A chunk is broken up into 64 KB blocks. Each has a corresponding 32 bit checksum. (§5.2)"""
    assert ids.BLOCK_BYTES == 64 << 10
    assert 0 <= checksum.crc32c(b"123456789") < 1 << 32
    assert checksum.crc32c(b"123456789") == 0xE3069283
