"""Sessions that may not do everything: read-only, below a directory, as other users."""

from __future__ import annotations

import os
from types import UnionType
from typing import get_args

import pytest

from gfs import errors
from gfs import messages as m
from gfs.errors import GfsError, LockHeld, NotPermitted, ReadOnly, StaleInode
from gfs.ids import ROOT_INO
from gfs.messages import Access, AccessTime, Actor
from gfs.records import DECODER
from master.core import reading
from master.core.confining import KNOWN, REFUSED
from tests.unit.master.core.harness import ROOT, USER, Client, Cluster, file_commit
from tests.unit.master.core.test_access import changed, note
from tests.unit.master.core.test_locks import take
from tests.unit.master.core.test_trash import OLD, filled, trash

BELOW = Access(subtree=b"/a/b")


@pytest.fixture
def tree(a: Client) -> dict[str, int]:
    """/a/b/d/f and /a/out, /other."""
    top = a.mkdir(b"a")
    root = a.mkdir(b"b", top)
    d = a.mkdir(b"d", root)
    f = a.create(b"f", d)
    a.close_file(f)
    out = a.create(b"out", top)
    a.close_file(out)
    return {"a": top, "b": root, "d": d, "f": f, "out": out, "other": a.mkdir(b"other")}


@pytest.fixture
def sub(c: Cluster, tree: dict[str, int]) -> Client:
    """A mount of /a/b."""
    return c.client("/sub", wish=BELOW)


def walk(client: Client, path: bytes) -> m.Walked:
    return client.get(m.Walk(path, True, client.actor), m.Walked)


def asked_of_a_session() -> set[type[m.Message]]:
    operations = m.Operation
    assert isinstance(operations, UnionType)
    return {*get_args(operations), *reading._HANDLERS}


def test_everything_a_session_may_ask_is_known_here() -> None:
    assert asked_of_a_session() <= KNOWN | REFUSED


# --- below a directory


def test_the_subtree_is_the_root_and_nothing_lies_above(sub: Client, tree: dict[str, int]) -> None:
    assert sub.opened.root == tree["b"]
    root = sub.lookup(b".")
    assert root.ino == ROOT_INO
    assert root.inode is not None
    assert root.inode.parent == ROOT_INO
    assert sub.names() == [b"d"]
    assert sub.lookup(b"..").ino == ROOT_INO
    assert sub.lookup(b"..", tree["d"]).ino == ROOT_INO
    assert sub.inode(tree["d"]).parent == ROOT_INO
    assert walk(sub, b"/../../d/f").entry.ino == tree["f"]
    assert walk(sub, b"/").entry.ino == ROOT_INO
    assert walk(sub, b"/d").parent == ROOT_INO
    assert sub.get(m.PathOf(tree["f"]), m.PathIs).path == b"/d/f"
    assert sub.get(m.PathOf(ROOT_INO), m.PathIs).path == b"/"


def test_absolute_links_begin_at_the_subtree(a: Client, sub: Client, tree: dict[str, int]) -> None:
    a.do(m.MakeSymlink(tree["b"], b"in", b"/d"))
    a.do(m.MakeSymlink(tree["b"], b"up", b"../../other"))
    a.do(m.MakeSymlink(tree["b"], b"away", b"/other"))
    assert walk(sub, b"/in/f").entry.ino == tree["f"]
    assert walk(sub, b"/up").entry.ino == 0
    assert walk(sub, b"/away").entry.ino == 0


def test_what_is_made_at_the_root_lies_in_the_subtree(
    a: Client, sub: Client, tree: dict[str, int]
) -> None:
    made = sub.do(m.Create(ROOT_INO, b"new", 0o644, os.O_RDWR))
    assert made.entry is not None
    assert made.parents[0].ino == ROOT_INO
    assert a.lookup(b"new", tree["b"]).ino == made.entry.ino
    sub.do(m.Rename(ROOT_INO, b"new", tree["d"], b"newer"))
    assert a.lookup(b"newer", tree["d"]).ino == made.entry.ino


