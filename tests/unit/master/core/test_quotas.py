"""Quotas: what counts, who is refused, when; what happens to counts as names move."""

from __future__ import annotations

import os

import pytest
from msgspec.structs import replace

from gfs import messages as m
from gfs.errors import (
    CrossesDevice,
    InvalidArgument,
    NotADirectory,
    NotFound,
    NotPermitted,
    QuotaExceeded,
    Refused,
)
from gfs.items import QUOTAS, Quota
from master.checking import Problem, check_tables
from master.core import quota_counting, recount
from tests.unit.master.core.harness import NS, POLICY, USER, Client, Cluster, file_commit

WEEK_S = POLICY.quota_grace_ns / NS


def limit(a: Client, ino: int, **limits: int) -> None:
    a.do(m.SetQuota(ino, **limits))


def quota(c: Cluster, ino: int) -> Quota:
    found: Quota | None = c.tables.get(QUOTAS, (ino,))
    assert found is not None
    return found


def used(c: Cluster, ino: int) -> tuple[int, int]:
    found = quota(c, ino)
    assert not found.is_counting
    return found.used_bytes, found.used_files


def add(a: Client, ino: int, offset: int, length: int) -> m.Committed:
    """Write that many bytes there, from a chunk of their own."""
    lease = a.allocate()
    a.cluster.append(lease, length)
    return a.commit(ino, (offset, length, lease.handle, 0))


def test_only_root_sets_and_clears_a_quota_and_only_of_a_directory(c: Cluster, a: Client) -> None:
    d, f = a.mkdir(b"d"), a.create(b"f")
    for operation in (m.SetQuota(d, bytes_max=1), m.ClearQuota(d)):
        with pytest.raises(NotPermitted):
            a.do(operation, USER)
    with pytest.raises(NotADirectory):
        a.do(m.SetQuota(f, bytes_max=1))
    with pytest.raises(NotFound):
        a.do(m.ClearQuota(d))
    for wrong in ({"bytes_max": -1}, {"bytes_max": 5, "bytes_soft": 6}, {"files_max": 1 << 63}):
        with pytest.raises((InvalidArgument, Refused)):
            a.do(m.SetQuota(d, **wrong))
    assert c.tables.count(QUOTAS) == 0
    limit(a, d, bytes_max=10, files_max=3)
    limit(a, d, files_soft=2)
    found = quota(c, d)
    assert (found.bytes_max, found.files_max, found.files_soft) == (10, 3, 2)
    a.do(m.ClearQuota(d))
    assert c.tables.count(QUOTAS) == 0


def test_stored_bytes_and_inodes_below_count_and_holes_do_not(c: Cluster, a: Client) -> None:
    d = a.mkdir(b"d")
    before = a.create(b"before", d)
    add(a, before, 0, 100)
    limit(a, d, bytes_max=1000)
    assert used(c, d) == (100, 1)
    sub = a.mkdir(b"sub", d)
    f = a.create(b"f", sub)
    a.do(m.MakeSymlink(sub, b"link", b"anywhere"))
    add(a, f, 1 << 20, 300)  # beyond a hole
    assert used(c, d) == (400, 4)
    a.do(m.SetAttributes(f, size=(1 << 20) + 100))
    a.do(m.SetAttributes(f, size=1 << 40))
    assert used(c, d) == (200, 4)
    a.do(m.MakeLink(f, d, b"again"))
    assert used(c, d) == (200, 4)
    a.do(m.Unlink(sub, b"f"))
    assert used(c, d) == (200, 4)
    a.close_file(f)
    a.do(m.Unlink(d, b"again"))
    assert used(c, d) == (100, 3)


def test_new_names_are_refused_at_the_limit_of_files_and_leave_no_trace(
    c: Cluster, a: Client
) -> None:
    d = a.mkdir(b"d")
    limit(a, d, files_max=2)
    a.create(b"one", d)
    a.mkdir(b"two", d)
    open_before = len(c.core.engine.registry.openers)
    for operation in (
        m.Create(d, b"f", 0o644, os.O_RDWR),
        m.MakeNode(d, b"d", 0o040755),
        m.MakeSymlink(d, b"s", b"x"),
    ):
        with pytest.raises(QuotaExceeded, match=r"quota of /d: 2 of 2 files"):
            a.do(operation)
    assert a.names(d) == [b"one", b"two"]
    assert len(c.core.engine.registry.openers) == open_before
    a.do(m.RemoveDirectory(d, b"two"))
    a.create(b"f", d)
    a.create(b"elsewhere")


