"""Snapshots and clones: one record, shared content, one cut (GFS §3.4)."""

from __future__ import annotations

import stat

import pytest

from gfs import errors
from gfs import messages as m
from gfs.ids import ROOT_INO
from gfs.items import EXTENTS, INODES, Extent, Inode
from master.core.snapshot_marks import marked
from tests.unit.master.core.harness import OTHER, USER, Client, Cluster
from tests.unit.master.core.test_trash import filled


def extents(c: Cluster, ino: int) -> list[tuple[int, Extent]]:
    return [(key[1], extent) for key, extent in c.tables.range(EXTENTS, ino)]


def inode(c: Cluster, ino: int) -> Inode:
    found = c.item(ino)
    assert found is not None
    return found


def test_a_tree_is_copied_by_one_record_that_names_no_file(c: Cluster, a: Client) -> None:
    d = a.mkdir(b"d")
    e = a.mkdir(b"e", d)
    for number in range(50):
        filled(c, a, b"f%d" % number, e)
    before = len(c.log)
    done = a.do(m.Snapshot(d, ROOT_INO, b"s"))
    assert len(c.log) == before + 1
    assert len(c.log[-1]) < 1000
    assert done.copied == 52
    assert a.lookup(b"s").ino == done.root
    copy = a.lookup(b"e", done.root).ino
    assert a.names(copy) == a.names(e)
    assert inode(c, copy).parent == done.root
    assert c.core.engine.inode_count == c.tables.count(INODES)


def test_a_copy_shares_content_until_one_side_is_written(c: Cluster, a: Client) -> None:
    f = filled(c, a, b"f")
    lease = a.allocate()
    copy = a.do(m.Clone(f, ROOT_INO, b"g")).root
    assert extents(c, copy) == extents(c, f)
    handle = extents(c, f)[0][1].handle
    assert c.chunk(handle).references == 200
    a.open_file(copy)
    c.append(lease, 10)
    a.commit(copy, (50, 10, lease.handle, 0))
    assert len(extents(c, copy)) == 3
    assert [extent.length for _, extent in extents(c, f)] == [100]
    a.close_file(copy)
    a.do(m.Unlink(ROOT_INO, b"f"))
    assert c.chunk(handle).references == 90


def test_a_copy_of_a_copy_keeps_the_chunk_when_all_others_are_gone(c: Cluster, a: Client) -> None:
    f = filled(c, a, b"f")
    handle = extents(c, f)[0][1].handle
    a.do(m.Clone(a.do(m.Clone(f, ROOT_INO, b"g")).root, ROOT_INO, b"h"))
    for name in (b"f", b"g"):
        a.do(m.Unlink(ROOT_INO, name))
    assert c.chunk(handle).references == 100
    a.do(m.Unlink(ROOT_INO, b"h"))
    assert c.chunk(handle).references == 0


def test_the_copy_is_the_caller_s_hard_links_times_and_attributes(c: Cluster, a: Client) -> None:
    d = a.mkdir(b"d")
    f = filled(c, a, b"f", d)
    a.do(m.MakeLink(f, d, b"again"))
    a.do(m.MakeLink(f, ROOT_INO, b"outside"))
    a.do(m.MakeSymlink(d, b"l", b"f"))
    a.do(m.SetXattr(f, b"user.k", b"v"))
    a.do(m.SetAttributes(f, mode=0o6755, mtime_ns=5, atime_ns=6))
    a.do(m.SetXattr(f, b"trusted.k", b"v"))
    c.pass_time(1)
    done = a.do(m.Snapshot(d, ROOT_INO, b"s"))
    copy = a.lookup(b"f", done.root).ino
    assert a.lookup(b"again", done.root).ino == copy
    image, original = inode(c, copy), inode(c, f)
    assert (original.nlink, image.nlink) == (3, 2)
    assert (image.mtime_ns, image.atime_ns, image.uid) == (5, 6, 0)
    assert image.attributes == original.attributes
    assert image.ctime_ns > original.ctime_ns
    assert inode(c, a.lookup(b"l", done.root).ino).target == b"f"
    a.do(m.SetAttributes(ROOT_INO, mode=0o777))
    own = inode(c, a.do(m.Clone(f, ROOT_INO, b"own"), USER).root)
    assert (own.uid, own.gid, own.nlink) == (1000, 1000, 1)
    assert own.mode == stat.S_IFREG | 0o755
    assert own.attributes == {b"user.k": b"v"}