def forged(tree: dict[str, int], client: Client) -> list[m.Message]:
    """Everything that names an inode outside, by its number."""
    actor, out, top = client.actor, tree["out"], tree["a"]
    return [
        m.Lookup(top, b"out", actor),
        m.ReadDirectory(top, b"", 100, True, actor),
        m.Open(out, os.O_RDONLY, actor),
        m.GetLayout(out, 0, 100, actor),
        m.Walk(b"out", True, actor, top),
        m.PathOf(out),
        m.StatFilesystem(top),
        m.Create(top, b"x", 0o644, os.O_RDWR),
        m.Create(top, b"out", 0o644, os.O_RDWR),
        m.MakeNode(top, b"x", 0o644),
        m.MakeSymlink(top, b"x", b"t"),
        m.MakeLink(out, ROOT_INO, b"x"),
        m.MakeLink(tree["f"], top, b"x"),
        m.Unlink(top, b"out"),
        m.RemoveDirectory(top, b"b"),
        m.RemoveTree(top, b"b"),
        m.Rename(top, b"out", ROOT_INO, b"x"),
        m.Rename(ROOT_INO, b"d", top, b"x"),
        m.SetAttributes(out, mode=0o777),
        m.SetXattr(out, b"user.x", b"1"),
        m.RemoveXattr(out, b"user.x"),
        m.Snapshot(top, ROOT_INO, b"x"),
        m.Snapshot(tree["d"], top, b"x"),
        m.Clone(out, ROOT_INO, b"x"),
        m.Commit([file_commit(out)]),
        m.OpenTail(out, 7),
        m.ResolveTail(out, 7, 1, 1),
        m.ListLocks(actor, out),
    ]


def test_a_forged_request_for_an_inode_outside_is_refused(
    c: Cluster, a: Client, sub: Client, tree: dict[str, int]
) -> None:
    """Numbers are no secret: whoever has the client library can name any."""
    requests = forged(tree, sub)
    named = {type(request) for request in requests} | {m.GetAttributes}
    unchecked = {
        m.CloseFiles, m.DropInterest, m.Locate, m.Renew, m.ListTrash, m.Allocate, m.SealChunk,
        m.LookInTrash, m.Undelete, m.EmptyTrash, m.ListSnapshots,
    }  # fmt: skip
    assert named | unchecked | REFUSED == asked_of_a_session()
    before = len(c.log)
    for request in requests:
        is_read = type(request) in reading._HANDLERS
        call = sub.ask(request) if is_read else sub.start(request)
        with pytest.raises(errors.StaleInode):
            call.answer  # noqa: B018
    assert len(c.log) == before
    found = sub.get(m.GetAttributes([tree["f"], tree["out"]], sub.actor), m.Entries).entries
    assert [entry.ino for entry in found] == [tree["f"], 0]


def test_a_message_that_nobody_thought_of_is_refused(sub: Client) -> None:
    call = sub.ask(m.ClusterStatus())
    with pytest.raises(errors.NotPermitted):
        call.answer  # noqa: B018


def test_a_file_is_reached_by_any_name_below_the_root(
    a: Client, sub: Client, tree: dict[str, int]
) -> None:
    a.do(m.MakeLink(tree["out"], tree["d"], b"also"))
    assert sub.lookup(b"also", tree["d"]).ino == tree["out"]
    assert sub.inode(tree["out"]).nlink == 2
    assert sub.get(m.PathOf(tree["out"]), m.PathIs).path == b"/d/also"
    a.do(m.Unlink(tree["d"], b"also"))
    with pytest.raises(errors.StaleInode):
        sub.open_file(tree["out"])