def test_a_commit_beyond_the_limit_is_refused_for_its_file_alone(c: Cluster, a: Client) -> None:
    d = a.mkdir(b"d")
    f, g, other = a.create(b"f", d), a.create(b"g", d), a.create(b"other")
    limit(a, d, bytes_max=1000)
    assert add(a, f, 0, 900).room == 100
    lease = a.allocate()
    c.append(lease, 600)
    files = [
        file_commit(ino, (0, 200, lease.handle, at)) for ino, at in ((g, 0), (other, 200), (f, 400))
    ]
    committed = a.do(m.Commit(files)).committed
    assert [one.code for one in committed] == ["quota-exceeded", "", ""]
    assert [one.room for one in committed] == [-1, -1, 100]  # the last put bytes in place of bytes
    assert used(c, d) == (900, 2)
    assert add(a, g, 0, 100).code == ""
    assert add(a, f, 0, 900).code == ""
    assert add(a, f, 899, 2).code == "quota-exceeded"
    assert used(c, d) == (1000, 2)


def test_above_the_soft_limit_there_is_room_for_the_grace_period(c: Cluster, a: Client) -> None:
    d = a.mkdir(b"d")
    limit(a, d, bytes_soft=100, bytes_max=1000, files_soft=1)
    f = a.create(b"f", d)
    assert add(a, f, 0, 200).room == 800
    assert quota(c, d).bytes_over_ns
    assert not quota(c, d).files_over_ns
    a.create(b"g", d)
    shown = a.get(m.GetQuota(d), m.Quotas).quotas[0]
    assert 0 < shown.bytes_grace_s <= WEEK_S
    assert shown.files_grace_s > 0
    c.pass_time(1)
    a.do(m.SetAttributes(f, size=50))
    assert not quota(c, d).bytes_over_ns  # below again: the next time begins anew
    assert add(a, f, 50, 100).code == ""
    later = quota(c, d).bytes_over_ns
    c.now_s += WEEK_S / 2
    assert add(a, f, 150, 100).code == ""
    assert quota(c, d).bytes_over_ns == later
    c.now_s += WEEK_S / 2 + 1
    assert add(a, f, 250, 1).code == "quota-exceeded"
    with pytest.raises(QuotaExceeded):
        a.create(b"h", d)
    assert a.get(m.GetQuota(d), m.Quotas).quotas[0].bytes_grace_s == 0
    a.do(m.SetAttributes(f, size=50))
    assert add(a, f, 50, 10).code == ""


def test_every_quota_above_counts_and_each_may_refuse(c: Cluster, a: Client) -> None:
    outer = a.mkdir(b"outer")
    inner = a.mkdir(b"inner", outer)
    f, g = a.create(b"f", inner), a.create(b"g", outer)
    limit(a, outer, bytes_max=500)
    limit(a, inner, bytes_max=400)
    add(a, f, 0, 300)
    add(a, g, 0, 100)
    assert used(c, inner) == (300, 1)
    assert used(c, outer) == (400, 3)
    assert add(a, f, 300, 101).code == "quota-exceeded"
    limit(a, inner, bytes_max=4000)
    assert add(a, f, 300, 101).code == "quota-exceeded"
    assert add(a, f, 300, 100).code == ""
    a.do(m.ClearQuota(inner))
    assert used(c, outer) == (500, 3)
    chain = a.get(m.GetQuota(f), m.Quotas).quotas
    assert [one.path for one in chain] == [b"/outer"]


def test_what_moves_counts_where_it_then_is(c: Cluster, a: Client) -> None:
    d, e = a.mkdir(b"d"), a.mkdir(b"e")
    limit(a, d, bytes_max=500, files_max=10)
    limit(a, e, bytes_max=250, files_max=3)
    tree = a.mkdir(b"tree", d)
    f, g = a.create(b"f", tree), a.create(b"g", tree)
    add(a, f, 0, 100)
    add(a, g, 0, 100)
    a.do(m.Rename(d, b"tree", e, b"tree"))
    assert (used(c, d), used(c, e)) == ((0, 0), (200, 3))
    other = a.create(b"other", d)
    add(a, other, 0, 100)
    with pytest.raises(QuotaExceeded):
        a.do(m.Rename(d, b"other", e, b"other"))
    a.do(m.Rename(d, b"other", e, b"tree", 2))
    assert (used(c, d), used(c, e)) == ((200, 3), (100, 1))
    a.do(m.Rename(d, b"other", 1, b"tree"))
    assert used(c, d) == (0, 0)


