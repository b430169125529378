"""chmod, chown, truncate, utimens and extended attributes: who may, what else changes."""

from __future__ import annotations

import os

import pytest

from gfs import errors
from gfs import messages as m
from gfs.ids import ROOT_INO
from gfs.items import Inode
from gfs.messages import Actor
from tests.unit.master.core.harness import OTHER, ROOT, USER, Client, Cluster

NOW = 1_000_000_000_000


@pytest.fixture
def f(a: Client) -> int:
    """A file of USER's."""
    ino = a.create(b"f", mode=0o644)
    a.do(m.SetAttributes(ino, uid=1000, gid=1000))
    return ino


def set_(a: Client, ino: int, actor: Actor = ROOT, **fields: object) -> Inode:
    done = a.do(m.SetAttributes(ino, **fields), actor)  # type: ignore[arg-type]
    assert done.entry is not None
    assert done.entry.inode is not None
    return done.entry.inode


def test_only_the_owner_changes_the_mode(a: Client, f: int) -> None:
    before = a.inode(f)
    changed = set_(a, f, USER, mode=0o600)
    assert (changed.mode & 0o7777, changed.version) == (0o600, before.version + 1)
    assert changed.ctime_ns > before.ctime_ns
    assert changed.data_version == before.data_version
    with pytest.raises(errors.NotPermitted):
        set_(a, f, OTHER, mode=0o777)
    assert set_(a, f, ROOT, mode=0o4755).mode & 0o7777 == 0o4755


def test_setgid_is_kept_by_members_of_the_group_alone(a: Client, f: int) -> None:
    set_(a, f, gid=500)
    assert set_(a, f, USER, mode=0o2755).mode & 0o2000 == 0
    assert set_(a, f, Actor(1000, 1000, 0, (500,)), mode=0o2755).mode & 0o2000
    call = a.start(m.SetAttributes(f, mode=0o2711), Actor(1000, 1000))
    assert call.answer == m.GroupsNeeded()


def test_only_root_gives_files_away_and_owners_change_to_groups_of_theirs(
    a: Client, f: int
) -> None:
    with pytest.raises(errors.NotPermitted):
        set_(a, f, USER, uid=2000)
    with pytest.raises(errors.NotPermitted):
        set_(a, f, USER, gid=500)
    assert set_(a, f, Actor(1000, 1000, 0, (500,)), gid=500).gid == 500
    with pytest.raises(errors.NotPermitted):
        set_(a, f, OTHER, gid=2000)
    set_(a, f, mode=0o6755)
    assert set_(a, f, uid=7).mode & 0o7777 == 0o755


@pytest.mark.parametrize("field", ["uid", "gid"])
@pytest.mark.parametrize("value", [-1, 1 << 32, (1 << 32) - 1])
def test_an_id_that_no_user_has_is_refused(a: Client, f: int, field: str, value: int) -> None:
    with pytest.raises(errors.InvalidArgument):
        set_(a, f, ROOT, **{field: value})


def test_times_are_the_owners_now_is_every_writers(a: Client, f: int) -> None:
    changed = set_(a, f, USER, atime_ns=-5, mtime_ns=7)
    assert (changed.atime_ns, changed.mtime_ns) == (-5, 7)
    with pytest.raises(errors.NotPermitted):
        set_(a, f, OTHER, mtime_ns=8)
    with pytest.raises(errors.PermissionDenied):
        set_(a, f, OTHER, mtime_now=True)
    set_(a, f, mode=0o666)
    assert set_(a, f, OTHER, mtime_now=True, atime_now=True).mtime_ns >= NOW
    with pytest.raises(errors.NotPermitted):
        set_(a, f, OTHER, size=0, mtime_ns=8)


@pytest.mark.parametrize("time_ns", [1 << 62, (1 << 64) - 1, -(1 << 63)])
def test_a_time_that_no_clock_shows_is_refused(a: Client, f: int, time_ns: int) -> None:
    with pytest.raises(errors.InvalidArgument):
        set_(a, f, mtime_ns=time_ns)


def test_truncate_needs_write_unless_the_file_is_open(a: Client, f: int) -> None:
    with pytest.raises(errors.PermissionDenied):
        set_(a, f, OTHER, size=1)
    assert set_(a, f, OTHER, size=1, handle_open_for_write=True).size == 1
    a.close_file(f)
    with pytest.raises(errors.PermissionDenied):
        set_(a, f, OTHER, size=2, handle_open_for_write=True)
    assert not a.cluster.core.engine.registry.is_open(f)


