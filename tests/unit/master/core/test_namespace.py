"""Names: every operation, every refusal, links and counts, permissions with groups asked late."""

from __future__ import annotations

import os
import stat

import pytest

from gfs import errors
from gfs import messages as m
from gfs.ids import ROOT_INO, TRASH_INO
from gfs.messages import Actor, Message
from tests.unit.master.core.harness import OTHER, ROOT, USER, Client, Cluster

LATE = Actor(3000, 3000)  # sends no groups unless asked for them
DIR, FIFO, CHAR = stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR


def nlink(c: Cluster, ino: int) -> int:
    found = c.item(ino)
    assert found is not None
    return found.nlink


def test_a_created_file_is_there_for_everybody(a: Client, b: Client) -> None:
    f = a.create(b"\xff\n name", mode=0o640)
    entry = b.lookup(b"\xff\n name")
    assert entry.ino == f
    assert entry.inode is not None
    assert (entry.inode.mode, entry.inode.nlink, entry.inode.size) == (stat.S_IFREG | 0o640, 1, 0)
    assert b.names() == [b"\xff\n name"]


def test_create_of_a_present_name_opens_it_unless_exclusive(a: Client, b: Client) -> None:
    f = a.create(b"f")
    done = b.do(m.Create(ROOT_INO, b"f", 0o600, os.O_RDWR))
    assert (done.created, done.entry and done.entry.ino) == (False, f)
    assert b.session in b.cluster.core.engine.registry.writers[f]
    with pytest.raises(errors.AlreadyExists):
        b.do(m.Create(ROOT_INO, b"f", 0o600, os.O_RDWR | os.O_EXCL))


def test_create_does_not_tell_what_lies_in_a_directory_one_may_not_search(a: Client) -> None:
    d = a.mkdir(b"d", mode=0o700)
    a.create(b"f", d)
    with pytest.raises(errors.PermissionDenied):
        a.do(m.Create(d, b"f", 0o600, os.O_RDWR | os.O_EXCL), USER)


def test_create_of_a_present_name_first_recalls_who_writes_it(a: Client, b: Client) -> None:
    f = a.create(b"f")
    a.automatic = False
    call = b.start(m.Create(ROOT_INO, b"f", 0o600, os.O_RDWR))
    assert not call.is_answered
    assert [send.message for send in a.asked] == [m.Recall([f])]
    a.acknowledge()
    b.cluster.settle()
    a.acknowledge()
    b.cluster.settle()
    assert not call.done.created


def test_directories_count_their_subdirectories(c: Cluster, a: Client) -> None:
    d = a.mkdir(b"d")
    e = a.mkdir(b"e", d)
    a.create(b"f", d)
    assert (nlink(c, ROOT_INO), nlink(c, d), nlink(c, e)) == (3, 3, 2)
    a.do(m.RemoveDirectory(d, b"e"))
    a.do(m.Unlink(d, b"f"))
    a.do(m.RemoveDirectory(ROOT_INO, b"d"))
    assert nlink(c, ROOT_INO) == 2
    assert a.names() == []


def test_special_files_are_made_devices_by_root_alone(a: Client) -> None:
    a.do(m.MakeNode(ROOT_INO, b"pipe", FIFO | 0o600))
    done = a.do(m.MakeNode(ROOT_INO, b"null", CHAR | 0o666, rdev=0x103))
    assert done.entry is not None
    assert done.entry.inode is not None
    assert done.entry.inode.rdev == 0x103
    d = a.mkdir(b"open", mode=0o777)
    with pytest.raises(errors.NotPermitted):
        a.do(m.MakeNode(d, b"null", CHAR | 0o666, rdev=0x103), USER)
    a.do(m.MakeNode(d, b"plain", 0o600), USER)
    with pytest.raises(errors.InvalidArgument):
        a.do(m.MakeNode(ROOT_INO, b"odd", 0o110000))


def test_symlinks_keep_their_target_to_the_byte(a: Client) -> None:
    a.do(m.MakeSymlink(ROOT_INO, b"l", b"\xff/../x"))
    entry = a.lookup(b"l")
    assert entry.inode is not None
    assert (entry.inode.target, entry.inode.size) == (b"\xff/../x", 6)


def test_hard_links_count_and_the_last_one_takes_the_file(c: Cluster, a: Client) -> None:
    f = a.create(b"f")
    a.close_file(f)
    a.do(m.MakeLink(f, ROOT_INO, b"g"))
    assert nlink(c, f) == 2
    a.do(m.Unlink(ROOT_INO, b"f"))
    assert nlink(c, f) == 1
    assert a.lookup(b"g").ino == f
    a.do(m.Unlink(ROOT_INO, b"g"))
    assert c.item(f) is None