def test_what_is_moved_out_is_gone_and_what_is_moved_in_is_there(
    a: Client, sub: Client, tree: dict[str, int]
) -> None:
    assert sub.inode(tree["f"]).nlink == 1  # its directory is remembered as inside
    a.do(m.Rename(tree["b"], b"d", tree["other"], b"d"))
    with pytest.raises(errors.StaleInode):
        sub.names(tree["d"])
    with pytest.raises(errors.StaleInode):
        sub.do(m.Create(tree["d"], b"x", 0o644, os.O_RDWR))
    a.do(m.Rename(tree["other"], b"d", tree["b"], b"back"))
    assert sub.names(tree["d"]) == [b"f"]
    assert sub.create(b"x", tree["d"])


def test_a_file_that_is_open_stays_usable_when_it_is_moved_out(
    c: Cluster, a: Client, sub: Client, tree: dict[str, int]
) -> None:
    sub.open_file(tree["f"])
    a.do(m.Rename(tree["d"], b"f", tree["other"], b"f"))
    lease = sub.allocate()
    c.append(lease, 10)
    assert sub.commit(tree["f"], (0, 10, lease.handle, 0)).code == ""
    assert sub.inode(tree["f"]).size == 10
    sub.close_file(tree["f"])
    with pytest.raises(errors.StaleInode):
        sub.get(m.GetLayout(tree["f"], 0, 10, sub.actor), m.Layout)


def test_a_directory_that_is_open_is_not_reached_when_it_is_moved_out(
    a: Client, sub: Client, tree: dict[str, int]
) -> None:
    sub.open_file(tree["d"], os.O_RDONLY)
    a.do(m.Rename(tree["b"], b"d", tree["other"], b"d"))
    with pytest.raises(errors.StaleInode):
        sub.lookup(b"f", tree["d"])


def test_moves_count_at_once_in_the_step_that_decides_them(
    c: Cluster, a: Client, sub: Client, tree: dict[str, int]
) -> None:
    """Readers still see the directory where it was; who decides after the move does not."""
    assert sub.names(tree["d"]) == [b"f"]
    move = a.send(m.Rename(tree["b"], b"d", tree["other"], b"d"))
    seen = sub.send(m.MakeNode(tree["d"], b"late", 0o644))
    c.settle()
    assert move.done.entry is not None
    with pytest.raises(errors.StaleInode):
        seen.answer  # noqa: B018
    with pytest.raises(errors.StaleInode):
        sub.names(tree["d"])


def test_the_root_itself_may_be_moved_within_its_export_but_not_out(
    c: Cluster, a: Client, tree: dict[str, int]
) -> None:
    sub = c.client("/sub", granted=Access(subtree=b"/a"), wish=Access(subtree=b"/b"))
    a.do(m.Rename(tree["a"], b"b", tree["a"], b"c"))
    assert sub.names() == [b"d"]
    a.do(m.Rename(tree["a"], b"c", tree["other"], b"c"))
    with pytest.raises(errors.StaleInode):
        sub.names()
    with pytest.raises(errors.DeadSession):
        sub.open()


def test_a_removed_root_is_stale_also_from_the_trash(
    a: Client, sub: Client, tree: dict[str, int]
) -> None:
    a.do(m.RemoveTree(tree["a"], b"b"))
    with pytest.raises(errors.StaleInode):
        sub.names()
    with pytest.raises(errors.StaleInode):
        sub.create(b"x")


def test_a_subtree_must_be_a_directory_that_is_there(c: Cluster, tree: dict[str, int]) -> None:
    with pytest.raises(errors.NotFound, match="subtree /a/c"):
        c.client("/sub", wish=Access(subtree=b"/a/c"))
    with pytest.raises(errors.NotADirectory, match="subtree /a/out"):
        c.client("/sub", wish=Access(subtree=b"/a/out"))
    with pytest.raises(errors.NotFound):
        c.client("/sub", granted=Access(subtree=b"/other"), wish=BELOW)


