"""What goes to the trash, how it comes back, how it goes for good (GFS §4.4)."""

from __future__ import annotations

import os

import pytest

from gfs import errors
from gfs import messages as m
from gfs.ids import ROOT_INO, TRASH_INO
from gfs.items import DIRENTS, INODES, ORPHANS, TRASH, Extent
from master.core.transaction import RECORD_BYTES_MAX
from master.segments import PAYLOAD_BYTES_MAX
from tests.unit.master.core.harness import OTHER, USER, Client, Cluster

OLD = 601.0


def filled(c: Cluster, a: Client, name: bytes, parent: int = ROOT_INO, length: int = 100) -> int:
    """A closed file with content."""
    f = a.create(name, parent)
    lease = a.allocate()
    c.append(lease, length)
    a.commit(f, (0, length, lease.handle, 0))
    a.close_file(f)
    return f


def trash(a: Client, actor: m.Actor | None = None) -> list[m.TrashEntry]:
    return a.get(m.ListTrash(actor or a.actor), m.TrashListing).entries


def test_an_old_file_with_content_goes_to_the_trash_and_back(c: Cluster, a: Client) -> None:
    d = a.mkdir(b"d")
    f = filled(c, a, b"\xff", d)
    c.pass_time(OLD)
    a.do(m.Unlink(d, b"\xff"))
    assert a.names(d) == []
    found = trash(a)
    assert [(one.ino, one.path, one.size) for one in found] == [(f, b"/d/\xff", 100)]
    done = a.do(m.Undelete(f))
    assert done.entry is not None
    assert a.lookup(b"\xff", d).ino == f
    assert a.inode(f).size == 100
    assert trash(a) == []


@pytest.mark.parametrize("why", ["young", "empty", "open", "linked", "switched off", "symlink"])
def test_what_does_not_go_to_the_trash(c: Cluster, a: Client, why: str) -> None:
    d = a.mkdir(b"d")
    if why == "symlink":
        a.do(m.MakeSymlink(d, b"f", b"t"))
    elif why == "empty":
        a.close_file(a.create(b"f", d))
    else:
        f = filled(c, a, b"f", d)
    if why == "linked":
        a.do(m.MakeLink(f, ROOT_INO, b"g"))
    if why == "switched off":
        a.do(m.SetXattr(d, b"user.gfs.trash", b"0"))
    if why == "open":
        a.open_file(f, os.O_RDONLY)
    if why != "young":
        c.pass_time(OLD)
    a.do(m.Unlink(d, b"f"))
    assert trash(a) == []
    assert c.tables.count(ORPHANS) == (why == "open")


def test_a_tree_moves_by_one_name_and_comes_back_whole(c: Cluster, a: Client) -> None:
    d = a.mkdir(b"d")
    e = a.mkdir(b"e", d)
    f = filled(c, a, b"f", e)
    before = len(c.log)
    a.do(m.RemoveTree(ROOT_INO, b"d"))
    assert len(c.log) == before + 1
    assert a.names() == []
    assert len(c.records()[-1].changes) <= 6
    a.do(m.Undelete(d))
    assert a.lookup(b"f", e).ino == f
    assert a.lookup(b"..", d).ino == ROOT_INO


def test_undelete_makes_missing_parents_and_avoids_taken_names(c: Cluster, a: Client) -> None:
    d = a.mkdir(b"d")
    files = []
    for _ in range(3):
        files.append(filled(c, a, b"f", d))
        c.pass_time(OLD)
        a.do(m.Unlink(d, b"f"))
    a.do(m.RemoveDirectory(ROOT_INO, b"d"))
    for f in files:
        a.do(m.Undelete(f))
    made = a.lookup(b"d").ino
    assert made not in (0, d)
    assert a.names(made) == [b"f", b"f.undeleted-1", b"f.undeleted-2"]
    a.do(m.Unlink(made, b"f"))
    a.do(m.Undelete(files[0], b"/x/y/z"))
    assert a.get(m.PathOf(files[0]), m.PathIs).path == b"/x/y/z"