def test_a_quota_moves_with_its_directory_whatever_its_size(
    c: Cluster, a: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what was removed there while it was open goes along."""
    monkeypatch.setattr(quota_counting, "WALKED_MAX", 2)
    outer, d = a.mkdir(b"outer"), a.mkdir(b"d")
    limit(a, outer, files_max=100)
    limit(a, d, files_max=100)
    gone = a.create(b"gone", d)
    add(a, gone, 0, 70)
    a.do(m.Unlink(d, b"gone"))
    for number in range(4):
        a.create(b"%d" % number, d)
    a.do(m.Rename(1, b"d", outer, b"d"))
    assert used(c, d) == (70, 5)
    assert used(c, outer) == (70, 6)
    a.close_file(gone)
    c.pass_time(1)
    assert used(c, outer) == (0, 5)


def test_other_names_of_a_file_stay_below_the_same_quotas(c: Cluster, a: Client) -> None:
    d, e = a.mkdir(b"d"), a.mkdir(b"e")
    f = a.create(b"f", d)
    add(a, f, 0, 100)
    limit(a, d, bytes_max=1000)
    with pytest.raises(CrossesDevice):
        a.do(m.MakeLink(f, e, b"f"))
    a.do(m.MakeLink(f, d, b"g"))
    with pytest.raises(CrossesDevice):
        a.do(m.Rename(d, b"g", e, b"g"))
    a.do(m.Unlink(d, b"f"))
    a.do(m.Rename(d, b"g", e, b"g"))
    assert used(c, d) == (0, 0)


def test_a_file_with_names_on_both_sides_counts_once_where_the_least_is(
    c: Cluster, a: Client
) -> None:
    d, e = a.mkdir(b"d"), a.mkdir(b"e")
    f = a.create(b"f", d)
    add(a, f, 0, 100)
    a.do(m.MakeLink(f, e, b"f"))
    limit(a, d, bytes_max=1000)
    limit(a, e, bytes_max=10)
    assert (used(c, d), used(c, e)) == ((100, 1), (0, 0))
    a.do(m.Unlink(d, b"f"))  # never refused, though it counts elsewhere then
    assert (used(c, d), used(c, e)) == ((0, 0), (100, 1))
    a.do(m.SetAttributes(f, size=40))
    assert (used(c, d), used(c, e)) == ((0, 0), (40, 1))


def test_trash_does_not_count_and_comes_back_if_it_fits(c: Cluster, a: Client) -> None:
    d = a.mkdir(b"d")
    limit(a, d, bytes_max=300, files_max=3)
    tree = a.mkdir(b"tree", d)
    f = a.create(b"f", tree)
    add(a, f, 0, 200)
    a.close_file(f)
    c.pass_time(601)
    a.do(m.RemoveTree(d, b"tree"))
    assert used(c, d) == (0, 0)
    g = a.create(b"g", d)
    add(a, g, 0, 200)
    with pytest.raises(QuotaExceeded):
        a.do(m.Undelete(tree))
    limit(a, d, bytes_max=400)
    a.do(m.Undelete(tree))
    assert used(c, d) == (400, 3)


def test_a_removed_directory_takes_its_quota_into_the_trash_and_back(c: Cluster, a: Client) -> None:
    outer = a.mkdir(b"outer")
    d = a.mkdir(b"d", outer)
    limit(a, outer, files_max=10)
    limit(a, d, files_max=5)
    a.create(b"f", d)
    a.do(m.RemoveTree(outer, b"d"))
    assert (used(c, d), used(c, outer)) == ((0, 1), (0, 0))
    assert a.get(m.ListQuotas(a.actor), m.Quotas).quotas[1].path == b""
    a.do(m.Undelete(d))
    assert used(c, outer) == (0, 2)
    a.do(m.RemoveTree(outer, b"d"))
    a.do(m.EmptyTrash([d]))
    assert c.tables.get(QUOTAS, (d,)) is None


def test_what_is_open_without_a_name_counts_until_it_is_closed(c: Cluster, a: Client) -> None:
    outer = a.mkdir(b"outer")
    d = a.mkdir(b"d", outer)
    limit(a, outer, bytes_max=500)
    limit(a, d, bytes_max=300)
    f = a.create(b"f", d)
    add(a, f, 0, 100)
    a.do(m.Unlink(d, b"f"))
    assert used(c, d) == (100, 1)
    assert add(a, f, 100, 201).code == "quota-exceeded"
    assert add(a, f, 100, 200).code == ""
    a.do(m.RemoveDirectory(outer, b"d"))  # its quota goes, the one above goes on counting
    assert used(c, outer) == (300, 1)
    assert add(a, f, 300, 201).code == "quota-exceeded"
    c.restart()
    a.close_file(f)
    c.pass_time(1)
    assert used(c, outer) == (0, 0)


def test_copies_count_as_if_they_had_bytes_of_their_own(c: Cluster, a: Client) -> None:
    d = a.mkdir(b"d")
    f = a.create(b"f", d)
    add(a, f, 0, 100)
    sub = a.mkdir(b"sub", d)
    a.create(b"g", sub)
    limit(a, d, bytes_max=250, files_max=7)
    with pytest.raises(InvalidArgument):
        a.do(m.Snapshot(d, d, b"copy"))
    a.do(m.Clone(f, d, b"clone"))
    assert used(c, d) == (200, 4)
    a.do(m.Snapshot(sub, d, b"copied"))
    assert used(c, d) == (200, 6)
    with pytest.raises(QuotaExceeded):
        a.do(m.Clone(f, sub, b"again"))
    with pytest.raises(QuotaExceeded):
        a.do(m.Snapshot(sub, d, b"third"))
    a.do(m.Snapshot(d, 1, b"outside"))
    assert used(c, d) == (200, 6)


def test_a_tail_grows_past_the_limit_only_until_the_master_hears_of_it(
    c: Cluster, a: Client
) -> None:
    d = a.mkdir(b"d")
    f = a.create(b"f", d)
    limit(a, d, bytes_max=1000)
    tail = a.open_tail(f)
    c.append(tail.lease, 1200, writer=7, sequence=1)
    beat = m.Heartbeat(1 << 30, 1 << 31, [m.TailGrowth(tail.lease.handle, 1, 1200, 0)])
    c.step(lambda: c.core.fleet.heartbeat(1, beat))
    c.pass_time(3)
    assert used(c, d) == (1200, 1)
    item = c.item(f)
    assert item is not None
    assert item.tail == 0  # sealed: whoever goes on must ask
    resolved = a.do(m.ResolveTail(f, 7, tail.lease.handle, 1)).tail
    assert resolved is not None
    assert (resolved.last, resolved.refused) == (1, "quota-exceeded")
    with pytest.raises(QuotaExceeded):
        a.do(m.OpenTail(f, 7))
    a.do(m.SetAttributes(f, size=0))
    done = a.do(m.OpenTail(f, 7))
    assert done.room == 1000


def test_mounts_are_told_how_much_fits(c: Cluster, a: Client, b: Client) -> None:
    d = a.mkdir(b"d")
    limit(a, d, bytes_max=1000)
    done = a.do(m.Create(d, b"f", 0o644, os.O_RDWR))
    assert done.room == 1000
    assert done.entry is not None
    f = done.entry.ino
    assert add(a, f, 0, 400).room == 600
    assert b.open_file(f).room == 600
    assert b.open_file(f, os.O_RDONLY).room == -1
    assert a.do(m.Create(1, b"g", 0o644, os.O_RDWR)).room == -1


def test_statfs_below_a_quota_shows_what_it_leaves(c: Cluster, a: Client) -> None:
    outer = a.mkdir(b"outer")
    d = a.mkdir(b"d", outer)
    whole = a.get(m.StatFilesystem(), m.FilesystemStat)
    limit(a, outer, bytes_max=1000)
    limit(a, d, bytes_max=5000, files_max=10)
    f, g = a.create(b"f", d), a.create(b"g", outer)
    add(a, f, 0, 300)
    add(a, g, 0, 100)
    assert a.get(m.StatFilesystem(), m.FilesystemStat).total_bytes == whole.total_bytes
    found = a.get(m.StatFilesystem(d), m.FilesystemStat)
    assert (found.total_bytes, found.used_bytes) == (1000, 300)
    assert found.free_bytes == 600  # of 1000 in outer
    assert (found.files, found.files_free) == (1, 9)
    limit(a, 1, bytes_max=2000)
    root = a.get(m.StatFilesystem(), m.FilesystemStat)
    assert (root.total_bytes, root.used_bytes, root.free_bytes) == (2000, 400, 1600)
    assert root.files_free == -1
    limit(a, outer, bytes_max=200)
    found = a.get(m.StatFilesystem(d), m.FilesystemStat)
    assert (found.total_bytes, found.used_bytes, found.free_bytes) == (200, 300, 0)
    limit(a, 1, bytes_max=whole.total_bytes * 2)
    root = a.get(m.StatFilesystem(), m.FilesystemStat)
    assert (root.total_bytes, root.free_bytes) == (whole.total_bytes, whole.free_bytes)


def test_statfs_shows_a_soft_limit_once_it_counts(c: Cluster, a: Client) -> None:
    d = a.mkdir(b"d")
    whole = a.get(m.StatFilesystem(), m.FilesystemStat)
    limit(a, d, bytes_soft=100, bytes_max=1000)
    add(a, a.create(b"f", d), 0, 300)
    found = a.get(m.StatFilesystem(d), m.FilesystemStat)
    assert (found.total_bytes, found.used_bytes, found.free_bytes) == (1000, 300, 700)
    limit(a, d, bytes_max=0)
    assert a.get(m.StatFilesystem(d), m.FilesystemStat).total_bytes == whole.total_bytes
    c.now_s += WEEK_S + 1
    a.mkdir(b"by now")
    found = a.get(m.StatFilesystem(d), m.FilesystemStat)
    assert (found.total_bytes, found.used_bytes, found.free_bytes) == (100, 300, 0)


def test_a_big_tree_is_counted_bit_by_bit_while_work_goes_on(
    c: Cluster, a: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quota_counting, "WALKED_MAX", 5)
    monkeypatch.setattr(quota_counting, "COUNTED_AT_ONCE", 4)
    d = a.mkdir(b"d")
    files = [a.create(b"%02d" % number, d) for number in range(12)]
    outside = a.create(b"outside")
    for ino in (*files, outside):
        add(a, ino, 0, 10)
    limit(a, d, bytes_max=150, files_max=13)
    assert quota(c, d).is_counting
    assert a.get(m.GetQuota(d), m.Quotas).quotas[0].counting
    c.pass_time(0.05)
    a.do(m.Rename(1, b"outside", d, b"in"))
    a.do(m.Rename(d, b"11", 1, b"out"))
    add(a, files[0], 10, 5)
    add(a, files[10], 10, 5)
    c.check()
    c.restart()
    assert quota(c, d).is_counting
    a.do(m.SetAttributes(files[1], size=5))
    a.create(b"new", d)
    c.pass_time(5)
    assert used(c, d) == (125, 13)
    with pytest.raises(QuotaExceeded):
        a.create(b"more", d)


def test_big_trees_leave_a_quota_at_once_and_enter_one_only_if_they_can_be_counted(
    c: Cluster, a: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quota_counting, "WALKED_MAX", 3)
    d, e = a.mkdir(b"d"), a.mkdir(b"e")
    limit(a, d, files_max=10)
    limit(a, e, files_max=10)
    tree = a.mkdir(b"tree", d)
    for number in range(5):
        a.create(b"%d" % number, tree)
    with pytest.raises(CrossesDevice):
        a.do(m.Rename(d, b"tree", e, b"tree"))
    a.do(m.RemoveTree(d, b"tree"))
    assert quota(c, d).is_counting
    assert quota(c, d).files == 5  # what is certain is less than it was, not how much
    c.pass_time(2)
    assert used(c, d) == (0, 0)
    a.do(m.Undelete(tree))
    c.pass_time(2)
    assert used(c, d) == (0, 6)
    a.do(m.Rename(d, b"tree", 1, b"tree"))
    c.pass_time(2)
    assert used(c, d) == (0, 0)


def test_fsck_has_a_wrong_count_counted_anew(c: Cluster, a: Client) -> None:
    d = a.mkdir(b"d")
    a.create(b"f", d)
    limit(a, d, files_max=10)
    c.tables.begin()
    c.tables.put(QUOTAS, (d,), replace(quota(c, d), used_files=7, used_bytes=3))
    c.tables.commit()
    problems: list[Problem] = []
    check_tables(c.tables, problems.append)
    text = f"quota of inode {d} counts 3 bytes and 7 files, there are 0 and 1"
    assert problems == [Problem("quota", text, ino=d)]
    c.step(lambda: c.core.engine.system("fsck", lambda dec: recount.recount_quota(dec, d)))
    c.pass_time(1)
    assert used(c, d) == (0, 1)


def test_bytes_that_were_promised_are_counted_and_not_refused(c: Cluster, a: Client) -> None:
    """Their writer has closed the file, and can be told no more."""
    d, f = a.mkdir(b"d"), a.create(b"f")
    limit(a, d, bytes_max=100)
    lease = a.allocate()
    c.append(lease, 300)
    a.do(m.Rename(1, b"f", d, b"f"))
    late = file_commit(f, (0, 200, lease.handle, 0))
    (refused,) = a.do(m.Commit([late])).committed
    assert refused.code == "quota-exceeded"
    (taken,) = a.do(m.Commit([replace(late, promised=True)])).committed
    assert (taken.code, taken.room) == ("", 0)
    assert used(c, d) == (200, 1)