def test_invalidations_speak_of_the_sessions_own_root(
    a: Client, sub: Client, tree: dict[str, int]
) -> None:
    sub.names()
    sub.inode(ROOT_INO)
    sub.told()
    a.mkdir(b"more", tree["b"])
    (told,) = sub.told()
    assert [(pair.parent, pair.name) for pair in told.names] == [(ROOT_INO, b"more")]
    assert told.inos == [ROOT_INO]


def test_a_session_taken_up_holds_what_it_reaches_and_is_told_of_the_rest(
    c: Cluster, a: Client, sub: Client, tree: dict[str, int]
) -> None:
    c.core.engine.registry.end(sub.session)
    sub.open(directories=[ROOT_INO, tree["a"]], opens=[tree["f"], tree["out"]], writers=[])
    registry = c.core.engine.registry
    assert sub.session in registry.openers[tree["f"]]
    assert sub.session not in registry.openers.get(tree["out"], ())
    assert sub.session in registry.interested[tree["b"]]
    assert sub.session not in registry.interested.get(tree["a"], ())
    told = sub.told()
    assert {ino for one in told for ino in one.inos} == {tree["a"], tree["out"]}
    with pytest.raises(errors.StaleInode):
        sub.get(m.GetLayout(tree["out"], 0, 10, sub.actor), m.Layout)


def test_the_root_stays_when_its_path_leads_elsewhere_and_the_master_restarts(
    c: Cluster, a: Client, sub: Client, tree: dict[str, int]
) -> None:
    a.do(m.Rename(tree["a"], b"b", tree["a"], b"old"))
    a.mkdir(b"b", tree["a"])
    c.restart()
    assert sub.names() == [b"d"]


def test_a_file_without_a_name_that_is_open_survives_a_restart(
    c: Cluster, a: Client, sub: Client, tree: dict[str, int]
) -> None:
    f = sub.create(b"tmp", tree["d"])
    sub.do(m.Unlink(tree["d"], b"tmp"))
    hidden = a.create(b"hidden", tree["a"])
    a.do(m.Unlink(tree["a"], b"hidden"))
    c.restart(resume=False)
    a.open(opens=[hidden])
    sub.open(opens=[f, hidden], writers=[f])
    assert sub.inode(f).nlink == 0
    registry = c.core.engine.registry
    assert sub.session not in registry.openers[hidden]


def test_the_trash_of_a_subtree(c: Cluster, a: Client, sub: Client, tree: dict[str, int]) -> None:
    inside = filled(c, a, b"in", tree["d"])
    outside = filled(c, a, b"secret", tree["a"])
    c.pass_time(OLD)
    a.open()
    sub.open()
    a.do(m.Unlink(tree["d"], b"in"))
    a.do(m.Unlink(tree["a"], b"secret"))
    assert [(one.ino, one.path) for one in trash(sub)] == [(inside, b"/d/in")]
    for operation in (
        m.Undelete(outside),
        m.Undelete(inside, b"x", parent=tree["a"]),
        m.EmptyTrash([outside]),
    ):
        with pytest.raises(errors.StaleInode):
            sub.do(operation)
    with pytest.raises(errors.StaleInode):
        sub.get(m.LookInTrash(outside, b"", sub.actor), m.Entry)
    assert sub.open_file(inside, os.O_RDONLY).entry.ino == inside
    with pytest.raises(errors.StaleInode):
        sub.open_file(outside, os.O_RDONLY)
    sub.close_file(inside)
    a.do(m.Rename(tree["b"], b"d", tree["b"], b"e"))  # its path leads nowhere now
    sub.do(m.Undelete(inside))
    assert sub.lookup(b"in", tree["d"]).ino == inside
    a.do(m.Unlink(tree["d"], b"in"))
    sub.do(m.Undelete(inside, b"/x/y"))
    assert walk(a, b"/a/b/x/y").entry.ino == inside