def test_a_suffix_on_the_longest_name_still_fits(c: Cluster, a: Client) -> None:
    name = b"x" * 255
    f = filled(c, a, name)
    c.pass_time(OLD)
    a.do(m.Unlink(ROOT_INO, name))
    a.create(name)
    a.do(m.Undelete(f))
    assert sorted(map(len, a.names())) == [255, 255]


def test_undelete_needs_the_right_to_make_the_name(c: Cluster, a: Client) -> None:
    closed = a.mkdir(b"closed", mode=0o700)
    a.mkdir(b"open", closed, mode=0o777)
    a.do(m.SetAttributes(a.lookup(b"open", closed).ino, mode=0o777))
    d = a.mkdir(b"d", mode=0o777)
    a.do(m.SetAttributes(d, mode=0o777))
    f = filled(c, a, b"f", d)
    a.do(m.SetAttributes(f, uid=1000))
    c.pass_time(OLD)
    a.do(m.Unlink(d, b"f"), USER)
    with pytest.raises(errors.NotPermitted):
        a.do(m.Undelete(f), OTHER)
    for path in (b"/f", b"/closed/f", b"/closed/open/f", b"/new/f"):
        with pytest.raises(errors.PermissionDenied):
            a.do(m.Undelete(f, path), USER)
    with pytest.raises(errors.NameTooLong):
        a.do(m.Undelete(f, b"/" + b"x" * 256), USER)
    with pytest.raises(errors.NotFound):
        a.do(m.Undelete(12345), USER)
    a.do(m.Undelete(f), USER)


def test_each_sees_and_empties_only_what_was_deleted_by_oneself(c: Cluster, a: Client) -> None:
    d = a.mkdir(b"d", mode=0o777)
    a.do(m.SetAttributes(d, mode=0o777))
    mine, theirs = filled(c, a, b"mine", d), filled(c, a, b"theirs", d)
    c.pass_time(OLD)
    a.do(m.Unlink(d, b"mine"), USER)
    a.do(m.Unlink(d, b"theirs"), OTHER)
    assert [one.ino for one in trash(a, USER)] == [mine]
    assert len(trash(a)) == 2
    with pytest.raises(errors.NotPermitted):
        a.do(m.EmptyTrash([theirs]), USER)
    a.do(m.EmptyTrash([one.ino for one in trash(a, USER)]), USER)
    assert [one.ino for one in trash(a)] == [theirs]
    assert c.item(mine) is None


def test_emptying_gives_back_chunks(c: Cluster, a: Client) -> None:
    f = filled(c, a, b"f")
    handle = a.get(m.GetLayout(f, 0, 100, a.actor), m.Layout).chunks[0].handle
    c.pass_time(OLD)
    a.do(m.Unlink(ROOT_INO, b"f"))
    assert c.chunk(handle).references == 100
    a.do(m.EmptyTrash([f]))
    assert c.chunk(handle).references == 0
    assert c.tables.range(DIRENTS, TRASH_INO) == []


def big_tree(c: Cluster, a: Client, width: int, depth: int) -> int:
    top = here = a.mkdir(b"top")
    for level in range(depth):
        for number in range(width):
            a.send(m.Create(here, b"%d" % number, 0o600, os.O_RDONLY))
        c.settle()
        here = a.mkdir(b"d%d" % level, here)
    a.get(m.CloseFiles([key[0] for key, _ in c.tables.scan(INODES, limit=99_999)], []), m.Ok)
    return top


def test_a_big_tree_is_reclaimed_in_bounded_records(c: Cluster, a: Client) -> None:
    top = big_tree(c, a, width=250, depth=5)
    a.do(m.RemoveTree(ROOT_INO, b"top"))
    a.do(m.EmptyTrash([top]))
    c.check()
    c.pass_time(70)
    assert c.tables.count(INODES) == 2
    assert trash(a) == []
    assert max(len(record.changes) for record in c.records()) < 3000


def test_a_tree_of_a_directory_without_trash_goes_by_itself(c: Cluster, a: Client) -> None:
    a.do(m.SetXattr(ROOT_INO, b"user.gfs.trash", b"0"))
    big_tree(c, a, width=20, depth=3)
    c.pass_time(70)
    a.do(m.RemoveTree(ROOT_INO, b"top"))
    c.pass_time(3)
    assert c.tables.count(INODES) == 2