def test_truncate_changes_content_times_and_privileges(a: Client, f: int) -> None:
    set_(a, f, mode=0o6755)
    before = a.inode(f)
    changed = set_(a, f, USER, size=5)
    assert changed.mode & 0o7777 == 0o755
    assert changed.data_version == before.data_version + 1
    assert changed.mtime_ns > before.mtime_ns
    assert set_(a, f, USER, size=5).data_version == changed.data_version + 1


@pytest.mark.parametrize("size", [-1, (1 << 62) + 1, 1 << 63])
def test_a_size_beyond_bounds_is_refused(a: Client, f: int, size: int) -> None:
    with pytest.raises(errors.TooLarge):
        set_(a, f, size=size)


def test_only_files_have_a_size_to_change(a: Client) -> None:
    with pytest.raises(errors.IsADirectory):
        set_(a, ROOT_INO, size=0)
    entry = a.do(m.MakeSymlink(ROOT_INO, b"l", b"t")).entry
    assert entry is not None
    with pytest.raises(errors.InvalidArgument):
        set_(a, entry.ino, size=0)


def test_no_change_is_no_record(c: Cluster, a: Client, f: int) -> None:
    before = len(c.log)
    call = a.start(m.SetAttributes(f))
    assert call.done.position == before
    assert len(c.log) == before


def test_xattrs_are_created_replaced_and_removed(a: Client, f: int) -> None:
    a.do(m.SetXattr(f, b"user.k", b"\xff\0", 1))
    with pytest.raises(errors.AlreadyExists):
        a.do(m.SetXattr(f, b"user.k", b"v", 1))
    with pytest.raises(errors.NoAttribute):
        a.do(m.SetXattr(f, b"user.other", b"v", 2))
    a.do(m.SetXattr(f, b"user.k", b"v", 2))
    a.do(m.SetXattr(f, b"user.k2", b"", 0))
    assert a.inode(f).attributes == {b"user.k": b"v", b"user.k2": b""}
    a.do(m.RemoveXattr(f, b"user.k"))
    with pytest.raises(errors.NoAttribute):
        a.do(m.RemoveXattr(f, b"user.k"))
    assert a.inode(f).attributes == {b"user.k2": b""}


def test_xattrs_are_refused_by_namespace_right_and_size(a: Client, f: int) -> None:
    cases: list[tuple[bytes, bytes, Actor, type[errors.GfsError]]] = [
        (b"other.x", b"v", ROOT, errors.Unsupported),
        (b"system.posix_acl_access", b"v", ROOT, errors.Unsupported),
        (b"", b"v", ROOT, errors.NameTooLong),
        (b"user." + b"x" * 251, b"v", ROOT, errors.NameTooLong),
        (b"user.big", b"x" * 65537, ROOT, errors.TooLarge),
        (b"user.k", b"v", OTHER, errors.PermissionDenied),
        (b"trusted.k", b"v", USER, errors.NotPermitted),
    ]
    for name, value, actor, error in cases:
        with pytest.raises(error):
            a.do(m.SetXattr(f, name, value), actor)
    a.do(m.SetXattr(f, b"trusted.k", b"v"))
    a.do(m.SetXattr(f, b"user.big", b"x" * 65536))
    with pytest.raises(errors.NoSpace):
        a.do(m.SetXattr(f, b"user.big2", b"x" * 65536))
    entry = a.do(m.MakeSymlink(ROOT_INO, b"l", b"t")).entry
    assert entry is not None
    with pytest.raises(errors.NotPermitted):
        a.do(m.SetXattr(entry.ino, b"user.k", b"v"))


def test_creation_flags_do_not_open_for_writing_what_is_opened_to_read(a: Client) -> None:
    f = a.create(b"r", flags=os.O_RDONLY)
    assert a.session not in a.cluster.core.engine.registry.writers.get(f, set())


def test_whatever_is_given_moves_the_change_time_though_it_was_so_before(a: Client, f: int) -> None:
    before = a.inode(f)
    a.do(m.SetAttributes(f, mode=before.mode & 0o7777))
    assert a.inode(f).ctime_ns > before.ctime_ns
    again = a.inode(f)
    a.do(m.SetAttributes(f))
    assert a.inode(f) == again


def test_a_writer_takes_setuid_and_setgid_and_nothing_else(a: Client, f: int) -> None:
    """The kernel asks for it on behalf of whoever writes, owner or not."""
    set_(a, f, mode=0o6777)
    for mode in (0o2777, 0o4777, 0o755):
        with pytest.raises(errors.NotPermitted):
            set_(a, f, OTHER, mode=mode)
    assert set_(a, f, OTHER, mode=0o777).mode & 0o7777 == 0o777