def test_a_removed_tree_is_looked_into_by_whom_it_was_removed_from(
    a: Client, sub: Client, tree: dict[str, int]
) -> None:
    a.do(m.RemoveTree(tree["b"], b"d"))
    assert sub.names(tree["d"]) == [b"f"]
    assert sub.open_file(tree["f"], os.O_RDONLY).entry.ino == tree["f"]
    a.do(m.RemoveTree(ROOT_INO, b"other"))
    with pytest.raises(errors.StaleInode):
        sub.names(tree["other"])


def test_trash_of_directories_that_are_gone_belongs_to_the_nearest_that_stands(
    c: Cluster, a: Client, sub: Client, tree: dict[str, int]
) -> None:
    inner = a.mkdir(b"e", tree["d"])
    deep, beside = filled(c, a, b"deep", inner), filled(c, a, b"beside", tree["d"])
    outside = filled(c, a, b"secret", a.mkdir(b"x", tree["a"]))
    c.pass_time(OLD)
    a.open()
    sub.open()
    a.do(m.Unlink(inner, b"deep"))
    a.do(m.Unlink(tree["d"], b"beside"))
    a.do(m.RemoveDirectory(tree["d"], b"e"))
    assert [one.path for one in trash(sub)] == [b"/d/e/deep", b"/d/beside"]
    a.do(m.RemoveTree(tree["b"], b"d"))
    a.do(m.Unlink(a.lookup(b"x", tree["a"]).ino, b"secret"))
    a.do(m.RemoveDirectory(tree["a"], b"x"))
    a.do(m.Rename(tree["a"], b"b", tree["a"], b"moved"))
    listed = {one.ino: one.path for one in trash(sub)}
    assert listed == {deep: b"/d/e/deep", beside: b"/d/beside", tree["d"]: b"/d"}
    with pytest.raises(errors.StaleInode):
        sub.do(m.Undelete(outside))
    sub.do(m.Undelete(deep))
    assert walk(a, b"/a/moved/d/e/deep").entry.ino == deep
    sub.do(m.Undelete(tree["d"], b"/again"))
    sub.do(m.Undelete(beside))
    assert sub.lookup(b"beside", tree["d"]).ino == beside  # where it was: that is back, and stands


def test_a_nameless_open_file_of_a_directory_that_is_gone_survives_a_restart(
    c: Cluster, a: Client, sub: Client, tree: dict[str, int]
) -> None:
    inner = sub.mkdir(b"e", tree["d"])
    f = sub.create(b"tmp", inner)
    sub.do(m.Unlink(inner, b"tmp"))
    sub.do(m.RemoveDirectory(tree["d"], b"e"))
    c.restart(resume=False)
    a.open()
    sub.open(opens=[f], writers=[f])
    assert sub.inode(f).nlink == 0


def test_snapshots_of_a_subtree(a: Client, sub: Client, tree: dict[str, int]) -> None:
    inside = a.do(m.Snapshot(tree["d"], tree["b"], b"copy")).root
    a.do(m.Snapshot(tree["d"], tree["a"], b"copy"))
    listed = sub.get(m.ListSnapshots(sub.actor), m.SnapshotListing).entries
    assert [(one.ino, one.path) for one in listed] == [(inside, b"/copy")]
    assert len(a.get(m.ListSnapshots(a.actor), m.SnapshotListing).entries) == 2


def test_a_snapshot_that_is_the_root_itself_is_not_listed(c: Cluster, a: Client) -> None:
    a.do(m.Snapshot(a.mkdir(b"d"), ROOT_INO, b"copy"))
    sub = c.client("/sub", wish=Access(subtree=b"/copy"))
    assert sub.get(m.ListSnapshots(sub.actor), m.SnapshotListing).entries == []


# --- read-only


