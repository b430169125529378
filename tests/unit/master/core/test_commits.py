"""Content commits: per file, conditional, refused without a trace, never an absolute size."""

from __future__ import annotations

import os

from gfs import messages as m
from gfs.items import ChunkState
from tests.unit.master.core.harness import CHUNK, USER, Client, Cluster, file_commit


def written(c: Cluster, a: Client, length: int) -> m.Lease:
    lease = a.allocate()
    c.append(lease, length)
    return lease


def test_one_refused_file_does_not_hold_up_its_batch(c: Cluster, a: Client, b: Client) -> None:
    lease, foreign = written(c, a, 100), written(c, b, 100)
    f, g, other = a.create(b"f"), a.create(b"g"), b.create(b"h")
    batch = [
        file_commit(f, (0, 50, lease.handle, 0), (50, 10, foreign.handle, 0)),
        file_commit(other, (0, 10, lease.handle, 0)),
        file_commit(99, (0, 10, lease.handle, 0)),
        file_commit(1, (0, 10, lease.handle, 0)),
        file_commit(g, (0, 50, lease.handle, 50)),
    ]
    done = a.do(m.Commit(batch))
    codes = [one.code for one in done.committed]
    assert codes == ["misplaced", "not-permitted", "stale-inode", "stale-inode", ""]
    assert (a.inode(f).size, a.inode(f).data_version) == (0, 0)
    assert a.inode(g).size == 50
    assert c.chunk(lease.handle).references == 50
    assert c.chunk(foreign.handle).references == 0


def test_a_batch_that_is_refused_whole_is_no_record(c: Cluster, a: Client) -> None:
    before = len(c.log)
    done = a.do(m.Commit([file_commit(99, (0, 1, 1, 0))]))
    assert [one.code for one in done.committed] == ["stale-inode"]
    assert len(c.log) == before


def test_ranges_outside_what_the_session_may_reference_are_refused(c: Cluster, a: Client) -> None:
    f = a.create(b"f")
    lease = written(c, a, 100)
    for bad in (
        (0, 10, 12345, 0),  # no such chunk
        (0, 10, lease.handle, CHUNK - 9),
        (0, 10, lease.handle, -1),
        (0, 0, lease.handle, 0),
        (-1, 10, lease.handle, 0),
        (1 << 62, 10, lease.handle, 0),
    ):
        assert a.commit(f, bad).code in ("misplaced", "too-large")
    a.do(m.SealChunk(lease.handle, lease.version))
    assert a.commit(f, (0, 10, lease.handle, 91)).code == "misplaced"
    assert a.commit(f, (0, 10, lease.handle, 90)).code == ""


def test_a_condemned_chunk_takes_no_references(c: Cluster, a: Client) -> None:
    f = a.create(b"f")
    lease = written(c, a, 100)
    a.commit(f, (0, 50, lease.handle, 0))
    a.do(m.SealChunk(lease.handle, lease.version))
    a.do(m.SetAttributes(f, size=0))
    assert c.chunk(lease.handle).state is ChunkState.CONDEMNED
    assert a.commit(f, (0, 50, lease.handle, 50)).code == "misplaced"


def test_size_only_grows_by_commits(c: Cluster, a: Client) -> None:
    f = a.create(b"f")
    lease = written(c, a, 100)
    a.commit(f, (1000, 10, lease.handle, 0))
    a.commit(f, (0, 10, lease.handle, 10))
    assert a.inode(f).size == 1010
    assert a.inode(f).stored == 20


def test_a_conditional_commit_is_refused_when_the_content_changed(c: Cluster, a: Client) -> None:
    f = a.create(b"f")
    lease = written(c, a, 100)
    assert a.commit(f, (0, 10, lease.handle, 0), seen=0).code == ""
    assert a.commit(f, (0, 10, lease.handle, 10), seen=0).code == "refused"
    assert a.commit(f, (0, 10, lease.handle, 10), seen=1).code == ""
    a.do(m.SetAttributes(f, mode=0o600))  # content is what counts
    assert a.commit(f, (0, 10, lease.handle, 20), seen=2).code == ""


def test_data_version_rises_with_content_alone(c: Cluster, a: Client) -> None:
    f = a.create(b"f")
    lease = written(c, a, 100)
    a.commit(f, (0, 10, lease.handle, 0))
    assert a.inode(f).data_version == 1
    a.do(m.SetAttributes(f, mode=0o600))
    a.do(m.SetXattr(f, b"user.k", b"v"))
    assert a.inode(f).data_version == 1
    a.do(m.SetAttributes(f, size=3))
    assert a.inode(f).data_version == 2


def test_mtime_is_the_writers_and_moves_whenever_content_does(c: Cluster, a: Client) -> None:
    f = a.create(b"f")
    lease = written(c, a, 100)
    seen = set()
    for at, mtime in enumerate((500, 500, 0)):
        a.do(m.Commit([file_commit(f, (0, 10, lease.handle, at * 10), mtime_ns=mtime)]))
        seen.add(a.inode(f).mtime_ns)
    assert seen == {500, 501}  # 0: a later utimens came, leave it
    done = a.do(m.Commit([file_commit(f, (0, 10, lease.handle, 0), mtime_ns=1 << 63)]))
    assert done.committed[0].code == "invalid-argument"


def test_writing_takes_setuid_away_unless_root_wrote(c: Cluster, a: Client) -> None:
    f = a.create(b"f")
    lease = written(c, a, 100)
    for actor, left in ((a.actor, 0o6755), (USER, 0o755)):
        a.do(m.SetAttributes(f, mode=0o6755))
        a.do(m.Commit([file_commit(f, (0, 1, lease.handle, 0))]), actor)
        assert a.inode(f).mode & 0o7777 == left


def test_a_session_without_the_file_open_to_write_commits_nothing(c: Cluster, a: Client) -> None:
    f = a.create(b"f", flags=os.O_RDONLY)
    lease = written(c, a, 100)
    assert a.commit(f, (0, 10, lease.handle, 0)).code == "not-permitted"
    a.open_file(f)
    assert a.commit(f, (0, 10, lease.handle, 0)).code == ""
    a.get(m.CloseFiles([f], []), m.Ok)  # closed, but its commits are still to come
    assert a.commit(f, (10, 10, lease.handle, 10)).code == ""
    a.get(m.CloseFiles([], [f]), m.Ok)
    assert a.commit(f, (20, 10, lease.handle, 20)).code == "not-permitted"