def test_a_hard_link_outside_keeps_its_file_when_a_tree_goes(c: Cluster, a: Client) -> None:
    d = a.mkdir(b"d")
    f = filled(c, a, b"f", d)
    a.do(m.MakeLink(f, ROOT_INO, b"g"))
    a.do(m.RemoveTree(ROOT_INO, b"d"))
    a.do(m.EmptyTrash([d]))
    assert a.inode(f).nlink == 1
    assert a.lookup(b"g").ino == f


def test_a_file_opened_in_the_trash_waits_for_its_close(c: Cluster, a: Client) -> None:
    f = filled(c, a, b"f")
    c.pass_time(OLD)
    a.do(m.Unlink(ROOT_INO, b"f"))
    a.open_file(f, os.O_RDONLY)
    a.do(m.EmptyTrash([f]))
    assert a.inode(f).nlink == 0
    a.close_file(f)
    c.pass_time(1)
    assert c.item(f) is None


def test_trash_is_purged_after_its_time(c: Cluster, a: Client) -> None:
    filled(c, a, b"f")
    c.pass_time(OLD)
    a.do(m.Unlink(ROOT_INO, b"f"))
    c.now_s += 259_000
    c.pass_time(5)
    assert len(trash(a)) == 1
    c.pass_time(300)
    assert trash(a) == []
    assert c.tables.count(TRASH) == 0


def short_of_space(c: Cluster, missing: int) -> None:
    """The servers report so many bytes together less than the bound asks for."""
    total = 1000 << 30
    for server in c.servers.values():
        free = total // 10 - missing // len(c.servers)
        c.core.fleet.heartbeat(server.server, m.Heartbeat(free, total, []))


def test_when_space_is_short_the_oldest_trash_goes_first_and_no_more_than_needed(
    c: Cluster, a: Client
) -> None:
    files = [filled(c, a, b"%d" % number) for number in range(4)]
    c.pass_time(OLD)
    for number in (1, 0, 2, 3):
        a.do(m.Unlink(ROOT_INO, b"%d" % number))
        c.pass_time(3)
    short_of_space(c, 450)  # of 300 that each file has in three copies
    c.pass_time(20)
    assert [one.ino for one in trash(a)] == [files[2], files[3]]
    c.pass_time(700)
    assert trash(a) == [], "what has gone ten minutes ago has not helped"


def test_with_space_enough_trash_stays_its_time(c: Cluster, a: Client) -> None:
    filled(c, a, b"f")
    c.pass_time(OLD)
    a.do(m.Unlink(ROOT_INO, b"f"))
    short_of_space(c, -1000)
    c.pass_time(20)
    assert len(trash(a)) == 1


def test_a_part_of_a_removed_tree_comes_back_alone_and_the_rest_later(
    c: Cluster, a: Client
) -> None:
    d = a.mkdir(b"d")
    e = a.mkdir(b"e", d)
    f, g = filled(c, a, b"f", e), filled(c, a, b"g", e)
    a.do(m.RemoveTree(ROOT_INO, b"d"))
    look = m.LookInTrash(d, b"e/f", a.actor)
    assert a.get(look, m.Entry).ino == f
    a.do(m.Undelete(d, part=b"e/f"))
    assert a.get(m.PathOf(f), m.PathIs).path == b"/d/e/f"
    assert a.lookup(b"d").ino != d
    with pytest.raises(errors.NotFound):
        a.get(look, m.Entry)
    a.do(m.Undelete(d, b"/whole"))
    assert a.names(a.lookup(b"whole").ino) == [b"e"]
    assert a.names(e) == [b"g"]
    a.do(m.RemoveTree(ROOT_INO, b"whole"))
    a.do(m.Undelete(d, b"/sub", b"e"))
    assert a.inode(e).parent == ROOT_INO
    assert a.lookup(b"g", e).ino == g
    assert trash(a)[0].ino == d