def test_a_read_only_session_reads_and_changes_nothing(
    c: Cluster, a: Client, tree: dict[str, int]
) -> None:
    reader = c.client("/ro", wish=Access(read_only=True))
    assert reader.opened.limits == [Access(read_only=True)]
    assert reader.opened.root == 0
    assert reader.names(tree["d"]) == [b"f"]
    assert reader.open_file(tree["f"], os.O_RDONLY).entry.ino == tree["f"]
    for flags in (os.O_RDWR, os.O_WRONLY, os.O_RDONLY | os.O_TRUNC):
        with pytest.raises(errors.ReadOnly):
            reader.open_file(tree["f"], flags)
    before = len(c.log)
    for operation in get_args(m.Operation):
        request = next((one for one in forged(tree, reader) if type(one) is operation), None)
        with pytest.raises(errors.ReadOnly):
            reader.do(request or m.Allocate())
    assert len(c.log) == before


def test_a_wish_can_only_take_away(c: Cluster, tree: dict[str, int]) -> None:
    granted = Access(read_only=True, subtree=b"/a")
    client = c.client("/x", granted=granted, wish=Access(read_only=False, subtree=b"/b"))
    assert client.names() == [b"d"]
    with pytest.raises(errors.ReadOnly):
        client.create(b"x")
    with pytest.raises(errors.NotFound):
        c.client("/y", granted=granted, wish=Access(subtree=b"/../other"))


# --- users and groups


def inode_of(a: Client, name: bytes) -> tuple[int, int]:
    inode = a.lookup(name).inode
    assert inode is not None
    return inode.uid, inode.gid


def test_numbers_are_mapped_in_and_back_in_attributes(c: Cluster, a: Client) -> None:
    a.do(m.SetAttributes(ROOT_INO, mode=0o777))
    maps = Access(map_uid=[(1000, 5000, 10)], map_gid=[(1000, 6000, 1)])
    mapped = c.client("/m", Actor(1002, 1000, groups=()), wish=maps)
    mapped.create(b"f")
    assert inode_of(a, b"f") == (5002, 6000)
    assert inode_of(mapped, b"f") == (1002, 1000)
    a.do(m.SetAttributes(a.create(b"g"), uid=1002, gid=5000))
    assert inode_of(mapped, b"g") == (65534, 5000), "a number of another's is nobody's"
    f = mapped.lookup(b"f").ino
    mapped.do(m.SetAttributes(f, uid=1003, gid=7), ROOT)
    assert inode_of(a, b"f") == (5003, 7)
    with pytest.raises(errors.InvalidArgument):
        mapped.do(m.SetAttributes(f, uid=5001), ROOT)
    record = DECODER.decode(c.log[-1])
    assert (record.actor.uid, record.actor.said_uid) == (0, -1)


def test_who_has_no_number_here_is_nobody(c: Cluster, a: Client) -> None:
    a.do(m.SetAttributes(ROOT_INO, mode=0o777))
    mapped = c.client("/m", Actor(5000, 5000, groups=()), wish=Access(map_uid=[(1000, 5000, 1)]))
    mapped.create(b"f")
    assert inode_of(a, b"f") == (65534, 5000)


@pytest.mark.parametrize("squash", ["root", "all"])
def test_squashed_users_are_nobody_in_everything(c: Cluster, a: Client, squash: str) -> None:
    a.do(m.SetAttributes(ROOT_INO, mode=0o777))
    d = a.mkdir(b"d")
    mine = a.create(b"mine", mode=0o4755)
    squashed = c.client("/s", wish=Access(squash=squash, anon_uid=77, anon_gid=88))
    squashed.create(b"f", mode=0o755)
    assert inode_of(a, b"f") == (77, 88)
    record = DECODER.decode(c.log[-1])
    assert (record.actor.uid, record.actor.gid) == (77, 88)
    assert (record.actor.said_uid, record.actor.said_gid) == (0, 0)
    refusals: list[tuple[m.Message, type[GfsError]]] = [
        (m.SetAttributes(mine, mode=0o700), errors.NotPermitted),
        (m.SetAttributes(squashed.lookup(b"f").ino, uid=0), errors.NotPermitted),
        (m.MakeNode(ROOT_INO, b"null", 0o020666), errors.NotPermitted),
        (m.SetXattr(mine, b"trusted.x", b""), errors.NotPermitted),
        (m.Create(d, b"x", 0o644, os.O_RDWR), errors.PermissionDenied),
    ]
    for operation, refusal in refusals:
        with pytest.raises(refusal):
            squashed.do(operation)
    squashed.do(m.SetAttributes(squashed.lookup(b"f").ino, mode=0o4755))  # its own
    squashed.do(m.Create(ROOT_INO, b"g", 0o644, os.O_RDWR), USER)
    assert inode_of(a, b"g") == ((1000, 1000) if squash == "root" else (77, 88))