REFUSALS: list[tuple[Message, type[errors.GfsError]]] = [
    (m.Create(1, b"d", 0o600, os.O_RDONLY), errors.IsADirectory),
    (m.Create(1, b"d", 0o600, os.O_RDWR | os.O_EXCL), errors.AlreadyExists),
    (m.Create(1, b"x" * 256, 0o600, os.O_RDWR), errors.NameTooLong),
    (m.Create(1, b"", 0o600, os.O_RDWR), errors.InvalidArgument),
    (m.Create(1, b"a/b", 0o600, os.O_RDWR), errors.InvalidArgument),
    (m.Create(1, b"a\0b", 0o600, os.O_RDWR), errors.InvalidArgument),
    (m.Create(1, b"..", 0o600, os.O_RDWR), errors.InvalidArgument),
    (m.Create(99, b"x", 0o600, os.O_RDWR), errors.StaleInode),
    (m.Create(1 << 63, b"x", 0o600, os.O_RDWR), errors.InvalidArgument),
    (m.Create(TRASH_INO, b"x", 0o600, os.O_RDWR), errors.StaleInode),
    (m.MakeNode(1, b"d", DIR | 0o700), errors.AlreadyExists),
    (m.MakeSymlink(1, b"d", b"t"), errors.AlreadyExists),
    (m.MakeSymlink(1, b"s", b""), errors.NotFound),
    (m.MakeSymlink(1, b"s", b"x" * 4096), errors.NameTooLong),
    (m.MakeLink(99, 1, b"l"), errors.StaleInode),
    (m.Unlink(1, b"none"), errors.NotFound),
    (m.Unlink(1, b"d"), errors.IsADirectory),
    (m.RemoveDirectory(1, b"f"), errors.NotADirectory),
    (m.RemoveDirectory(1, b"."), errors.InvalidArgument),
    (m.RemoveDirectory(1, b"none"), errors.NotFound),
    (m.RemoveDirectory(1, b"d"), errors.NotEmpty),
    (m.RemoveTree(1, b"none"), errors.NotFound),
    (m.Rename(1, b"none", 1, b"x"), errors.NotFound),
    (m.Rename(1, b"f", 1, b"x" * 256), errors.NameTooLong),
    (m.Rename(1, b"f", 1, b"x", 3), errors.InvalidArgument),
]


@pytest.mark.parametrize(("operation", "error"), REFUSALS)
def test_what_cannot_be_is_refused_and_leaves_no_record(
    c: Cluster, a: Client, operation: Message, error: type[errors.GfsError]
) -> None:
    d = a.mkdir(b"d")
    a.create(b"inside", d)
    a.create(b"f")
    before = len(c.log)
    with pytest.raises(error):
        a.do(operation)
    assert len(c.log) == before


def test_names_below_a_file_are_refused(a: Client) -> None:
    f = a.create(b"f")
    with pytest.raises(errors.NotADirectory):
        a.create(b"x", f)
    with pytest.raises(errors.NotADirectory):
        a.lookup(b"x", f)
    with pytest.raises(errors.NotPermitted):
        a.do(m.MakeLink(a.mkdir(b"d"), ROOT_INO, b"l"))


def test_a_name_of_255_bytes_is_taken(a: Client) -> None:
    a.create(b"\xfe" * 255)
    assert a.names() == [b"\xfe" * 255]


def test_a_removed_directory_takes_no_names(a: Client) -> None:
    d = a.mkdir(b"d")
    a.do(m.RemoveDirectory(ROOT_INO, b"d"))
    with pytest.raises(errors.StaleInode):
        a.create(b"x", d)


def test_a_file_in_the_trash_gets_no_second_name(c: Cluster, a: Client) -> None:
    f = a.create(b"f")
    a.do(m.SetAttributes(f, size=10))
    a.close_file(f)
    c.pass_time(601)
    a.do(m.Unlink(ROOT_INO, b"f"))
    with pytest.raises(errors.NotFound):
        a.do(m.MakeLink(f, ROOT_INO, b"g"))


# --- permissions


def test_writing_a_directory_needs_write_and_search(a: Client) -> None:
    for mode, allowed in ((0o777, True), (0o775, False), (0o776, False), (0o773, True)):
        name = b"%o" % mode
        d = a.mkdir(name, mode=mode)
        a.do(m.SetAttributes(d, mode=mode))
        operations: list[Message] = [
            m.Create(d, b"f", 0o600, os.O_RDWR),
            m.MakeNode(d, b"d", DIR | 0o700),
            m.MakeSymlink(d, b"s", b"t"),
        ]
        for operation in operations:
            if allowed:
                a.do(operation, USER)
            else:
                with pytest.raises(errors.PermissionDenied):
                    a.do(operation, USER)


def test_groups_are_asked_for_only_when_they_decide(c: Cluster, a: Client) -> None:
    open_to_all = a.mkdir(b"all", mode=0o777)
    by_group = a.mkdir(b"group", mode=0o770)
    a.do(m.SetAttributes(by_group, gid=500))
    a.do(m.Create(open_to_all, b"f", 0o600, os.O_RDWR), LATE)
    call = a.start(m.Create(by_group, b"f", 0o600, os.O_RDWR), LATE)
    assert call.answer == m.GroupsNeeded()
    without, with_group = Actor(3000, 3000, 0, (3000,)), Actor(3000, 3000, 0, (3000, 500))
    with pytest.raises(errors.PermissionDenied):
        a.do(m.Create(by_group, b"f", 0o600, os.O_RDWR), without)
    a.do(m.Create(by_group, b"f", 0o600, os.O_RDWR), with_group)
    assert a.ask(m.Lookup(by_group, b"f", LATE)).answer == m.GroupsNeeded()
    assert a.lookup(b"f", by_group, with_group).ino