def test_who_may_not_read_all_of_it_copies_none_of_it(c: Cluster, a: Client) -> None:
    a.do(m.SetAttributes(ROOT_INO, mode=0o777))
    d = a.mkdir(b"d")
    secret = filled(c, a, b"f", d)
    a.do(m.SetAttributes(secret, mode=0o640))
    for operation in (m.Snapshot(d, ROOT_INO, b"s"), m.Clone(secret, ROOT_INO, b"s")):
        with pytest.raises(errors.PermissionDenied):
            a.do(operation, USER)
    unsaid = m.Actor(1000, 1000)
    assert isinstance(a.start(m.Snapshot(d, ROOT_INO, b"s"), unsaid).answer, m.GroupsNeeded)
    a.do(m.SetAttributes(secret, gid=1000))
    done = a.do(m.Snapshot(d, ROOT_INO, b"s"), USER)
    assert inode(c, done.root).uid == 1000
    a.do(m.SetAttributes(ROOT_INO, mode=0o755))
    with pytest.raises(errors.PermissionDenied):
        a.do(m.Snapshot(d, ROOT_INO, b"t"), OTHER)


@pytest.mark.parametrize(
    ("where", "refusal"),
    [
        ("into itself", errors.InvalidArgument),
        ("below itself", errors.InvalidArgument),
        ("taken", errors.AlreadyExists),
        ("no directory", errors.NotADirectory),
        ("clone of a directory", errors.InvalidArgument),
        ("out of the trash", errors.StaleInode),
        ("into a removed directory", errors.StaleInode),
        ("too large", errors.TooLarge),
    ],
)
def test_what_cannot_be_copied_is_refused(
    c: Cluster, a: Client, where: str, refusal: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    d = a.mkdir(b"d")
    e = a.mkdir(b"e", d)
    f = filled(c, a, b"f", d)
    other = a.mkdir(b"other")
    operation: m.Message = m.Snapshot(d, other, b"s")
    if where == "into itself":
        operation = m.Snapshot(d, d, b"s")
    elif where == "below itself":
        operation = m.Snapshot(d, e, b"s")
    elif where == "taken":
        operation = m.Snapshot(d, ROOT_INO, b"other")
    elif where == "no directory":
        operation = m.Snapshot(d, f, b"s")
    elif where == "clone of a directory":
        operation = m.Clone(d, other, b"s")
    elif where == "out of the trash":
        a.do(m.RemoveTree(ROOT_INO, b"d"))
        operation = m.Snapshot(e, other, b"s")
    elif where == "into a removed directory":
        a.do(m.RemoveTree(ROOT_INO, b"other"))
    else:
        monkeypatch.setattr("master.core.snapshots.INODES_MAX", 2)
    before = len(c.log)
    with pytest.raises(refusal):
        a.do(operation)
    assert len(c.log) == before


def test_open_tails_below_are_sealed_first_and_appending_goes_on(
    c: Cluster, a: Client, b: Client
) -> None:
    d = a.mkdir(b"d")
    files = [a.create(b"f%d" % number, d) for number in range(3)]
    for number, f in enumerate(files):
        c.append(a.open_tail(f).lease, 10 + number, writer=7, sequence=1)
    done = b.do(m.Snapshot(d, ROOT_INO, b"s"))
    for number, f in enumerate(files):
        copy = inode(c, b.lookup(b"f%d" % number, done.root).ino)
        assert (copy.size, copy.tail) == (10 + number, 0)
        assert inode(c, f).size == 10 + number
    tail = a.open_tail(files[0])
    assert tail.file_offset == 10
    copied = b.lookup(b"f0", done.root).ino
    b.open_file(copied)
    own = b.open_tail(copied)
    assert own.lease.handle != tail.lease.handle


def test_no_tail_is_opened_below_while_another_s_seal_is_waited_for(
    c: Cluster, a: Client, b: Client
) -> None:
    """Else the record that comes second could be in the copy without the first."""
    d = a.mkdir(b"d")
    files = [a.create(b"f%d" % number, d) for number in range(2)]
    outside = a.create(b"outside")
    for f in files:
        c.append(a.open_tail(f).lease, 10, writer=7, sequence=1)
    c.server(3).hung = True
    call = b.start(m.Snapshot(d, ROOT_INO, b"s"))
    held = [a.start(m.OpenTail(f, 7)) for f in files]
    assert not any(one.is_answered for one in (call, *held))
    assert a.open_tail(outside).file_offset == 0
    c.pass_time(11)
    assert call.done.copied == 3
    for one in held:
        assert one.done.position > call.done.position


def test_a_copy_whose_tails_nobody_can_seal_gives_up_and_lets_appenders_go(
    c: Cluster, a: Client, b: Client
) -> None:
    d = a.mkdir(b"d")
    f, g = a.create(b"f", d), a.create(b"g", d)
    c.append(a.open_tail(f).lease, 10, writer=7, sequence=1)
    for server in c.servers.values():
        server.hung = True
    call = b.start(m.Snapshot(d, ROOT_INO, b"s"))
    waiting = a.start(m.OpenTail(g, 7))
    c.pass_time(20)
    assert not call.is_answered
    assert not waiting.is_answered
    c.pass_time(15)
    with pytest.raises(errors.TimedOut):
        _ = call.answer
    assert waiting.done.tail is not None


def test_what_another_mount_holds_back_is_in_the_copy(c: Cluster, a: Client, b: Client) -> None:
    d = a.mkdir(b"d")
    f = a.create(b"f", d)
    lease = a.allocate()
    c.append(lease, 100)
    commit = m.FileCommit(f, [m.LaidOut(0, Extent(100, lease.handle, 0))], 0)

    def flush(_: m.Recall) -> None:
        a.send(m.Commit([commit]))

    a.on_recall = flush
    done = b.do(m.Snapshot(d, ROOT_INO, b"s"))
    assert inode(c, b.lookup(b"f", done.root).ino).size == 100
    assert m.Recall([f]) in a.heard


def test_a_seal_does_not_wait_for_bytes_that_copies_count_twice(c: Cluster, a: Client) -> None:
    f, lease = a.write(b"f", sealed=False)
    for number in range(5):
        a.do(m.Clone(f, ROOT_INO, b"g%d" % number))
    assert c.chunk(lease.handle).references == 600
    c.server(3).stop()
    call = a.start(m.SealChunk(lease.handle, lease.version))
    c.pass_time(1)
    sealed = call.done.sealed
    assert sealed is not None
    assert sealed.length == 100


def test_a_copy_asked_for_twice_is_made_once_also_by_another_master(c: Cluster, a: Client) -> None:
    d = a.mkdir(b"d")
    filled(c, a, b"f", d)
    done = a.do(m.Snapshot(d, ROOT_INO, b"s"))
    number = a.number
    c.restart()
    again = a.start(m.Snapshot(d, ROOT_INO, b"s"), number=number).done
    assert (again.root, again.copied) == (done.root, 2)
    assert a.names() == [b"d", b"s"]


def test_a_copy_is_removed_like_any_tree(c: Cluster, a: Client) -> None:
    d = a.mkdir(b"d")
    f = filled(c, a, b"f", d)
    handle = extents(c, f)[0][1].handle
    copy = a.do(m.Snapshot(d, ROOT_INO, b"s")).root
    for name in (b"d", b"s"):
        a.do(m.RemoveTree(ROOT_INO, name))
    a.do(m.EmptyTrash([d]))
    assert c.chunk(handle).references == 100
    a.do(m.EmptyTrash([copy]))
    assert c.tables.count(INODES) == 2
    assert c.chunk(handle).references == 0


def listed(a: Client, actor: m.Actor | None = None) -> list[tuple[bytes, int]]:
    found = a.get(m.ListSnapshots(actor or a.actor), m.SnapshotListing).entries
    return [(one.path, one.ino) for one in found]


def test_snapshots_are_listed_wherever_they_are_to_who_can_get_there(c: Cluster, a: Client) -> None:
    d, closed = a.mkdir(b"d"), a.mkdir(b"closed")
    f = filled(c, a, b"f")
    tree = a.do(m.Snapshot(d, ROOT_INO, b"s")).root
    file = a.do(m.Snapshot(f, closed, b"t")).root
    a.do(m.Clone(f, ROOT_INO, b"clone"))
    assert listed(a) == [(b"/s", tree), (b"/closed/t", file)]
    a.do(m.SetAttributes(closed, mode=0o700))
    assert listed(a, USER) == [(b"/s", tree)]
    a.do(m.Rename(ROOT_INO, b"s", d, b"moved"))
    assert listed(a)[0] == (b"/d/moved", tree)
    a.do(m.RemoveTree(d, b"moved"))
    assert listed(a) == [(b"/closed/t", file)]
    a.do(m.Undelete(tree))
    assert listed(a)[0] == (b"/d/moved", tree)


def test_marks_of_what_is_gone_go_with_the_next_snapshot(c: Cluster, a: Client) -> None:
    d = a.mkdir(b"d")
    for name in (b"s", b"t"):
        a.do(m.Snapshot(d, ROOT_INO, name))
        assert len(marked(c.tables)) == 1
        a.do(m.RemoveDirectory(ROOT_INO, name))
        assert listed(a) == []