def test_a_part_of_a_removed_tree_needs_the_right_to_take_it_out(c: Cluster, a: Client) -> None:
    a.do(m.SetAttributes(ROOT_INO, mode=0o777))
    done = a.do(m.MakeNode(ROOT_INO, b"d", 0o040777), USER)
    assert done.entry is not None
    d = done.entry.ino
    closed = a.mkdir(b"closed", d)
    filled(c, a, b"f", closed)
    a.do(m.RemoveTree(ROOT_INO, b"d"), USER)
    with pytest.raises(errors.PermissionDenied):
        a.do(m.Undelete(d, b"/mine", b"closed/f"), USER)
    for part in (b"closed/none", b"closed/f/x", b"none"):
        with pytest.raises((errors.NotFound, errors.NotADirectory)):
            a.do(m.Undelete(d, b"", part))
    for ask in (m.LookInTrash(d, b"closed", OTHER), m.LookInTrash(12345, b"", a.actor)):
        with pytest.raises(errors.NotFound):
            a.get(ask, m.Entry)


def test_a_tree_that_is_half_given_up_is_neither_listed_nor_undeleted(
    c: Cluster, a: Client
) -> None:
    top = big_tree(c, a, width=1100, depth=1)
    small = a.mkdir(b"small")
    for name in (b"top", b"small"):
        a.do(m.RemoveTree(ROOT_INO, name))
    a.do(m.EmptyTrash([top]))
    assert c.item(top) is not None
    assert [one.ino for one in trash(a)] == [small]
    with pytest.raises(errors.NotFound):
        a.do(m.Undelete(top))
    c.restart()
    c.pass_time(65)
    assert c.item(top) is None


def test_listing_goes_on_past_what_others_deleted(c: Cluster, a: Client) -> None:
    a.do(m.SetAttributes(ROOT_INO, mode=0o777))
    for number in range(5):
        a.mkdir(b"%d" % number)
        a.do(m.RemoveTree(ROOT_INO, b"%d" % number))
    done = a.do(m.MakeNode(ROOT_INO, b"own", 0o040755), USER)
    a.do(m.RemoveTree(ROOT_INO, b"own"), USER)
    page = a.get(m.ListTrash(USER, 0, 2), m.TrashListing)
    assert (page.entries, page.more) == ([], True)
    while page.more and not page.entries:
        page = a.get(m.ListTrash(USER, page.after, 2), m.TrashListing)
    assert done.entry is not None
    assert [one.ino for one in page.entries] == [done.entry.ino]


def test_too_many_at_once_are_not_given_up(c: Cluster, a: Client) -> None:
    with pytest.raises(errors.InvalidArgument):
        a.do(m.EmptyTrash(list(range(1001))))


def test_no_trash_is_said_by_the_nearest_directory(c: Cluster, a: Client) -> None:
    d = a.mkdir(b"d")
    e = a.mkdir(b"e", a.mkdir(b"between", d))
    kept = a.mkdir(b"kept", d)
    a.do(m.SetXattr(d, b"user.gfs.trash", b"0"))
    a.do(m.SetXattr(kept, b"user.gfs.trash", b"1"))
    for parent in (e, kept):
        filled(c, a, b"f", parent)
    c.pass_time(OLD)
    for parent in (e, kept):
        a.do(m.Unlink(parent, b"f"))
    assert [one.path for one in trash(a)] == [b"/d/kept/f"]
    a.do(m.RemoveTree(ROOT_INO, b"d"))
    assert [one.path for one in trash(a)] == [b"/d/kept/f"]
    c.pass_time(5)
    assert c.item(e) is None


def scattered(c: Cluster, a: Client, name: bytes, extents: int) -> tuple[int, m.Lease]:
    """A file whose every extent lies apart from the next."""
    f = a.create(name)
    lease = a.allocate()
    c.append(lease, extents)
    a.commit(f, *((at * 2, 1, lease.handle, at) for at in range(extents)))
    a.close_file(f)
    return f, lease