def test_squashed_root_keeps_no_group_of_root(c: Cluster, a: Client) -> None:
    f = a.create(b"f", mode=0o040)
    squashed = c.client("/s", wish=Access(squash="root"))
    with pytest.raises(errors.PermissionDenied):
        squashed.get(m.Open(f, os.O_RDONLY, Actor(0, 0, groups=(0,))), m.Opened)
    with pytest.raises(errors.PermissionDenied):
        squashed.get(m.Open(f, os.O_RDONLY, Actor(0, 7, groups=(0, 7))), m.Opened)


def test_exports_come_after_the_clients_own_maps(c: Cluster, a: Client) -> None:
    """Whoever calls himself root by a map of his own is squashed all the same."""
    a.do(m.SetAttributes(ROOT_INO, mode=0o777))
    client = c.client(
        "/s", USER, granted=Access(squash="root"), wish=Access(map_uid=[(1000, 0, 1)])
    )
    client.create(b"f")
    assert inode_of(a, b"f") == (65534, 1000)


@pytest.mark.parametrize(
    "wish",
    [
        Access(map_uid=[(0, 5, 0)]),
        Access(map_uid=[(0, 5, 10), (3, 100, 1)]),
        Access(map_gid=[(0, 5, 10), (20, 14, 1)]),
        Access(map_uid=[((1 << 32) - 5, 0, 10)]),
        Access(map_uid=[(2 * n, 2 * n, 1) for n in range(341)]),
        Access(anon_uid=-1, squash="all"),
    ],
)
def test_a_map_that_is_none_is_refused(c: Cluster, wish: Access) -> None:
    with pytest.raises(errors.InvalidArgument):
        c.client("/m", wish=wish)


# --- locks and access times


def test_a_lock_below_the_root_is_had_and_one_outside_is_not(
    a: Client, sub: Client, tree: dict[str, int]
) -> None:
    held = take(sub, ROOT_INO)
    assert held.is_answered
    with pytest.raises(LockHeld):
        _ = take(a, tree["b"], wait=False).answer
    with pytest.raises(StaleInode):
        _ = take(sub, tree["out"], 2).answer
    listing = sub.get(m.ListLocks(ROOT, ROOT_INO), m.LockListing)
    assert [(one.ino, one.path) for one in listing.locks] == [(ROOT_INO, b"")]
    with pytest.raises(NotPermitted):
        sub.get(m.ListLocks(ROOT), m.LockListing)


def test_what_is_read_outside_of_the_root_sets_no_time(
    c: Cluster, a: Client, sub: Client, tree: dict[str, int]
) -> None:
    c.pass_time(1)
    times = [AccessTime(tree[name], None, c.now_ns()) for name in ("f", "out")]
    assert changed(note(sub, *times)) == [tree["f"]]


def test_a_read_only_session_takes_no_lock_and_sets_no_time(
    c: Cluster, a: Client, tree: dict[str, int]
) -> None:
    reader = c.client("/reader", wish=Access(read_only=True))
    with pytest.raises(ReadOnly):
        _ = take(reader, tree["f"], shared=True).answer
    with pytest.raises(ReadOnly):
        _ = note(reader, AccessTime(tree["f"], None, c.now_ns())).answer