def test_the_group_can_be_kept_out_of_what_others_may(a: Client) -> None:
    d = a.mkdir(b"d", mode=0o707)
    a.do(m.SetAttributes(d, mode=0o707, gid=1000))
    with pytest.raises(errors.PermissionDenied):
        a.do(m.Create(d, b"f", 0o600, os.O_RDWR), USER)
    a.do(m.Create(d, b"f", 0o600, os.O_RDWR), OTHER)


def test_in_a_sticky_directory_only_owners_remove(a: Client) -> None:
    d = a.mkdir(b"tmp", mode=0o777)
    a.do(m.SetAttributes(d, mode=0o1777))
    a.do(m.Create(d, b"mine", 0o666, os.O_RDWR), USER)
    a.do(m.Create(d, b"target", 0o666, os.O_RDWR), USER)
    a.do(m.Create(d, b"other", 0o666, os.O_RDWR), OTHER)
    refused: list[Message] = [
        m.Unlink(d, b"mine"),
        m.Rename(d, b"mine", d, b"theirs"),
        m.Rename(d, b"other", d, b"target"),
        m.Rename(d, b"other", d, b"mine", 2),
    ]
    for operation in refused:
        with pytest.raises(errors.NotPermitted):
            a.do(operation, OTHER)
    a.do(m.Unlink(d, b"mine"), USER)
    a.do(m.Unlink(d, b"target"), ROOT)


def test_a_setgid_directory_gives_its_group_and_its_bit(c: Cluster, a: Client) -> None:
    d = a.mkdir(b"d", mode=0o777)
    a.do(m.SetAttributes(d, gid=500))
    a.do(m.SetAttributes(d, mode=0o2777))
    f = a.do(m.Create(d, b"f", 0o600, os.O_RDWR), USER).entry
    sub = a.do(m.MakeNode(d, b"sub", DIR | 0o755), USER).entry
    assert f is not None
    assert f.inode is not None
    assert (f.inode.gid, f.inode.uid) == (500, 1000)
    assert sub is not None
    assert sub.inode is not None
    assert (sub.inode.gid, sub.inode.mode & 0o7000) == (500, 0o2000)


def test_opening_is_checked_as_the_flags_say(a: Client) -> None:
    f = a.create(b"f", mode=0o644)
    a.get(m.Open(f, os.O_RDONLY, USER), m.Opened)
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC):
        with pytest.raises(errors.PermissionDenied):
            a.get(m.Open(f, flags, USER), m.Opened)
    with pytest.raises(errors.IsADirectory):
        a.get(m.Open(ROOT_INO, os.O_RDWR, ROOT), m.Opened)
    with pytest.raises(errors.StaleInode):
        a.get(m.Open(99, os.O_RDONLY, ROOT), m.Opened)


# --- paths


def test_walk_follows_links_and_checks_each_directory(a: Client) -> None:
    d = a.mkdir(b"d", mode=0o711)
    e = a.mkdir(b"e", d, mode=0o700)
    f = a.create(b"f", d, mode=0o644)
    a.do(m.MakeSymlink(ROOT_INO, b"l", b"d/./f"))
    a.do(m.MakeSymlink(d, b"up", b"/d/../l"))
    a.do(m.MakeSymlink(d, b"loop", b"loop"))

    def walk(path: bytes, actor: Actor = ROOT, follow: bool = True) -> int:
        return a.get(m.Walk(path, follow, actor), m.Walked).entry.ino

    assert walk(b"/d/f") == walk(b"/l") == walk(b"/d/up") == walk(b"//d/e/../f") == f
    assert walk(b"/") == walk(b"..") == ROOT_INO
    assert walk(b"/l", follow=False) not in (0, f)
    assert walk(b"/d/none") == 0
    assert walk(b"/d/f", USER) == f
    assert a.get(m.PathOf(e), m.PathIs).path == b"/d/e"
    for path, error in (
        (b"/none/x", errors.NotFound),
        (b"/d/f/x", errors.NotADirectory),
        (b"/d/loop", errors.LinkLoop),
        (b"/" + b"x" * 4096, errors.NameTooLong),
    ):
        with pytest.raises(error):
            walk(path)
    with pytest.raises(errors.PermissionDenied):
        walk(b"/d/e/x", USER)


def test_a_large_directory_is_listed_in_pages_in_byte_order(a: Client) -> None:
    names = sorted(b"%d\xff" % number for number in range(257))
    for name in names:
        a.send(m.Create(ROOT_INO, name, 0o600, os.O_RDONLY))
    a.cluster.settle()
    found: list[bytes] = []
    while True:
        ask = m.ReadDirectory(ROOT_INO, found[-1] if found else b"", 100, True, ROOT)
        page = a.get(ask, m.Listing)
        found += [item.name for item in page.entries]
        assert all(item.inode is not None for item in page.entries)
        if not page.more:
            break
    assert found == names