@pytest.mark.parametrize("extents", [100, 101, 10_100])
@pytest.mark.parametrize("way", ["unlink", "rename over", "trash", "open"])
def test_a_file_of_many_extents_goes_in_bounded_records(
    c: Cluster, a: Client, extents: int, way: str
) -> None:
    f, lease = scattered(c, a, b"f", extents)
    if way == "trash":
        c.pass_time(OLD)
    if way == "open":
        a.open_file(f, os.O_RDONLY)
    if way == "rename over":
        a.close_file(a.create(b"g"))
        a.do(m.Rename(ROOT_INO, b"g", ROOT_INO, b"f"))
    else:
        a.do(m.Unlink(ROOT_INO, b"f"))
    if way == "trash":
        a.do(m.EmptyTrash([f]))
    if way == "open":
        a.close_file(f)
    c.check()
    c.pass_time(1)
    assert c.item(f) is None
    assert c.tables.count(ORPHANS) == 0
    assert c.chunk(lease.handle).references == 0
    reclaims = [record for record in c.records()[-10:] if record.operation != "commit"]
    assert max(len(record.changes) for record in reclaims) < 11_000


def test_what_does_not_fit_a_record_is_refused(c: Cluster, a: Client) -> None:
    f, lease = scattered(c, a, b"f", 300)
    for number in range(12):
        a.do(m.SetXattr(f, b"user.%d" % number, b"x" * 5000))
    files = [a.create(b"%d" % number) for number in range(130)]
    for ino in files:
        a.do(m.SetXattr(ino, b"user.big", b"x" * 65_536))
    c.append(lease, 130)
    batch = [m.FileCommit(ino, [m.LaidOut(0, Extent(1, lease.handle, 0))], 0) for ino in files]
    before = len(c.log)
    with pytest.raises(errors.TooLarge):
        a.do(m.Commit(batch))
    assert len(c.log) == before
    a.do(m.Commit(batch[:50]))
    assert RECORD_BYTES_MAX < PAYLOAD_BYTES_MAX


