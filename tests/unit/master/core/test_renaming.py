"""rename(2): every pair of kinds, every refusal, counts and parents right after each."""

from __future__ import annotations

import itertools

import pytest

from gfs import errors
from gfs import messages as m
from gfs.ids import ROOT_INO
from tests.unit.master.core.harness import USER, Client, Cluster

NOREPLACE, EXCHANGE = 1, 2
KINDS = ("nothing", "file", "symlink", "empty", "full")


def make(a: Client, kind: str, parent: int, name: bytes) -> int:
    if kind == "file":
        return a.create(name, parent)
    if kind == "symlink":
        done = a.do(m.MakeSymlink(parent, name, b"t"))
        assert done.entry is not None
        return done.entry.ino
    if kind == "nothing":
        return 0
    made = a.mkdir(name, parent)
    if kind == "full":
        a.create(b"inside", made)
    return made


def expected(source: str, target: str, flags: int) -> type[errors.GfsError] | None:
    """What rename(2) says."""
    directory = source in ("empty", "full")
    if source == "nothing":
        return errors.NotFound
    if flags == EXCHANGE:
        return errors.NotFound if target == "nothing" else None
    if target == "nothing":
        return None
    if flags == NOREPLACE:
        return errors.AlreadyExists
    if directory and target in ("file", "symlink"):
        return errors.NotADirectory
    if not directory and target in ("empty", "full"):
        return errors.IsADirectory
    return errors.NotEmpty if target == "full" else None


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("flags", [0, NOREPLACE, EXCHANGE])
@pytest.mark.parametrize(("source", "target"), list(itertools.product(KINDS, KINDS)))
def test_every_pair_of_kinds_does_what_posix_says(
    c: Cluster, a: Client, source: str, target: str, flags: int, across: bool
) -> None:
    here = a.mkdir(b"here")
    there = a.mkdir(b"there") if across else here
    moved = make(a, source, here, b"s")
    present = make(a, target, there, b"t")
    error = expected(source, target, flags)
    if error is not None:
        before = len(c.log)
        with pytest.raises(error):
            a.do(m.Rename(here, b"s", there, b"t", flags))
        assert len(c.log) == before
        return
    done = a.do(m.Rename(here, b"s", there, b"t", flags))
    assert done.entry is not None
    assert done.entry.ino == moved
    assert a.lookup(b"t", there).ino == moved
    assert a.lookup(b"s", here).ino == (present if flags == EXCHANGE else 0)
    if flags != EXCHANGE and present:
        present_item = c.item(present)
        assert present_item is None or present_item.nlink == 0  # open here: an orphan


def test_a_directory_cannot_go_below_itself(a: Client) -> None:
    d = a.mkdir(b"d")
    e = a.mkdir(b"e", d)
    f = a.mkdir(b"f", e)
    for below, name in ((d, b"x"), (e, b"x"), (f, b"x")):
        with pytest.raises(errors.InvalidArgument):
            a.do(m.Rename(ROOT_INO, b"d", below, name))
    with pytest.raises(errors.InvalidArgument):
        a.do(m.Rename(ROOT_INO, b"d", e, b"f", EXCHANGE))
    with pytest.raises(errors.InvalidArgument):
        a.do(m.Rename(e, b"f", ROOT_INO, b"d", EXCHANGE))


def test_onto_another_name_of_the_same_file_nothing_happens(c: Cluster, a: Client) -> None:
    f = a.create(b"f")
    a.do(m.MakeLink(f, ROOT_INO, b"g"))
    before = len(c.log)
    a.do(m.Rename(ROOT_INO, b"f", ROOT_INO, b"g"))
    a.do(m.Rename(ROOT_INO, b"f", ROOT_INO, b"g", EXCHANGE))
    assert len(c.log) == before
    assert a.names() == [b"f", b"g"]


def test_dotdot_follows_a_moved_directory(a: Client) -> None:
    d, e = a.mkdir(b"d"), a.mkdir(b"e")
    sub = a.mkdir(b"sub", d)
    a.do(m.Rename(d, b"sub", e, b"sub"))
    assert a.lookup(b"..", sub).ino == e
    assert a.get(m.PathOf(sub), m.PathIs).path == b"/e/sub"


def test_moving_a_directory_elsewhere_needs_write_on_it(a: Client) -> None:
    d, e = a.mkdir(b"d", mode=0o777), a.mkdir(b"e", mode=0o777)
    a.do(m.SetAttributes(d, mode=0o777))
    a.do(m.SetAttributes(e, mode=0o777))
    a.mkdir(b"sub", d, mode=0o755)
    a.do(m.Rename(d, b"sub", d, b"sub2"), USER)
    with pytest.raises(errors.PermissionDenied):
        a.do(m.Rename(d, b"sub2", e, b"sub2"), USER)


def test_what_a_rename_replaces_is_reclaimed_not_put_in_the_trash(c: Cluster, a: Client) -> None:
    f, g = a.create(b"f"), a.create(b"g")
    lease = a.allocate()
    c.append(lease, 100)
    a.commit(g, (0, 100, lease.handle, 0))
    a.close_file(f)
    a.close_file(g)
    c.pass_time(700)
    a.do(m.Rename(ROOT_INO, b"f", ROOT_INO, b"g"))
    assert c.item(g) is None
    assert a.get(m.ListTrash(a.actor), m.TrashListing).entries == []
    assert c.chunk(lease.handle).references == 0