@pytest.mark.parametrize(("extents", "size"), [(5_003, 3), (10_100, 0), (10_100, 7_001)])
def test_a_scattered_file_is_truncated_in_bounded_records(
    c: Cluster, a: Client, b: Client, extents: int, size: int
) -> None:
    f, lease = scattered(c, a, b"f", extents)
    b.lookup(b"f")
    b.told()
    call = a.start(m.SetAttributes(f, size=size))
    assert not call.is_answered
    shrunk = c.item(f)
    assert shrunk is not None
    assert size < shrunk.size < 2 * extents
    c.check()
    assert f in b.told()[0].inos
    others = b.start(m.SetAttributes(ROOT_INO, mode=0o777))
    assert others.is_answered, "others go on meanwhile"
    c.pass_time(1)
    entry = call.done.entry
    assert entry is not None
    assert entry.inode is not None
    assert (entry.inode.size, entry.inode.stored) == (size, (size + 1) // 2)
    assert c.chunk(lease.handle).references == (size + 1) // 2
    assert max(len(record.changes) for record in c.records() if record.operation != "commit") < 5100


def test_a_truncation_that_is_refused_has_cut_nothing(c: Cluster, a: Client) -> None:
    f, _ = scattered(c, a, b"f", 6_000)
    before = len(c.log)
    for operation in (
        m.SetAttributes(f, size=0),
        m.SetAttributes(f, size=0, mtime_ns=5),
        m.SetAttributes(f, size=0, uid=7),
    ):
        with pytest.raises(errors.GfsError):
            a.do(operation, OTHER)
    with pytest.raises(errors.InvalidArgument):
        a.do(m.SetAttributes(f, size=0, atime_ns=1 << 62))
    assert len(c.log) == before


def test_a_master_that_dies_in_the_middle_of_a_truncation_goes_on_when_asked_again(
    c: Cluster, a: Client
) -> None:
    f, lease = scattered(c, a, b"f", 10_100)
    a.start(m.SetAttributes(f, size=0), number=50, low=50)
    c.restart()
    half = c.item(f)
    assert half is not None
    assert 0 < half.size < 20_200
    call = a.start(m.SetAttributes(f, size=0), number=50, low=50)
    c.pass_time(1)
    assert call.done.entry is not None
    assert c.chunk(lease.handle).references == 0


def heavy(a: Client, parent: int, names: list[bytes]) -> list[int]:
    """Files with the largest attributes there may be."""
    files = [a.create(name, parent) for name in names]
    for ino in files:
        a.do(m.SetXattr(ino, b"user.big", b"x" * 65_536))
        a.close_file(ino)
    return files


@pytest.mark.parametrize("way", ["empty", "upkeep", "orphans"])
def test_heavy_attributes_go_in_bounded_records(c: Cluster, a: Client, way: str) -> None:
    d = a.mkdir(b"d")
    files = heavy(a, d, [b"%d" % number for number in range(300)])
    if way == "orphans":
        for ino in files:
            a.open_file(ino, os.O_RDONLY)
    a.do(m.RemoveTree(ROOT_INO, b"d"))
    before = len(c.log)
    if way == "upkeep":
        c.now_s += 4 * 86_400
    else:
        a.do(m.EmptyTrash([d]))
    c.pass_time(70)
    if way == "orphans":
        assert c.tables.count(ORPHANS) == 300
        for ino in files:
            a.close_file(ino)
        c.pass_time(2)
    assert all(c.item(ino) is None for ino in files)
    assert c.item(d) is None
    assert max(len(payload) for payload in c.log[before:]) < RECORD_BYTES_MAX


def test_undelete_under_a_name_in_a_directory(c: Cluster, a: Client) -> None:
    d, gone = a.mkdir(b"d"), a.mkdir(b"gone")
    files = [filled(c, a, name) for name in (b"f", b"g")]
    a.create(b"taken", d)
    c.pass_time(OLD)
    for name in (b"f", b"g"):
        a.do(m.Unlink(ROOT_INO, name))
    a.do(m.RemoveTree(ROOT_INO, b"gone"))
    with pytest.raises(errors.AlreadyExists):
        a.do(m.Undelete(files[0], b"taken", parent=d))
    with pytest.raises(errors.InvalidArgument):
        a.do(m.Undelete(files[0], b"e/f", parent=d))
    for nowhere in (gone, TRASH_INO, 12345):  # removed, hidden, never there
        with pytest.raises((errors.NotFound, errors.StaleInode)):
            a.do(m.Undelete(files[0], b"f", parent=nowhere))
    with pytest.raises(errors.NotPermitted):
        a.do(m.Undelete(gone, b"back", parent=d), USER)
    assert len(trash(a)) == 3
    done = a.do(m.Undelete(files[0], b"back", parent=d))
    assert done.entry is not None
    assert [parent.ino for parent in done.parents] == [d]
    assert a.lookup(b"back", d).ino == files[0]
    assert a.inode(files[0]).nlink == 1


def test_a_tree_does_not_come_back_below_itself(c: Cluster, a: Client) -> None:
    top = a.mkdir(b"top")
    inner = a.mkdir(b"inner", top)
    a.do(m.RemoveTree(ROOT_INO, b"top"))
    with pytest.raises(errors.NotFound):
        a.do(m.Undelete(top, b"x", parent=inner))


def test_what_is_removed_within_the_trash_goes_for_good(c: Cluster, a: Client) -> None:
    d = a.mkdir(b"d")
    f = filled(c, a, b"f", d)
    c.pass_time(OLD)
    a.do(m.RemoveTree(ROOT_INO, b"d"))
    a.do(m.Unlink(d, b"f"))
    assert [one.ino for one in trash(a)] == [d]
    assert c.item(f) is None


def test_the_mounts_own_name_is_made_by_nobody_in_the_root(c: Cluster, a: Client) -> None:
    name = b".gfs"
    d, f = a.mkdir(b"d"), filled(c, a, b"f")
    for operation in (
        m.Create(ROOT_INO, name, 0o644, os.O_WRONLY),
        m.MakeNode(ROOT_INO, name, 0o40755),
        m.MakeSymlink(ROOT_INO, name, b"t"),
        m.MakeLink(f, ROOT_INO, name),
        m.Rename(ROOT_INO, b"f", ROOT_INO, name),
        m.Snapshot(d, ROOT_INO, name),
    ):
        with pytest.raises(errors.AlreadyExists):
            a.do(operation)
    assert sorted(a.names(ROOT_INO)) == [b"d", b"f"]
    a.mkdir(name, d)  # elsewhere it is a name like others
    c.pass_time(OLD)
    a.do(m.Unlink(ROOT_INO, b"f"))
    done = a.do(m.Undelete(f, b"/.gfs"))
    assert done.entry is not None
    assert a.lookup(b".gfs.undeleted-1").ino == f
